//! eBPF as the kernel runs the programs of this room: for tests and for the fuzzer.

use super::Kind;
use crate::sys::bpf::Instruction;

/// A device and the accesses asked for, `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub kind: Kind,
    pub major: u32,
    pub minor: u32,
    pub access: u8,
}

/// Whether `program` grants the request. Panics at instructions that husk doesn't write, and where the
/// kernel would have refused to load it.
pub fn run(program: &[Instruction], request: Request) -> bool {
    let context = [
        u32::from(request.access) << 16 | request.kind as u32,
        request.major,
        request.minor,
    ];
    let mut registers = [0u64; 11];
    let mut at = 0;
    for _ in 0..100_000 {
        let instruction = program[at];
        let immediate = i64::from(instruction.immediate) as u64;
        let source = usize::from(instruction.registers >> 4);
        let target = usize::from(instruction.registers & 15);
        let value = registers[target];
        at += 1;
        let jump = match instruction.code {
            0x61 => {
                assert_eq!(source, 1, "only the context is read");
                registers[target] = context[instruction.offset as usize / 4].into();
                false
            }
            0xb7 => {
                registers[target] = immediate;
                false
            }
            0xbf => {
                registers[target] = registers[source];
                false
            }
            0x57 => {
                registers[target] = value & immediate;
                false
            }
            0x77 => {
                registers[target] = value >> immediate;
                false
            }
            0x05 => true,
            0x15 => value == immediate,
            0x45 => value & immediate != 0,
            0x16 => value as u32 == immediate as u32,
            0x56 => value as u32 != immediate as u32,
            0x95 => return registers[0] == 1,
            other => panic!("unknown instruction {other:#x}"),
        };
        if jump {
            assert!(instruction.offset >= 0, "no loops");
            at += instruction.offset as usize;
        }
    }
    panic!("no end");
}

/// The first instruction that no path reaches: the verifier refuses a program with one.
pub fn unreachable(program: &[Instruction]) -> Option<usize> {
    let mut reached = vec![false; program.len()];
    let mut pending = vec![0];
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let target = (at + 1).wrapping_add_signed(program[at].offset.into());
        match program[at].code {
            0x95 => {}
            0x05 => pending.push(target),
            0x15 | 0x45 | 0x16 | 0x56 => pending.extend([at + 1, target]),
            _ => pending.push(at + 1),
        }
    }
    reached.iter().position(|reached| !reached)
}
