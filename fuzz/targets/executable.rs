//! Files of an image: what husk says execve(2) makes of them, against the kernel's own steps
//! (fs/binfmt_script.c, fs/binfmt_elf.c), written once more and simply.

#![no_main]

use husk::executable::{Format, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    // A slice is a source whose reads don't fail.
    match inspect(file).unwrap() {
        Format::Empty => assert!(file.is_empty()),
        Format::Unknown => {
            assert!(!file.is_empty() && !file.starts_with(b"#!") && !file.starts_with(b"\x7fELF"));
        }
        Format::Preceded(_) => {
            assert!(!file.starts_with(b"#!") && file.windows(2).any(|two| two == b"#!"));
        }
        Format::Foreign(_) => assert!(matches!(file[0], 0xcf | 0xca | b'M')),
        Format::Script(script) => {
            assert!(file.starts_with(b"#!"));
            let expected = kernel_script(file);
            let cut_short = script.cut_off || script.interpreter.contains(&0);
            if !cut_short {
                let given = (script.interpreter.clone(), script.argument.clone());
                assert_eq!(Some(given), expected, "{script:?}");
            }
            assert!(script.interpreter.len() <= 254);
            assert_eq!(
                script.interpreter().as_os_str().len(),
                script.interpreter.len()
            );
        }
        Format::Elf(elf) => {
            assert!(file.starts_with(b"\x7fELF"));
            elf.fits();
            assert!(!elf.architecture().is_empty());
            let expected = kernel_interpreter(file);
            match (&elf.broken, &elf.interpreter) {
                (None, interpreter) => assert_eq!(&expected, interpreter),
                (Some(_), interpreter) => {
                    assert_eq!(interpreter, &None);
                    assert_eq!(expected, None, "{elf:?}");
                }
            }
        }
    }
});

/// load_script(): interpreter and argument of a file that begins with `#!`, if its line is whole.
fn kernel_script(file: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let line = &file[2..file.len().min(256)];
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let from = line
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(line.len());
    let to = line
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(from, |at| at + 1);
    let line = &line[from..to];
    let end = line.iter().position(blank).unwrap_or(line.len());
    let rest = &line[end..];
    let argument = rest
        .iter()
        .position(|byte| !blank(byte))
        .map(|at| rest[at..].to_vec());
    Some((line[..end].to_vec(), argument))
}

/// load_elf_binary(): the name in the first PT_INTERP of a well-formed header.
fn kernel_interpreter(file: &[u8]) -> Option<Vec<u8>> {
    let wide = file.get(4)? == &2;
    let big = file.get(5)? == &2;
    let number = |at: u64, size: u64| -> Option<u64> {
        let (from, to) = (
            usize::try_from(at).ok()?,
            usize::try_from(at.checked_add(size)?).ok()?,
        );
        let mut bytes = file.get(from..to)?.to_vec();
        if big {
            bytes.reverse();
        }
        bytes.resize(8, 0);
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let (table, size, count, expected) = match wide {
        true => (number(32, 8)?, number(54, 2)?, number(56, 2)?, 56),
        false => (number(28, 4)?, number(42, 2)?, number(44, 2)?, 32),
    };
    if size != expected || count == 0 {
        return None;
    }
    // husk reads 64 headers; more aren't in programs of any linker.
    let count = count.min(64);
    number(table.checked_add(count * size)?.checked_sub(1)?, 1)?;
    for header in (0..count).map(|index| table + index * size) {
        if number(header, 4)? != 3 {
            continue;
        }
        let (at, length) = match wide {
            true => (number(header + 8, 8)?, number(header + 32, 8)?),
            false => (number(header + 4, 4)?, number(header + 16, 4)?),
        };
        if !(2..=4096).contains(&length) {
            return None;
        }
        let at = usize::try_from(at).ok()?;
        let name = file.get(at..at.checked_add(length as usize)?)?;
        return match name.split_last() {
            Some((0, name)) => Some(name.to_vec()),
            _ => None,
        };
    }
    None
}
