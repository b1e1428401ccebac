//! Which of husk's functions a container's life takes, for the linker to lay side by side: what a command
//! needs is then in a few stretches of the file, each of which the kernel maps by one page fault.
//!
//! The debugger's way: a breakpoint at the beginning of each function, which goes when it is met.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::bundle::{self, Filter};
use crate::debugger::{Debugger, follow, ptrace};
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// x86_64's breakpoint, one byte.
const TRAP: u8 = 0xcc;

/// Writes the linker script: the functions in the order in which they are first met. First those that making a
/// container shares with the commands that do less, then what is its own, what Docker's profile needs, and the rest.
pub fn write(site: &Site, husk: &Runtime, path: &Path) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("breakpoints are known for x86_64 only".into());
    }
    let functions = Functions::of(&husk.path)?;
    let id = format!("order-{}", husk.name);
    let mut breakpoints = Breakpoints {
        functions: &functions,
        met: Vec::new(),
        code: (0, Vec::new()),
        base: 0,
        processes: HashMap::new(),
    };
    let mut met_by = |words: &[&str]| {
        follow(site, husk, words, &mut breakpoints)?;
        Ok::<_, String>(std::mem::take(&mut breakpoints.met))
    };
    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (created, _) = husk.create_by(&bundle, &id, |words| met_by(words))?;
    husk.time(site, &["delete", &id])?;
    let (_, pid) = husk.create(site, &bundle, &id)?;
    let mut less = Vec::new();
    for words in [
        &["state", &id][..],
        &["start", &id],
        &["kill", &id, "CONT"],
        &["exec", &id, "/bin/true"],
        &["list"],
    ] {
        less.extend(met_by(words)?);
    }
    husk.time(site, &["kill", &id, "KILL"])?;
    wait_for(pid);
    less.extend(met_by(&["delete", &id])?);
    let mut run = |filter| {
        let bundle = bundle::make(site, &id, "/bin/true", filter);
        met_by(&["run", "--bundle", &bundle.to_string_lossy(), &id])
    };
    let plain = [created, run(Filter::None)?].concat();
    let text = script(&functions, &order(&plain, &run(Filter::Docker)?, &less));
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Each function once.
fn order(plain: &[u64], filtered: &[u64], less: &[u64]) -> Vec<u64> {
    let of_plain: BTreeSet<_> = plain.iter().collect();
    let shared = less.iter().filter(|at| of_plain.contains(at));
    let all = shared.chain(plain).chain(filtered).chain(less);
    let mut known = BTreeSet::new();
    all.filter(|at| known.insert(**at)).copied().collect()
}

/// By where they begin: length, and the name of the section that each has of its own.
struct Functions {
    names: BTreeMap<u64, (u64, String)>,
    /// Where they are for the linker is where they are.
    fixed: bool,
}

impl Functions {
    /// From the linker's map beside it: a file with symbols is another one, with other names for what is alike.
    fn of(file: &Path) -> Result<Functions, String> {
        let failed = |file: &Path, error: io::Error| format!("{}: {error}", file.display());
        let map = file.with_extension("map");
        let text = fs::read_to_string(&map).map_err(|error| failed(&map, error))?;
        let mut head = [0; 18];
        let file_head = File::open(file).and_then(|file| file.read_exact_at(&mut head, 0));
        file_head.map_err(|error| failed(file, error))?;
        let names = names(&text);
        if names.is_empty() {
            return Err(format!("{}: no map of GNU ld", map.display()));
        }
        Ok(Functions {
            names,
            // ET_EXEC of elf(5).
            fixed: head[16] == 2,
        })
    }

