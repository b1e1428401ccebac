//! `exec --cgroup`: a cgroup that somebody made below the container's.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

use super::Container;
use crate::error::{Error, Result, Step};
use crate::sys::file::openat2;

/// Where the process is to be born.
#[derive(Debug)]
pub struct Subgroup {
    /// Below the container's cgroup; empty for that one.
    below: PathBuf,
}

fn refused(value: &str, reason: impl Into<String>) -> Error {
    Error::new("--cgroup").on(value).because(reason)
}

impl Subgroup {
    /// From the values of the option: `PATH`, or `CONTROLLER,…:PATH` as for cgroup v1. There is one tree
    /// for all controllers, so there is one path. `None` if the option wasn't given.
    pub fn parse(values: &[String]) -> Result<Option<Subgroup>> {
        let mut found: Option<PathBuf> = None;
        for value in values {
            let (controllers, path) = value.split_once(':').unwrap_or(("", value));
            for name in controllers.split(',').filter(|_| value.contains(':')) {
                const KNOWN: &[&str] = &[
                    "cpuset",
                    "cpu",
                    "cpuacct",
                    "io",
                    "blkio",
                    "memory",
                    "hugetlb",
                    "pids",
                    "rdma",
                    "misc",
                    "dmem",
                    "devices",
                    "freezer",
                    "net_cls",
                    "net_prio",
                    "perf_event",
                ];
                if !KNOWN.contains(&name) {
                    return Err(refused(value, format!("unknown controller {name}")));
                }
            }
            let below = clean(path).ok_or_else(|| {
                refused(
                    value,
                    format!("bad sub cgroup path: {path} is not a sub cgroup path"),
                )
                .hint("name a cgroup below the container's own, without ..")
            })?;
            match found.replace(below) {
                Some(earlier) if Some(&earlier) != found.as_ref() => {
                    return Err(refused(value, "another path was given before")
                        .hint("cgroup v2 has one tree for all controllers: give one path"));
                }
                _ => {}
            }
        }
        Ok(found.map(|below| Subgroup { below }))
    }

    pub fn open(&self, container: &Container) -> Result<OwnedFd> {
        let cgroup = container
            .cgroup()?
            .ok_or_else(|| Error::new("cgroup not exist").on(container.id()))?;
        if self.below.as_os_str().is_empty() {
            return cgroup
                .fd()
                .try_clone_to_owned()
                .step("open cgroup", container.id());
        }
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        openat2(cgroup.fd(), &self.below, how).or_fail(|errno| self.not_joined(errno))
    }

    /// As runc says it.
    pub fn not_joined(&self, errno: Errno) -> Error {
        let error = Error::new("adding pid of the process to cgroups")
            .on(Path::new("/")
                .join(&self.below)
                .join("cgroup.procs")
                .display())
            .errno(errno);
        match errno {
            Errno::ENOENT => error.hint("--cgroup names a cgroup that is there already"),
            Errno::EBUSY => error.hint("it is divided: processes live in the cgroups below it"),
            _ => error,
        }
    }
}

/// Relative, without `.`; `None` if it leads up.
fn clean(path: &str) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Option<PathBuf>> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        Ok(Subgroup::parse(&values)?.map(|subgroup| subgroup.below))
    }

    #[test]
    fn one_path_below_the_container() {
        assert_eq!(parse(&[]).unwrap(), None);
        for (values, below) in [
            (&["/"][..], ""),
            (&["."], ""),
            (&["a/b"], "a/b"),
            (&["/a//b/."], "a/b"),
            (&["memory:a"], "a"),
            (&["cpu,cpuacct:a", "memory:/a"], "a"),
        ] {
            assert_eq!(parse(values).unwrap(), Some(below.into()), "{values:?}");
        }
        for (values, words) in [
            (&[".."][..], "bad sub cgroup path"),
            (&["a/../b"], "bad sub cgroup path"),
            (&["/.."], "bad sub cgroup path"),
            (&["memory:.."], "bad sub cgroup path"),
            (&["whaaat:/"], "unknown controller whaaat"),
            (&[":a"], "unknown controller "),
            (&["a", "b"], "another path"),
            (&["memory:a", "cpu:b"], "another path"),
        ] {
            let text = parse(values).unwrap_err().to_string();
            assert!(text.contains(words), "{values:?}: {text}");
        }
    }
}
