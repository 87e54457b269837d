use super::layout::tests::{Written, archive};
use super::*;
use serde_json::json;
use std::os::unix::fs::{MetadataExt, symlink};

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn make(&self, change: impl FnOnce(&mut Request)) -> Result<Made> {
        let mut request = Request::new(self.at("b"));
        change(&mut request);
        let before = fs::read_dir(self.folder.path()).unwrap().count();
        let made = create(request, &Stop::on_signals().unwrap());
        let after = fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(after - before, usize::from(made.is_ok()), "{made:?}");
        made
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("b/config.json")).unwrap()).unwrap()
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_folder_is_copied_with_all_that_its_files_are() {
    let scene = Scene::new();
    let source = scene.at("source");
    write(&source.join("bin/sh"), b"program");
    fs::hard_link(source.join("bin/sh"), source.join("bin/ash")).unwrap();
    symlink("/bin/sh", source.join("link")).unwrap();
    nix::unistd::mkfifo(&source.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::set_permissions(source.join("bin/sh"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(source.join("bin"), fs::Permissions::from_mode(0o1777)).unwrap();
    // A file that is mostly a hole.
    let mut sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all(b"head").unwrap();
    sparse.set_len(64 << 20).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let made = scene.make(|request| request.rootfs = Some(source.clone())).unwrap();
    assert_eq!(made.notes, ["left out a socket: socket"]);
    assert_eq!(made.path, scene.at("b"));
    let about = |path: &str| fs::symlink_metadata(scene.at("b/rootfs").join(path)).unwrap();
    assert_eq!((about("bin/sh").mode() & 0o7777, about("bin/sh").nlink()), (0o4711, 2));
    assert_eq!(about("bin/sh").ino(), about("bin/ash").ino());
    assert_eq!(about("bin").mode() & 0o7777, 0o1777);
    assert_eq!(about("bin").mtime(), fs::metadata(source.join("bin")).unwrap().mtime());
    assert_eq!(fs::read_link(scene.at("b/rootfs/link")).unwrap(), Path::new("/bin/sh"));
    let sparse = fs::read(scene.at("b/rootfs/sparse")).unwrap();
    assert!(sparse.starts_with(b"head") && sparse.len() == 64 << 20);
    assert!(about("sparse").blocks() < 1024);
    assert_eq!(fs::metadata(scene.at("b")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(scene.config(), default::default());
}

#[test]
fn an_image_a_template_and_flags_are_laid_over_each_other() {
    let scene = Scene::new();
    let layout = Written::new();
    let passwd = archive("etc/passwd", "app:x:7:8::/:\n");
    let config = json!({
        "User": "app", "Env": ["A=image", "B=image"], "WorkingDir": "/image", "Cmd": ["image"],
        "StopSignal": "SIGQUIT", "Labels": {"l": "1"}, "Volumes": {"/etc": {}, "/data": {}},
    });
    let host = layout::Platform::host();
    let platform = format!("{}/{}", host.os, host.architecture);
    layout.index(&json!([layout.image(&platform, &[passwd], config)]));
    let template = scene.at("template.json");
    write(
        &template,
        json!({
            "hostname": "template", "process": {"cwd": "/template", "rlimits": null},
            "annotations": {"l": "template"},
        })
        .to_string()
        .as_bytes(),
    );
    let made = scene.make(|request| {
        request.rootfs = Some(layout.folder.path().to_owned());
        request.template = Some(template.clone());
        request.settings.env = vec!["B=flag".into()];
        request.settings.hostname = Some("flag".into());
        request.settings.args = vec!["run".into()];
        request.backend = Some(BackendName::Runc);
    });
    assert_eq!(made.unwrap().notes, Vec::<String>::new());
    let config = scene.config();
    let process = &config["process"];
    assert_eq!(process["user"], json!({"uid": 7, "gid": 8}));
    assert_eq!(process["env"], json!([default::PATH, "A=image", "B=flag"]));
    assert_eq!((&process["cwd"], &process["args"]), (&json!("/template"), &json!(["run"])));
    assert_eq!((&process["rlimits"], &config["hostname"]), (&Value::Null, &json!("flag")));
    let annotations = &config["annotations"];
    assert_eq!(annotations["l"], "template");
    assert_eq!(annotations[image::STOP_SIGNAL], "SIGQUIT");
    assert_eq!(annotations["io.nexcage.backend"], "runc");
    let volumes: Vec<&Value> = config["mounts"].as_array().unwrap().iter().skip(7).collect();
    let source = |at: usize| volumes[at]["source"].as_str().unwrap().to_owned();
    assert_eq!((&volumes[0]["destination"], volumes.len()), (&json!("/data"), 2));
    assert!(fs::read_dir(source(0)).unwrap().next().is_none());
    assert!(Path::new(&source(1)).join("passwd").exists(), "{}", source(1));
}

#[test]
fn a_layout_in_an_archive_is_a_layout_and_leaves_no_trace() {
    let scene = Scene::new();
    let layout = Written::new();
    let host = layout::Platform::host();
    let platform = format!("{}/{}", host.os, host.architecture);
    layout.index(&json!([layout.image(&platform, &[archive("f", "x")], json!({}))]));
    let packed = File::create(scene.at("layout.tar.gz")).unwrap();
    let packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    let mut builder = tar::Builder::new(packed);
    builder.append_dir_all(".", layout.folder.path()).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    scene.make(|request| request.rootfs = Some(scene.at("layout.tar.gz"))).unwrap();
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(scene.at(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("b"), ["config.json", "rootfs"]);
    assert_eq!(names("b/rootfs"), ["f"]);
}

#[test]
fn what_goes_wrong_leaves_nothing() {
    let scene = Scene::new();
    write(&scene.at("bad.json"), b"[]");
    write(&scene.at("shape.json"), br#"{"process": {"args": "sh"}}"#);
    write(&scene.at("typed.json"), br#"{"linux": {"resources": {"pids": {"limit": "many"}}}}"#);
    write(&scene.at("cwd.json"), br#"{"process": {"cwd": "tmp"}}"#);
    write(&scene.at("garbage"), &[b'x'; 2000]);
    write(&scene.at("root/f"), b"x");
    write(&scene.at("bomb.tar"), &archive("f", &"x".repeat(1 << 20)));
    let at = |path: &str| Some(scene.at(path));
    let refused = |change: &dyn Fn(&mut Request), says: &str| {
        let error = scene.make(change).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&|request| request.rootfs = at("missing"), "look at");
    refused(&|request| request.rootfs = at("garbage"), "not a tar");
    refused(&|request| request.rootfs = Some("/dev/null".into()), "neither a folder");
    refused(&|request| request.template = at("missing"), "there is no file");
    refused(&|request| request.template = at("bad.json"), "not a JSON object");
    refused(&|request| request.template = at("shape.json"), ": config.json: /process/args: ");
    refused(&|request| request.template = at("typed.json"), "/linux/resources/pids/limit: ");
    refused(&|request| request.template = at("cwd.json"), "config.json: /process/cwd: found");
    refused(&|request| request.settings.user = Some("nobody".into()), "/etc/passwd");
    refused(&|request| request.overlay = true, "--overlay needs a folder");
    let overlay = |request: &mut Request| {
        request.overlay = true;
        request.rootfs = at("bomb.tar");
    };
    refused(&overlay, "is not a folder");
    let choice = |request: &mut Request| {
        request.choice.reference = Some("x".into());
        request.rootfs = at("root");
    };
    refused(&choice, "not an OCI image layout");
    let bomb = |request: &mut Request| {
        request.most_bytes = 1 << 20;
        request.rootfs = at("bomb.tar");
    };
    refused(&bomb, "--max-size");
    let inside = |request: &mut Request| request.rootfs = at("");
    refused(&inside, "made inside it");
    let late = |request: &mut Request| {
        request.edit = Some(Box::new(|_, _| Err(Error::invalid("too late"))));
        request.rootfs = at("root");
    };
    refused(&late, "too late");
}
