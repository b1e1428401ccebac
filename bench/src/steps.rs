//! Instructions of a command and of all processes that it makes, one by one: the debugger's way, which
//! needs no counters of the processor's, knows every system call, and says the same on a busy machine.

use std::collections::BTreeMap;
use std::io;

use crate::bundle::{self, Filter};
use crate::debugger::{Debugger, follow};
use crate::runtime::{Runtime, wait_for};
use crate::site::Site;

/// Instructions by command: what a container's life takes in one, and what is done to one that runs.
pub fn of(site: &Site, runtime: &Runtime) -> Result<BTreeMap<String, u64>, String> {
    let walk = |words: &[&str]| walk(site, runtime, words);
    let mut all = BTreeMap::new();
    let id = format!("steps-{}", runtime.name);
    for (name, filter) in [("run", Filter::None), ("docker run", Filter::Docker)] {
        let bundle = bundle::make(site, &id, "/bin/true", filter);
        let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
        all.insert(name.to_owned(), walk(&words)?);
    }
    let bundle = bundle::make(site, &id, "/bin/pause", Filter::None);
    let (_, pid) = runtime.create(site, &bundle, &id)?;
    all.insert("start".into(), walk(&["start", &id])?);
    let commands: [(&str, &[&str]); 4] = [
        ("exec", &["exec", &id, "/bin/true"]),
        ("state", &["state", &id]),
        ("list", &["list"]),
        ("kill", &["kill", &id, "KILL"]),
    ];
    for (name, words) in commands {
        all.insert(name.into(), walk(words)?);
    }
    wait_for(pid);
    all.insert("delete".into(), walk(&["delete", &id])?);
    Ok(all)
}

/// Counts.
struct Steps(u64);

impl Debugger for Steps {
    const RESUME: i64 = libc::PTRACE_SINGLESTEP as i64;

    fn begun(&mut self, _: i32, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn trapped(&mut self, _: i32) -> io::Result<()> {
        self.0 += 1;
        Ok(())
    }
}

fn walk(site: &Site, runtime: &Runtime, words: &[&str]) -> Result<u64, String> {
    let mut steps = Steps(0);
    follow(site, runtime, words, &mut steps)?;
    Ok(steps.0)
}
