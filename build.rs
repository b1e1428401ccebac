//! Has the linker lay the functions that a container's life takes side by side, as `life.ld` lists them: the
//! kernel maps sixteen pages of a file at each page fault, and keeps them as the process's memory. It leaves
//! no pages aside to be protected once a program has corrected its addresses, which this C library never does to a
//! static one. And has it pack these addresses into a hundredth, in a build that can be loaded anywhere.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=life.ld");
    println!("cargo::rerun-if-env-changed=HUSK_LINK_MAP");
    let of = |name| std::env::var(name).unwrap_or_default();
    if of("PROFILE") == "release" && of("CARGO_CFG_TARGET_OS") == "linux" {
        let root = of("CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{root}/life.ld");
        // For `make order`, which has to see the file as it is released.
        if let Ok(map) = std::env::var("HUSK_LINK_MAP") {
            println!("cargo::rustc-link-arg-bins=-Wl,-Map={map}");
        }
        if of("CARGO_CFG_TARGET_ENV") == "musl" {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,norelro");
            if has_musl_1_2_5() {
                println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
            }
        }
    }
}

/// Rust has brought it along since 1.93; the one before knows nothing of DT_RELR. A linker without the option
/// says so and goes on.
fn has_musl_1_2_5() -> bool {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = text.unwrap_or_default();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.find(|word| !word.is_empty())?.parse::<u32>().ok();
    number() == Some(1) && number() >= Some(93)
}
