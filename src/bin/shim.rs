//! `containerd-shim-nexcage-v1`: what containerd starts for `io.containerd.nexcage.v1`.

fn main() -> std::process::ExitCode {
    nexcage::shim::main()
}
