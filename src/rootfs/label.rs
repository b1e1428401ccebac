//! `linux.mountLabel`: the SELinux context of the filesystems that are mounted for the container.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::sys::file::openat;
use crate::sys::mount::Context;

/// What a filesystem's own options may be called, mount(8), "SELINUX".
const OPTIONS: &[&CStr] = &[c"context", c"fscontext", c"defcontext", c"rootcontext"];

/// Their files are labelled by the policy; a context for all of them is refused, or is none of the
/// container's.
const BY_POLICY: &[&[u8]] = &[b"cgroup", b"cgroup2", b"mqueue", b"proc", b"sysfs"];

/// What may have one in a user namespace (selinux_set_mnt_opts).
const IN_USER_NAMESPACE: &[&[u8]] = &[b"devpts", b"overlay", b"ramfs", b"tmpfs"];

#[derive(Debug, Clone)]
pub struct Label {
    context: CString,
    user_namespace: bool,
}

impl Label {
    pub fn new(context: CString, user_namespace: bool) -> Label {
        Label {
            context,
            user_namespace,
        }
    }

    fn is_for(&self, filesystem: &[u8]) -> bool {
        match self.user_namespace {
            true => IN_USER_NAMESPACE.contains(&filesystem),
            false => !BY_POLICY.contains(&filesystem),
        }
    }

    /// Adds it to the options of a mount, unless they have a context of their own.
    pub fn add_to(&self, filesystem: &CStr, data: &mut Vec<(CString, Option<CString>)>) {
        let own = data
            .iter()
            .any(|(key, _)| OPTIONS.contains(&key.as_c_str()));
        if !own && self.is_for(filesystem.to_bytes()) {
            data.push((c"context".to_owned(), Some(self.context.clone())));
        }
    }

    /// For a filesystem of husk's own.
    pub fn configure(&self, context: &Context) -> nix::Result<()> {
        context.set_string(c"context", &self.context)
    }

    /// A message queue filesystem takes no option for it, but has a root that can be labelled.
    pub fn is_set_on_root(&self, filesystem: &CStr) -> bool {
        filesystem == c"mqueue" && !self.user_namespace
    }

    pub fn set_on_root(&self, tree: &OwnedFd) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(tree, ".", flags, Mode::empty())?;
        let context = self.context.as_bytes();
        crate::sys::xattr::set(root.as_fd(), c"security.selinux", context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(filesystem: &CStr, user_namespace: bool, own: &[&CStr]) -> Vec<CString> {
        let label = Label::new(c"u:r:t:s0:c1,c2".into(), user_namespace);
        let mut data = own.iter().map(|&key| (key.to_owned(), None)).collect();
        label.add_to(filesystem, &mut data);
        data.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn filesystems_that_take_a_context_get_it() {
        for (filesystem, on_the_host, in_a_user_namespace) in [
            (c"tmpfs", true, true),
            (c"devpts", true, true),
            (c"overlay", true, true),
            (c"ext4", true, false),
            (c"mqueue", false, false),
            (c"proc", false, false),
            (c"sysfs", false, false),
            (c"cgroup2", false, false),
        ] {
            for (user_namespace, expected) in [(false, on_the_host), (true, in_a_user_namespace)] {
                let found = options(filesystem, user_namespace, &[]) == [c"context".to_owned()];
                assert_eq!(found, expected, "{filesystem:?} {user_namespace}");
            }
        }
    }

    #[test]
    fn a_context_of_the_mounts_own_stays() {
        for own in [c"context", c"rootcontext"] {
            assert_eq!(options(c"tmpfs", false, &[own]), [own.to_owned()]);
        }
    }

    #[test]
    fn only_a_message_queue_on_the_host_is_labelled_afterwards() {
        let label = |user_namespace| Label::new(c"u:r:t:s0".into(), user_namespace);
        assert!(label(false).is_set_on_root(c"mqueue"));
        assert!(!label(true).is_set_on_root(c"mqueue"));
        assert!(!label(false).is_set_on_root(c"tmpfs"));
    }
}
