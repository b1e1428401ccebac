//! The ABIs that a filter can tell apart, and which of them one machine can run.

use oci_spec::runtime::Arch as OciArch;

/// A system call ABI. The order is that of the columns of `syscalls.tbl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    S390x,
    S390,
    Ppc64le,
    Loongarch64,
}

/// The ABIs that one kernel can serve: what one filter has to answer.
#[derive(PartialEq, Eq)]
enum Family {
    X86,
    Arm,
    Riscv,
    S390,
    Ppc,
    Loongarch,
}

impl Arch {
    pub const ALL: [Arch; 10] = [
        Arch::X86_64,
        Arch::X86,
        Arch::X32,
        Arch::Aarch64,
        Arch::Arm,
        Arch::Riscv64,
        Arch::S390x,
        Arch::S390,
        Arch::Ppc64le,
        Arch::Loongarch64,
    ];

    /// The ABI of this very program, where there is a table for it.
    pub const fn native() -> Option<Arch> {
        if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else if cfg!(target_arch = "riscv64") {
            Some(Arch::Riscv64)
        } else if cfg!(target_arch = "s390x") {
            Some(Arch::S390x)
        } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
            Some(Arch::Ppc64le)
        } else if cfg!(target_arch = "loongarch64") {
            Some(Arch::Loongarch64)
        } else if cfg!(target_arch = "x86") {
            Some(Arch::X86)
        } else if cfg!(target_arch = "arm") {
            Some(Arch::Arm)
        } else {
            None
        }
    }

    /// The ABI that config.json names, where there is a table for it.
    pub fn from_oci(name: OciArch, native: Arch) -> Option<Arch> {
        Some(match name {
            OciArch::ScmpArchNative => native,
            OciArch::ScmpArchX86_64 => Arch::X86_64,
            OciArch::ScmpArchX86 => Arch::X86,
            OciArch::ScmpArchX32 => Arch::X32,
            OciArch::ScmpArchAarch64 => Arch::Aarch64,
            OciArch::ScmpArchArm => Arch::Arm,
            OciArch::ScmpArchRiscv64 => Arch::Riscv64,
            OciArch::ScmpArchS390x => Arch::S390x,
            OciArch::ScmpArchS390 => Arch::S390,
            OciArch::ScmpArchPpc64le => Arch::Ppc64le,
            OciArch::ScmpArchLoongarch64 => Arch::Loongarch64,
            _ => return None,
        })
    }

    /// As config.json and people call it, without SCMP_ARCH_.
    pub const fn name(self) -> &'static str {
        match self {
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

    /// As Go calls the machines of which this is the native ABI; engines' profiles do so.
    pub const fn go_name(self) -> &'static str {
        match self {
            Arch::X86_64 | Arch::X32 => "amd64",
            Arch::X86 => "386",
            Arch::Aarch64 => "arm64",
            Arch::Loongarch64 => "loong64",
            Arch::S390x | Arch::S390 => "s390x",
            other => other.name(),
        }
    }

    /// What the kernel puts into `seccomp_data.arch` (AUDIT_ARCH_*, linux/audit.h).
    /// x86_64 and x32 share one value; the call's number tells them apart.
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
            Arch::S390x => 0x8000_0016,
            Arch::S390 => 0x0000_0016,
            Arch::Ppc64le => 0xc000_0015,
            Arch::Loongarch64 => 0xc000_0102,
        }
    }

    /// Whether a kernel that runs `self` can also run programs of the ABI `other`.
    pub fn may_meet(self, other: Arch) -> bool {
        self.family() == other.family()
    }

    fn family(self) -> Family {
        match self {
            Arch::X86_64 | Arch::X86 | Arch::X32 => Family::X86,
            Arch::Aarch64 | Arch::Arm => Family::Arm,
            Arch::Riscv64 => Family::Riscv,
            Arch::S390x | Arch::S390 => Family::S390,
            Arch::Ppc64le => Family::Ppc,
            Arch::Loongarch64 => Family::Loongarch,
        }
    }

    /// Whether all 64 bits of an argument count. x32 passes 32, as libseccomp has it.
    pub const fn is_wide(self) -> bool {
        !matches!(self, Arch::X86 | Arch::X32 | Arch::Arm | Arch::S390)
    }

    /// Decides which half of `seccomp_data.args[n]` comes first.
    pub const fn is_big_endian(self) -> bool {
        matches!(self, Arch::S390x | Arch::S390)
    }

    /// Whether socketcall(2) and ipc(2) exist, which hide other calls in their first argument.
    pub const fn has_multiplexers(self) -> bool {
        matches!(self, Arch::X86 | Arch::S390 | Arch::S390x | Arch::Ppc64le)
    }
}
