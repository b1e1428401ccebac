//! Has the linker lay the functions that a container's life takes side by side, as `life.ld` lists them: the
//! kernel maps sixteen pages of a file at each page fault, and keeps them as the process's memory.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=life.ld");
    let of = |name| std::env::var(name).unwrap_or_default();
    if of("PROFILE") == "release" && of("CARGO_CFG_TARGET_OS") == "linux" {
        let root = of("CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{root}/life.ld");
    }
}
