//! create, start, state, kill, delete, run, list.

use serde_json::json;

use super::tests;
use crate::lab::Lab;
use crate::output::End;

tests! {
    run_gives_the_exit_status,
    a_container_goes_through_its_whole_life,
}

fn run_gives_the_exit_status(lab: &Lab) {
    lab.run(&lab.bundle().payload("exit 7")).code(7);
}

fn a_container_goes_through_its_whole_life(lab: &Lab) {
    let container = lab.create(&lab.bundle().payload("until 15 3"));
    assert_eq!(container.status(), "created");
    container.start();
    assert_eq!(container.wait_for_lines(1), [json!("ready")]);
    assert_eq!(container.status(), "running");
    container.kill("TERM");
    assert_eq!(container.wait(), End::Code(3));
    assert_eq!(container.status(), "stopped");
    container.delete();
    container.command("state", &[]).run().code(1);
}
