use std::path::PathBuf;
use std::str::FromStr;

use super::{Global, refuse};
use crate::error::Result;

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
    /// Options that a later version brings.
    pub fn refuse_later(&self) -> Result<()> {
        refuse(&[
            ("--pidfd-socket", self.pidfd_socket.is_some()),
            ("--process-label", self.process_label.is_some()),
            ("--apparmor", self.apparmor.is_some()),
            ("--cgroup", !self.cgroup.is_empty()),
            ("--ignore-paused", self.ignore_paused),
        ])
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

pub fn run(args: Args, _global: &Global) -> anyhow::Result<u8> {
    args.refuse_later()?;
    anyhow::bail!("exec: not wired yet")
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
