use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Process};

use super::Global;
use super::usual::{Given, Usual, flag, value};
use crate::container::create::{send_pidfd, send_terminal, write_pid_file};
use crate::container::exec::{Target, read_process};
use crate::error::{Error, Result};
use crate::process::foreground::{self, Signals};

pub const USUAL: &[Usual] = &[
    value("process", Some(b'p')),
    value("console-socket", None),
    value("pid-file", None),
    flag("tty", Some(b't')),
    flag("detach", Some(b'd')),
];

#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    /// File with the process as in config.json; PROGRAM and the options that describe it are then not used
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Add to the environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run as this user, and group, by their numbers in the container
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<User>,
    /// One more group, by its number; may be repeated
    #[arg(short = 'g', long, value_name = "GID", value_parser = parse_id)]
    pub additional_gids: Vec<u32>,
    /// Return once the program runs, instead of waiting for its end
    #[arg(short, long)]
    pub detach: bool,
    /// File for the pid of the process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Let no program gain privileges by its set-id bits or file capabilities
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability; may be repeated
    #[arg(short, long, value_name = "CAP_NAME")]
    pub cap: Vec<String>,
    /// Pass this many descriptors from 3 on to the program, after those of LISTEN_FDS
    #[arg(long, value_name = "N", default_value = "0", value_parser = super::parse_count)]
    pub preserve_fds: u32,
    /// Run in this existing cgroup below the container's
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Start the program in a paused container; it runs once that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container
    pub id: String,
    /// Program and its arguments
    #[arg(value_name = "PROGRAM", required_unless_present = "process")]
    pub program: Vec<String>,
}

impl Args {
    /// A line of an engine's.
    pub fn usual(given: &Given) -> Option<Args> {
        let (id, program) = given.id_and_more()?;
        let process = given.path("process")?;
        if program.is_empty() && process.is_none() {
            return None;
        }
        Some(Args {
            process,
            console_socket: given.path("console-socket")?,
            pidfd_socket: None,
            cwd: None,
            env: Vec::new(),
            tty: given.flag("tty"),
            user: None,
            additional_gids: Vec::new(),
            detach: given.flag("detach"),
            pid_file: given.path("pid-file")?,
            process_label: None,
            apparmor: None,
            no_new_privs: false,
            cap: Vec::new(),
            preserve_fds: 0,
            cgroup: Vec::new(),
            ignore_paused: false,
            id,
            program,
        })
    }
}

impl Args {
    /// The process to run: from the file, or the container's own with what is different.
    fn process(&self, target: &Target) -> Result<Process> {
        if let Some(path) = &self.process {
            return read_process(path);
        }
        let mut process = target.template()?;
        process.set_args(Some(self.program.clone()));
        process.set_terminal(Some(self.tty));
        process.set_console_size(None);
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.into());
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(self.env.iter().cloned());
        process.set_env(Some(env));
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        self.set_user(&mut process)?;
        self.add_capabilities(&mut process)?;
        // As with a document of its own, which is checked when it is read.
        crate::bundle::check_process(&process)?;
        Ok(process)
    }

    fn set_user(&self, process: &mut Process) -> Result<()> {
        let mut user = process.user().clone();
        if let Some(given) = self.user {
            user.set_uid(given.uid);
            if let Some(gid) = given.gid {
                user.set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.additional_gids);
            user.set_additional_gids(Some(groups));
        }
        process.set_user(user);
        Ok(())
    }

    /// Never into the inheritable set: from there a program's file capabilities would take them
    /// (CVE-2022-29162). Ambient only where they are inheritable already.
    fn add_capabilities(&self, process: &mut Process) -> Result<()> {
        if self.cap.is_empty() {
            return Ok(());
        }
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let mut added = Capabilities::new();
        for name in &self.cap {
            let upper = name.to_ascii_uppercase();
            let upper = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
            let known = serde_json::from_value(serde_json::Value::String(format!("CAP_{upper}")));
            added.insert(known.map_err(|_| {
                let error = Error::new("--cap").on(name).because("no such capability");
                error.maybe_hint(crate::bundle::near_capability(name))
            })?);
        }
        let with = |set: &Option<Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(added.iter().copied());
            Some(set)
        };
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        if let Some(inheritable) = sets.inheritable() {
            let both: Capabilities = added.intersection(inheritable).copied().collect();
            if !both.is_empty() {
                let mut ambient = sets.ambient().clone().unwrap_or_default();
                ambient.extend(both);
                sets.set_ambient(Some(ambient));
            }
        }
        process.set_capabilities(Some(sets));
        Ok(())
    }
}

