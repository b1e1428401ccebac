//! A network namespace that is made ahead.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::sys::file::open;
use crate::sys::link;

/// What the thread calls needs no more.
const STACK: usize = 32 * 1024;

/// More is not searched through.
const SEARCHED: usize = 512 << 10;

/// A network namespace with its loopback up, made by a thread of its own while husk reads and plans: of a
/// clone3(2) with six new namespaces it takes three quarters of the time (measured). The thread alone is in it,
/// husk stays where it is.
#[derive(Debug)]
pub struct Ahead {
    maker: JoinHandle<nix::Result<OwnedFd>>,
}

impl Ahead {
    /// `None` if config.json doesn't seem to ask for one that husk can make: that of a user namespace has to be
    /// made by its root. It isn't understood yet when the thread begins, so [`super::Plan::adopt`] decides.
    pub fn begin(config: &[u8]) -> Option<Ahead> {
        let text = str::from_utf8(config.get(..SEARCHED).unwrap_or(config)).ok()?;
        let maker =
            wants_network(text).then(|| std::thread::Builder::new().stack_size(STACK).spawn(make));
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

/// Whether one of the objects has the type `network` and no path, and none the type `user`.
fn wants_network(config: &str) -> bool {
    let mut wanted = false;
    for (at, key) in config.match_indices(r#""type""#) {
        let value = config[at + key.len()..].trim_start().strip_prefix(':');
        let value = value.map_or("", str::trim_start);
        if value.starts_with(r#""user""#) {
            return false;
        }
        if value.starts_with(r#""network""#) {
            let begin = config[..at].rfind('{').unwrap_or(0);
            let end = config[at..].find('}').map_or(config.len(), |end| at + end);
            wanted = !config[begin..end].contains(r#""path""#);
        }
    }
    wanted
}

fn make() -> nix::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    link::loopback_up()?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    open("/proc/thread-self/ns/net", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::wants_network;

    #[test]
    fn a_network_namespace_is_recognised_before_the_document_is_understood() {
        for (config, wanted) in [
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}}"#,
                true,
            ),
            (
                "{\"linux\":{\"namespaces\":[{\"type\"\n:\t\"network\"}]}}",
                true,
            ),
            (
                r#"[{"type":"network","path":"/proc/1/ns/net"},{"type":"pid"}]"#,
                false,
            ),
            (r#"[{"path":"/run/netns/a","type":"network"}]"#, false),
            (r#"[{"type":"mount","path":"/m"},{"type":"network"}]"#, true),
            (r#"[{"type":"network"},{"type":"user"}]"#, false),
            (r#"[{"type":"user"},{"type":"network"}]"#, false),
            (
                r#"{"process":{"user":{"uid":0}},"mounts":[{"type":"network","x":"#,
                true,
            ),
            (r#"{"type""#, false),
            ("", false),
        ] {
            assert_eq!(wants_network(config), wanted, "{config}");
        }
    }
}
