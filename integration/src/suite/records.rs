//! The record: what readers of it see, and what another version has written.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tests;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    a_reader_never_sees_half_a_record.needs(HUSK).seconds(60),
    a_record_of_another_version_is_refused_clearly.needs(HUSK),
}

const HUSK: &[Need] = &[Need::Husk];

/// While it is written and replaced, some hundred times.
fn a_reader_never_sees_half_a_record(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 0");
    let id = lab.id();
    let path = lab.root.join(&id).join("record.json");
    let end = AtomicBool::new(false);
    let (reads, phases) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut phases) = (0, BTreeSet::new());
            while !end.load(Ordering::Relaxed) {
                // It isn't there before the first one, nor after the last.
                let Ok(text) = fs::read(&path) else { continue };
                let record: serde_json::Value = serde_json::from_slice(&text)
                    .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
                assert_eq!(record["id"], id.as_str());
                phases.insert(record["phase"].as_str().unwrap().to_owned());
                reads += 1;
            }
            (reads, phases)
        });
        for _ in 0..40 {
            lab.on_bundle("create", &bundle, &[], &id).run().ok();
            lab.runtime(["delete", "--force", &id]).run().ok();
        }
        end.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 100, "{reads}");
    let both = ["created", "creating"].map(str::to_owned);
    assert_eq!(phases, BTreeSet::from(both));
    assert_eq!(lab.finish(), Ok(()));
}

fn a_record_of_another_version_is_refused_clearly(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let path = lab.root.join(&container.id).join("record.json");
    let written = fs::read_to_string(&path).unwrap();
    for format in [1, 999] {
        let mut record: serde_json::Value = serde_json::from_str(&written).unwrap();
        record["format"] = format.into();
        fs::write(&path, record.to_string()).unwrap();
        for words in [
            &["state"] as &[&str],
            &["start"],
            &["kill"],
            &["pause"],
            &["delete"],
        ] {
            let words = words.iter().copied().chain([container.id.as_str()]);
            let refused = lab.runtime(words).run().refused();
            refused
                .says(&format!("format {format} is not known to this husk"))
                .hints("another version of husk");
        }
        // The others are listed all the same.
        lab.runtime(["list"]).run().ok();
    }
    // Nothing has happened to it, and the husk that wrote it finds it.
    fs::write(&path, written).unwrap();
    assert_eq!(container.status(), "running");
    container.end();
}
