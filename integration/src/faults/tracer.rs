//! Runs a command and strikes it at one of its system calls.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use husk_integration::output::End;
use husk_integration::resctrl::StandIn;
use husk_integration::sys;
use nix::errno::Errno;
use nix::unistd::ForkResult;

use super::calls;
use super::ptrace::{self, Registers};

/// Whose calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The command's own process, with all its threads.
    Parent,
    /// What it makes, or what waits for it, until that becomes another program.
    Child,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL right before the call.
    Kill,
    /// The call isn't made and fails with the errno at this place of [`calls::errors`].
    Fail(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    pub side: Side,
    /// From 0.
    pub call: usize,
    pub fault: Fault,
}

pub struct Command<'a> {
    pub program: &'a Path,
    pub args: &'a [String],
    pub directory: &'a Path,
    pub stdout: &'a File,
    pub stderr: &'a File,
    /// Its descriptors from 3 on, of which the first is one of `LISTEN_FDS`.
    pub passed: &'a [RawFd],
    /// Under whose filter it runs.
    pub resctrl: Option<&'a StandIn>,
    /// A process that is there already and belongs to the child's side.
    pub waiting: Option<i32>,
    /// In a user namespace.
    pub confined: bool,
    pub patience: Duration,
}

#[derive(Debug)]
pub struct Traced {
    pub end: End,
    /// The call that was struck, and how it failed.
    pub struck: Option<(&'static str, Option<Errno>)>,
    /// All calls of the side, in the order in which they began.
    pub calls: Vec<&'static str>,
    /// Where it was when patience was at its end.
    pub hung: Option<String>,
    pub took: Duration,
}

struct Task {
    group: i32,
    /// Calls are looked at.
    counted: bool,
    within: bool,
    /// What the call is to return.
    answer: Option<Errno>,
}

struct Tracer {
    main: i32,
    side: Side,
    strike: Option<Strike>,
    confined: bool,
    /// The runtime's binary, by its length: copies of it are it, too.
    length: u64,
    tasks: HashMap<i32, Task>,
    begun: bool,
    traced: Traced,
    ended: bool,
}

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_EXITKILL;

/// Runs the command to its end. The caller has one thread, and holds SIGCHLD back.
pub fn run(command: &Command, side: Side, strike: Option<Strike>) -> io::Result<Traced> {
    let (gate, opener) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let null = File::open("/dev/null")?;
    let main = match sys::fork()? {
        ForkResult::Child => {
            drop(opener);
            let _ = become_command(command, &gate, &null);
            std::process::exit(125);
        }
        ForkResult::Parent { child } => child.as_raw(),
    };
    drop(gate);
    let options = match side {
        Side::Parent => OPTIONS,
        Side::Child => OPTIONS | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK,
    };
    ptrace::seize(main, options)?;
    let mut tracer = Tracer {
        main,
        side,
        strike,
        confined: command.confined,
        length: fs::metadata(command.program)?.len(),
        tasks: HashMap::new(),
        begun: false,
        traced: Traced {
            end: End::Code(125),
            struck: None,
            calls: Vec::new(),
            hung: None,
            took: Duration::ZERO,
        },
        ended: false,
    };
    tracer.add(main, main);
    if let (Side::Child, Some(pid)) = (side, command.waiting) {
        ptrace::seize(pid, options)?;
        tracer.add(pid, pid);
        ptrace::interrupt(pid)?;
    }
    let begin = Instant::now();
    drop(opener);
    let mut deadline = begin + command.patience;
    while !tracer.ended {
        while let Some((pid, status)) = ptrace::happened() {
            tracer.deal_with(pid, status);
        }
        if tracer.ended || ptrace::wait_for_news(deadline) {
            continue;
        }
        if tracer.traced.hung.is_some() {
            return Err(io::Error::other("what hangs can't be killed"));
        }
        tracer.traced.hung = Some(tracer.place());
        tracer.kill_all();
        deadline = Instant::now() + Duration::from_secs(10);
    }
    tracer.traced.took = begin.elapsed();
    tracer.let_go();
    Ok(tracer.traced)
}

fn become_command(command: &Command, gate: &OwnedFd, null: &File) -> io::Result<()> {
    ptrace::hold_news(false);
    // Out of the way of what is passed.
    let gate = nix::fcntl::fcntl(gate, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100))?;
    // SAFETY: the call has just made it.
    let gate = unsafe { OwnedFd::from_raw_fd(gate) };
    sys::place(null.as_raw_fd(), 0)?;
    sys::place(command.stdout.as_raw_fd(), 1)?;
    sys::place(command.stderr.as_raw_fd(), 2)?;
    std::env::set_current_dir(command.directory)?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let program = text(command.program.as_os_str().as_bytes())?;
    let mut args = vec![program.clone()];
    for arg in command.args {
        args.push(text(arg.as_bytes())?);
    }
    let mut environment = vec![text(
        b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )?];
    if !command.passed.is_empty() {
        environment.push(text(b"LISTEN_FDS=1")?);
        environment.push(text(
            format!("LISTEN_PID={}", std::process::id()).as_bytes(),
        )?);
    }
    if let Some(resctrl) = command.resctrl {
        resctrl.door().enter()?;
    }
    for (number, fd) in (3..).zip(command.passed) {
        sys::place(*fd, number)?;
    }
    // Opened when the tracer is there.
    let mut buffer = [0];
    nix::unistd::read(&gate, &mut buffer)?;
    nix::unistd::execve(&program, &args, &environment)?;
    Ok(())
}

