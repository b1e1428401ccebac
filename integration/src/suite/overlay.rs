//! The overlay root filesystem, mounted in the container's own mount namespace: by
//! `--overlay` and `--lower` or by annotations.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use super::tests;
use crate::bundle::{Bundle, PAYLOAD};
use crate::lab::Lab;
use crate::need::Need;

const HUSK: &[Need] = &[Need::Husk];

tests! {
    tmpfs_upper_leaves_the_bundle_bit_for_bit.needs(HUSK),
    a_readonly_bundle_directory_can_be_run_from.needs(HUSK),
    tmpfs_upper_has_the_size_it_was_given.needs(HUSK),
    a_directory_upper_keeps_the_changes_for_the_next_run.needs(HUSK),
    a_directory_upper_is_made_with_its_work_beside_it.needs(HUSK),
    lower_layers_are_stacked_topmost_first.needs(HUSK),
    annotations_do_the_same_as_options.needs(HUSK),
    options_win_over_annotations.needs(HUSK),
    layers_alone_get_a_tmpfs_upper.needs(HUSK),
    readonly_root_works_with_an_overlay.needs(HUSK),
    whiteouts_hide_what_is_below.needs(HUSK),
    opaque_directories_hide_what_is_below.needs(HUSK),
    removal_and_renaming_work_on_lower_files.needs(HUSK),
    hard_links_of_a_lower_layer_stay_links.needs(HUSK),
    owners_modes_and_times_of_a_lower_layer_are_kept.needs(HUSK),
    five_hundred_layers_work.needs(HUSK).seconds(60),
    layers_whose_names_hold_colons_and_commas_work.needs(HUSK),
    exec_sees_the_overlay.needs(HUSK),
    create_start_delete_work_with_an_overlay.needs(HUSK),
    two_containers_of_one_bundle_do_not_see_each_other.needs(HUSK),
    an_overlay_works_in_a_user_namespace.needs(HUSK),
    binds_and_devices_are_put_on_the_overlay_not_the_bundle.needs(HUSK),
    state_tells_the_bundles_rootfs.needs(HUSK),
    an_upper_on_an_overlay_is_refused_in_words.needs(HUSK),
    a_missing_lower_is_refused.needs(HUSK),
    a_lower_that_is_a_file_is_refused.needs(HUSK),
    an_upper_that_is_a_file_is_refused.needs(HUSK),
    a_nonsense_size_is_refused.needs(HUSK),
    relative_annotations_are_below_the_bundle.needs(HUSK),
}

/// Every path below a directory with what makes it what it is.
fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        let meta = fs::symlink_metadata(&next).unwrap();
        let content = match () {
            () if meta.is_file() => format!("{:x?}", checksum(&fs::read(&next).unwrap())),
            () if meta.is_symlink() => fs::read_link(&next).unwrap().display().to_string(),
            () => String::new(),
        };
        // Every bundle's payload is a link to one file.
        let payload = next.file_name().is_some_and(|name| name == "payload");
        let links = if payload { 0 } else { meta.nlink() };
        let mut text = format!(
            "{:o} {} {} {} {} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            links,
            meta.rdev(),
        );
        // The time of a directory tells that something was made and removed in it.
        text += &format!(" {}.{}", meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            pending.extend(
                fs::read_dir(&next)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.insert(next, text);
    }
    found
}

/// FNV-1a: enough to see a change.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn image(lab: &Lab) -> Bundle {
    lab.bundle()
        .writable()
        .file("etc/file", "image")
        .file("etc/other", "image")
        .file("var/dir/deep", "image")
        .link("etc/link", "file")
}

