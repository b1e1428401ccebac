//! libseccomp's filter for a profile, made by a helper in C.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use husk::seccomp::Arch;
use husk_integration::bpf::{self, Call};
use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

pub const X32_BIT: u32 = 0x4000_0000;
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp_oracle/oracle.c");

/// The filter that runc would load: libseccomp's, behind runc's own ENOSYS stub.
pub struct Oracle {
    pub program: Vec<sock_filter>,
    /// Names that this libseccomp doesn't know.
    pub unknown: HashSet<String>,
    /// How long libseccomp took to take the rules and to write the program, µs.
    pub spent: f64,
    /// What the names of the profile mean on each architecture.
    numbers: HashMap<(&'static str, u32), HashSet<String>>,
    last: HashMap<&'static str, u32>,
    has_stub: bool,
    native: Arch,
    arches: Vec<Arch>,
}

/// Why there is no filter to compare with.
#[derive(Debug)]
pub enum Refusal {
    /// No compiler, no library, or it is too old for the architecture.
    Missing(String),
    /// libseccomp doesn't take such a profile.
    Profile(String),
}

impl Oracle {
    /// `arches` without `native`; `native` need not be this machine's.
    pub fn new(profile: &LinuxSeccomp, native: Arch, arches: &[Arch]) -> Result<Oracle, Refusal> {
        let helper = helper().as_ref().map_err(|e| Refusal::Missing(e.clone()))?;
        let default = profile.default_action().as_u32(profile.default_errno_ret());
        let mut text = format!("default {default}\nnative {}\n", name_of(native));
        for arch in arches {
            text += &format!("arch {}\n", name_of(*arch));
        }
        for rule in profile.syscalls().iter().flatten() {
            let action = rule.action().as_u32(rule.errno_ret());
            for args in alternatives(rule) {
                for name in rule.names() {
                    text += &format!("rule {action} {name} {}", args.len());
                    for arg in &args {
                        let (op, two) = (arg.op() as u32, arg.value_two().unwrap_or(0));
                        text += &format!(" {} {op} {} {two}", arg.index(), arg.value());
                    }
                    text += "\n";
                }
            }
        }
        let mut child = Command::new(helper)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_string();
        match output.status.code() {
            Some(0) => {}
            Some(2) => return Err(Refusal::Profile(complaint)),
            Some(3) => return Err(Refusal::Missing(format!("{native:?} or {arches:?}"))),
            other => panic!("the helper ended with {other:?}: {complaint}"),
        }
        let marker = b"program\n";
        let at = output
            .stdout
            .windows(marker.len())
            .position(|w| w == marker)
            .unwrap();
        let (head, program) = output.stdout.split_at(at);
        let mut oracle = Oracle {
            program: parse(&program[marker.len()..], native),
            unknown: HashSet::new(),
            spent: 0.0,
            numbers: HashMap::new(),
            last: HashMap::new(),
            has_stub: is_denial(default) && default != 0x5_0026,
            native,
            arches: arches.to_vec(),
        };
        for line in std::str::from_utf8(head).unwrap().lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["last", arch, number] => {
                    let arch = name_of(oracle.abi(arch));
                    oracle.last.insert(arch, number.parse().unwrap());
                }
                ["number", arch, name, number] => {
                    let arch = name_of(oracle.abi(arch));
                    let number = number.parse().unwrap();
                    let names = oracle.numbers.entry((arch, number)).or_default();
                    names.insert(name.into());
                }
                ["unknown", name] => {
                    oracle.unknown.insert(name.into());
                }
                ["spent", spent] => oracle.spent = spent.parse().unwrap(),
                _ => panic!("the helper wrote {line:?}"),
            }
        }
        Ok(oracle)
    }

    pub fn run(&self, call: &Call) -> u32 {
        if self.has_stub && self.is_stubbed(call) {
            return 0x5_0026;
        }
        bpf::run(&self.program, call).value
    }

    /// The names of a call that the profile may use.
    pub fn names(&self, call: &Call) -> HashSet<String> {
        let names = self
            .called(call)
            .and_then(|arch| self.numbers.get(&(name_of(arch), call.number)));
        names.cloned().unwrap_or_default()
    }

    fn abi(&self, name: &str) -> Arch {
        let mut arches = Arch::ALL.into_iter();
        arches.find(|arch| name_of(*arch) == name).unwrap()
    }

    /// The ABI that a call is made through, if it is in the filter.
    fn called(&self, call: &Call) -> Option<Arch> {
        let is_x32 = call.arch == Arch::X32.audit() && call.number & X32_BIT != 0;
        let mut arches = self.arches.iter().chain([&self.native]);
        arches
            .find(|a| a.audit() == call.arch && (**a == Arch::X32) == is_x32)
            .copied()
    }

    /// runc's rule (libcontainer/seccomp/patchbpf): what is beyond all that the profile
    /// names on the ABI doesn't exist.
    fn is_stubbed(&self, call: &Call) -> bool {
        let Some(arch) = self.called(call) else {
            return false;
        };
        let last = self.last[name_of(arch)];
        let is_s390 = matches!(arch, Arch::S390 | Arch::S390x);
        let is_private = arch == Arch::Arm && call.number >= 0xf_0000;
        last != 0 && (call.number > last && !is_private || is_s390 && call.number == 0)
    }
}

