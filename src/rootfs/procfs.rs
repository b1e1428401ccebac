//! A procfs of one's own, attached nowhere.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::bundle::number;
use crate::error::{Error, Result, Step, pointer_key};
use crate::sys::file::{open, openat2};
use crate::sys::mount::Context;

/// A fresh procfs of the current pid namespace. Nobody else can mount anything into it, so its files are
/// what their names say. To be dropped as soon as the batch of writes is done.
#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// All of it, unmasked, for sysctls.
    pub fn new() -> Result<Procfs> {
        Procfs::mount(false)
    }

    /// `only_processes`: nothing else can be reached through it (`subset=pid`, Linux 5.8).
    fn mount(only_processes: bool) -> Result<Procfs> {
        let fail = |errno| Error::new("mount a private procfs").errno(errno);
        let context = Context::open(c"proc").or_fail(fail)?;
        if only_processes {
            context.set_string(c"subset", c"pid").or_fail(fail)?;
        }
        let root = context.mount(0).map_err(|(errno, _)| fail(errno))?;
        Ok(Procfs { root })
    }

    /// A fresh one with processes only, or the one at /proc. Where the container's is partly masked, an unprivileged process
    /// gets no fresh one any more (mount_too_revealing). What lies at /proc is looked at: it must be the
    /// root of a procfs, and nothing that is mounted over its files is crossed later on.
    pub fn trusted() -> Result<Procfs> {
        if let Ok(fresh) = Procfs::mount(true) {
            return Ok(fresh);
        }
        const PROC_ROOT_INO: u64 = 1;
        let fail = || {
            Error::new("open")
                .on("/proc")
                .hint("a mount of type proc is needed there")
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open("/proc", flags, Mode::empty()).or_fail(|errno| fail().errno(errno))?;
        let kind = fstatfs(&root).or_fail(|errno| fail().errno(errno))?;
        let stat = fstat(&root).or_fail(|errno| fail().errno(errno))?;
        if kind.filesystem_type() != PROC_SUPER_MAGIC || stat.st_ino != PROC_ROOT_INO {
            return Err(fail().because("it is no procfs"));
        }
        Ok(Procfs { root })
    }

    /// The calling process's own directory, as it is numbered in there.
    pub fn own_directory(&self) -> Result<OwnedFd> {
        let fail = |errno| Error::new("open").on("/proc/thread-self").errno(errno);
        let place = readlinkat(&self.root, "thread-self").or_fail(fail)?;
        let how = beneath(OFlag::O_PATH | OFlag::O_DIRECTORY);
        openat2(&self.root, place.as_os_str(), how).or_fail(fail)
    }

    /// What it is now, if that is short.
    fn read_sysctl(&self, key: &str) -> Option<String> {
        const LONGEST: usize = 64;
        let file = openat2(&self.root, &path(key), beneath(OFlag::O_RDONLY)).ok()?;
        let mut text = [0; LONGEST];
        let length = nix::unistd::read(&file, &mut text).ok()?;
        let now = std::str::from_utf8(&text[..length]).ok()?;
        let words: Vec<&str> = now.split_whitespace().collect();
        (length < LONGEST).then(|| words.join(" "))
    }

    /// Sets `key`, in dotted or slashed form, to `value`.
    pub fn write_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let fail = |errno| {
            let error = Error::new("set sysctl")
                .on(format!("{key}={value}"))
                .at(format!("/linux/sysctl/{}", pointer_key(key)))
                .errno(errno);
            match errno {
                Errno::ENOENT => {
                    error.because("this kernel has no such sysctl in the container's namespaces")
                }
                Errno::EINVAL => {
                    error.hint(
                        number(value).unwrap_or_else(|| match self.read_sysctl(key) {
                            Some(now) => {
                                format!("the kernel doesn't take that value; it is {now:?} now")
                            }
                            None => "the kernel doesn't take that value for it".into(),
                        }),
                    )
                }
                _ => error,
            }
        };
        let file = openat2(&self.root, &path(key), beneath(OFlag::O_WRONLY)).or_fail(fail)?;
        nix::unistd::write(&file, value.as_bytes())
            .or_fail(fail)
            .map(drop)
    }
}

/// Not through links, and not onto another mount.
fn beneath(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS,
    )
}

/// sysctl(8): the first separator decides, the other one stands for it inside names.
fn path(key: &str) -> PathBuf {
    let slashed = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    PathBuf::from("sys").join(slashed.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_key() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "sys/net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/1.rp_filter",
                "sys/net/ipv4/conf/eth0.1/rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.1/rp_filter",
                "sys/net/ipv4/conf/eth0.1/rp_filter",
            ),
        ] {
            assert_eq!(path(key), PathBuf::from(expected));
        }
    }
}
