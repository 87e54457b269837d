//! What `nexcage` says of people's mistakes, all of it: `cli_errors.golden`, which
//! `NEXCAGE_GOLDEN=write` has this test write anew.

use crate::support::oci::{Container, Said};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Command lines, apart by blanks. RUNNING, CREATED and STOPPED are containers.
const MISTAKES: &[&str] = &[
    // What cannot be understood.
    "frobnicate",
    "statee none",
    "state",
    "state --frobnicate none",
    "--log-format xml state none",
    "--log-level loud state none",
    "--namespace a/b state none",
    "exec RUNNING",
    "vmid",
    "vmid list --format xml",
    "vmid reconcile --destory",
    "bundle",
    "bundle create",
    "bundle create b --cpus many",
    "bundle create b --cri-container container.json",
    // Configurations and backends.
    "--config none.json create -b good new",
    "--config wrong.json create -b good new",
    "--config broken.json state none",
    "config check wrong.json",
    "--config no-crun.json create -b good new",
    "--config no-runc.json --runtime-type runc run -b good new",
    "--runtime-type docker create -b good new",
    "create -b annotated new",
    // Bundles.
    "create -b none new",
    "create -b no-json new",
    "create -b wrong --pid-file new.pid new",
    "run -b wrong new",
    "--runtime-type lxc create -b not-for-lxc new",
    "create -b terminal new",
    "create -b good --console-socket none new",
    "run -b terminal --console-socket none new",
    "create -b good --pid-file none/pid new",
    "create -b no-program new",
    "bundle validate none",
    "bundle validate --backend docker good",
    "spec -b good",
    // Ids.
    "create -b good a/b",
    "create -b good ../new",
    "create -b good RUNNING",
    "run -b good STOPPED",
    // Containers that there are not.
    "state none",
    "state a/b",
    "start none",
    "kill none",
    "delete none",
    "exec none true",
    "ps none",
    "pause none",
    "resume none",
    "update none --memory 1000000",
    "events none --stats",
    "checkpoint none",
    // Containers in another state.
    "start RUNNING",
    "delete RUNNING",
    "resume RUNNING",
    "pause CREATED",
    "delete CREATED",
    "start STOPPED",
    "kill STOPPED",
    "exec STOPPED true",
    "pause STOPPED",
    "update STOPPED --memory 1000000",
    // What is asked of them.
    "kill RUNNING NONSENSE",
    "kill RUNNING 99",
    "exec RUNNING /none",
    "exec -p none RUNNING",
    "exec -p wrong/config.json RUNNING",
    "exec -t -d RUNNING true",
    "update RUNNING",
    "update RUNNING -r none",
    "update RUNNING --memory much",
    "restore -b good --image-path none new",
    // Bundles that cannot be made.
    "bundle create none/b",
    "bundle create good",
    "bundle create b --rootfs none",
    "bundle create b --rootfs broken.json",
    "bundle create b --rootfs good --ref 1",
    "bundle create b --overlay",
    "bundle create b --memory much",
    "bundle create b --mount type=bind,destination=/x",
    "bundle create b -v /none:/x",
    "bundle create b --cap-add FLY",
    "bundle create b --hostname a_b",
    "bundle create b --user nobody-there",
    "bundle create b --config broken.json",
    "bundle create b --config template.json",
    "bundle create --cri-container container.json --cri-sandbox pod.json --rootfs good",
    // Where errors go.
    "--log none/log state none",
];

struct Scene {
    running: Container,
    created: Container,
    stopped: Container,
}

