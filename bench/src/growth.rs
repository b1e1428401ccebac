//! What `run` takes with more of everything: mounts in the bundle and on the host, variables, lines
//! of a profile, layers.

use std::ffi::CString;
use std::fs;

use crate::Wish;
use crate::bundle::{self, Extra, Filter};
use crate::life::{in_turns, milliseconds};
use crate::results::Results;
use crate::runtime::Runtime;
use crate::site::Site;

pub fn measure(wish: &Wish, site: &Site, results: &mut Results) {
    let (steps, rounds): (&[usize], usize) = if wish.quick {
        (&[0, 250, 500], 2)
    } else {
        (&[0, 250, 500, 750, 1000], 8)
    };
    let none = Extra::default();
    // The floor reads no config.
    for &mounts in steps {
        let measure = format!("run with {mounts:04} mounts in the bundle");
        let extra = Extra { mounts, ..none };
        one(site, results, &measure, rounds, extra, |who| {
            !who.is_floor()
        });
    }
    for &variables in &steps[..3] {
        let measure = format!("run with {variables:04} variables");
        let extra = Extra { variables, ..none };
        one(site, results, &measure, rounds, extra, |who| {
            !who.is_floor()
        });
    }
    for calls in [100, 200, 300] {
        let measure = format!("run with {calls:04} calls of the profile");
        let extra = Extra { calls, ..none };
        // runc itself needs more than the first hundreds before it executes the program.
        one(site, results, &measure, rounds, extra, |who| who.is_husk);
    }
    for layers in [1, 20, 40] {
        let measure = format!("run with {layers:04} layers");
        let extra = Extra { layers, ..none };
        one(site, results, &measure, rounds, extra, |who| who.is_husk);
    }
    let mut made = 0;
    for &mounts in steps {
        while made < mounts {
            mount_one(site, made);
            made += 1;
        }
        let measure = format!("run with {mounts:04} mounts on the host");
        one(site, results, &measure, rounds, none, |_| true);
    }
    for index in 0..made {
        let target = CString::new(format!("{}/host/{index}", site.dir.display()));
        if let Ok(target) = target {
            // SAFETY: a string.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn one(
    site: &Site,
    results: &mut Results,
    measure: &str,
    rounds: usize,
    extra: Extra,
    takes_part: fn(&Runtime) -> bool,
) {
    in_turns(results, measure, rounds, |runtime, round, results| {
        if !takes_part(runtime) {
            return Ok(());
        }
        let id = format!("growth-{}", runtime.name);
        let bundle = bundle::make_with(site, &id, "/bin/true", Filter::None, extra);
        let words = ["run", "--bundle", &bundle.to_string_lossy(), &id];
        let time = runtime.time(site, &words);
        let time = time.inspect_err(|_| runtime.forget(site, &id))?;
        if round > 0 {
            results.add(measure, runtime, milliseconds(time));
        }
        Ok(())
    });
}

fn mount_one(site: &Site, index: usize) {
    let target = site.dir.join(format!("host/{index}"));
    let _ = fs::create_dir_all(&target);
    let source = CString::new(site.dir.join("source").to_string_lossy().as_bytes());
    let target = CString::new(target.to_string_lossy().as_bytes());
    let (Ok(source), Ok(target)) = (source, target) else {
        return;
    };
    // SAFETY: strings; a bind mount takes no data.
    unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            c"".as_ptr(),
            libc::MS_BIND,
            std::ptr::null(),
        );
    }
}
