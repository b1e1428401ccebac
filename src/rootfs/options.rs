//! Mount options: the words of a mount's `options` list, and what the kernel is asked for.

use nix::libc;

use crate::bundle::{did_you_mean, mount_word};
use crate::error::{Error, Result};
use crate::sys::mount::Attributes;

/// What a list of options asks for. Later words win over earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The mount itself.
    pub attributes: Attributes,
    /// Whether `relatime` is asked for, which is no bit of its own in [`Options::attributes`].
    relatime: bool,
    /// The mount and all below it.
    pub recursive: Attributes,
    /// `MS_SHARED` and its like; true for the mount and all below it. Applied in order.
    pub propagation: Vec<(u64, bool)>,
    /// `None` unless `bind` or `rbind` is there; true for `rbind`.
    pub bind: Option<bool>,
    /// `None` unless `idmap` or `ridmap` is there; true for `ridmap`.
    pub idmap: Option<bool>,
    pub remount: bool,
    /// Copies what the target directory holds into the fresh tmpfs.
    pub copy_up: bool,
    /// Superblock options that fsconfig(2) knows as flags.
    pub flags: Vec<&'static str>,
    /// What is left: `key` or `key=value` for the filesystem.
    pub data: Vec<String>,
}

enum Word {
    /// Sets these attributes, out of a group that is cleared first.
    Set(u64, u64),
    Clear(u64),
    Propagation(u64, bool),
    Bind(bool),
    IdMap(bool),
    Remount,
    CopyUp,
    /// A superblock flag; the second is what it takes back.
    Flag(&'static str, &'static str),
    /// Understood, and nothing is to be done for it.
    Nothing,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
/// What a bind mount has of flags, without those of access times.
const FLAGS: u64 = LOCKABLE | libc::MOUNT_ATTR_NOSYMFOLLOW;
/// Of these what the kernel locks in a user namespace, mount_namespaces(7).
const LOCKABLE: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC;
const TIMES: u64 = ATIME | libc::MOUNT_ATTR_NODIRATIME;

/// Every word with a meaning of its own, runtime-spec's config.md, "Linux mount options".
const WORDS: &[(&str, Word)] = &[
    ("async", Word::Flag("async", "sync")),
    ("atime", Word::Set(libc::MOUNT_ATTR_RELATIME, ATIME)),
    ("bind", Word::Bind(false)),
    ("defaults", Word::Nothing),
    ("dev", Word::Clear(libc::MOUNT_ATTR_NODEV)),
    ("diratime", Word::Clear(libc::MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Word::Flag("dirsync", "")),
    ("exec", Word::Clear(libc::MOUNT_ATTR_NOEXEC)),
    ("idmap", Word::IdMap(false)),
    // Filesystems that count inode versions do so without being asked since Linux 6.6.
    ("iversion", Word::Nothing),
    ("lazytime", Word::Flag("lazytime", "nolazytime")),
    // What the kernel logs of a failing mount: the new interface tells it to husk instead.
    ("loud", Word::Nothing),
    // Mandatory locking is gone since Linux 5.15.
    ("mand", Word::Nothing),
    ("noatime", Word::Set(libc::MOUNT_ATTR_NOATIME, ATIME)),
    ("nodev", Word::Set(libc::MOUNT_ATTR_NODEV, 0)),
    ("nodiratime", Word::Set(libc::MOUNT_ATTR_NODIRATIME, 0)),
    ("noexec", Word::Set(libc::MOUNT_ATTR_NOEXEC, 0)),
    ("noiversion", Word::Nothing),
    ("nolazytime", Word::Flag("nolazytime", "lazytime")),
    ("nomand", Word::Nothing),
    // The kernel's default, which is relatime since Linux 2.6.30: as mount(8) does.
    ("norelatime", Word::Set(libc::MOUNT_ATTR_RELATIME, ATIME)),
    ("nostrictatime", Word::Set(libc::MOUNT_ATTR_RELATIME, ATIME)),
    ("nosuid", Word::Set(libc::MOUNT_ATTR_NOSUID, 0)),
    ("nosymfollow", Word::Set(libc::MOUNT_ATTR_NOSYMFOLLOW, 0)),
    ("private", Word::Propagation(libc::MS_PRIVATE, false)),
    ("rbind", Word::Bind(true)),
    ("relatime", Word::Set(libc::MOUNT_ATTR_RELATIME, ATIME)),
    ("remount", Word::Remount),
    ("ridmap", Word::IdMap(true)),
    ("ro", Word::Set(libc::MOUNT_ATTR_RDONLY, 0)),
    ("rprivate", Word::Propagation(libc::MS_PRIVATE, true)),
    ("rshared", Word::Propagation(libc::MS_SHARED, true)),
    ("rslave", Word::Propagation(libc::MS_SLAVE, true)),
    ("runbindable", Word::Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Word::Clear(libc::MOUNT_ATTR_RDONLY)),
    ("shared", Word::Propagation(libc::MS_SHARED, false)),
    ("silent", Word::Nothing),
    ("slave", Word::Propagation(libc::MS_SLAVE, false)),
    (
        "strictatime",
        Word::Set(libc::MOUNT_ATTR_STRICTATIME, ATIME),
    ),
    ("suid", Word::Clear(libc::MOUNT_ATTR_NOSUID)),
    ("symfollow", Word::Clear(libc::MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Word::Flag("sync", "async")),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Word::Propagation(libc::MS_UNBINDABLE, false)),
];

/// The attributes that also exist with an `r` before them, for a mount and all below it.
const RECURSIVE: &[&str] = &[
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "nosymfollow",
    "symfollow",
];

/// Every option that husk understands, for `features`.
pub fn known() -> Vec<String> {
    let mut all: Vec<String> = WORDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    all.extend(RECURSIVE.iter().map(|name| format!("r{name}")));
    all.sort();
    all
}

fn word(name: &str) -> Option<&'static Word> {
    let at = WORDS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(&WORDS[at].1)
}

fn apply(attributes: &mut Attributes, word: &Word) {
    match *word {
        Word::Set(set, group) => {
            attributes.clear |= group;
            attributes.set = attributes.set & !group | set;
            // A flag can't be in both, but the group that it is chosen from has to be cleared.
            attributes.clear &= !set | group;
        }
        Word::Clear(clear) => {
            attributes.set &= !clear;
            attributes.clear |= clear;
        }
        _ => {}
    }
}

/// A word of the list that means nothing there, by its place in it.
pub struct Mistake {
    pub at: usize,
    pub message: String,
    pub consequence: Consequence,
}

pub enum Consequence {
    /// With a hint at what may be meant.
    Refused(Option<String>),
    /// The mount is made without it, after a warning that says what to do.
    Ignored(String),
}

impl Options {
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Options {
        let mut options = Options::default();
        for name in words {
            match word(name) {
                Some(word @ (Word::Set(..) | Word::Clear(_))) => {
                    apply(&mut options.attributes, word);
                    if matches!(word, Word::Set(_, ATIME)) {
                        options.relatime = name == "relatime";
                    }
                }
                Some(Word::Propagation(kind, recursive)) => {
                    options.propagation.push((*kind, *recursive));
                }
                Some(Word::Bind(recursive)) => options.bind = Some(*recursive),
                Some(Word::IdMap(recursive)) => options.idmap = Some(*recursive),
                Some(Word::Remount) => options.remount = true,
                Some(Word::CopyUp) => options.copy_up = true,
                Some(Word::Flag(flag, opposite)) => {
                    options.flags.retain(|other| other != opposite);
                    options.flags.push(flag);
                }
                Some(Word::Nothing) => {}
                None => match name
                    .strip_prefix('r')
                    .filter(|name| RECURSIVE.contains(name))
                {
                    Some(name) => {
                        if let Some(word) = word(name) {
                            apply(&mut options.recursive, word);
                        }
                    }
                    None => options.data.push(name.to_owned()),
                },
            }
        }
        options
    }