fn layer(lab: &Lab, files: &[(&str, &str)]) -> PathBuf {
    let dir = lab.path("layer");
    for (path, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const CHANGES: &str = "write /etc/file changed -- rm /etc/other -- create /etc/new x -- rm-all /var/dir \
                       -- mkdir /var/dir -- chmod /etc/link 600 -- rename /etc/link /etc/moved -- ls /etc -- ls /var/dir";

fn tmpfs_upper_leaves_the_bundle_bit_for_bit(lab: &Lab) {
    let bundle = image(lab).payload(CHANGES);
    let before = fingerprint(&bundle.rootfs());
    for option in ["--overlay", "--overlay=tmpfs"] {
        let answers = lab.run_with(&bundle, &[option]).run().ok().lines();
        assert_eq!(answers[7], json!(["file", "moved", "new"]), "{answers:?}");
        assert_eq!(answers[8], json!([]));
        assert_eq!(fingerprint(&bundle.rootfs()), before);
    }
}

fn a_readonly_bundle_directory_can_be_run_from(lab: &Lab) {
    let bundle = image(lab)
        .only_mounts(&[])
        .payload("create /etc/new x -- stat /dev/null");
    let rootfs = bundle.rootfs();
    let none = None::<&str>;
    mount(Some(&rootfs), &rootfs, none, MsFlags::MS_BIND, none).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &rootfs, none, flags, none).unwrap();
    let answers = lab.run_with(&bundle, &["--overlay"]).run().ok().lines();
    assert_eq!(answers[0], true);
    assert_eq!(answers[1]["type"], "char");
    umount2(&rootfs, MntFlags::MNT_DETACH).unwrap();
}

fn tmpfs_upper_has_the_size_it_was_given(lab: &Lab) {
    let big = "x".repeat(3 << 20);
    let bundle = image(lab)
        .file("data", &big)
        .payload("append /data more -- create /etc/small x");
    let small = lab
        .run_with(&bundle, &["--overlay=tmpfs:size=1m"])
        .run()
        .ok()
        .lines();
    assert_eq!(small[0]["error"], "ENOSPC");
    assert_eq!(small[1], true);
    let large = lab
        .run_with(&bundle, &["--overlay=tmpfs:size=16m"])
        .run()
        .ok()
        .lines();
    assert_eq!(large, [json!(true), json!(true)]);
}

fn a_directory_upper_keeps_the_changes_for_the_next_run(lab: &Lab) {
    let upper = lab.path("upper");
    let option = format!("--overlay={}", text(&upper));
    let bundle = image(lab).payload(CHANGES);
    let before = fingerprint(&bundle.rootfs());
    lab.run_with(&bundle, &[&option]).run().ok();
    assert_eq!(fingerprint(&bundle.rootfs()), before);
    assert_eq!(
        fs::read_to_string(upper.join("etc/file")).unwrap(),
        "changed"
    );
    let bundle = bundle.payload("cat /etc/file -- ls /etc -- ls /var/dir");
    let answers = lab.run_with(&bundle, &[&option]).run().ok().lines();
    assert_eq!(
        answers,
        [json!("changed"), json!(["file", "moved", "new"]), json!([])]
    );
}

fn a_directory_upper_is_made_with_its_work_beside_it(lab: &Lab) {
    let parent = lab.path("kept");
    fs::create_dir(&parent).unwrap();
    let upper = parent.join("upper");
    let bundle = image(lab).payload("create /etc/new x");
    lab.run_with(&bundle, &[&format!("--overlay={}", text(&upper))])
        .run()
        .ok();
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "x");
    let beside: Vec<_> = fs::read_dir(&parent)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    // An upper that belongs to others is not for others to look into.
    assert_eq!(fs::metadata(&upper).unwrap().mode() & 0o022, 0);
}

fn lower_layers_are_stacked_topmost_first(lab: &Lab) {
    let top = layer(lab, &[("etc/file", "top"), ("top", "")]);
    let middle = layer(
        lab,
        &[
            ("etc/file", "middle"),
            ("etc/other", "middle"),
            ("middle", ""),
        ],
    );
    let bundle = image(lab).payload(
        "cat /etc/file -- cat /etc/other -- cat /var/dir/deep -- stat /top -- stat /middle",
    );
    let options = ["--overlay", "--lower", text(&top), "--lower", text(&middle)];
    let answers = lab.run_with(&bundle, &options).run().ok().lines();
    assert_eq!(
        answers[..3],
        [json!("top"), json!("middle"), json!("image")]
    );
    assert!(answers[3]["type"] == "file" && answers[4]["type"] == "file");
}

fn annotations_do_the_same_as_options(lab: &Lab) {
    let top = layer(lab, &[("etc/file", "top")]);
    let middle = layer(lab, &[("etc/file", "middle"), ("etc/other", "middle")]);
    let upper = lab.path("upper");
    let lowers = format!("{}:{}", text(&top), text(&middle));
    let bundle = image(lab)
        .set("/annotations/run.husk.overlay.lower", lowers)
        .set("/annotations/run.husk.overlay.upper", text(&upper))
        .payload("cat /etc/file -- cat /etc/other -- create /etc/new x");
    let before = fingerprint(&bundle.rootfs());
    let answers = lab.run(&bundle).ok().lines();
    assert_eq!(answers, [json!("top"), json!("middle"), json!(true)]);
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "x");
    assert_eq!(fingerprint(&bundle.rootfs()), before);

    let bundle = image(lab)
        .set("/annotations/run.husk.overlay.upper", "tmpfs:size=1m")
        .payload("create /etc/new x -- statfs /");
    let before = fingerprint(&bundle.rootfs());
    let answers = lab.run(&bundle).ok().lines();
    assert_eq!(answers[0], true);
    assert_eq!(answers[1]["magic"], "0x794c7630");
    assert_eq!(fingerprint(&bundle.rootfs()), before);
}

