fn main() -> std::process::ExitCode {
    husk_integration::runner::main()
}
