//! `nexcage-init`: the first process inside an LXC guest. It will take its stdio and the process
//! description from the supervisor, wait for the start, apply what LXC cannot, and become the
//! workload by exec. The LXC backends that need it are not built yet, so it refuses to run.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Nothing can be done where even standard error is gone.
    drop(writeln!(
        std::io::stderr(),
        "nexcage-init: this build has no LXC backend yet; use the backend crun or runc"
    ));
    ExitCode::from(70)
}
