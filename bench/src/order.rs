//! Which of husk's functions a container's life takes, for the linker to lay side by side: what a command
//! needs is then in a few stretches of the file, each of which the kernel maps by one page fault.
//!
//! The debugger's way: a breakpoint at the beginning of each function, which goes when it is met.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bundle::{self, Filter};
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// x86_64's breakpoint, one byte.
const TRAP: u8 = 0xcc;

/// Writes the linker script: the functions in the order in which they are first met, those of the commands
/// that do least first.
pub fn write(site: &Site, husk: &Runtime, path: &Path) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("breakpoints are known for x86_64 only".into());
    }
    let functions = Functions::of(&husk.path)?;
    let id = format!("order-{}", husk.name);
    let mut met = Vec::new();
    let mut follow = |words: &[&str]| follow(site, husk, &functions, words, &mut met);
    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (_, pid) = husk.create(site, &bundle, &id)?;
    follow(&["state", &id])?;
    follow(&["start", &id])?;
    follow(&["kill", &id, "CONT"])?;
    follow(&["exec", &id, "/bin/true"])?;
    follow(&["list"])?;
    husk.time(site, &["kill", &id, "KILL"])?;
    wait_for(pid);
    follow(&["delete", &id])?;
    for filter in [Filter::None, Filter::Docker] {
        let bundle = bundle::make(site, &id, "/bin/true", filter);
        follow(&["run", "--bundle", &bundle.to_string_lossy(), &id])?;
    }
    let text = script(&functions, &met);
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// By where they begin: name and length.
struct Functions {
    names: BTreeMap<u64, (String, u64)>,
    /// Where they are for the linker is where they are.
    fixed: bool,
}

impl Functions {
    fn of(file: &Path) -> Result<Functions, String> {
        let failed = |error: io::Error| format!("{}: {error}", file.display());
        let output = Command::new("nm").arg("-S").arg(file).output();
        let output = output.map_err(|error| format!("nm: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names: BTreeMap<u64, (String, u64)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let mut number = || u64::from_str_radix(words.next()?, 16).ok();
                let (begin, length) = (number()?, number()?);
                let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
                is_code.then_some((begin, (words.next()?.to_owned(), length)))
            })
            .filter(|(_, (name, _))| name.starts_with("_ZN") || name.starts_with("_R"))
            .collect();
        let mut head = [0; 18];
        let file_head = File::open(file).and_then(|file| file.read_exact_at(&mut head, 0));
        file_head.map_err(failed)?;
        match names.len() {
            0 => Err(format!("{}: it is stripped", file.display())),
            _ => Ok(Functions {
                names,
                // ET_EXEC of elf(5).
                fixed: head[16] == 2,
            }),
        }
    }

