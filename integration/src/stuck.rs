//! A FUSE filesystem that tells of its root and of nothing else: who looks something up in it waits in the
//! kernel, and no signal ends that (state D), until this is gone.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::sys;

pub struct Stuck {
    pub path: PathBuf,
    server: Option<JoinHandle<()>>,
    end: Arc<AtomicBool>,
    waiting: Arc<AtomicBool>,
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

impl Stuck {
    pub fn mount(path: &Path) -> std::io::Result<Stuck> {
        fs::create_dir(path)?;
        let mut options = File::options();
        let device = options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/fuse")?;
        let words = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("stuck"),
            path,
            Some("fuse"),
            flags,
            Some(words.as_str()),
        )?;
        let (end, waiting) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (its_end, its_waiting) = (end.clone(), waiting.clone());
        let server = std::thread::spawn(move || serve(device, &its_end, &its_waiting));
        Ok(Stuck {
            path: path.to_owned(),
            server: Some(server),
            end,
            waiting,
        })
    }

    /// Whether somebody has looked something up.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // With the device's descriptor all that waits comes to its end.
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn serve(mut device: File, end: &AtomicBool, waiting: &AtomicBool) {
    let mut buffer = vec![0; 1 << 17];
    while !end.load(Ordering::SeqCst) {
        if !sys::readable(&device, Duration::from_millis(20)).unwrap_or(false) {
            continue;
        }
        let Ok(count) = device.read(&mut buffer) else {
            continue;
        };
        let word = |at: usize| u32::from_le_bytes(buffer[at..at + 4].try_into().unwrap());
        if count < 40 {
            continue;
        }
        let mut answer = match word(4) {
            LOOKUP => {
                waiting.store(true, Ordering::SeqCst);
                continue;
            }
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => init(),
            GETATTR => attributes(),
            _ => Vec::new(),
        };
        let error = if answer.is_empty() { -libc::ENOSYS } else { 0 };
        let mut message = ((16 + answer.len()) as u32).to_le_bytes().to_vec();
        message.extend(error.to_le_bytes());
        message.extend(&buffer[8..16]);
        message.append(&mut answer);
        // Who asked may have given up.
        let _ = device.write(&message);
    }
}

/// fuse_init_out of linux/fuse.h, version 7.31.
fn init() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [7u32, 31, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    // max_background, congestion_threshold
    bytes.extend([16, 0, 12, 0]);
    // max_write
    bytes.extend(4096u32.to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

/// fuse_attr_out: a directory of root's.
fn attributes() -> Vec<u8> {
    let mut bytes = vec![0; 104];
    let mut put = |at: usize, number: u32| bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    // Valid for an hour; inode 1, its mode, two links.
    put(0, 3600);
    put(16, 1);
    put(16 + 60, libc::S_IFDIR | 0o755);
    put(16 + 64, 2);
    bytes
}
