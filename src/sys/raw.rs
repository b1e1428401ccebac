//! System calls by the instruction alone, for code that must leave the C library's `errno` to others.

/// Whether [`call`] knows this processor.
pub const KNOWN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// The call's result, or the errno, negated.
///
/// # Safety
/// As of the call with these arguments.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> isize {
    let result;
    let [first, second, third, fourth] = arguments;
    // SAFETY: the kernel's convention: it changes rax, rcx and r11, and what the arguments point to.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The call's result, or the errno, negated.
///
/// # Safety
/// As of the call with these arguments.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> isize {
    let result;
    let [first, second, third, fourth] = arguments;
    // SAFETY: the kernel's convention: it changes x0, and what the arguments point to.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first as isize => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub unsafe fn call(_: libc::c_long, _: [usize; 4]) -> isize {
    -(libc::ENOSYS as isize)
}
