//! `--pidfd-socket`: who listens gets a handle to the process that can't become another's.

use std::os::fd::{AsRawFd, OwnedFd};

use super::tests;
use crate::lab::Lab;
use crate::output::End;
use crate::receiver::Receiver;

tests! {
    create_sends_a_pidfd_of_the_first_process,
    run_sends_one_too,
    exec_sends_one_of_its_process,
    a_pidfd_socket_without_a_listener_leaves_nothing,
}

/// `Pid:` of the pidfd's fdinfo, proc_pid_fdinfo(5).
fn pid_of(pidfd: &OwnedFd) -> i32 {
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(info).unwrap();
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.expect("a pidfd").trim().parse().unwrap()
}

fn kill(pidfd: &OwnedFd) {
    let signal = libc::c_long::from(libc::SIGTERM);
    let pidfd = libc::c_long::from(pidfd.as_raw_fd());
    // SAFETY: the call takes numbers, and a null siginfo.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, 0, 0) };
    assert_eq!(sent, 0);
}

fn create_sends_a_pidfd_of_the_first_process(lab: &Lab) {
    let socket = Receiver::new(&lab.path("pidfd"));
    let bundle = lab.bundle().payload("until 15 7");
    let container = lab.create_with(&bundle, &["--pidfd-socket", socket.path()]);
    let (pidfd, text) = socket.receive();
    assert_eq!(text, "standard");
    assert_eq!(pid_of(&pidfd), container.pid());
    container.start();
    container.wait_for_lines(1);
    kill(&pidfd);
    assert_eq!(container.wait(), End::Code(7));
    container.delete();
}

fn run_sends_one_too(lab: &Lab) {
    for detach in [false, true] {
        let socket = Receiver::new(&lab.path("pidfd"));
        let bundle = lab.bundle().payload("until 15 7");
        let id = lab.id();
        let options = ["--detach", "--pidfd-socket", socket.path()];
        let options = &options[usize::from(!detach)..];
        let mut run = lab.on_bundle("run", &bundle, options, &id).spawn();
        let (pidfd, text) = socket.receive();
        assert_eq!(text, "standard");
        assert!(crate::lab::eventually(|| run.stdout().contains("ready")));
        kill(&pidfd);
        match detach {
            true => {
                run.wait().ok();
                assert_eq!(crate::lab::wait_for_child(pid_of(&pidfd)), End::Code(7));
                lab.runtime(["delete", &id]).run().ok();
            }
            false => drop(run.wait().code(7)),
        }
    }
}

fn exec_sends_one_of_its_process(lab: &Lab) {
    let container = lab.start(&lab.bundle().payload("pause"));
    let socket = Receiver::new(&lab.path("pidfd"));
    let file = lab.path("pid");
    let options = [
        "--pidfd-socket",
        socket.path(),
        "--pid-file",
        file.to_str().unwrap(),
    ];
    let mut exec = container
        .exec_with(&options, "/bin/payload until 15 9")
        .spawn();
    let (pidfd, text) = socket.receive();
    assert_eq!(text, "setns");
    assert!(crate::lab::eventually(|| exec.stdout().contains("ready")));
    let pid = std::fs::read_to_string(file).unwrap();
    assert_eq!(pid_of(&pidfd).to_string(), pid);
    kill(&pidfd);
    exec.wait().code(9);
    container.end();
}

fn a_pidfd_socket_without_a_listener_leaves_nothing(lab: &Lab) {
    let nobody = lab.path("nobody");
    let options = ["--pidfd-socket", nobody.to_str().unwrap()];
    lab.run_with(&lab.bundle(), &options)
        .run()
        .refused()
        .says("pidfd socket")
        .says("no such file or directory");
}