    /// Where the file begins in the process's memory, as far as that has to be added.
    fn base(&self, pid: i32) -> u64 {
        if self.fixed {
            return 0;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let first = text.split('-').next().unwrap_or_default();
        u64::from_str_radix(first, 16).unwrap_or(0)
    }

    /// What stood there is returned.
    fn plant(&self, memory: &File, base: u64) -> io::Result<(u64, Vec<u8>)> {
        let (Some((first, _)), Some((last, _))) =
            (self.names.first_key_value(), self.names.last_key_value())
        else {
            return Ok((0, Vec::new()));
        };
        let mut code = vec![0; (last - first) as usize + 1];
        memory.read_exact_at(&mut code, base + first)?;
        let before = code.clone();
        for begin in self.names.keys() {
            code[(begin - first) as usize] = TRAP;
        }
        memory.write_all_at(&code, base + first)?;
        Ok((*first, before))
    }
}

/// A process that is followed.
struct Followed {
    memory: File,
    base: u64,
}

fn follow(
    site: &Site,
    husk: &Runtime,
    functions: &Functions,
    words: &[&str],
    met: &mut Vec<u64>,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} {}: {error}", husk.name, words[0]);
    let length = fs::metadata(&husk.path).map_err(failed)?.len();
    let mut command = husk.command(site, &[], words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call that touches no memory.
    unsafe {
        command.pre_exec(|| match trace(libc::PTRACE_TRACEME.into(), 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let first = command.spawn().map_err(failed)?.id() as i32;
    let mut known: BTreeSet<u64> = met.iter().copied().collect();
    let mut code = (0, Vec::new());
    let mut followed: HashMap<i32, Followed> = HashMap::new();
    let mut ended = None;
    while ended.is_none() || !followed.is_empty() {
        let mut status = 0;
        // SAFETY: `status` is valid to write.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid < 0 {
            break;
        }
        if !libc::WIFSTOPPED(status) {
            followed.remove(&pid);
            if pid == first {
                ended = Some(status);
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let begun = !followed.contains_key(&pid);
        let executed = event == libc::PTRACE_EVENT_EXEC || (begun && pid == first);
        let now = fs::metadata(format!("/proc/{pid}/exe"));
        if executed && !now.is_ok_and(|now| now.len() == length) {
            trace(libc::PTRACE_DETACH.into(), pid, 0);
            followed.remove(&pid);
            continue;
        }
        if begun || executed {
            let options = libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            trace(libc::PTRACE_SETOPTIONS.into(), pid, options.into());
            let memory = format!("/proc/{pid}/mem");
            let memory = File::options().read(true).write(true).open(memory);
            let memory = memory.map_err(failed)?;
            let base = functions.base(pid);
            // A child has its parent's.
            if executed {
                code = functions.plant(&memory, base).map_err(failed)?;
            }
            followed.insert(pid, Followed { memory, base });
            trace(libc::PTRACE_CONT.into(), pid, 0);
            continue;
        }
        let mut pass = 0;
        if signal == libc::SIGTRAP && event == 0 {
            let process = &followed[&pid];
            let at = step_back(pid);
            let begin = at - process.base;
            let byte = [code.1[(begin - code.0) as usize]];
            process.memory.write_all_at(&byte, at).map_err(failed)?;
            if known.insert(begin) {
                met.push(begin);
            }
        } else if event == 0 {
            pass = i64::from(signal);
        }
        trace(libc::PTRACE_CONT.into(), pid, pass);
    }
    match ended {
        Some(0) => Ok(()),
        _ => Err(format!(
            "{} {} failed with breakpoints",
            husk.name, words[0]
        )),
    }
}

/// Makes the process, which a breakpoint has stopped, stand before it: where that is.
fn step_back(pid: i32) -> u64 {
    // SAFETY: all zeroes is a valid structure.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(libc::PTRACE_GETREGS.into(), pid, &raw mut registers as i64);
    registers.rip -= 1;
    trace(libc::PTRACE_SETREGS.into(), pid, &raw mut registers as i64);
    registers.rip
}

fn trace(request: i64, pid: i32, data: i64) -> i64 {
    // SAFETY: `data` is a number, or the address of registers, which are valid for both requests that take
    // them. A process that is gone is waited for.
    unsafe { libc::syscall(libc::SYS_ptrace, request, pid, 0, data) }
}

/// What the linker puts before all other code. Names that stand for much that isn't met, as the hash alone
/// tells one from another, come last.
fn script(functions: &Functions, met: &[u64]) -> String {
    /// Bytes of code that nobody needs, between what is needed.
    const MUCH: u64 = 4096;
    let mut idle: HashMap<String, u64> = HashMap::new();
    let known: BTreeSet<&u64> = met.iter().collect();
    for (begin, (name, length)) in &functions.names {
        if !known.contains(begin) {
            *idle.entry(pattern(name)).or_default() += length;
        }
    }
    let mut text = String::from(
        "/* Written by `make order`: the functions that a container's life takes, in the order of their use.\n   \
         A name that isn't there any more does nothing. */\nSECTIONS\n{\n  .text.life :\n  {\n",
    );
    let patterns = met.iter().map(|at| pattern(&functions.names[at].0));
    let much = |name: &String| idle.get(name).is_some_and(|length| *length > MUCH);
    let (last, first): (Vec<String>, Vec<String>) = patterns.partition(much);
    let mut written = BTreeSet::new();
    for name in first.into_iter().chain(last) {
        if written.insert(name.clone()) {
            let _ = writeln!(text, "    *(.text.{name})");
        }
    }
    // What is there for exceptions is a tenth of the file, and a program that aborts unwinds nothing.
    text + "  }\n  /DISCARD/ : { *(EXCLUDE_FILE(*crt*.o) .eh_frame) *(.gcc_except_table .gcc_except_table.*) }\n}\nINSERT BEFORE .text;\n"
}

/// The name without what differs from compiler to compiler: the hash, a crate's number, the number of a copy.
fn pattern(name: &str) -> String {
    if let Some((path, _)) = name.rsplit_once("17h").filter(|_| name.starts_with("_ZN")) {
        return format!("{path}17h*");
    }
    // Rust's newer names have no point but that of a copy, and a crate's number begins with Cs and ends with _.
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    let mut pattern = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("Cs") {
        pattern += before;
        match after.split_once('_') {
            Some((number, after)) if number.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                pattern += "Cs*_";
                rest = after;
            }
            _ => {
                pattern += "Cs";
                rest = after;
            }
        }
    }
    pattern + rest + "*"
}
