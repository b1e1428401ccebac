//! Signals by name and number, real-time ones included (nix's enum has none of those).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// husk's caller stays, and what he sends is held back for the program.
static HELD: AtomicBool = AtomicBool::new(false);

/// To be told when signals are held back.
pub fn hold() {
    HELD.store(true, Ordering::Relaxed);
}

pub fn are_held() -> bool {
    HELD.load(Ordering::Relaxed)
}

/// A signal that nobody has taken yet, and would have ended husk.
pub fn interruption() -> Option<Signal> {
    let deadly = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
    match are_held() {
        true => deadly
            .into_iter()
            .find(|&number| sys::process::is_pending(number))
            .map(Signal::from_number),
        false => None,
    }
}

/// Numbers as user space counts them: 32 and 33 belong to the C libraries, so the
/// first real-time signal is 34 for docker, podman, bash and here, whatever libc says.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The first name of a number is the one that is printed.
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// A signal number from 0 (only looks whether the process is there) to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    pub const KILL: Signal = Signal(libc::SIGKILL);
    pub const TERM: Signal = Signal(libc::SIGTERM);

    /// For what the kernel reports: any number that it knows.
    pub fn from_number(number: i32) -> Signal {
        Signal(number)
    }

    pub fn number(self) -> i32 {
        self.0
    }
}

/// Without `SIG`.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// A number, or a name in any case with or without `SIG`: `9`, `kill`, `SIGKILL`,
/// `RTMIN+3`, `SIGRTMAX-1`.
impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || format!("unknown signal {text:?}");
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse() {
                Ok(number @ 0..=RTMAX) => Ok(Signal(number)),
                _ => Err(format!("signal {text} is not between 0 and {RTMAX}")),
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        realtime(name).map(Signal).ok_or_else(unknown)
    }
}

fn realtime(name: &str) -> Option<i32> {
    let number = match name {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ if name.starts_with("RTMIN+") => RTMIN + offset(&name[6..])?,
        _ if name.starts_with("RTMAX-") => RTMAX - offset(&name[6..])?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(digits: &str) -> Option<i32> {
    if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let table = [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("Kill", 9),
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("iot", 6),
            ("POLL", libc::SIGIO),
            ("RTMIN", 34),
            ("sigrtmin+3", 37),
            ("SIGRTMIN+30", 64),
            ("RTMAX", 64),
            ("RTMAX-14", 50),
        ];
        for (text, number) in table {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "SIG",
            "-9",
            "+9",
            "65",
            "99999999999999",
            "FOO",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN+-1",
            "9 ",
            "0x9",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_number_prints_as_a_name_that_parses_back() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            let name = Signal(number).to_string();
            assert_eq!(name.parse(), Ok(Signal(number)), "{name}");
        }
    }
}
