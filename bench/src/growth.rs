//! What `run` takes with more mounts: in the bundle, and on the host.

use std::ffi::CString;
use std::fs;

use crate::Wish;
use crate::bundle::{self, Filter};
use crate::life::{in_turns, milliseconds};
use crate::results::Results;
use crate::site::Site;

pub fn measure(wish: &Wish, site: &Site, results: &mut Results) {
    let (steps, rounds): (&[usize], usize) = if wish.quick {
        (&[0, 250], 2)
    } else {
        (&[0, 250, 500, 1000], 8)
    };
    for &mounts in steps {
        let measure = format!("run with {mounts:04} mounts in the bundle");
        // The floor reads no config.
        one(site, results, &measure, rounds, mounts, false);
    }
    let mut made = 0;
    for &mounts in steps {
        while made < mounts {
            mount_one(site, made);
            made += 1;
        }
        let measure = format!("run with {mounts:04} mounts on the host");
        one(site, results, &measure, rounds, 0, true);
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
    mounts: usize,
    floor: bool,
) {
    in_turns(results, measure, rounds, |runtime, round, results| {
        if runtime.is_floor() && !floor {
            return Ok(());
        }
        let id = format!("growth-{}", runtime.name);
        let bundle = bundle::make(site, &id, "/bin/true", Filter::None, mounts);
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