fn options_win_over_annotations(lab: &Lab) {
    let upper = lab.path("upper");
    let bundle = image(lab)
        .set("/annotations/run.husk.overlay.upper", text(&upper))
        .payload("create /etc/new x");
    lab.run_with(&bundle, &["--overlay=tmpfs"]).run().ok();
    assert!(!upper.exists());
}

/// Layers alone get a top that forgets: they are never written.
fn layers_alone_get_a_tmpfs_upper(lab: &Lab) {
    let top = layer(lab, &[("etc/file", "top")]);
    let bundle = image(lab).payload("cat /etc/file -- cat /etc/other -- create /etc/new x");
    let before = (fingerprint(&bundle.rootfs()), fingerprint(&top));
    let answers = lab
        .run_with(&bundle, &["--lower", text(&top)])
        .run()
        .ok()
        .lines();
    assert_eq!(answers, [json!("top"), json!("image"), json!(true)]);
    assert_eq!((fingerprint(&bundle.rootfs()), fingerprint(&top)), before);
}

fn readonly_root_works_with_an_overlay(lab: &Lab) {
    let upper = lab.path("upper");
    let bundle = image(lab)
        .set("/root/readonly", true)
        .bind("/etc", "/not/there/yet", &["bind"])
        .payload("create /etc/new x -- write /etc/file x -- create /dev/shm/x y");
    for option in [
        "--overlay".to_owned(),
        format!("--overlay={}", text(&upper)),
    ] {
        let before = fingerprint(&bundle.rootfs());
        let answers = lab.run_with(&bundle, &[&option]).run().ok().lines();
        assert_eq!(answers[0]["error"], "EROFS");
        assert_eq!(answers[1]["error"], "EROFS");
        assert_eq!(answers[2], true);
        assert_eq!(fingerprint(&bundle.rootfs()), before);
    }
}

fn whiteouts_hide_what_is_below(lab: &Lab) {
    let top = layer(lab, &[("etc/keep", "")]);
    let device = makedev(0, 0);
    for path in ["etc/file", "var"] {
        mknod(&top.join(path), SFlag::S_IFCHR, Mode::empty(), device).unwrap();
    }
    let bundle =
        image(lab).payload("ls /etc -- stat /var -- create /etc/file new -- cat /etc/file");
    let answers = lab
        .run_with(&bundle, &["--overlay", "--lower", text(&top)])
        .run()
        .ok()
        .lines();
    assert_eq!(answers[0], json!(["keep", "link", "other"]));
    assert_eq!(answers[1]["error"], "ENOENT");
    assert_eq!(answers[2..], [json!(true), json!("new")]);
}

fn opaque_directories_hide_what_is_below(lab: &Lab) {
    let top = layer(lab, &[("etc/only", "")]);
    set_opaque(&top.join("etc"));
    let bundle = image(lab).payload("ls /etc -- ls /var/dir");
    let answers = lab
        .run_with(&bundle, &["--overlay", "--lower", text(&top)])
        .run()
        .ok()
        .lines();
    assert_eq!(answers, [json!(["only"]), json!(["deep"])]);
}

fn set_opaque(dir: &Path) {
    let path = std::ffi::CString::new(text(dir)).unwrap();
    let name = c"trusted.overlay.opaque";
    // SAFETY: both strings end in NUL, the value is one byte long.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), c"y".as_ptr().cast(), 1, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn removal_and_renaming_work_on_lower_files(lab: &Lab) {
    let bundle = image(lab).payload(
        "rm /etc/other -- stat /etc/other -- rename /etc/file /etc/renamed -- cat /etc/renamed \
         -- rm-all /var -- mkdir /var -- ls /var -- create /etc/other again -- cat /etc/other",
    );
    let answers = lab.run_with(&bundle, &["--overlay"]).run().ok().lines();
    assert_eq!(answers[1]["error"], "ENOENT");
    assert_eq!(answers[3], "image");
    assert_eq!(answers[6], json!([]));
    assert_eq!(answers[8], "again");
}

