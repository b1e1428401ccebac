//! Linux security modules: the AppArmor profile and the SELinux label of a program, and of what is
//! mounted and made for it.
//!
//! What is asked for and can't be had is refused: a program without its confinement is not what was
//! asked for. Only a label for mounts means nothing where there is no SELinux.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::statfs::statfs;
use oci_spec::runtime::{Linux, Process};

use crate::error::{Error, Result, Step};
use crate::log;
use crate::sys::file::openat2;

/// SELINUX_MAGIC of linux/magic.h.
const SELINUX_MAGIC: u32 = 0xf97c_ff8c;

/// The modules that this kernel has switched on.
#[derive(Debug, Clone, Copy)]
struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    fn of_the_host() -> Modules {
        Modules {
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|enabled| enabled.starts_with(b"Y")),
            // Its filesystem is mounted where a policy is in force, and only there.
            selinux: statfs(Path::new("/sys/fs/selinux"))
                .is_ok_and(|kind| kind.filesystem_type().0 as u32 == SELINUX_MAGIC),
        }
    }
}

/// `process.apparmorProfile` and `process.selinuxLabel`; empty text is none.
#[derive(Debug, Default)]
pub struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Labels {
    /// # Errors
    /// For a profile or label of a module that the kernel doesn't have.
    pub fn plan(process: &Process) -> Result<Labels> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let labels = Labels {
            apparmor: given(process.apparmor_profile()),
            selinux: given(process.selinux_label()),
        };
        match labels.is_empty() {
            true => Ok(labels),
            false => labels.for_kernel(Modules::of_the_host()),
        }
    }

    fn for_kernel(mut self, modules: Modules) -> Result<Labels> {
        // Which is what everything is without AppArmor.
        if !modules.apparmor {
            self.apparmor.take_if(|profile| profile == "unconfined");
        }
        let refuse = |pointer: &str, text: &str, module: &str, hint: &str| {
            let reason = format!("{module} is not enabled on this host");
            Err(Error::new("apply")
                .on(text)
                .at(pointer)
                .because(reason)
                .hint(hint))
        };
        match (&self.apparmor, &self.selinux) {
            (Some(profile), _) if !modules.apparmor => refuse(
                "/process/apparmorProfile",
                profile,
                "AppArmor",
                "boot with apparmor=1 security=apparmor, or leave process.apparmorProfile away",
            ),
            (_, Some(label)) if !modules.selinux => refuse(
                "/process/selinuxLabel",
                label,
                "SELinux",
                "load a policy and mount selinuxfs at /sys/fs/selinux, or leave process.selinuxLabel away",
            ),
            _ => Ok(self),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }

    /// Asks for both at the next execve(2) of the calling process. `own` is its directory in a procfs
    /// (`/proc/thread-self`) that is known to be one: what is written into another file confines
    /// nothing (CVE-2019-16884, CVE-2025-52881).
    pub fn apply(&self, own: BorrowedFd, no_new_privileges: bool) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            // From one profile into another one leads no way that grants more, unless both hold.
            let verb = match no_new_privileges && is_confined(own) {
                true => "stack",
                false => "exec",
            };
            write_apparmor(own, &format!("{verb} {profile}")).or_fail(|errno| {
                let error = Error::new("apply AppArmor profile")
                    .on(profile)
                    .at("/process/apparmorProfile")
                    .errno(errno);
                match errno {
                    Errno::ENOENT => error.hint("load it first: apparmor_parser --replace FILE"),
                    Errno::EACCES | Errno::EPERM => error
                        .hint("the profile that husk itself runs under doesn't allow the change"),
                    _ => error,
                }
            })?;
        }
        if let Some(label) = &self.selinux {
            write(own, "attr/exec", label.as_bytes()).or_fail(|errno| no_label(label, errno))?;
        }
        Ok(())
    }

    /// Whether keyrings made for the process get a label.
    pub fn has_key_label(&self) -> bool {
        self.selinux.is_some()
    }

    /// Keys that the calling process makes from now on get the label. `own` as for [`Labels::apply`].
    pub fn begin_keys(&self, own: BorrowedFd) -> Result<()> {
        match &self.selinux {
            Some(label) => write(own, "attr/keycreate", label.as_bytes())
                .or_fail(|errno| no_label(label, errno)),
            None => Ok(()),
        }
    }

    /// From now on they get what the policy says.
    pub fn end_keys(&self, own: BorrowedFd) -> Result<()> {
        match &self.selinux {
            // The kernel takes an empty line for none.
            Some(label) => {
                write(own, "attr/keycreate", b"\n").or_fail(|errno| no_label(label, errno))
            }
            None => Ok(()),
        }
    }
}

fn no_label(label: &str, errno: Errno) -> Error {
    let error = Error::new("apply SELinux label")
        .on(label)
        .at("/process/selinuxLabel")
        .errno(errno);
    match errno {
        Errno::EINVAL => error.hint("the policy has no such user, role, type or range"),
        Errno::EACCES | Errno::EPERM => {
            error.hint("the policy doesn't let husk's own domain set it")
        }
        _ => error,
    }
}

/// `linux.mountLabel`, where it means something. The specification's own validation gives one to every
/// host.
pub fn mount_label(linux: Option<&Linux>) -> Option<String> {
    let label = linux.and_then(|linux| linux.mount_label().clone());
    let label = label.filter(|label| !label.is_empty())?;
    if Modules::of_the_host().selinux {
        return Some(label);
    }
    log::warning(format_args!(
        "config.json (/linux/mountLabel): label {label:?} is left out: SELinux is not enabled in this kernel"
    ));
    None
}

fn open(own: BorrowedFd, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS,
    );
    openat2(own, path, how)
}

fn write(own: BorrowedFd, path: &str, value: &[u8]) -> nix::Result<()> {
    put(open(own, path, OFlag::O_WRONLY)?, value)
}

/// At once: the kernel takes each write(2) for a whole value.
fn put(file: OwnedFd, value: &[u8]) -> nix::Result<()> {
    match nix::unistd::write(file.as_fd(), value)? {
        written if written == value.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

/// Into the module's own file since Linux 5.8, or the one that it shares with others: there a second
/// module would take the name of a missing profile for something of its own.
fn write_apparmor(own: BorrowedFd, value: &str) -> nix::Result<()> {
    let file = match open(own, "attr/apparmor/exec", OFlag::O_WRONLY) {
        Err(Errno::ENOENT) => open(own, "attr/exec", OFlag::O_WRONLY),
        file => file,
    };
    put(file?, value.as_bytes())
}

/// `unconfined`, or a profile and its mode: `name (enforce)`. In the mode `unconfined` a profile only
/// names the process.
fn is_confined(own: BorrowedFd) -> bool {
    let read = |path| -> nix::Result<String> {
        let file = open(own, path, OFlag::O_RDONLY)?;
        let mut text = [0; 4096];
        let length = nix::unistd::read(file.as_fd(), &mut text)?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    };
    let current = match read("attr/apparmor/current") {
        Err(Errno::ENOENT) => read("attr/current"),
        current => current,
    };
    // What can't be read is taken for the narrower case.
    current.map_or(true, |current| {
        let current = current.trim_end_matches(['\n', '\0']);
        current != "unconfined" && !current.ends_with("(unconfined)")
    })
}

#[cfg(test)]
mod tests;
