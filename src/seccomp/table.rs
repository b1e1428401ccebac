//! Names of system calls to their numbers.
//!
//! `syscalls.tbl` (its head says where it comes from) is parsed at compile time into
//! tables without a single pointer: nothing to relocate when the program starts, and a
//! lookup is a hash, one comparison and one row for all ABIs.

use super::arch::Arch;

const TEXT: &[u8] = include_bytes!("syscalls.tbl");
const COLUMNS: usize = Arch::ALL.len();
const ROWS: usize = measure().0;
const NAME_BYTES: usize = measure().1;
const BUCKETS: usize = 1024;
const ABSENT: u16 = u16::MAX;

/// Numbers below this are their own slot. The largest known is x32's 547.
const PRIVATE_SLOT: u16 = 568;
/// Where ARM's private calls begin (__ARM_NR_BASE); they take the slots after the others.
const PRIVATE_NUMBER: u32 = 0xf_0000;
/// How many slots there are.
pub const SLOTS: usize = PRIVATE_SLOT as usize + 8;

static TABLE: Table = Table::parse();

struct Table {
    names: [u8; NAME_BYTES],
    ends: [u16; ROWS],
    slots: [[u16; COLUMNS]; ROWS],
    buckets: [u16; BUCKETS],
    parts: [u8; ROWS],
}

/// Calls that socketcall(2) hides, by its first argument from 1 on (linux/net.h, SYS_*).
const SOCKETCALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// Calls that ipc(2) hides, with its first argument (linux/ipc.h).
const IPC_CALLS: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];
const IPC: u8 = 0x80;

/// A call's number in dense form: an index below [`SLOTS`], in the order of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn at(index: usize) -> Slot {
        Slot(index as u16)
    }

    /// The number as the kernel sees it, without x32's bit.
    pub fn number(self) -> u32 {
        if self.is_private() {
            PRIVATE_NUMBER + u32::from(self.0 - PRIVATE_SLOT)
        } else {
            u32::from(self.0)
        }
    }

    /// ARM's private calls: outside of the numbers that grow with each kernel.
    pub fn is_private(self) -> bool {
        self.0 >= PRIVATE_SLOT
    }
}

/// A name's row: its number on each ABI that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syscall(u16);

impl Syscall {
    pub fn named(name: &str) -> Option<Syscall> {
        let mut bucket = hash(name.as_bytes()) as usize % BUCKETS;
        loop {
            let row = TABLE.buckets[bucket];
            if row == ABSENT {
                return None;
            }
            if Syscall(row).name() == name.as_bytes() {
                return Some(Syscall(row));
            }
            bucket = (bucket + 1) % BUCKETS;
        }
    }

    pub fn on(self, arch: Arch) -> Option<Slot> {
        let slot = TABLE.slots[usize::from(self.0)][arch as usize];
        (slot != ABSENT).then_some(Slot(slot))
    }

    /// The multiplexer that hides this call where [`Arch::has_multiplexers`], and the first
    /// argument that stands for it there.
    pub fn part_of(self) -> Option<(&'static str, u64)> {
        match TABLE.parts[usize::from(self.0)] {
            0 => None,
            part if part & IPC != 0 => Some(("ipc", u64::from(part & !IPC))),
            part => Some(("socketcall", u64::from(part))),
        }
    }

    fn name(self) -> &'static [u8] {
        let row = usize::from(self.0);
        let start = if row == 0 { 0 } else { TABLE.ends[row - 1] };
        &TABLE.names[usize::from(start)..usize::from(TABLE.ends[row])]
    }
}

/// Every known name, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    (0..ROWS as u16).filter_map(|row| std::str::from_utf8(Syscall(row).name()).ok())
}

/// FNV-1a.
const fn hash(name: &[u8]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash ^ (hash >> 15)
}

/// Steps over the comment and the header line.
const fn first_row() -> usize {
    let mut at = 0;
    while TEXT[at] == b'#' {
        at = end_of_line(at) + 1;
    }
    end_of_line(at) + 1
}

const fn end_of_line(mut at: usize) -> usize {
    while TEXT[at] != b'\n' {
        at += 1;
    }
    at
}

const fn end_of_field(mut at: usize) -> usize {
    while TEXT[at] != b'\t' && TEXT[at] != b'\n' {
        at += 1;
    }
    at
}

/// How many rows there are, and how many bytes their names have.
const fn measure() -> (usize, usize) {
    let (mut rows, mut bytes, mut at) = (0, 0, first_row());
    while at < TEXT.len() {
        bytes += end_of_field(at) - at;
        rows += 1;
        at = end_of_line(at) + 1;
    }
    (rows, bytes)
}

