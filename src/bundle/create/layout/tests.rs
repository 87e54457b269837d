use super::super::stop::Stop;
use super::*;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::fs;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout that is being written.
pub struct Written {
    pub folder: tempfile::TempDir,
}

impl Written {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Self { folder }
    }

    pub fn digest(bytes: &[u8]) -> String {
        let digest = sha2::Sha256::digest(bytes);
        format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Self::digest(bytes);
        fs::write(self.folder.path().join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    pub fn json(&self, kind: &str, value: &Value) -> Value {
        self.blob(kind, value.to_string().as_bytes())
    }

    /// A manifest of one image with these layers, which are archives.
    pub fn image(&self, platform: &str, layers: &[Vec<u8>], config: Value) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        let diff_ids: Vec<String> = layers.iter().map(|layer| Self::digest(layer)).collect();
        let config = json!({
            "os": os, "architecture": architecture, "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let config = self.json("application/vnd.oci.image.config.v1+json", &config);
        self.json(MANIFEST, &json!({ "schemaVersion": 2, "config": config, "layers": layers }))
    }

    pub fn index(&self, manifests: &Value) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
    }

    fn unpack(&self, choice: &Choice) -> Result<(Image, tempfile::TempDir)> {
        let target = tempfile::tempdir().unwrap();
        let stop = Stop::on_signals().unwrap();
        let mut work = Work::new(&stop, 1 << 20, false);
        let image = unpack_image(self.folder.path(), choice, target.path(), &mut work)?;
        Ok((image, target))
    }

    #[track_caller]
    fn refused(&self, choice: &Choice, says: &str) {
        let error = self.unpack(choice).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// An archive with one file of the owner's.
pub fn archive(path: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

fn host() -> String {
    let host = Platform::host();
    format!("{}/{}", host.os, host.architecture)
}

fn named(reference: &str) -> Choice {
    Choice { reference: Some(reference.to_owned()), platform: None }
}

#[test]
fn layers_are_put_on_each_other_in_order() {
    let layout = Written::new();
    let layers = [archive("a", "1"), archive("a", "2"), archive(".wh.b", ""), archive("b", "3")];
    let manifest = layout.image(&host(), &layers, json!({"Cmd": ["x"]}));
    layout.index(&json!([manifest]));
    let (image, target) = layout.unpack(&Choice::default()).unwrap();
    assert_eq!(image.command().1, ["x"]);
    assert_eq!(fs::read(target.path().join("a")).unwrap(), b"2");
    assert_eq!(fs::read(target.path().join("b")).unwrap(), b"3");
}

#[test]
fn one_image_is_chosen_by_name_digest_and_platform() {
    let layout = Written::new();
    let image = |platform: &str, text: &str| {
        let (os, architecture) = platform.split_once('/').unwrap();
        let manifest = layout.image(platform, &[archive("f", text)], json!({}));
        with(manifest, "platform", json!({"os": os, "architecture": architecture}))
    };
    let name =
        |descriptor: Value, name: &str| with(descriptor, "annotations", json!({ REF_NAME: name }));
    let (own, other) = (image(&host(), "own"), image("linux/s390x", "other"));
    let provenance = with(
        layout.image("unknown/unknown", &[], json!({})),
        "platform",
        json!({"os": "unknown", "architecture": "unknown"}),
    );
    let many = json!({"manifests": [own, other, provenance]});
    let many = layout.json(INDEX, &many);
    let text = |choice: &Choice| {
        let (_, target) = layout.unpack(choice).unwrap();
        fs::read_to_string(target.path().join("f")).unwrap()
    };
    layout.index(&json!([many]));
    assert_eq!(text(&Choice::default()), "own");
    let s390x = Choice { reference: None, platform: Some(Platform::parse("linux/s390x").unwrap()) };
    assert_eq!(text(&s390x), "other");
    let arm = Choice { reference: None, platform: Some(Platform::parse("linux/mips").unwrap()) };
    layout.refused(&arm, "no image for linux/mips");
    let second = image(&host(), "second");
    layout.index(&json!([name(own.clone(), "1"), name(own, "latest"), name(second.clone(), "2")]));
    layout.refused(&Choice::default(), "several images: choose by --ref");
    assert_eq!((text(&named("2")), text(&named("latest"))), ("second".into(), "own".into()));
    assert_eq!(text(&named(second["digest"].as_str().unwrap())), "second");
    layout.refused(&named("3"), "there is \"1, 2, latest\"");
    // What an image says of itself counts, too.
    layout.index(&json!([layout.image("linux/s390x", &[], json!({}))]));
    layout.refused(&Choice::default(), "is for linux/s390x");
    layout.index(&json!([]));
    layout.refused(&Choice::default(), "no image");
    assert!(Platform::parse("linux").is_err() && Platform::parse("/x").is_err());
}

#[test]
fn what_is_damaged_or_no_image_is_refused() {
    let layout = Written::new();
    let good = archive("f", "text");
    let manifest = layout.image(&host(), std::slice::from_ref(&good), json!({}));
    layout.index(&json!([manifest]));
    layout.unpack(&Choice::default()).unwrap();
    let blob = |digest: &str| layout.folder.path().join("blobs").join(digest.replace(':', "/"));
    let layer = blob(&Written::digest(&good));
    // One bit of a layer's text, which the archive does not protect.
    let mut bad = good.clone();
    bad[512] ^= 1;
    fs::write(&layer, &bad).unwrap();
    layout.refused(&Choice::default(), "does not have the digest");
    fs::write(&layer, &good[..1024]).unwrap();
    layout.refused(&Choice::default(), "should have");
    fs::remove_file(&layer).unwrap();
    layout.refused(&Choice::default(), "open blobs/sha256/");
    // A link that would lead out, to something of the right content.
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), &good).unwrap();
    std::os::unix::fs::symlink(outside.path(), &layer).unwrap();
    layout.refused(&Choice::default(), "open blobs/sha256/");
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, &good).unwrap();
    // A manifest with other bytes than its digest's.
    let at = blob(manifest["digest"].as_str().unwrap());
    let text = fs::read_to_string(&at).unwrap();
    fs::write(&at, text.replace("schemaVersion\":2", "schemaVersion\":3")).unwrap();
    layout.refused(&Choice::default(), "does not have the digest");
    let config = layout.json("application/vnd.oci.empty.v1+json", &json!({}));
    let artifact = layout.json(MANIFEST, &json!({"config": config, "layers": []}));
    layout.index(&json!([artifact]));
    layout.refused(&Choice::default(), "an artifact of type");
    layout.index(&json!([{"mediaType": MANIFEST, "digest": "sha256:../../x", "size": 1}]));
    layout.refused(&Choice::default(), "wanted sha256:");
    fs::write(layout.folder.path().join("oci-layout"), r#"{"imageLayoutVersion": "2"}"#).unwrap();
    layout.refused(&Choice::default(), "version \"2\"");
}

#[test]
fn more_than_the_bound_is_not_unpacked() {
    let layout = Written::new();
    let half = archive("f", &"x".repeat(600 << 10));
    let other = archive("g", &"x".repeat(600 << 10));
    layout.index(&json!([layout.image(&host(), std::slice::from_ref(&half), json!({}))]));
    layout.unpack(&Choice::default()).unwrap();
    // The bound is for all layers together.
    layout.index(&json!([layout.image(&host(), &[half, other], json!({}))]));
    layout.refused(&Choice::default(), "more than 1048576 bytes");
}