    /// What becomes of the flags that a bind mount's source has, in the manner of `mount --bind`: without
    /// a word for any flag all stay, with one the mount has those that are named and no other. Access
    /// times are one setting: it is replaced by `noatime`, `nodiratime`, `relatime` or `strictatime`,
    /// while words that only negate one of these, as `atime` does, leave it as it is.
    ///
    /// With `keep_locked` the flags that the kernel locks in a user namespace are cleared by name alone.
    pub fn of_bind(&self, keep_locked: bool) -> Attributes {
        let mut change = self.attributes;
        if change.is_empty() {
            return change;
        }
        change.clear |= match keep_locked {
            true => FLAGS & !LOCKABLE,
            false => FLAGS,
        };
        if self.relatime || change.set & TIMES != 0 {
            change.clear |= TIMES;
        } else {
            change.clear &= !TIMES;
        }
        change
    }

    /// Whether nothing can be written there once it is mounted.
    pub fn is_read_only(&self) -> bool {
        let read_only = (self.attributes.set | self.recursive.set) & libc::MOUNT_ATTR_RDONLY != 0;
        read_only && !self.copy_up
    }

    /// What of the list can't be meant as it stands.
    pub fn mistake(&self, words: &[String]) -> Option<Mistake> {
        let place = |word: &str| words.iter().position(|other| other == word).unwrap_or(0);
        let refused = |at, message, hint| Mistake {
            at,
            message,
            consequence: Consequence::Refused(hint),
        };
        if let Some(at) = words
            .iter()
            .position(|word| word.starts_with("idmap=") || word.starts_with("ridmap="))
        {
            let message =
                "mappings of an id-mapped mount belong in its uidMappings and gidMappings";
            return Some(refused(at, message.into(), None));
        }
        if let Some(word) = self.joined() {
            let parts: Vec<String> = word.split(',').map(|part| format!("{part:?}")).collect();
            let hint = format!("write {}", parts.join(", "));
            let message = format!("`{word}` is several options in one string");
            return Some(refused(place(word), message, Some(hint)));
        }
        let word = self.meaningless()?;
        let message = format!("`{word}` is no option of a bind mount");
        // The specification lets a bind mount have them, and those that copy a tmpfs's options do.
        if word.contains('=') {
            let hint = format!("remove {word}: a bind mount takes its filesystem as it is");
            return Some(Mistake {
                at: place(word),
                message,
                consequence: Consequence::Ignored(hint),
            });
        }
        let known = known();
        let hint = mount_word(word)
            .map(str::to_owned)
            .or_else(|| did_you_mean(word, known.iter().map(String::as_str)));
        Some(refused(place(word), message, hint))
    }

