//! `process.rlimits`: what the program may use up.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime as oci;

use crate::error::{Error, Result, Step};
use crate::sys::file::open;
use crate::sys::prctl;

/// In the order of config.json.
#[derive(Debug, Clone, Default)]
pub struct Limits(Vec<Limit>);

#[derive(Debug, Clone, Copy)]
struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
}

impl Limits {
    pub fn plan(process: &oci::Process) -> Limits {
        let limits = process.rlimits().iter().flatten();
        let limit = |limit: &oci::PosixRlimit| Limit {
            resource: resource(limit.typ()),
            soft: limit.soft(),
            hard: limit.hard(),
        };
        Limits(limits.map(limit).collect())
    }

    /// Runs `make` while husk's own hard limits are at least these, which the process that it makes
    /// inherits: in a user namespace nothing may raise them, whoever husk is. What husk may not raise
    /// either, [`Limits::apply`] tells.
    pub fn inherited<T>(&self, make: impl FnOnce() -> T) -> T {
        let mut own = Vec::new();
        for limit in &self.0 {
            if let Ok((soft, hard)) = prctl::rlimit(limit.resource)
                && hard < limit.hard
                && prctl::set_rlimit(limit.resource, soft, limit.hard).is_ok()
            {
                own.push((limit.resource, soft, hard));
            }
        }
        let made = make();
        for (resource, soft, hard) in own {
            // Lowering is always allowed.
            let _ = prctl::set_rlimit(resource, soft, hard);
        }
        made
    }

    /// Sets them for the calling process, while the privilege to raise them is still there.
    pub fn apply(&self) -> Result<()> {
        for (index, limit) in self.0.iter().enumerate() {
            let &Limit {
                resource,
                soft,
                hard,
            } = limit;
            prctl::set_rlimit(resource, soft, hard).or_fail(|errno| {
                let error = Error::new("set resource limit")
                    .on(format!("{soft}:{hard}"))
                    .at(format!("/process/rlimits/{index}"))
                    .errno(errno);
                match errno {
                    // No privilege is enough for more open files than that.
                    Errno::EPERM if is_files(resource) && hard > nr_open() => error
                        .because(format!("more than fs.nr_open, {}", nr_open()))
                        .hint("lower it, or raise it for the machine: sysctl fs.nr_open"),
                    Errno::EPERM => {
                        error.hint("raising a hard limit needs CAP_SYS_RESOURCE on the host")
                    }
                    Errno::EINVAL => error.hint("the soft limit can't be above the hard limit"),
                    _ => error,
                }
            })?;
        }
        Ok(())
    }
}

/// Whether it is the number of open files; C libraries don't agree on the type of its name.
fn is_files(resource: u32) -> bool {
    i64::from(resource) == i64::from(libc::RLIMIT_NOFILE)
}

/// How many files the kernel lets a process open; as many as there can be where it doesn't say. In a container
/// an image's fifo may be in its place.
fn nr_open() -> u64 {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let said = || {
        let file = open("/proc/sys/fs/nr_open", flags, Mode::empty()).ok()?;
        let kind = fstatfs(&file).ok()?.filesystem_type();
        let mut text = [0; 32];
        let length = nix::unistd::read(&file, &mut text).ok()?;
        let number = str::from_utf8(&text[..length]).ok()?.trim().parse().ok()?;
        (kind == PROC_SUPER_MAGIC).then_some(number)
    };
    said().unwrap_or(u64::MAX)
}

fn resource(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as Type;
    match kind {
        Type::RlimitCpu => libc::RLIMIT_CPU as _,
        Type::RlimitFsize => libc::RLIMIT_FSIZE as _,
        Type::RlimitData => libc::RLIMIT_DATA as _,
        Type::RlimitStack => libc::RLIMIT_STACK as _,
        Type::RlimitCore => libc::RLIMIT_CORE as _,
        Type::RlimitRss => libc::RLIMIT_RSS as _,
        Type::RlimitNproc => libc::RLIMIT_NPROC as _,
        Type::RlimitNofile => libc::RLIMIT_NOFILE as _,
        Type::RlimitMemlock => libc::RLIMIT_MEMLOCK as _,
        Type::RlimitAs => libc::RLIMIT_AS as _,
        Type::RlimitLocks => libc::RLIMIT_LOCKS as _,
        Type::RlimitSigpending => libc::RLIMIT_SIGPENDING as _,
        Type::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE as _,
        Type::RlimitNice => libc::RLIMIT_NICE as _,
        Type::RlimitRtprio => libc::RLIMIT_RTPRIO as _,
        Type::RlimitRttime => libc::RLIMIT_RTTIME as _,
    }
}
