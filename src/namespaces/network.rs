//! A network namespace that is made ahead.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};

use crate::sys::file::open;
use crate::sys::link;

/// What the thread calls needs no more.
const STACK: usize = 32 * 1024;

/// A network namespace with its loopback up, made by a thread of its own while husk plans: of a clone3(2) with
/// six new namespaces it takes three quarters of the time (measured). The thread alone is in it, husk stays
/// where it is.
#[derive(Debug)]
pub struct Ahead {
    maker: JoinHandle<nix::Result<OwnedFd>>,
}

impl Ahead {
    /// `None` if the container has none of its own, or one that its process has to make itself, as the root of
    /// its user namespace.
    pub fn begin(linux: Option<&Linux>) -> Option<Ahead> {
        let namespaces = || linux?.namespaces().as_ref();
        let mut network = false;
        for namespace in namespaces()? {
            match namespace.typ() {
                Type::User => return None,
                Type::Network => {
                    let path = namespace.path().as_deref();
                    network = path.is_none_or(|path| path.as_os_str().is_empty());
                }
                _ => {}
            }
        }
        let maker = network.then(|| std::thread::Builder::new().stack_size(STACK).spawn(make));
        Some(Ahead {
            maker: maker?.ok()?,
        })
    }

    /// Returns when the thread has ended: what is forked then has no lock of its in the C library.
    /// `None` if it could not be made. The process will try, and can say why not.
    pub fn finish(self) -> Option<OwnedFd> {
        self.maker.join().ok()?.ok()
    }
}

fn make() -> nix::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    link::loopback_up()?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    open("/proc/thread-self/ns/net", flags, Mode::empty())
}
