use super::*;

fn script_of(text: &str) -> Script {
    match inspect(text.as_bytes()).unwrap() {
        Format::Script(script) => script,
        other => panic!("{other:?}"),
    }
}

/// A 64-bit little-endian program for `machine`, with this loader.
fn elf64(machine: u16, loader: Option<&[u8]>) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16] = 2;
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&1u16.to_le_bytes());
    if let Some(loader) = loader {
        let at = file.len() as u64;
        file[64..68].copy_from_slice(&3u32.to_le_bytes());
        file[72..80].copy_from_slice(&at.to_le_bytes());
        file[96..104].copy_from_slice(&(loader.len() as u64).to_le_bytes());
        file.extend_from_slice(loader);
    }
    file
}

fn elf_of(bytes: &[u8]) -> Elf {
    match inspect(bytes).unwrap() {
        Format::Elf(elf) => elf,
        other => panic!("{other:?}"),
    }
}

#[test]
fn scripts_name_their_interpreter() {
    for (text, interpreter, argument) in [
        ("#!/bin/sh\n", "/bin/sh", None),
        ("#! /bin/sh -eu \nx", "/bin/sh", Some("-eu")),
        (
            "#!\t/usr/bin/env  python3 -u\n",
            "/usr/bin/env",
            Some("python3 -u"),
        ),
        ("#!/bin/sh", "/bin/sh", None),
        ("#!\n", "", None),
    ] {
        let script = script_of(text);
        assert_eq!(script.interpreter, interpreter.as_bytes(), "{text:?}");
        assert_eq!(
            script.argument.as_deref(),
            argument.map(str::as_bytes),
            "{text:?}"
        );
        assert!(!script.carriage_return && !script.cut_off);
    }
}

#[test]
fn a_line_that_ends_as_on_dos_is_told() {
    let script = script_of("#!/bin/sh\r\necho\r\n");
    assert!(script.carriage_return);
    assert_eq!(script.interpreter, b"/bin/sh\r");
}

#[test]
fn a_line_that_is_too_long_is_told() {
    let line = format!("#!/{}\n", "x".repeat(300));
    assert!(script_of(&line).cut_off);
    let line = format!("#!/{}\n", "x".repeat(200));
    assert!(!script_of(&line).cut_off);
}

#[test]
fn programs_name_their_machine_and_loader() {
    let elf = elf_of(&elf64(62, Some(b"/lib64/ld-linux-x86-64.so.2\0")));
    assert_eq!(elf.architecture(), "x86_64");
    assert_eq!(
        elf.interpreter(),
        Some(Path::new("/lib64/ld-linux-x86-64.so.2"))
    );
    assert_eq!(elf.broken, None);
    let elf = elf_of(&elf64(183, None));
    assert_eq!(elf.architecture(), "aarch64");
    assert_eq!(elf.interpreter, None);
    assert_eq!(elf_of(&elf64(999, None)).architecture(), "machine 999");
    #[cfg(target_arch = "x86_64")]
    assert!(!elf.fits() && elf_of(&elf64(62, None)).fits());
}

#[test]
fn the_own_program_fits() {
    let file = File::open("/proc/self/exe").unwrap();
    let Format::Elf(elf) = inspect(&file).unwrap() else {
        panic!("not ELF");
    };
    assert!(elf.fits());
    assert_eq!(elf.broken, None);
}

#[test]
fn what_is_cut_off_is_told_at_any_length() {
    let whole = elf64(62, Some(b"/lib/ld-musl-x86_64.so.1\0"));
    for length in 4..whole.len() {
        assert!(elf_of(&whole[..length]).broken.is_some(), "{length}");
    }
    assert_eq!(elf_of(&whole).broken, None);
}

#[test]
fn hostile_numbers_are_only_numbers() {
    let whole = elf64(62, Some(b"/lib/ld-musl-x86_64.so.1\0"));
    for at in 4..120 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = inspect(&bytes[..]).unwrap();
        }
    }
    let mut bytes = whole.clone();
    bytes[32..40].fill(0xff);
    assert!(elf_of(&bytes).broken.is_some());
}

#[test]
fn other_files_are_nothing_to_the_kernel() {
    assert_eq!(inspect(&b""[..]).unwrap(), Format::Empty);
    assert_eq!(inspect(&b"echo hello\n"[..]).unwrap(), Format::Unknown);
    assert_eq!(inspect(&b"#"[..]).unwrap(), Format::Unknown);
    assert_eq!(inspect(&b"\n# !\n"[..]).unwrap(), Format::Unknown);
}

#[test]
fn a_line_of_its_interpreter_that_is_not_the_first_is_told() {
    for (file, what) in [
        (&b"\xef\xbb\xbf#!/bin/sh\n"[..], "byte order mark"),
        (b"\n#!/bin/sh\n", "empty lines"),
        (b"  #!/bin/sh\n", "blanks"),
        (b"MZ\x90\0", "Windows"),
        (b"\xcf\xfa\xed\xfe\x07", "macOS"),
    ] {
        let fault = inspect(file).unwrap().fault().unwrap();
        assert_eq!(fault.errno, Errno::ENOEXEC);
        assert!(fault.words.contains(what), "{}", fault.words);
    }
}
