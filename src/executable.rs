//! What execve(2) will make of a file: a program of some architecture, a script, or nothing that the
//! kernel knows.
//!
//! The files are an image's and may hold anything: every read has a place and a length, and nothing
//! that is read is trusted as one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

/// What the kernel reads of a file to tell what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// Enough for the program headers of any linker.
const HEADERS: usize = 64;
/// PATH_MAX.
const LONGEST_PATH: usize = 4096;

/// Something that can be read at a place.
pub trait Source {
    /// Fills the buffer from `offset` on, as far as there is something.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Elf(Elf),
    Script(Script),
    /// A `#!` line, but not from the first byte on: the kernel doesn't see it.
    Preceded(&'static str),
    /// A program of another system.
    Foreign(&'static str),
    /// No format of the kernel's own; binfmt_misc may have one.
    Unknown,
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// `e_machine` of elf(5).
    pub machine: u16,
    pub wide: bool,
    pub big_endian: bool,
    /// The loader of a dynamic program, PT_INTERP.
    pub interpreter: Option<Vec<u8>>,
    /// Something in it can't be as it is: cut off, most often.
    pub broken: Option<&'static str>,
}

/// `#! interpreter [argument]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub interpreter: Vec<u8>,
    pub argument: Option<Vec<u8>>,
    /// The line ends with a carriage return, which the kernel takes for a part of it.
    pub carriage_return: bool,
    /// The kernel reads only the first 256 bytes of the line.
    pub cut_off: bool,
}

/// Why execve(2) refuses a file, as far as the file itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub errno: Errno,
    pub words: String,
    /// binfmt_misc may have someone who executes it all the same.
    pub foreign: bool,
}

impl Format {
    /// What is wrong with it, whatever interpreter or loader it names.
    pub fn fault(&self) -> Option<Fault> {
        let fault = |errno, words: &str| {
            Some(Fault {
                errno,
                words: words.to_owned(),
                foreign: false,
            })
        };
        match self {
            // Of a header that is cut off the machine isn't known.
            Format::Elf(elf) if elf.machine != 0 && !elf.fits() => Some(Fault {
                errno: Errno::ENOEXEC,
                words: format!(
                    "it is for {}, and this machine is {}",
                    elf.architecture(),
                    std::env::consts::ARCH
                ),
                foreign: true,
            }),
            Format::Elf(Elf {
                broken: Some(why), ..
            }) => fault(Errno::ENOEXEC, why),
            Format::Script(script) if matches!(script.interpreter[..], [] | [b'\r']) => {
                fault(Errno::ENOEXEC, "its #! line names no interpreter")
            }
            Format::Script(script) if script.cut_off => fault(
                Errno::ENOEXEC,
                "its #! line is longer than the 256 bytes that the kernel reads",
            ),
            Format::Script(script) if script.carriage_return => fault(
                Errno::ENOENT,
                "its #! line ends with a carriage return, as on Windows: \
                 remove it from all lines (sed -i 's/\\r$//')",
            ),
            Format::Elf(_) | Format::Script(_) => None,
            Format::Preceded(what) => Some(Fault {
                errno: Errno::ENOEXEC,
                words: format!(
                    "{what} before its #! line, which must begin with the first byte: remove it"
                ),
                foreign: false,
            }),
            Format::Foreign(system) => Some(Fault {
                errno: Errno::ENOEXEC,
                words: format!("it is a program for {system}: build it for Linux"),
                foreign: true,
            }),
            Format::Empty => fault(Errno::ENOEXEC, "the file is empty"),
            Format::Unknown => Some(Fault {
                errno: Errno::ENOEXEC,
                words: "it is neither an ELF program nor a script with a #! line: \
                        begin a script with the line #!/bin/sh"
                    .into(),
                foreign: true,
            }),
        }
    }
}

impl Script {
    pub fn interpreter(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.interpreter))
    }
}

impl Elf {
    pub fn interpreter(&self) -> Option<&Path> {
        let bytes = self.interpreter.as_deref()?;
        Some(Path::new(OsStr::from_bytes(bytes)))
    }

    /// Whether a kernel of this machine has a chance to execute it. 32-bit programs of the same family
    /// are let pass: most kernels run them.
    pub fn fits(&self) -> bool {
        let native = native_machines();
        let big = cfg!(target_endian = "big");
        native.is_empty() || native.contains(&self.machine) && self.big_endian == big
    }

    /// As uname(2) calls the machine that it is for.
    pub fn architecture(&self) -> String {
        let known = MACHINES
            .iter()
            .find(|(machine, ..)| *machine == self.machine);
        match known {
            Some((_, narrow, "")) => (*narrow).into(),
            Some((_, narrow, wide)) => if self.wide { *wide } else { *narrow }.into(),
            None => format!("machine {}", self.machine),
        }
    }
}

/// `e_machine`, and the names for 32 and 64 bits where both exist.
const MACHINES: &[(u16, &str, &str)] = &[
    (2, "sparc", ""),
    (3, "i386", ""),
    (4, "m68k", ""),
    (8, "mips", "mips64"),
    (20, "ppc", ""),
    (21, "ppc64", ""),
    (22, "s390", "s390x"),
    (40, "arm", ""),
    (43, "sparc64", ""),
    (62, "x32", "x86_64"),
    (183, "aarch64", ""),
    (243, "riscv32", "riscv64"),
    (258, "loongarch32", "loongarch64"),
];

