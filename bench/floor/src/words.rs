//! Lines without an allocator, and the end.

use core::ffi::{CStr, c_int};

pub struct Line {
    bytes: [u8; 1024],
    used: usize,
}

impl Line {
    pub fn new() -> Self {
        Line {
            bytes: [0; 1024],
            used: 0,
        }
    }

    pub fn text(mut self, text: &CStr) -> Self {
        for byte in text.to_bytes() {
            self.push(*byte);
        }
        self
    }

    pub fn number(mut self, number: u64) -> Self {
        let mut divisor = 1;
        while number / divisor > 9 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.push(b'0' + (number / divisor % 10) as u8);
            divisor /= 10;
        }
        self
    }

    pub fn end(mut self) -> Self {
        self.push(b'\n');
        self
    }

    fn push(&mut self, byte: u8) {
        // The last one stays 0.
        if self.used + 1 < self.bytes.len() {
            self.bytes[self.used] = byte;
            self.used += 1;
        }
    }

    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    pub fn write_to(&self, fd: c_int) {
        // SAFETY: the bytes are valid for the call to read.
        unsafe { libc::write(fd, self.bytes.as_ptr().cast(), self.used) };
    }
}

/// The number at the beginning of these bytes.
pub fn parse(bytes: &[u8]) -> i32 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + i32::from(digit - b'0'))
}

/// Ends with the step and errno's number on standard error.
pub fn die(step: &CStr) -> ! {
    // SAFETY: the C library's errno of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let line = Line::new().text(c"floor: ").text(step).text(c": errno ");
    line.number(errno as u64).end().write_to(2);
    // SAFETY: ends the process.
    unsafe { libc::_exit(1) }
}

/// A system call's result, or the end.
pub fn must(step: &CStr, result: impl Into<i64>) -> i64 {
    let result = result.into();
    if result < 0 {
        die(step);
    }
    result
}