fn hard_links_of_a_lower_layer_stay_links(lab: &Lab) {
    let bundle = image(lab);
    let rootfs = bundle.rootfs();
    fs::hard_link(rootfs.join("etc/file"), rootfs.join("etc/second")).unwrap();
    let bundle = bundle.payload(
        "stat /etc/file -- stat /etc/second -- link /etc/file /etc/third -- stat /etc/third",
    );
    let answers = lab.run_with(&bundle, &["--overlay"]).run().ok().lines();
    assert_eq!(answers[0]["ino"], answers[1]["ino"]);
    assert!(answers[0]["nlink"].as_u64() >= Some(2), "{}", answers[0]);
    assert_eq!(answers[2], true);
    assert_eq!(fs::metadata(rootfs.join("etc/second")).unwrap().nlink(), 2);
}

fn owners_modes_and_times_of_a_lower_layer_are_kept(lab: &Lab) {
    let bundle = image(lab);
    let file = bundle.rootfs().join("etc/file");
    std::os::unix::fs::chown(&file, Some(33), Some(44)).unwrap();
    crate::bundle::set_mode(&file, 0o4751);
    let mtime = fs::metadata(&file).unwrap().mtime();
    let stat = lab
        .run_with(&bundle.payload("stat /etc/file"), &["--overlay"])
        .run()
        .ok()
        .line();
    assert_eq!(
        [&stat["uid"], &stat["gid"], &stat["mode"], &stat["mtime"]],
        [&json!(33), &json!(44), &json!(0o4751), &json!(mtime)],
    );
}