    /// The word that is for a filesystem, of a bind mount: it means nothing there. One that is
    /// refused comes before those that are ignored.
    fn meaningless(&self) -> Option<&str> {
        self.bind?;
        let refused = self.data.iter().find(|word| !word.contains('='));
        refused.or(self.data.first()).map(String::as_str)
    }

    /// The word that holds several, as the command line of mount(8) has them.
    fn joined(&self) -> Option<&str> {
        let is_joined = |text: &&str| {
            let first = text.split_once(',').map(|(first, _)| first);
            first.is_some_and(|first| Options::parse([first]).data.is_empty())
        };
        self.data.iter().map(String::as_str).find(is_joined)
    }
}

/// `linux.rootfsPropagation`: `MS_SHARED` and its like.
pub fn propagation(word: &str) -> Result<u64> {
    match word {
        "shared" | "rshared" => Ok(libc::MS_SHARED),
        "slave" | "rslave" => Ok(libc::MS_SLAVE),
        "private" | "rprivate" => Ok(libc::MS_PRIVATE),
        "unbindable" | "runbindable" => Ok(libc::MS_UNBINDABLE),
        _ => Err(Error::config(
            "/linux/rootfsPropagation",
            format!("`{word}` is none of shared, slave, private, unbindable"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(words.split(',').filter(|word| !word.is_empty()))
    }

    #[test]
    fn words_are_sorted_for_the_search() {
        assert!(WORDS.is_sorted_by_key(|(name, _)| name));
        assert!(RECURSIVE.iter().all(|name| word(name).is_some()));
    }

    #[test]
    fn every_option_of_the_specification_is_known() {
        let must = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud \
            noatime nodev nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid \
            private rbind relatime remount ro rprivate rshared rslave runbindable rw shared silent \
            slave strictatime suid sync unbindable mand nomand tmpcopyup nosymfollow symfollow \
            rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnoatime ratime rnodiratime rdiratime \
            rrelatime rnorelatime rstrictatime rnostrictatime rnosymfollow rsymfollow idmap ridmap";
        for name in must.split_whitespace() {
            let options = Options::parse([name]);
            assert!(options.data.is_empty(), "{name} is taken for data");
            assert!(known().iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn later_words_win() {
        let options = parse("ro,rw,nosuid,suid,nosuid");
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(options.attributes.clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("sync,async").flags, ["async"]);
        assert_eq!(parse("bind,rbind").bind, Some(true));
    }

    #[test]
    fn an_access_time_mode_replaces_the_one_before() {
        let options = parse("noatime,strictatime");
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(options.attributes.clear, ATIME);
        // The kernel wants the whole group cleared, even for relatime, which is 0.
        let options = parse("relatime");
        assert_eq!(options.attributes.set, 0);
        assert_eq!(options.attributes.clear, ATIME);
    }

    #[test]
    fn one_flag_of_a_bind_mount_tells_all() {
        assert!(parse("bind,rprivate,rro").of_bind(false).is_empty());
        let change = parse("bind,nosuid").of_bind(false);
        assert_eq!(change.set, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(change.clear, FLAGS);
        let change = parse("bind,dev").of_bind(false);
        assert_eq!((change.set, change.clear), (0, FLAGS));
    }

    #[test]
    fn locked_flags_of_a_bind_mount_are_cleared_by_name_alone() {
        let change = parse("bind,ro,exec").of_bind(true);
        assert_eq!(change.set, libc::MOUNT_ATTR_RDONLY);
        let clear = libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!(change.clear, clear);
    }

    #[test]
    fn access_times_of_a_bind_mount_are_one_setting() {
        for kept in [
            "atime",
            "diratime",
            "norelatime",
            "nostrictatime",
            "relatime,atime",
        ] {
            let change = parse(kept).of_bind(false);
            assert_eq!((change.set & TIMES, change.clear & TIMES), (0, 0), "{kept}");
        }
        for replaced in [
            "noatime",
            "nodiratime",
            "relatime",
            "strictatime",
            "nodiratime,norelatime",
        ] {
            let change = parse(replaced).of_bind(true);
            assert_eq!(change.clear & TIMES, TIMES, "{replaced}");
        }
    }

    #[test]
    fn recursive_words_are_kept_apart() {
        let options = parse("rro,ro,rnoatime");
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_RDONLY);
        let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME;
        assert_eq!(options.recursive.set, set);
        assert_eq!(options.recursive.clear, ATIME);
    }

    #[test]
    fn several_options_in_one_string_are_seen() {
        let joined = |words: &[&str]| {
            let options = Options::parse(words.iter().copied());
            options.joined().map(str::to_owned)
        };
        assert_eq!(joined(&["nosuid", "rbind,ro"]).as_deref(), Some("rbind,ro"));
        assert_eq!(joined(&["context=a:b:c1,c2", "ro"]), None);
        assert_eq!(joined(&["lowerdir=/a,b"]), None);
    }

    #[test]
    fn the_rest_is_data() {
        let options = parse("nosuid,mode=755,size=65536k,newinstance");
        assert_eq!(options.data, ["mode=755", "size=65536k", "newinstance"]);
        assert_eq!(parse("bind,noexce").meaningless(), Some("noexce"));
        assert_eq!(parse("bind,mode=755").meaningless(), Some("mode=755"));
        assert_eq!(parse("noexce").meaningless(), None);
    }
}