fn group_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or(pid)
}

impl Tracer {
    fn add(&mut self, pid: i32, group: i32) {
        let counted = match self.side {
            Side::Parent => group == self.main && self.begun,
            Side::Child => {
                group != self.main && self.tasks.get(&group).is_none_or(|leader| leader.counted)
            }
        };
        self.tasks.entry(pid).or_insert(Task {
            group,
            counted,
            within: false,
            answer: None,
        });
    }

    fn deal_with(&mut self, pid: i32, status: i32) {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            self.tasks.remove(&pid);
            if pid == self.main {
                self.ended = true;
                self.traced.end = match libc::WIFEXITED(status) {
                    true => End::Code(libc::WEXITSTATUS(status)),
                    false => End::Signal(libc::WTERMSIG(status)),
                };
            }
            return;
        }
        if !self.tasks.contains_key(&pid) {
            self.add(pid, group_of(pid));
        }
        let mut signal = 0;
        match (libc::WSTOPSIG(status), status >> 16) {
            (stop, 0) if stop == libc::SIGTRAP | 0x80 => self.call(pid),
            (_, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
            // Traced from its birth, and to be let go or reaped though nothing may be heard of it before the end:
            // a dead one that its tracer doesn't reap keeps its whole pid namespace.
            (_, libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK) => {
                if let Ok(made) = ptrace::made(pid)
                    && !self.tasks.contains_key(&made)
                {
                    self.add(made, group_of(made));
                }
            }
            (stop, 0) => signal = stop,
            _ => {}
        }
        let calls = self.tasks.get(&pid).is_some_and(|task| task.counted);
        // One that was killed meanwhile is told about later.
        let _ = ptrace::resume(pid, calls, signal);
    }

    fn executed(&mut self, pid: i32) {
        // The other threads are gone, and the one that called has the leader's number now.
        let alone = |other: &i32, task: &mut Task| task.group != pid || *other == pid;
        self.tasks.retain(alone);
        self.begun = true;
        let own =
            fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.len() == self.length);
        let counted = match self.side {
            Side::Parent => pid == self.main,
            Side::Child => pid != self.main && own,
        };
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.within = counted && task.counted;
            task.counted = counted;
        }
    }

    fn call(&mut self, pid: i32) {
        let Ok(mut registers) = ptrace::registers(pid) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(&pid) else {
            return;
        };
        if task.within {
            task.within = false;
            if let Some(errno) = task.answer.take() {
                registers.rax = (-i64::from(errno as i32)) as u64;
                let _ = ptrace::set_registers(pid, &registers);
            }
            return;
        }
        task.within = true;
        let name = calls::name(registers.orig_rax);
        let number = self.traced.calls.len();
        self.traced.calls.push(name);
        let group = task.group;
        match self.strike {
            Some(strike) if strike.call == number => self.hit(pid, group, name, strike, registers),
            _ => {}
        }
    }

    fn hit(
        &mut self,
        pid: i32,
        group: i32,
        name: &'static str,
        strike: Strike,
        registers: Registers,
    ) {
        match strike.fault {
            Fault::Kill => {
                ptrace::kill(group);
                self.traced.struck = Some((name, None));
            }
            Fault::Fail(which) => {
                let Some(errno) = calls::errors(name, self.confined).get(which).copied() else {
                    return;
                };
                if !calls::done_all_the_same(name) {
                    let mut registers = registers;
                    registers.orig_rax = u64::MAX;
                    let _ = ptrace::set_registers(pid, &registers);
                }
                if let Some(task) = self.tasks.get_mut(&pid) {
                    task.answer = Some(errno);
                }
                self.traced.struck = Some((name, Some(errno)));
            }
        }
    }

    /// What all of them are doing.
    fn place(&self) -> String {
        let mut places: Vec<String> = self
            .tasks
            .keys()
            .map(|pid| {
                let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
                let call = read("syscall").unwrap_or_default();
                let number = call.split(' ').next().and_then(|word| word.parse().ok());
                let side = match *pid == self.main {
                    true => "parent",
                    false => "child",
                };
                format!("{side} in {}", number.map_or("no call", calls::name))
            })
            .collect();
        places.sort();
        places.join(", ")
    }

    fn kill_all(&self) {
        self.tasks.keys().for_each(|pid| ptrace::kill(*pid));
    }

    /// What is left goes on by itself.
    fn let_go(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        for pid in self.tasks.keys() {
            let _ = ptrace::interrupt(*pid);
        }
        while !self.tasks.is_empty() && ptrace::wait_for_news(deadline) {
            while let Some((pid, status)) = ptrace::happened() {
                if !libc::WIFSTOPPED(status) {
                    self.tasks.remove(&pid);
                    continue;
                }
                let Some(task) = self.tasks.get(&pid) else {
                    let _ = ptrace::detach(pid);
                    continue;
                };
                // A call that is to fail has to come to its end.
                if task.answer.is_some() {
                    self.deal_with(pid, status);
                    if self
                        .tasks
                        .get(&pid)
                        .is_some_and(|task| task.answer.is_none())
                    {
                        let _ = ptrace::interrupt(pid);
                    }
                    continue;
                }
                let _ = ptrace::detach(pid);
                self.tasks.remove(&pid);
            }
        }
    }
}
