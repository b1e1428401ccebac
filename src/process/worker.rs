//! Who is at work on a container, and the end of what he waits for: hooks, and what those have started.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::Pid;

use crate::error::{Result, Step};
use crate::sys;
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// More than that are nobody's hooks.
const MOST: usize = 4096;

/// A process, by a handle that is no other one's.
#[derive(Debug)]
struct Handle {
    pid: i32,
    pidfd: OwnedFd,
}

impl Handle {
    fn open(pid: i32) -> Option<Handle> {
        let pidfd = pidfd_open(Pid::from_raw(pid)).ok()?;
        Some(Handle { pid, pidfd })
    }

    /// Until then the number was this process's.
    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    fn signal(&self, number: i32) {
        // It may have ended.
        let _ = pidfd_send_signal(self.pidfd.as_fd(), number);
    }

    /// Its children, all of which are there at the same time.
    fn children(&self) -> Vec<Handle> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        let numbers = tasks.into_iter().flatten().flatten().flat_map(|task| {
            let path = task.path().join("children");
            let listed = path.to_str().map(sys::process::children);
            listed.and_then(nix::Result::ok).unwrap_or_default()
        });
        let own = |child: &Handle| parent_of(child.pid) == Some(self.pid);
        let children = numbers.filter_map(Handle::open).filter(own).collect();
        match self.has_ended() {
            true => Vec::new(),
            false => children,
        }
    }
}

/// Field 4 of proc_pid_stat(5).
fn parent_of(pid: i32) -> Option<i32> {
    let text = sys::fd::read_beginning(&format!("/proc/{pid}/stat")).ok()?;
    sys::process::stat_fields(&text)?.nth(1)?.parse().ok()
}

/// Who holds the lock, flock(2), of a file.
#[derive(Debug)]
pub struct Worker {
    process: Handle,
}

impl Worker {
    /// `None` where nobody holds it, or he can't be seen from here.
    pub fn at(file: BorrowedFd) -> Result<Option<Worker>> {
        let own = fstat(file).step("look at", "the lock")?;
        let text = sys::fd::read_whole("/proc/locks").step("read", "/proc/locks")?;
        let text = String::from_utf8_lossy(&text);
        let mut holders = holders(&text, own.st_ino).filter_map(Handle::open);
        // Numbers of files are told from those of other filesystems', and a holder from a later process, by
        // what he has open.
        let process = holders.find(|process| has_open(process.pid, &own));
        Ok(process.map(|process| Worker { process }))
    }

    /// Kills what he has started, and all that this has started. He himself lives to see it, and comes to
    /// his own end; if he was stopped, he goes on.
    pub fn kill_what_he_started(&self) {
        // What is stopped makes no more.
        for process in self.descendants() {
            process.signal(libc::SIGSTOP);
        }
        // From below: whose parent is gone is nobody's that could be found.
        for process in self.descendants().iter().rev() {
            process.signal(libc::SIGKILL);
        }
        self.process.signal(libc::SIGCONT);
    }

    /// Parents before their children; this process isn't among them, should it be one.
    fn descendants(&self) -> Vec<Handle> {
        let own = i32::try_from(std::process::id()).ok();
        let mut found = self.process.children();
        let mut next = 0;
        while next < found.len().min(MOST) {
            let children = found[next].children();
            found.extend(children);
            next += 1;
        }
        found.retain(|process| Some(process.pid) != own);
        found
    }
}

/// From proc_locks(5), those who have a lock of flock(2), and don't wait for one, on a file of that number.
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = i32> {
    locks.lines().filter_map(move |line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        (words.next()? == "FLOCK").then_some(())?;
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
        let number = words.next()?.rsplit(':').next()?;
        (number.parse() == Ok(inode)).then_some(pid)
    })
}

fn has_open(pid: i32, file: &FileStat) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let mut descriptors = descriptors.into_iter().flatten().flatten();
    descriptors.any(|entry| {
        let metadata = std::fs::metadata(entry.path());
        metadata.is_ok_and(|one| one.dev() == file.st_dev && one.ino() == file.st_ino)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 100 00:1a:77 0 EOF
2: FLOCK  ADVISORY  WRITE 200 00:1a:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 300 00:1a:77 0 EOF
3: FLOCK  ADVISORY  READ  400 08:01:77 0 EOF
4: FLOCK  ADVISORY  WRITE 500 00:1a:78 0 EOF
5: FLOCK  ADVISORY  WRITE 0 00:1a:77 0 EOF
6: OFDLCK ADVISORY  WRITE -1 00:1a:77 0 EOF
nonsense
";

    #[test]
    fn holders_of_a_file_are_those_who_do_not_wait() {
        let found: Vec<i32> = holders(LOCKS, 77).collect();
        assert_eq!(found, [200, 400]);
        assert_eq!(holders(LOCKS, 7).count(), 0);
    }

    #[test]
    fn the_holder_is_found_with_his_children_and_theirs() {
        let path = std::env::temp_dir().join(format!("husk-worker-{}", std::process::id()));
        crate::files::replace(&path, b"").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert!(Worker::at(file.as_fd()).unwrap().is_none());
        sys::fd::try_lock(file.as_fd()).unwrap();
        let worker = Worker::at(file.as_fd()).unwrap().unwrap();
        assert_eq!(worker.process.pid, std::process::id() as i32);
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 100 & sleep 100"])
            .spawn()
            .unwrap();
        let handle = Handle::open(child.id() as i32).unwrap();
        let begin = std::time::Instant::now();
        while handle.children().len() < 2 && begin.elapsed().as_secs() < 5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // Other tests of this process may have children, too: those aren't killed here.
        assert_eq!(handle.children().len(), 2);
        let all: Vec<i32> = worker.descendants().iter().map(|one| one.pid).collect();
        for one in handle.children().iter().chain([&handle]) {
            assert!(all.contains(&one.pid));
            one.signal(libc::SIGKILL);
        }
        child.wait().unwrap();
        assert!(handle.has_ended());
        assert!(handle.children().is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