const fn slot(start: usize, end: usize) -> u16 {
    if TEXT[start] == b'-' {
        return ABSENT;
    }
    let (mut number, mut at) = (0, start);
    while at < end {
        number = number * 10 + (TEXT[at] - b'0') as u32;
        at += 1;
    }
    if number < PRIVATE_SLOT as u32 {
        return number as u16;
    }
    let slot = PRIVATE_SLOT as u32 + number - PRIVATE_NUMBER;
    assert!(slot < SLOTS as u32);
    slot as u16
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

const fn part(name: &[u8]) -> u8 {
    let mut i = 0;
    while i < SOCKETCALLS.len() {
        if same(name, SOCKETCALLS[i].as_bytes()) {
            return i as u8 + 1;
        }
        i += 1;
    }
    i = 0;
    while i < IPC_CALLS.len() {
        if same(name, IPC_CALLS[i].0.as_bytes()) {
            return IPC_CALLS[i].1 | IPC;
        }
        i += 1;
    }
    0
}

impl Table {
    const fn parse() -> Table {
        let mut table = Table {
            names: [0; NAME_BYTES],
            ends: [0; ROWS],
            slots: [[ABSENT; COLUMNS]; ROWS],
            buckets: [ABSENT; BUCKETS],
            parts: [0; ROWS],
        };
        let (mut row, mut used, mut at) = (0, 0, first_row());
        while row < ROWS {
            let end = end_of_field(at);
            let (_, rest) = TEXT.split_at(at);
            let (name, _) = rest.split_at(end - at);
            let mut bucket = hash(name) as usize % BUCKETS;
            while table.buckets[bucket] != ABSENT {
                bucket = (bucket + 1) % BUCKETS;
            }
            table.buckets[bucket] = row as u16;
            while at < end {
                table.names[used] = TEXT[at];
                used += 1;
                at += 1;
            }
            table.ends[row] = used as u16;
            table.parts[row] = part(name);
            let mut column = 0;
            while column < COLUMNS {
                let end = end_of_field(at + 1);
                table.slots[row][column] = slot(at + 1, end);
                at = end;
                column += 1;
            }
            assert!(TEXT[at] == b'\n');
            at += 1;
            row += 1;
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, arch: Arch) -> Option<u32> {
        Syscall::named(name)?.on(arch).map(Slot::number)
    }

    #[test]
    fn columns_stand_in_the_order_of_the_abis() {
        let header = std::str::from_utf8(TEXT).unwrap();
        let header = header.lines().find(|line| !line.starts_with('#')).unwrap();
        let columns: Vec<String> = Arch::ALL
            .iter()
            .map(|arch| format!("{arch:?}").to_lowercase())
            .collect();
        assert_eq!(header, format!("name\t{}", columns.join("\t")));
        for (i, arch) in Arch::ALL.into_iter().enumerate() {
            assert_eq!(arch as usize, i);
        }
    }

    #[test]
    fn numbers_of_this_machine_are_those_of_libc() {
        let native = Arch::native().unwrap();
        for (name, number_of) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("personality", libc::SYS_personality),
            ("mseal", libc::SYS_mseal),
            ("seccomp", libc::SYS_seccomp),
        ] {
            assert_eq!(
                number(name, native).map(i64::from),
                Some(number_of),
                "{name}"
            );
        }
    }

    #[test]
    fn well_known_numbers() {
        for (name, arch, expected) in [
            ("read", Arch::X86_64, Some(0)),
            ("socket", Arch::X86, Some(359)),
            ("socketcall", Arch::X86, Some(102)),
            ("socketcall", Arch::X86_64, None),
            ("rt_sigaction", Arch::X32, Some(512)),
            ("newfstatat", Arch::Aarch64, Some(79)),
            ("renameat", Arch::Riscv64, None),
            ("clone", Arch::S390x, Some(120)),
            ("set_tls", Arch::Arm, Some(0xf_0005)),
            ("chown32", Arch::S390, Some(212)),
            ("rtas", Arch::Ppc64le, Some(255)),
            ("memfd_secret", Arch::Loongarch64, None),
            ("listns", Arch::Loongarch64, Some(470)),
            ("send", Arch::X86, None),
        ] {
            assert_eq!(number(name, arch), expected, "{name} on {arch:?}");
        }
        assert_eq!(Syscall::named("reed"), None);
        assert_eq!(Syscall::named(""), None);
    }

    #[test]
    fn multiplexed_calls_know_their_part() {
        for (name, part) in [
            ("socket", Some(("socketcall", 1))),
            ("sendmmsg", Some(("socketcall", 20))),
            ("shmctl", Some(("ipc", 24))),
            ("socketcall", None),
            ("read", None),
        ] {
            assert_eq!(Syscall::named(name).unwrap().part_of(), part, "{name}");
        }
        let known = names().filter(|name| Syscall::named(name).unwrap().part_of().is_some());
        assert_eq!(known.count(), SOCKETCALLS.len() + IPC_CALLS.len());
    }

    #[test]
    fn every_name_finds_its_own_row() {
        let all: Vec<&str> = names().collect();
        assert_eq!(all.len(), ROWS);
        assert!(all.is_sorted());
        for (row, name) in all.iter().enumerate() {
            assert_eq!(Syscall::named(name), Some(Syscall(row as u16)));
        }
    }

    #[test]
    fn a_number_has_one_name_but_for_known_twins() {
        for arch in Arch::ALL {
            let mut seen = std::collections::HashMap::new();
            for name in names() {
                let Some(number) = number(name, arch) else {
                    continue;
                };
                if let Some(twin) = seen.insert(number, name) {
                    let pair = [twin, name];
                    assert_eq!(
                        pair,
                        ["arm_sync_file_range", "sync_file_range2"],
                        "{arch:?}"
                    );
                }
            }
        }
    }
}
