//! On the machine's own cgroup2 tree, in cgroups with names of their own. As root; otherwise skipped,
//! aloud.

mod attach;
mod lifecycle;
mod limits;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, Uid};

use super::*;

/// A place at the top that no other test has, cleared however the test ends.
struct Top(Place);

impl std::ops::Deref for Top {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0.below
    }
}

impl AsRef<Path> for Top {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(Some(cgroup)) = Cgroup::open(&self.0)
        {
            let _ = cgroup.thaw();
            let _ = cgroup.kill();
            let _ = self.0.remove();
        }
    }
}

fn tree() -> Option<(Hierarchy, Top)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return None;
        }
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let top = Top(Place {
        mount: hierarchy.mount().into(),
        below: format!("husk-test-{}-{number}", std::process::id()).into(),
        made: 0,
        inode: None,
        owner: None,
    });
    Some((hierarchy, top))
}

fn exists(hierarchy: &Hierarchy, below: &Path) -> bool {
    hierarchy.mount().join(below).exists()
}

/// A process that does `script` once it is in the cgroup and told to.
fn spawn_in(cgroup: &Cgroup, script: &str) -> Child {
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cgroup.add(Pid::from_raw(child.id() as i32)).unwrap();
    child
}

fn go(mut child: Child) -> String {
    drop(child.stdin.take());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn paths() {
    for (given, id, expected) in [
        (None, "c1", Ok("husk-c1")),
        (Some(""), "c1", Ok("husk-c1")),
        (Some("/docker/abc"), "c1", Ok("docker/abc")),
        (Some("docker/abc"), "c1", Ok("docker/abc")),
        (Some("one"), "c1", Ok("one")),
        (Some("/a:b:c"), "c1", Ok("a:b:c")),
        (
            Some("system.slice:docker:c1"),
            "c1",
            Ok("system.slice:docker:c1"),
        ),
        (Some("..."), "c1", Ok("...")),
        (Some("/"), "c1", Err("root of the cgroup tree")),
        (Some("/a/../b"), "c1", Err("has an element")),
        (Some("../b"), "c1", Err("has an element")),
        (Some("/a/./b"), "c1", Err("has an element")),
        (Some("/a//b"), "c1", Err("has an empty element")),
        (Some("//a"), "c1", Err("has an empty element")),
        (Some("/a/"), "c1", Err("has an empty element")),
        (Some("/a\nb"), "c1", Err("has a line break or NUL")),
        (Some("/a\0b"), "c1", Err("has a line break or NUL")),
    ] {
        match (path(given, id), expected) {
            (Ok(path), Ok(expected)) => assert_eq!(path, Path::new(expected), "{given:?}"),
            (Err(error), Err(part)) => {
                assert_eq!(error.pointer(), Some("/linux/cgroupsPath"), "{given:?}");
                assert!(error.to_string().contains(part), "{given:?}: {error}");
            }
            (path, _) => panic!("{given:?}: {path:?}"),
        }
    }
    let long = "x".repeat(256);
    assert!(path(Some(&long), "c1").is_err());
    assert!(path(None, &long).is_err());
}