    /// Where the file begins in the process's memory, as far as that has to be added: the kernel's own pages
    /// may lie below.
    fn base(&self, pid: i32) -> u64 {
        if self.fixed {
            return 0;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let file = text.lines().find(|line| line.contains(" /"));
        let first = file.and_then(|line| line.split('-').next());
        first.map_or(0, |begin| u64::from_str_radix(begin, 16).unwrap_or(0))
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

/// Of a map of GNU ld: a section's name, address and length, on the next line if the name is a long one.
fn names(map: &str) -> BTreeMap<u64, (u64, String)> {
    let mut names = BTreeMap::new();
    let mut section = "";
    for line in map.lines() {
        let mut words = line.split_whitespace();
        if line.starts_with(" .") {
            section = words.next().unwrap_or("");
        }
        let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (Some(begin), Some(length)) = (number(), number()) else {
            continue;
        };
        let name = section.strip_prefix(".text.unlikely.");
        let name = name.or_else(|| section.strip_prefix(".text."));
        if let Some(name) = name.filter(|name| name.starts_with("_ZN") || name.starts_with("_R"))
            && begin > 0
            && length > 0
        {
            names.insert(begin, (length, name.to_owned()));
        }
        section = "";
    }
    names
}

/// A process with breakpoints.
struct Planted {
    memory: File,
    base: u64,
}

/// Where each of husk's functions begins, in the order in which they are met.
struct Breakpoints<'a> {
    functions: &'a Functions,
    met: Vec<u64>,
    /// What stands in the file where breakpoints are planted, and from where on.
    code: (u64, Vec<u8>),
    /// Where the last file that was executed begins: below it lies what was mapped since.
    base: u64,
    processes: HashMap<i32, Planted>,
}

impl Debugger for Breakpoints<'_> {
    const RESUME: i64 = libc::PTRACE_CONT as i64;

    fn begun(&mut self, pid: i32, executed: bool) -> io::Result<()> {
        let memory = format!("/proc/{pid}/mem");
        let memory = File::options().read(true).write(true).open(memory)?;
        // A child and a thread have their parent's.
        if executed {
            self.base = self.functions.base(pid);
            self.code = self.functions.plant(&memory, self.base)?;
        }
        let base = self.base;
        self.processes.insert(pid, Planted { memory, base });
        Ok(())
    }

    fn trapped(&mut self, pid: i32) -> io::Result<()> {
        let process = &self.processes[&pid];
        let at = step_back(pid);
        let begin = at - process.base;
        let byte = [self.code.1[(begin - self.code.0) as usize]];
        process.memory.write_all_at(&byte, at)?;
        self.met.push(begin);
        Ok(())
    }
}

/// Makes the process, which a breakpoint has stopped, stand before it: where that is.
fn step_back(pid: i32) -> u64 {
    // SAFETY: all zeroes is a valid structure.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, pid, &raw mut registers as i64);
    registers.rip -= 1;
    ptrace(libc::PTRACE_SETREGS, pid, &raw mut registers as i64);
    registers.rip
}

/// What the linker puts before all other code. Names that stand for much that isn't met, as the hash alone
/// tells one from another, come last.
fn script(functions: &Functions, met: &[u64]) -> String {
    /// Bytes of code that nobody needs, between what is needed.
    const MUCH: u64 = 4096;
    let mut idle: HashMap<String, u64> = HashMap::new();
    let known: BTreeSet<&u64> = met.iter().collect();
    for (begin, (length, name)) in &functions.names {
        if !known.contains(begin) {
            *idle.entry(pattern(name)).or_default() += length;
        }
    }
    let mut text = String::from(
        "/* Written by `make order`: the functions that a container's life takes, in the order of their use.\n   \
         A name that isn't there any more does nothing. */\nSECTIONS\n{\n  .fini : { KEEP (*(SORT_NONE(.fini))) }\n  .text.life :\n  {\n",
    );
    text += LIBRARY;
    let patterns = met.iter().map(|at| pattern(&functions.names[at].1));
    let much = |name: &String| idle.get(name).is_some_and(|length| *length > MUCH);
    let (last, first): (Vec<String>, Vec<String>) = patterns.partition(much);
    let mut written = BTreeSet::new();
    for name in first.into_iter().chain(last) {
        if written.insert(name.clone()) {
            let _ = writeln!(text, "    *(.text*{name})");
        }
    }
    text + "  }\n" + REST
}

/// The C library first: all of it is as long as what one page fault maps, and has functions for every step.
const LIBRARY: &str = "    *self-contained/libc.a:*(.text .text.*)
    *crt1.o(.text .text.*)
    *(.text.main .text.__do_init .text.__do_fini)
";

/// What is there for exceptions is a tenth of the file, and a program that aborts unwinds nothing. What is large comes
/// after all small statics, which so begin in the page of those that have a value.
const REST: &str =
    "  /DISCARD/ : { *(EXCLUDE_FILE(*crt*.o) .eh_frame) *(.gcc_except_table .gcc_except_table.*) }
}
INSERT BEFORE .text;
SECTIONS
{
  .bss.large (NOLOAD) : { *(.bss.*4husk6MEMORY*) *(.bss.*STACK_OF_TASK*) }
}
INSERT AFTER .bss;
";

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
