//! The rows of the engines' contract, and the tests that hold husk to them.
//!
//! | row | what engines rely on | tests |
//! | --: | --- | --- |
//! | 1 | a pid file holds digits only | `contract::pid_file_*`, `contract::exec_writes_a_pid_file_before_it_returns` |
//! | 2 | JSON log lines: level, msg, time | `contract::the_log_gets_one_json_object_that_containerd_can_read`, `contract::the_log_is_appended_to` |
//! | 3 | the log file is one JSON object | `contract::the_log_is_one_object_for_podman_despite_warnings` |
//! | 4 | errors go to the log and to stderr | `contract::errors_go_to_the_log_and_to_standard_error` |
//! | 5 | `container not running` | `lifecycle::kill_of_a_stopped_container_says_container_not_running` |
//! | 6 | `does not exist` | `lifecycle::every_command_on_a_missing_container_says_does_not_exist` |
//! | 7 | `executable file not found`, `no such file or directory` | `contract::missing_executable_has_the_words_for_127` |
//! | 8 | `permission denied` | `contract::non_executable_has_the_words_for_126` |
//! | 9 | `is a directory`, `not a directory` | `row_9_…`, `contract::a_directory_over_a_file_keeps_the_words_of_the_kernel` |
//! | 10 | security modules' files in back-ticks | `lsm::a_profile_that_is_not_loaded_is_told_at_create` |
//! | 11 | `-no-subreaper` with a single dash | `contract::single_dash_long_options_are_accepted` |
//! | 12 | the lines of `--version` | `contract::version_has_its_lines` |
//! | 13 | `features` is all of the output | `contract::features_is_the_only_thing_on_standard_output` |
//! | 14 | `rro`, idmap and `user` are advertised | `row_14_…` |
//! | 15 | no checkpoint without CRIU | `row_15_…` |
//! | 16 | `delete --force` of nothing | `lifecycle::delete_force_of_a_missing_container_succeeds`, `inheritance::a_half_made_record_is_removed_by_force` |
//! | 17 | `delete` of a created container | `lifecycle::delete_of_a_created_container_is_allowed` |
//! | 18 | `kill --all` of a stopped container | `lifecycle::kill_all_of_a_stopped_container_succeeds` |
//! | 19 | 128 and the signal | `lifecycle::run_of_a_process_killed_by_a_signal_gives_128_and_the_signal`, `exec::exec_of_a_process_killed_by_a_signal_gives_128_and_the_signal` |
//! | 20 | a failing `exec` is 255 | `contract::exec_failure_of_the_runtime_is_255` |
//! | 21 | streams and parent after `create` | `row_21_…` |
//! | 22 | `--root` | `row_22_…`, `inheritance::root_is_made_for_its_owner_only`, `inheritance::list_of_a_missing_root_is_an_error`, `bad_command_line::a_root_that_cannot_be_is_refused` |
//! | 23 | blanks in paths | `row_23_…` |
//! | 24 | `exec` needs no bundle any more | `contract::exec_uses_what_create_saw_not_the_bundle` |
//! | 25 | `createContainer` hooks between mounts and pivot | `hooks::create_container_hooks_see_the_mounts_made`, `hooks::create_container_hooks_run_in_the_containers_namespaces_before_pivot_root` |

use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::need::Need;

tests! {
    row_9_a_directory_as_the_program_is_told_as_one,
    row_14_what_turns_features_of_engines_on_is_advertised.needs(&[Need::Husk]),
    row_15_checkpoint_is_not_there_for_podman.needs(&[Need::Husk]),
    row_21_create_returns_and_leaves_streams_and_process_to_its_caller,
    row_22_root_is_made_when_it_is_needed,
    row_23_paths_may_have_blanks,
}

fn row_9_a_directory_as_the_program_is_told_as_one(lab: &Lab) {
    let output = lab.run(&lab.bundle().args(&["/etc"])).code(1);
    assert!(output.stderr.contains("is a directory"), "{output}");
    let output = lab
        .run(&lab.bundle().file("etc/x", "").args(&["/etc/x/y"]))
        .code(1);
    assert!(output.stderr.contains("not a directory"), "{output}");
}

/// containerd, docker and CRI-O turn recursive read-only mounts and user namespaces on by these.
fn row_14_what_turns_features_of_engines_on_is_advertised(lab: &Lab) {
    let features = lab.bare(["features"]).run().ok().json();
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).unwrap().as_array().unwrap();
        list.contains(&json!(word))
    };
    assert!(has("/mountOptions", "rro"));
    assert!(has("/linux/namespaces", "user"));
    assert_eq!(
        features.pointer("/linux/mountExtensions/idmap/enabled"),
        Some(&json!(true))
    );
    assert!(has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY"));
    assert!(has(
        "/linux/seccomp/supportedFlags",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ));
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(
            features[key]
                .as_str()
                .is_some_and(|version| !version.is_empty())
        );
    }
}

/// podman takes exit status 0 of the one, and these words of the other, for support.
fn row_15_checkpoint_is_not_there_for_podman(lab: &Lab) {
    let checkpoint = lab.bare(["checkpoint", "--help"]).run();
    if checkpoint.end == crate::output::End::Code(0) {
        assert!(checkpoint.stdout.contains("--image-path"), "{checkpoint}");
        return;
    }
    let restore = lab.bare(["restore", "--lsm-mount-context"]).run().code(1);
    for words in ["flag needs an argument", "requires an argument"] {
        assert!(!restore.stderr.contains(words), "{restore}");
    }
}

/// conmon and containerd's shim are subreapers, as this test is.
fn row_21_create_returns_and_leaves_streams_and_process_to_its_caller(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("facts -- pause"));
    container.wait_for_lines(1);
    let status = format!("/proc/{}/status", container.pid());
    let status = std::fs::read_to_string(status).unwrap();
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(status.contains(&parent), "{status}");
    container.end();
}

fn row_22_root_is_made_when_it_is_needed(lab: &Lab) {
    assert!(!lab.root.exists());
    lab.run(&lab.bundle().payload("exit 0")).ok();
    assert!(lab.root.is_dir());
    // Without --root, its absence is an empty list.
    let elsewhere = lab.path("nowhere");
    let list = lab.bare(["list", "--quiet"]);
    list.env("XDG_RUNTIME_DIR", elsewhere.to_str().unwrap())
        .run()
        .ok();
}

fn row_23_paths_may_have_blanks(lab: &Lab) {
    let bundle = lab.bundle().payload("exit 3");
    let id = lab.id();
    bundle.write(&id);
    let place = lab.path("a bundle with blanks");
    std::fs::rename(&bundle.dir, &place).unwrap();
    let pid_file = lab.path("pid file");
    let args = [
        "run",
        "--bundle",
        place.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        &id,
    ];
    lab.runtime(args).run().code(3);
    assert!(pid_file.exists());
}
