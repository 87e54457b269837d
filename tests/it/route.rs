//! Which backend a container gets, and which containers get none.

use crate::support::task::Refused;
use crate::support::{Bundle, Scene, proc};
use protobuf::MessageField;
use serde_json::{Value, json};
use std::fs;
use ttrpc::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn backend(scene: &Scene, id: &str) -> String {
    let record = fs::read(format!("/run/nexcage/{}/{id}/state.json", scene.namespace)).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    record["io.nexcage"]["backend"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn rules_choose_by_name_and_image_and_namespace() {
    let scene = Scene::new();
    let runc = crate::support::bed::runc();
    let rules = r#"
        runc.path = "@RUNC@"
        [[routing]]
        backend = "runc"
        image = "docker.io/*/nginx:*"
        namespace = "shop"
        [[routing]]
        backend = "lxc"
        name = ["db-*", "cache"]
    "#
    .replace("@RUNC@", runc.to_str().unwrap());
    let pod = json!({
        "io.kubernetes.cri.image-name": "docker.io/library/nginx:1.29",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    });
    for (id, annotations, expected) in [
        ("db-1", json!({}), "lxc"),
        ("db-2", json!({ "io.nexcage.backend": "crun" }), "crun"),
        ("web", json!({}), "crun"),
        ("nginx", pod, "runc"),
    ] {
        let bundle = scene.bundle(id, &SLEEP).edit(|spec| spec["annotations"] = annotations);
        let task = scene.supervisor(&bundle).await;
        let mut create = bundle.create();
        create.options = MessageField::some(crate::support::bundle::toml_options(&rules));
        task.create(&create).await.unwrap();
        assert_eq!(backend(&scene, id), expected, "{id}");
        task.kill(id, "", 9).await.unwrap();
        task.delete(id, "").await.unwrap();
    }
}

fn of_pod(bundle: Bundle, kind: &str, sandbox: &str, namespace: &str) -> Bundle {
    bundle.edit(|spec| {
        spec["annotations"] = json!({
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": sandbox,
            "io.kubernetes.cri.sandbox-namespace": namespace,
        });
    })
}

#[tokio::test]
async fn a_container_whose_sandbox_cannot_take_it_is_refused_before_anything_is_made() {
    let scene = Scene::new();
    let pause = of_pod(scene.bundle("pause", &SLEEP), "sandbox", "pause", "shop");
    let sandbox = scene.running(&pause).await;
    let app = of_pod(scene.bundle("app", &SLEEP), "container", "pause", "shop");
    let task = scene.running(&app).await;
    task.kill("app", "", 9).await.unwrap();
    task.wait("app", "").await.unwrap();
    task.delete("app", "").await.unwrap();
    let cgroups = scene.cgroups();

    let unknown = of_pod(scene.bundle("x", &SLEEP), "container", "gone", "shop");
    let other = of_pod(scene.bundle("y", &SLEEP), "container", "pause", "bank");
    let stopped = of_pod(scene.bundle("z", &SLEEP), "container", "pause", "shop");
    for (bundle, expected) in [
        (&unknown, "sandbox gone is not known here"),
        (&other, "sandbox pause is a pod of the namespace shop, the container one of bank"),
    ] {
        let task = scene.supervisor(bundle).await;
        let text = task.create(&bundle.create()).await.refused(Code::FAILED_PRECONDITION);
        assert!(text.contains(expected), "{text}");
        assert_eq!(scene.cgroups(), cgroups);
        assert!(!fs::exists(format!("/run/nexcage/{}/{}", scene.namespace, bundle.id)).unwrap());
    }

    sandbox.kill("pause", "", 9).await.unwrap();
    sandbox.wait("pause", "").await.unwrap();
    let task = scene.supervisor(&stopped).await;
    let text = task.create(&stopped.create()).await.refused(Code::FAILED_PRECONDITION);
    assert!(text.contains("sandbox pause has stopped"), "{text}");
    sandbox.delete("pause", "").await.unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_supervisor_died_with_it_counts_as_stopped() {
    let scene = Scene::new();
    let pause = of_pod(scene.bundle("pause", &SLEEP), "sandbox", "pause", "shop");
    let sandbox = scene.running(&pause).await;
    let hello = sandbox.hello("pause").await.unwrap();
    crate::support::scene::kill(hello.shim_pid);
    crate::support::scene::kill(hello.task_pid);
    proc::eventually("the sandbox is dead", || !proc::is_alive(hello.task_pid)).await;
    let app = of_pod(scene.bundle("app", &SLEEP), "container", "pause", "shop");
    let task = scene.supervisor(&app).await;
    let text = task.create(&app.create()).await.refused(Code::FAILED_PRECONDITION);
    assert!(text.contains("sandbox pause has stopped"), "{text}");
    scene.start(&pause).action("delete").run().deleted();
}
