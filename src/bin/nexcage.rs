//! `nexcage`: the command line.

fn main() -> std::process::ExitCode {
    nexcage::cli::main()
}
