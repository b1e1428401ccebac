//! The words of a mount's `options`, against the rules of config.md, "Linux mount options", read one
//! attribute at a time: the last word about it counts.

#![no_main]

use husk::rootfs::options::{Options, known, propagation};
use libc as c;
use libfuzzer_sys::fuzz_target;

/// Each attribute that is a bit by itself: the word that sets it, the one that clears it.
const BITS: [(u64, &str, &str); 6] = [
    (c::MOUNT_ATTR_RDONLY, "ro", "rw"),
    (c::MOUNT_ATTR_NOSUID, "nosuid", "suid"),
    (c::MOUNT_ATTR_NODEV, "nodev", "dev"),
    (c::MOUNT_ATTR_NOEXEC, "noexec", "exec"),
    (c::MOUNT_ATTR_NODIRATIME, "nodiratime", "diratime"),
    (c::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow", "symfollow"),
];

/// Access times are one of three; a word that negates one of them means the kernel's default.
const TIMES: [(&str, u64); 6] = [
    ("atime", c::MOUNT_ATTR_RELATIME),
    ("relatime", c::MOUNT_ATTR_RELATIME),
    ("norelatime", c::MOUNT_ATTR_RELATIME),
    ("nostrictatime", c::MOUNT_ATTR_RELATIME),
    ("noatime", c::MOUNT_ATTR_NOATIME),
    ("strictatime", c::MOUNT_ATTR_STRICTATIME),
];

fuzz_target!(|text: &str| {
    let words: Vec<&str> = text.split([',', '\n']).collect();
    let options = Options::parse(words.iter().copied());
    for (prefix, attributes) in [("", options.attributes), ("r", options.recursive)] {
        let said = |word: &str| {
            words
                .iter()
                .rposition(|other| other.strip_prefix(prefix) == Some(word))
        };
        for (bit, set, clear) in BITS {
            let (set, clear) = (said(set), said(clear));
            assert_eq!(
                attributes.set & bit != 0,
                set > clear,
                "{bit:#x} of {words:?}"
            );
            assert_eq!(
                attributes.clear & bit != 0,
                clear > set,
                "{bit:#x} of {words:?}"
            );
        }
        let time = TIMES
            .iter()
            .filter_map(|(word, bits)| Some((said(word)?, bits)))
            .max();
        let all = c::MOUNT_ATTR__ATIME;
        match time {
            Some((_, bits)) => {
                assert_eq!(attributes.set & all, *bits, "{words:?}");
                assert_eq!(attributes.clear & all, all, "{words:?}");
            }
            None => assert_eq!((attributes.set | attributes.clear) & all, 0, "{words:?}"),
        }
        // mount_setattr(2): nothing in both but the group of access times, and nothing unknown.
        assert_eq!(attributes.set & attributes.clear & !all, 0, "{words:?}");
        let bits = BITS.iter().fold(all, |bits, (bit, ..)| bits | bit);
        assert_eq!((attributes.set | attributes.clear) & !bits, 0, "{words:?}");
        assert_eq!(attributes.propagation, 0);
    }
    let known = known();
    let unknown = words
        .iter()
        .filter(|word| !known.iter().any(|known| known == *word));
    assert!(options.data.iter().eq(unknown), "{options:?} of {words:?}");
    let last = |names: [&str; 2]| {
        words
            .iter()
            .rfind(|word| names.contains(word))
            .map(|word| *word == names[1])
    };
    assert_eq!(options.bind, last(["bind", "rbind"]));
    assert_eq!(options.idmap, last(["idmap", "ridmap"]));
    assert_eq!(options.remount, words.contains(&"remount"));
    assert_eq!(options.copy_up, words.contains(&"tmpcopyup"));
    let kinds = words.iter().filter(|word| propagation(word).is_ok());
    let kinds = kinds.map(|word| (propagation(word).unwrap(), word.starts_with('r')));
    assert!(
        options.propagation.iter().copied().eq(kinds),
        "{options:?} of {words:?}"
    );
    assert!(!(options.flags.contains(&"sync") && options.flags.contains(&"async")));

    for keep_locked in [false, true] {
        let change = options.of_bind(keep_locked);
        assert_eq!(change.set & !options.attributes.set, 0, "{words:?}");
        if options.attributes.is_empty() {
            assert!(change.is_empty(), "{words:?}");
        }
    }
    let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let mistake = options.mistake(&owned);
    if let Some(mistake) = &mistake {
        assert!(mistake.at < words.len() && !mistake.message.is_empty());
    }
    // A bind mount takes nothing that is for a filesystem.
    let for_nobody = options.bind.is_some() && !options.data.is_empty();
    assert!(!for_nobody || mistake.is_some(), "{words:?}");
});