fn is_denial(action: u32) -> bool {
    !matches!(
        action & 0xffff_0000,
        0x7fff_0000 | 0x7ffc_0000 | 0x7ff0_0000
    )
}

/// runc's rule: conditions on one and the same argument are rules of their own.
pub fn alternatives(rule: &LinuxSyscall) -> Vec<Vec<LinuxSeccompArg>> {
    let args: Vec<_> = rule.args().iter().flatten().copied().collect();
    let distinct: HashSet<_> = args.iter().map(|arg| arg.index()).collect();
    if distinct.len() == args.len() {
        vec![args]
    } else {
        args.into_iter().map(|arg| vec![arg]).collect()
    }
}

/// The upper halves of SECCOMP_RET_*, but for KILL_THREAD's 0.
const ACTIONS: [u32; 7] = [0x8000, 0x3, 0x5, 0x7fc0, 0x7ff0, 0x7ffc, 0x7fff];

/// libseccomp writes programs in the byte order of the machine that they are for; but, when
/// it isn't that of the machine it runs on, forgets the far returns.
fn parse(bytes: &[u8], native: Arch) -> Vec<sock_filter> {
    let is_big_endian = native.is_big_endian();
    let instructions = bytes.chunks_exact(8).map(|b| {
        let (code, k) = (b[..2].try_into().unwrap(), b[4..].try_into().unwrap());
        let (code, k) = if is_big_endian {
            (u16::from_be_bytes(code), u32::from_be_bytes(k))
        } else {
            (u16::from_le_bytes(code), u32::from_le_bytes(k))
        };
        let is_action = k == 0 || ACTIONS.contains(&(k >> 16));
        let k = if code == 6 && !is_action {
            k.swap_bytes()
        } else {
            k
        };
        sock_filter {
            code,
            jt: b[2],
            jf: b[3],
            k,
        }
    });
    instructions.collect()
}

fn name_of(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::X86 => "x86",
        Arch::X32 => "x32",
        Arch::Aarch64 => "aarch64",
        Arch::Arm => "arm",
        Arch::Riscv64 => "riscv64",
        Arch::S390x => "s390x",
        Arch::S390 => "s390",
        Arch::Ppc64le => "ppc64le",
        Arch::Loongarch64 => "loongarch64",
    }
}

fn helper() -> &'static Result<PathBuf, String> {
    static HELPER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    HELPER.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("seccomp-oracle");
        let output = Command::new("cc")
            .arg("-O2")
            .arg("-o")
            .arg(&path)
            .arg(SOURCE)
            .arg("-lseccomp")
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(path),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("cc: {error}")),
        }
    })
}