/// The string of all their paths is far longer than the page that mount(2) takes.
fn five_hundred_layers_work(lab: &Lab) {
    let bundle = image(lab).payload("cat /etc/file -- ls /layers");
    let parent =
        lab.path("layers-with-a-rather-long-name-so-that-no-option-string-could-hold-them");
    let mut options = vec!["--overlay".to_owned()];
    // The bundle's own rootfs is one, and the kernel's limit is 500.
    for n in 0..499 {
        let dir = parent.join(format!("layer-{n:03}"));
        fs::create_dir_all(dir.join("layers")).unwrap();
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join(format!("layers/{n:03}")), "").unwrap();
        fs::write(dir.join("etc/file"), n.to_string()).unwrap();
        options.extend(["--lower".to_owned(), text(&dir).to_owned()]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let answers = lab.run_with(&bundle, &options).run().ok().lines();
    assert_eq!(answers[0], "0");
    assert_eq!(answers[1].as_array().unwrap().len(), 499);
}

fn layers_whose_names_hold_colons_and_commas_work(lab: &Lab) {
    for name in ["with:colon", "with,comma", "with space", "with\\backslash"] {
        let dir = lab.path(name);
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/file"), name).unwrap();
        let upper = lab.path(name);
        let bundle = image(lab).args(&[PAYLOAD, "cat", "/etc/file", "--", "create", "/new", "x"]);
        let option = format!("--overlay={}", text(&upper));
        let answers = lab
            .run_with(&bundle, &[&option, "--lower", text(&dir)])
            .run()
            .ok()
            .lines();
        assert_eq!(answers, [json!(name), json!(true)]);
        assert!(upper.join("new").exists(), "{name}");
    }
}

fn exec_sees_the_overlay(lab: &Lab) {
    let container = lab.create_with(
        &image(lab).payload("create /etc/new x -- pause"),
        &["--overlay"],
    );
    container.start();
    container.wait_for_lines(1);
    assert_eq!(
        container.ask("cat /etc/new -- create /etc/second y"),
        [json!("x"), json!(true)]
    );
    assert_eq!(container.ask("cat /etc/second"), [json!("y")]);
    container.end();
}

fn create_start_delete_work_with_an_overlay(lab: &Lab) {
    let bundle = image(lab).payload("write /etc/file x");
    let before = fingerprint(&bundle.rootfs());
    let container = lab.create_with(&bundle, &["--overlay"]);
    container.start();
    container.wait();
    assert_eq!(container.lines(), [json!(true)]);
    container.delete();
    assert_eq!(fingerprint(&bundle.rootfs()), before);
}

fn two_containers_of_one_bundle_do_not_see_each_other(lab: &Lab) {
    let bundle = image(lab).payload("pause");
    let (one, two) = (
        lab.create_with(&bundle, &["--overlay"]),
        lab.create_with(&bundle, &["--overlay"]),
    );
    one.start();
    two.start();
    assert_eq!(one.ask("write /etc/file one"), [json!(true)]);
    assert_eq!(two.ask("cat /etc/file"), [json!("image")]);
    one.end();
    two.end();
}

fn an_overlay_works_in_a_user_namespace(lab: &Lab) {
    let bundle = image(lab)
        .user_namespace(0, 65536)
        .payload("create /etc/file x -- cat /etc/file");
    let before = fingerprint(&bundle.rootfs());
    let answers = lab.run_with(&bundle, &["--overlay"]).run().ok().lines();
    assert_eq!(answers, [json!(true), json!("x")]);
    assert_eq!(fingerprint(&bundle.rootfs()), before);
}

fn binds_and_devices_are_put_on_the_overlay_not_the_bundle(lab: &Lab) {
    let bundle = image(lab)
        .only_mounts(&["/proc"])
        .bind("/etc", "/made/for/the/mount", &["bind"])
        .payload("stat /dev/null -- stat /made/for/the/mount -- readlink /dev/fd");
    let before = fingerprint(&bundle.rootfs());
    let answers = lab.run_with(&bundle, &["--overlay"]).run().ok().lines();
    assert_eq!(
        (&answers[0]["type"], &answers[1]["type"]),
        (&json!("char"), &json!("dir"))
    );
    assert_eq!(answers[2], "/proc/self/fd");
    assert_eq!(fingerprint(&bundle.rootfs()), before);
}

fn state_tells_the_bundles_rootfs(lab: &Lab) {
    let bundle = image(lab).payload("pause");
    let container = lab.create_with(&bundle, &["--overlay"]);
    assert_eq!(container.state()["rootfs"], text(&bundle.rootfs()));
    container.force_delete();
}

fn an_upper_on_an_overlay_is_refused_in_words(lab: &Lab) {
    let place = lab.path("place");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(place.join(name)).unwrap();
    }
    let p = text(&place);
    let data = format!("lowerdir={p}/lower,upperdir={p}/upper,workdir={p}/work");
    let merged = place.join("merged");
    mount(
        Some("o"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(data.as_str()),
    )
    .unwrap();
    let upper = merged.join("upper");
    let bundle = image(lab).payload("exit 0");
    let output = lab
        .run_with(&bundle, &[&format!("--overlay={}", text(&upper))])
        .run();
    let refusal = output.refused().says(text(&upper)).says("overlay");
    refusal.hints("");
    // A layer on an overlay is fine: it is only read.
    lab.run_with(&bundle, &["--overlay", "--lower", text(&merged)])
        .run()
        .ok();
    assert!(fs::read_dir(&upper).map_or(true, |entries| entries.count() == 0));
    umount2(&merged, MntFlags::MNT_DETACH).unwrap();
}

fn a_missing_lower_is_refused(lab: &Lab) {
    let missing = lab.path("missing");
    let bundle = image(lab).payload("exit 0");
    let output = lab
        .run_with(&bundle, &["--overlay", "--lower", text(&missing)])
        .run();
    output
        .refused()
        .says(text(&missing))
        .says("no such file or directory");
    let bundle = bundle
        .set("/annotations/run.husk.overlay.lower", text(&missing))
        .set("/annotations/run.husk.overlay.upper", "tmpfs");
    let refusal = lab.run(&bundle).refused().says(text(&missing));
    refusal
        .says("/annotations/run.husk.overlay.lower")
        .says("no such file or directory");
}

fn a_lower_that_is_a_file_is_refused(lab: &Lab) {
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    let bundle = image(lab).payload("exit 0");
    let output = lab
        .run_with(&bundle, &["--overlay", "--lower", text(&file)])
        .run();
    output.refused().says(text(&file)).says("not a directory");
}

fn an_upper_that_is_a_file_is_refused(lab: &Lab) {
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    let link = lab.path("link");
    symlink(&file, &link).unwrap();
    for upper in [&file, &link] {
        let bundle = image(lab).payload("exit 0");
        let output = lab
            .run_with(&bundle, &[&format!("--overlay={}", text(upper))])
            .run();
        output.refused().says(text(upper));
    }
}

fn a_nonsense_size_is_refused(lab: &Lab) {
    let bundle = image(lab).payload("exit 0");
    for option in [
        "--overlay=tmpfs:size=lots",
        "--overlay=tmpfs:size=",
        "--overlay=tmpfs:sise=1m",
    ] {
        lab.run_with(&bundle, &[option]).run().refused();
    }
}

fn relative_annotations_are_below_the_bundle(lab: &Lab) {
    let bundle = image(lab);
    fs::create_dir_all(bundle.dir.join("lower/etc")).unwrap();
    fs::write(bundle.dir.join("lower/etc/file"), "lower").unwrap();
    let bundle = bundle
        .set("/annotations/run.husk.overlay.lower", "lower")
        .set("/annotations/run.husk.overlay.upper", "upper")
        .payload("cat /etc/file -- create /etc/new x");
    assert_eq!(lab.run(&bundle).ok().lines(), [json!("lower"), json!(true)]);
    assert!(bundle.dir.join("upper/etc/new").exists());
}
