//! Operations on files and mounts.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::mount::MsFlags;
use serde_json::{Value, json};

type Outcome = io::Result<Value>;

/// `None` when `name` is none of these operations.
pub fn perform(name: &str, args: &[&str]) -> Option<Outcome> {
    Some(match (name, args) {
        ("cat", [path]) => fs::read(path).map(|b| json!(String::from_utf8_lossy(&b))),
        ("write", [path, text]) => write(path, text, fs::OpenOptions::new().write(true)),
        ("create", [path, text]) => write(
            path,
            text,
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true),
        ),
        ("append", [path, text]) => write(path, text, fs::OpenOptions::new().append(true)),
        ("stat", [path]) => fs::symlink_metadata(path).map(|m| metadata(path, &m)),
        ("stat-target", [path]) => fs::metadata(path).map(|m| metadata(path, &m)),
        ("ls", [path]) => ls(path),
        ("find", [path]) => Ok(json!(find(Path::new(path)))),
        ("readlink", [path]) => fs::read_link(path).map(|p| json!(p)),
        ("open", [path, mode]) => open(path, mode),
        ("read-byte", [path]) => read_byte(path),
        ("mkdir", [path]) => fs::create_dir(path).map(|()| json!(true)),
        ("rmdir", [path]) => fs::remove_dir(path).map(|()| json!(true)),
        ("rm", [path]) => fs::remove_file(path).map(|()| json!(true)),
        ("rm-all", [path]) => fs::remove_dir_all(path).map(|()| json!(true)),
        ("rename", [from, to]) => fs::rename(from, to).map(|()| json!(true)),
        ("link", [from, to]) => fs::hard_link(from, to).map(|()| json!(true)),
        ("symlink", [target, path]) => {
            std::os::unix::fs::symlink(target, path).map(|()| json!(true))
        }
        ("chmod", [path, mode]) => chmod(path, mode),
        ("chown", [path, uid, gid]) => chown(path, uid, gid),
        ("mknod", [path, kind, major, minor]) => mknod(path, kind, major, minor),
        ("getxattr", [path, name]) => getxattr(path, name),
        ("statfs", [path]) => statfs(path),
        ("mount", [source, target, kind, flags]) => mount(source, target, kind, flags),
        ("umount", [target]) => nix::mount::umount(*target)
            .map(|()| json!(true))
            .map_err(Into::into),
        ("chroot", [path]) => nix::unistd::chroot(*path)
            .map(|()| json!(true))
            .map_err(Into::into),
        ("chdir", [path]) => std::env::set_current_dir(path).map(|()| json!(true)),
        ("exec-file", [path]) => std::process::Command::new(path)
            .status()
            .map(|s| json!(s.code())),
        _ => return None,
    })
}

fn write(path: &str, text: &str, how: &mut fs::OpenOptions) -> Outcome {
    how.open(path)?.write_all(text.as_bytes())?;
    Ok(json!(true))
}

fn metadata(path: &str, meta: &fs::Metadata) -> Value {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "dir",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () => "socket",
    };
    let mtime = meta.mtime();
    json!({
        "path": path,
        "type": kind,
        "mode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size": meta.size(),
        "nlink": meta.nlink(),
        "ino": meta.ino(),
        "dev": meta.dev(),
        "atime": [meta.atime(), meta.atime_nsec()],
        "mtime": mtime,
        "major": libc::major(meta.rdev()),
        "minor": libc::minor(meta.rdev()),
    })
}

fn ls(path: &str) -> Outcome {
    let mut names = fs::read_dir(path)?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(json!(names))
}

/// Every path below `path` on the same filesystem.
fn find(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(top) = fs::symlink_metadata(path) else {
        return found;
    };
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            found.push(entry.path().to_string_lossy().into_owned());
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn open(path: &str, mode: &str) -> Outcome {
    let mut how = fs::OpenOptions::new();
    how.read(mode.contains('r')).write(mode.contains('w'));
    how.open(path).map(|_| json!(true))
}

fn read_byte(path: &str) -> Outcome {
    use std::io::Read;
    let mut byte = [0u8];
    let count = fs::File::open(path)?.read(&mut byte)?;
    Ok(json!(count))
}

fn chmod(path: &str, mode: &str) -> Outcome {
    let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(json!(true))
}

fn chown(path: &str, uid: &str, gid: &str) -> Outcome {
    let uid = uid.parse().map_err(io::Error::other)?;
    let gid = gid.parse().map_err(io::Error::other)?;
    std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    Ok(json!(true))
}

fn mknod(path: &str, kind: &str, major: &str, minor: &str) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let device = makedev(
        major.parse().map_err(io::Error::other)?,
        minor.parse().map_err(io::Error::other)?,
    );
    mknod(path, kind, Mode::from_bits_truncate(0o666), device)?;
    Ok(json!(true))
}

fn getxattr(path: &str, name: &str) -> Outcome {
    let path = CString::new(path).map_err(io::Error::other)?;
    let name = CString::new(name).map_err(io::Error::other)?;
    let mut value = [0u8; 256];
    // SAFETY: both strings end in NUL, and the buffer is as long as it says.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => Ok(json!(String::from_utf8_lossy(&value[..length]))),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn statfs(path: &str) -> Outcome {
    let path = CString::new(path).map_err(io::Error::other)?;
    // SAFETY: all zeroes is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL and `stat` is valid for the call to fill in.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(json!({
        "magic": format!("{:#x}", stat.f_type),
        "blocks": stat.f_blocks,
        "block_size": stat.f_bsize,
    }))
}

fn mount(source: &str, target: &str, kind: &str, flags: &str) -> Outcome {
    let flags = flags.split(',').fold(MsFlags::empty(), |all, name| {
        all | match name {
            "bind" => MsFlags::MS_BIND,
            "remount" => MsFlags::MS_REMOUNT,
            "ro" => MsFlags::MS_RDONLY,
            "rec" => MsFlags::MS_REC,
            "shared" => MsFlags::MS_SHARED,
            _ => MsFlags::empty(),
        }
    });
    nix::mount::mount(Some(source), target, Some(kind), flags, None::<&str>)?;
    Ok(json!(true))
}
