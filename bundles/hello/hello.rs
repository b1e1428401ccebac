//! The only file of its container.

fn main() {
    println!(
        "Hello from process {} of a container that holds one file, {}.",
        std::process::id(),
        std::env::args().next().unwrap_or_default()
    );
}
