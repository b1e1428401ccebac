//! A procfs of one's own, attached nowhere.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, Result, Step, pointer_key};
use crate::sys::mount::Context;

/// A fresh, unmasked procfs of the current pid namespace. Nobody else can mount anything into it, so
/// its files are what their names say. To be dropped as soon as the batch of writes is done.
#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    pub fn new() -> Result<Procfs> {
        let fail = |errno| Error::new("mount a private procfs").errno(errno);
        let context = Context::open(c"proc").or_fail(fail)?;
        let root = context.mount(0).map_err(|(errno, _)| fail(errno))?;
        Ok(Procfs { root })
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
                    error.hint("this kernel has no such sysctl in the container's namespaces")
                }
                Errno::EINVAL => error.hint("the kernel doesn't take that value for it"),
                _ => error,
            }
        };
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_XDEV
                    | ResolveFlag::RESOLVE_NO_SYMLINKS,
            );
        let file = openat2(&self.root, &path(key), how).or_fail(fail)?;
        nix::unistd::write(&file, value.as_bytes())
            .or_fail(fail)
            .map(drop)
    }
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
