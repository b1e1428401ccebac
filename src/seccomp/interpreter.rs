//! Classic BPF as seccomp runs it: for tests, and to tell what a filter costs.

use libc::sock_filter;

/// `struct seccomp_data`, with its arguments as numbers.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub arch: u32,
    pub number: u32,
    pub args: [u64; 6],
    pub is_big_endian: bool,
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        assert!(
            offset.is_multiple_of(4) && offset < 64,
            "load from offset {offset}"
        );
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            _ => {
                let arg = self.args[(offset as usize - 16) / 8];
                let is_upper = (offset % 8 == 4) != self.is_big_endian;
                if is_upper {
                    (arg >> 32) as u32
                } else {
                    arg as u32
                }
            }
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub value: u32,
    /// How many instructions ran.
    pub steps: usize,
    /// Whether an argument was looked at: the kernel's action bitmap can't cover such calls.
    pub saw_arguments: bool,
}

/// Runs `program`; panics where the kernel would have refused to load it.
pub fn run(program: &[sock_filter], call: &Call) -> Outcome {
    let (mut at, mut a, mut x) = (0, 0_u32, 0_u32);
    let mut memory = [0_u32; 16];
    let mut outcome = Outcome {
        value: 0,
        steps: 0,
        saw_arguments: false,
    };
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        outcome.steps += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                outcome.saw_arguments |= k >= 16;
                a = call.word(k);
            }
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x07 => x = a,
            0x87 => a = x,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x06 => {
                outcome.value = k;
                return outcome;
            }
            other => panic!("instruction {other:#x} at {}", at - 1),
        }
    }
}

/// What the kernel asks of a program before it takes it (bpf_check_classic, seccomp_check_filter), as far
/// as husk writes such instructions: every jump lands inside, loads are words of `seccomp_data`, and the
/// last instruction returns.
pub fn assert_loadable(program: &[sock_filter]) {
    const BPF_MAXINSNS: usize = 4096;
    assert!(
        program.len() <= BPF_MAXINSNS,
        "{} instructions",
        program.len()
    );
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code {
            0x05 => Some(instruction.k as usize),
            code if code & 7 == 5 => Some(usize::from(instruction.jt.max(instruction.jf))),
            _ => None,
        };
        assert!(
            furthest.is_none_or(|skipped| at + 1 + skipped < program.len()),
            "a jump from {at}"
        );
        let is_load = instruction.code == 0x20;
        assert!(
            !is_load || instruction.k.is_multiple_of(4) && instruction.k < 64,
            "a load at {at}"
        );
    }
    assert_eq!(
        program.last().map(|last| last.code),
        Some(0x06),
        "no return at the end"
    );
}
