//! A network namespace that is made ahead.

use std::os::fd::OwnedFd;

use crate::error::{Error, Result, Step};
use crate::sys::netns::Maker;

/// More is not searched through.
const SEARCHED: usize = 512 << 10;

/// A network namespace that is made beside husk while that reads and plans: of a clone3(2) with six new namespaces
/// it takes three quarters of the time (measured).
#[derive(Debug)]
pub struct Ahead {
    maker: Maker,
}

impl Ahead {
    /// `None` if what config.json begins with doesn't seem to ask for one that husk can make: that of a user namespace
    /// has to be made by its root. It isn't understood yet when this begins, so [`super::Plan::adopt`] decides.
    pub fn begin(config: &[u8]) -> Option<Ahead> {
        let config = config.get(..SEARCHED).unwrap_or(config);
        let text = match str::from_utf8(config) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&config[..error.valid_up_to()]).ok()?,
        };
        let maker = wants_network(text).then(Maker::begin)?.ok()?;
        Some(Ahead { maker })
    }

    /// For husk when it executes itself: what it has begun.
    pub fn into_socket(self) -> OwnedFd {
        self.maker.into_socket()
    }

    pub fn from_socket(socket: OwnedFd) -> Ahead {
        let maker = Maker::from_socket(socket);
        Ahead { maker }
    }

    /// `None` if it could not be made. The process will try, and can say why not.
    pub(super) fn namespace(&mut self) -> Option<OwnedFd> {
        self.maker.namespace()
    }

    /// Returns when the loopback device is up, which needs the process as little as that needs it so far.
    pub fn finish(self) -> Result<()> {
        let up = self.maker.finish();
        up.or_fail(|errno| Error::new("set loopback device up").errno(errno))
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