impl Scene {
    fn new() -> Self {
        let running = Container::new("crun", &["sleep", "1000"]);
        running.start();
        let created = Container::new("crun", &["true"]);
        created.create();
        let stopped = Container::new("crun", &["true"]);
        stopped.start();
        stopped.until_recorded();
        let scene = Self { running, created, stopped };
        scene.bundle("good", |_| {});
        scene.bundle("annotated", |spec| {
            spec["annotations"] = json!({ "io.nexcage.backend": "docker" });
        });
        scene.bundle("wrong", |spec| {
            spec["process"]["cwd"] = "tmp".into();
            spec["process"]["oomScoreAdj"] = "-5".into();
            spec["root"]["path"] = "../elsewhere".into();
            spec["mounts"][0] = json!({ "destination": "/x", "type": "bind", "source": "/none", "options": ["rbind"] });
        });
        scene.bundle("not-for-lxc", |spec| {
            spec["linux"]["mountLabel"] = "label".into();
            spec["linux"]["intelRdt"] = json!({ "closID": "class" });
        });
        scene.bundle("terminal", |spec| spec["process"]["terminal"] = true.into());
        scene.bundle("no-program", |spec| spec["process"]["args"] = json!(["/none"]));
        scene.bundle("no-json", |_| {});
        for (name, text) in [
            ("no-json/config.json", "{\n  \"process\": {},\n}\n"),
            ("broken.json", "{ \"state_dir\": "),
            ("wrong.json", r#"{ "ruoting": [], "default_container_type": "docker" }"#),
            ("no-crun.json", r#"{ "crun": { "path": "/none/crun" } }"#),
            ("no-runc.json", r#"{ "runc": { "path": "/none/runc" } }"#),
            ("template.json", r#"{ "process": { "cwd": "tmp" }, "hostname": 7 }"#),
            ("container.json", r#"{ "metadata": {}, "linux": { "colour": 1 } }"#),
            ("pod.json", r#"{ "metadata": { "name": "p", "namespace": "n" } }"#),
        ] {
            fs::write(scene.at(name), text).unwrap();
        }
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.running.file(name)
    }

    fn bundle(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = self.running.spec.clone();
        spec["linux"]["cgroupsPath"] = format!("/{}-{name}", self.running.id).into();
        change(&mut spec);
        fs::create_dir(self.at(name)).unwrap();
        fs::write(self.at(name).join("config.json"), format!("{spec:#}\n")).unwrap();
    }

    fn call(&self, before: &[&str], line: &str) -> Said {
        let words = line.split_whitespace().map(|word| match word {
            "RUNNING" => &*self.running.id,
            "CREATED" => &*self.created.id,
            "STOPPED" => &*self.stopped.id,
            "new" => "cli-errors-new",
            word => word,
        });
        let words: Vec<&str> = before.iter().copied().chain(words).collect();
        // The backend is for the mistakes to choose.
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexcage"));
        let known = self.running.nexcage(&[]);
        for (name, value) in known.get_envs() {
            command.env(name, value.unwrap());
        }
        command
            .args(words)
            .current_dir(self.running.folder.path())
            .stdin(std::process::Stdio::null());
        Said::of(&mut command)
    }

    /// Without what is another one in each run.
    fn stable(&self, text: &str) -> String {
        let folder = self.running.folder.path().to_str().unwrap();
        let mut text = text.replace(folder, "FOLDER");
        for (container, name) in
            [(&self.running, "RUNNING"), (&self.created, "CREATED"), (&self.stopped, "STOPPED")]
        {
            text = text.replace(&container.id, name);
        }
        text.replace("cli-errors-new", "new")
    }

    /// JSON's lines as those of text would be. What crun itself says is no JSON.
    fn as_text(line: &str) -> String {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
        assert_eq!(value["level"], "error", "{line}");
        assert!(value["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        format!("nexcage: {}", value["msg"].as_str().unwrap())
    }

    fn told(&self, line: &str) -> String {
        let said = self.call(&[], line);
        let text = self.stable(&said.err);
        let told = format!("$ nexcage {line}\n{text}{}status {}", said.out, said.code);
        if line.contains("--log-format") {
            return format!("{told}\n\n");
        }
        let as_json = self.call(&["--log-format", "json"], line);
        assert_eq!(said.code, as_json.code, "{line}");
        let json = self.stable(&as_json.err);
        let lines: Vec<String> = json.lines().map(Self::as_text).collect();
        let how = match lines == text.lines().collect::<Vec<_>>() {
            true if json == text => "the same text with --log-format json".to_owned(),
            true => "the same as JSON with --log-format json".to_owned(),
            false => format!("with --log-format json:\n{}", lines.join("\n")),
        };
        format!("{told}; {how}\n\n")
    }
}

#[test]
fn mistakes_are_answered_as_they_were() {
    let scene = Scene::new();
    let said: String = MISTAKES.iter().map(|line| scene.told(line)).collect();
    assert!(!Path::new("/run/nexcage/local/cli-errors-new").exists());
    for name in ["b", "new.pid"] {
        assert!(!scene.at(name).exists(), "{name}");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli_errors.golden");
    if std::env::var("NEXCAGE_GOLDEN").is_ok_and(|word| word == "write") {
        fs::write(&golden, &said).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    // By mistakes: the first that differs says more than two long texts.
    for (found, wanted) in said.split("\n\n").zip(expected.split("\n\n")) {
        assert_eq!(found, wanted);
    }
    assert_eq!(said, expected);
}