fn native_machines() -> &'static [u16] {
    match std::env::consts::ARCH {
        "x86_64" => &[62, 3],
        "x86" => &[3],
        "aarch64" => &[183, 40],
        "arm" => &[40],
        "riscv64" => &[243],
        "s390x" => &[22],
        "powerpc64" => &[21, 20],
        "loongarch64" => &[258],
        _ => &[],
    }
}

/// # Errors
/// Those of reading.
pub fn inspect(source: &(impl Source + ?Sized)) -> io::Result<Format> {
    let mut head = [0; HEAD];
    let length = source.read_at(0, &mut head)?;
    let head = &head[..length];
    Ok(match head {
        [] => Format::Empty,
        [b'#', b'!', line @ ..] => script(line),
        [0x7f, b'E', b'L', b'F', ..] => Format::Elf(elf(source, head)?),
        [0xef, 0xbb, 0xbf, b'#', b'!', ..] => {
            Format::Preceded("a byte order mark (EF BB BF, as Windows writes it) stands")
        }
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => Format::Foreign("macOS"),
        [b'M', b'Z', ..] => Format::Foreign("Windows"),
        [b' ' | b'\t' | b'\r' | b'\n', ..] if head.trim_ascii_start().starts_with(b"#!") => {
            Format::Preceded("blanks or empty lines stand")
        }
        _ => Format::Unknown,
    })
}

fn script(line: &[u8]) -> Format {
    let end = line.iter().position(|&byte| byte == b'\n');
    // The kernel wants either the end of the line or of a word among what it reads.
    let whole = &line[..end.unwrap_or(line.len())];
    let carriage_return = whole.ends_with(b"\r");
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = trim(whole, is_blank);
    let space = text.iter().position(is_blank);
    let interpreter = &text[..space.unwrap_or(text.len())];
    let argument = space
        .map(|at| trim(&text[at..], is_blank).to_vec())
        .filter(|argument| !argument.is_empty());
    Format::Script(Script {
        interpreter: interpreter.to_vec(),
        argument,
        carriage_return,
        cut_off: end.is_none() && line.len() == HEAD - 2,
    })
}

fn trim(mut text: &[u8], is_blank: impl Fn(&u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(last)
    {
        text = rest;
    }
    text
}

/// Numbers of the file's own size and order.
struct Reader<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
}

impl Reader<'_> {
    fn number(&self, offset: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match self.big {
            true => bytes.iter().fold(0, fold),
            false => bytes.iter().rev().fold(0, fold),
        })
    }

    /// At one of two offsets, 4 or 8 bytes long.
    fn word(&self, narrow: usize, wide: usize) -> Option<u64> {
        match self.wide {
            true => self.number(wide, 8),
            false => self.number(narrow, 4),
        }
    }
}

/// Elf32_Ehdr and Elf64_Ehdr, elf(5).
fn elf(source: &(impl Source + ?Sized), head: &[u8]) -> io::Result<Elf> {
    let mut elf = Elf {
        machine: 0,
        wide: head.get(4) == Some(&2),
        big_endian: head.get(5) == Some(&2),
        interpreter: None,
        broken: None,
    };
    let reader = Reader {
        bytes: head,
        wide: elf.wide,
        big: elf.big_endian,
    };
    let header = || {
        let size = reader.number(if elf.wide { 54 } else { 42 }, 2)?;
        let count = reader.number(if elf.wide { 56 } else { 44 }, 2)?;
        Some((reader.number(18, 2)?, reader.word(28, 32)?, size, count))
    };
    let Some((machine, offset, size, count)) = header() else {
        elf.broken = Some("its ELF header is cut off");
        return Ok(elf);
    };
    elf.machine = machine as u16;
    let expected = if elf.wide { 56 } else { 32 };
    if size != expected || count == 0 {
        elf.broken = Some("it is an ELF file, but no program: an object file or a library's part");
        return Ok(elf);
    }
    let mut headers = vec![0; expected as usize * (count as usize).min(HEADERS)];
    let read = source.read_at(offset, &mut headers)?;
    if read < headers.len() {
        elf.broken = Some("its program headers are cut off");
        return Ok(elf);
    }
    for bytes in headers.chunks_exact(expected as usize) {
        let reader = Reader { bytes, ..reader };
        const PT_INTERP: u64 = 3;
        if reader.number(0, 4) != Some(PT_INTERP) {
            continue;
        }
        let (Some(offset), Some(length)) = (reader.word(4, 8), reader.word(16, 32)) else {
            continue;
        };
        if length < 2 || length > LONGEST_PATH as u64 {
            elf.broken = Some("the name of its loader has an impossible length");
            break;
        }
        let mut name = vec![0; length as usize];
        if source.read_at(offset, &mut name)? < name.len() || name.pop() != Some(0) {
            elf.broken = Some("the name of its loader is cut off");
            break;
        }
        elf.interpreter = Some(name);
        break;
    }
    Ok(elf)
}

#[cfg(test)]
mod tests;