/// The value of `--user`: numbers only. Names would have to be looked up in the
/// container's files, which its owner writes (CVE-2016-3697).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// Without it the group of the container's own process stays.
    pub gid: Option<u32>,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((uid, gid)) => Ok(User {
                uid: parse_id(uid)?,
                gid: Some(parse_id(gid)?),
            }),
            None => Ok(User {
                uid: parse_id(text)?,
                gid: None,
            }),
        }
    }
}

/// Digits only, and not 4294967295, which setresuid takes for "leave it as it is".
fn parse_id(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("want a number; names are not looked up".into());
    }
    match text.parse() {
        Ok(u32::MAX) | Err(_) => Err(format!("{text} is not between 0 and {}", u32::MAX - 1)),
        Ok(id) => Ok(id),
    }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<u8> {
    let passed = super::enter_container(args.preserve_fds, args.process.as_deref())?;
    let target = Target::find(&global.root, &args.id, args.ignore_paused)?;
    let process = args.process(&target)?;
    let wants_terminal = process.terminal().unwrap_or(false);
    match (args.detach, wants_terminal, &args.console_socket) {
        (true, true, None) => {
            return Err(Error::new(
                "cannot allocate tty if husk will detach without setting console socket",
            )
            .hint("give --console-socket, or leave the terminal away")
            .into());
        }
        (detach, wanted, Some(_)) if !(detach && wanted) => {
            let needed = if detach { "--tty" } else { "--detach" };
            return Err(Error::new(
                "cannot use console socket if husk will not detach or allocate tty",
            )
            .hint(format!(
                "give {needed} as well, or leave --console-socket away"
            ))
            .into());
        }
        _ => {}
    }
    let signals = (!args.detach).then(Signals::hold).transpose()?;
    let mut joined = target.join(&process, passed, &args.cgroup, global.is_rootless())?;
    let mut terminal = joined.terminal.take();
    let ready = match (&args.console_socket, terminal.take()) {
        (Some(path), Some(master)) => send_terminal(path, &master),
        (_, master) => {
            terminal = master;
            Ok(())
        }
    };
    let released = ready
        .and_then(|()| match &args.pidfd_socket {
            Some(path) => send_pidfd(path, "setns", &joined.process.pidfd),
            None => Ok(()),
        })
        .and_then(|()| match &args.pid_file {
            Some(path) => write_pid_file(path, joined.process.pid),
            None => Ok(()),
        })
        .and_then(|()| joined.release());
    if let Err(error) = released {
        joined.process.end();
        return Err(error.into());
    }
    match signals {
        None => Ok(0),
        Some(signals) => {
            let process = &joined.process;
            Ok(
                foreground::attend(&signals, process.pid, process.pidfd.as_fd(), terminal, None)?
                    .status(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// crun 1.19 to 1.26 took `-u 1` for uid 0.
    #[test]
    fn cve_2026_30892_exec_user_forms() {
        let table = [
            ("0", Some((0, None))),
            ("1", Some((1, None))),
            ("1:2", Some((1, Some(2)))),
            ("0:0", Some((0, Some(0)))),
            ("1000:4294967294", Some((1000, Some(4_294_967_294)))),
            ("007", Some((7, None))),
            ("", None),
            (":", None),
            ("1:", None),
            (":1", None),
            ("1:2:3", None),
            ("x", None),
            ("1x", None),
            ("root", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
            ("1e3", None),
            ("１", None),
            ("4294967295", None),
            ("4294967296", None),
            ("18446744073709551616", None),
            ("1:4294967296", None),
        ];
        for (text, expected) in table {
            let user = text.parse::<User>().ok();
            assert_eq!(user.map(|u| (u.uid, u.gid)), expected, "{text:?}");
        }
    }
}
