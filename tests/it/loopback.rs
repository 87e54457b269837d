//! The loopback device of a container with a network of its own is up, whatever runs it.

use crate::bed::{Bed, Pair};

#[test]
fn it_is_up_on_every_backend() {
    for runtime in ["crun-1.8", "crun-1.28", "runc-1.1", "lxc", "pct"] {
        let containerd = if runtime == "crun-1.8" { "1.6" } else { "2.1" };
        let bed = Bed::new(Pair { containerd, runtime });
        let script = "cat /sys/class/net/lo/flags; ls /sys/class/net; ip address show lo | grep inet; \
                      nc -l -p 8080 < /etc/passwd > /dev/null & \
                      until nc 127.0.0.1 8080 > /tmp/got 2> /dev/null; do :; done; cmp /tmp/got /etc/passwd";
        let said = bed.run(&["--rm"], "c", &["sh", "-c", script]).finish().good().stdout;
        assert!(said.starts_with("0x9\nlo\n") && said.contains("127.0.0.1/8"), "{runtime}: {said}");
        bed.leave_nothing();
    }
}
