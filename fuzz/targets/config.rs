//! config.json, from bytes to the plans that `create` carries out. Nothing is carried out.

#![no_main]

use std::path::Path;

use husk::bundle::{self, Bundle, Severity};
use husk::cgroups::{self, Devices};
use husk::error::Error;
use husk::namespaces::IdMaps;
use husk::process::program::{Passed, Program};
use husk::process::schedule::ExecAffinity;
use husk::rootfs::{self, Namespace, Setting};
use husk::{hooks, seccomp};
use husk_fuzz::{assert_one_line, mutate};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::Value;

fuzz_target!(|raw: &[u8]| -> Corpus {
    let found = bundle::check(raw);
    let sound = found
        .iter()
        .all(|finding| finding.severity != Severity::Error);
    let document: Option<Value> = serde_json::from_slice(raw).ok();
    for finding in &found {
        place(document.as_ref(), &finding.pointer);
        assert!(!finding.message.is_empty());
    }
    let parsed = Bundle::parse(Path::new("/bundle"), raw.to_vec());
    let parsed = parsed.and_then(|bundle| bundle.unknown_properties().map(|_| bundle));
    // `check` tells all that `create` refuses, and nothing else.
    match &parsed {
        Ok(_) => assert!(sound, "refused by check alone: {found:?}"),
        Err(error) => {
            assert!(!sound, "refused by create alone: {error}");
            complaint(document.as_ref(), error);
        }
    }
    let Ok(bundle) = parsed else {
        return Corpus::Keep;
    };
    // Both ways to read it come to the same.
    let Some((slowly, extra)) = bundle::parse_slowly(raw) else {
        panic!("read fast, but not slowly");
    };
    assert_eq!((&bundle.spec, bundle.extra), (&slowly, extra));
    if let Err(error) = plans(&bundle) {
        complaint(document.as_ref(), &error);
    }
    Corpus::Keep
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});

/// A pointer leads to a value, or to where one is missing.
fn place(document: Option<&Value>, pointer: &str) {
    let Some(document) = document else { return };
    let mut around = pointer;
    // What is missing is at most two steps below what is there: `/linux/seccomp` of a document without linux.
    for _ in 0..3 {
        if document.pointer(around).is_some() {
            return;
        }
        around = around.rsplit_once('/').map_or("", |(before, _)| before);
    }
    assert!(
        document.pointer(around).is_some(),
        "{pointer} leads nowhere"
    );
}

fn complaint(document: Option<&Value>, error: &Error) {
    assert_one_line(&error.to_string());
    place(document, error.pointer().unwrap_or_default());
}

fn plans(bundle: &Bundle) -> Result<(), Error> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let limits = cgroups::plan(
        resources,
        bundle.extra.pids_limit,
        Devices::Confine,
        "/linux/resources",
    )?;
    for write in limits.writes.iter().chain(&limits.unified) {
        assert!(
            !write.file.is_empty() && !write.file.contains(['/', '\0']),
            "{write:?}"
        );
        assert!(write.file.contains('.'), "{write:?}");
        assert!(write.pointer.starts_with("/linux/resources/"), "{write:?}");
    }
    let place = cgroups::path(
        linux.and_then(|linux| linux.cgroups_path().as_ref()?.to_str()),
        "id",
    )?;
    let named = |part: std::path::Component| matches!(part, std::path::Component::Normal(_));
    assert!(
        place.is_relative() && place.components().all(named),
        "{place:?}"
    );
    for confined in [false, true] {
        let setting = Setting {
            bundle: &bundle.dir,
            namespace: if confined {
                Namespace::New
            } else {
                Namespace::Joined
            },
            own_cgroup_namespace: confined,
            user_namespace: None,
            nested: confined,
            cgroups: Some(Path::new("/sys/fs/cgroup")),
            own_cgroup: Some(&place),
            overlay: None,
            mount_label: None,
            no_pivot: false,
        };
        rootfs::Plan::new(spec, setting)?;
    }
    if let Some(linux) = linux {
        IdMaps::plan(linux)?;
    }
    let filter = linux
        .and_then(|linux| linux.seccomp().as_ref())
        .map(seccomp::compile)
        .transpose()?;
    if let Some(process) = spec.process() {
        let mask = nix::sys::stat::Mode::empty();
        Program::plan(process, linux, filter, Passed::default(), mask)?;
        ExecAffinity::plan(process)?;
    }
    if let Some(listed) = spec.hooks() {
        hooks::of(listed.create_runtime().as_ref());
        hooks::of(listed.poststop().as_ref());
    }
    Ok(())
}
