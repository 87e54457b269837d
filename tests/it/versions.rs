//! A combination that cannot work says so, and what to do.

use crate::bed::{Bed, Pair};

#[test]
fn a_crun_that_is_too_old_for_the_bundle_is_named_with_the_version_needed() {
    for containerd in ["1.7", "2.1"] {
        let bed = Bed::new(Pair { containerd, runtime: "crun-1.8" });
        let said = bed.run(&["--rm"], "c", &["true"]).finish();
        said.refused(&[
            "ociVersion is 1.2",
            "crun-1.8/crun is 1.8.1",
            "or newer",
            "runc",
            "container c",
        ]);
        bed.leave_nothing();
    }
}

#[test]
fn a_runtime_that_is_missing_is_named_with_what_to_do() {
    let bed = Bed::new(Pair { containerd: "2.1", runtime: "runc-1.1" });
    bed.write("/run/b/nexcage.json", r#"{"runc": {"path": "/run/b/no/runc"}}"#);
    bed.run(&["--rm", "--runtime-config-path", "/run/b/nexcage.json"], "c", &["true"])
        .finish()
        .refused(&["/run/b/no/runc", "install runc", "runc.path"]);
    bed.leave_nothing();
}

#[test]
fn a_setting_that_does_not_exist_is_named() {
    let bed = Bed::new(crate::bed::ANY);
    bed.write("/run/b/nexcage.json", r#"{"default_container_typ": "runc"}"#);
    bed.run(&["--rm", "--runtime-config-path", "/run/b/nexcage.json"], "c", &["true"])
        .finish()
        .refused(&["default_container_typ", "default_container_type", "/run/b/nexcage.json"]);
    bed.leave_nothing();
}
