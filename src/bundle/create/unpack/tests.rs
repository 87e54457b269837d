use super::super::stop::Stop;
use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use tar::{EntryType, Header};

/// A folder with an empty root in it, and beside it what no archive may change.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        // Not in /tmp, which has no user attributes on older kernels.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/file"), "kept").unwrap();
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn unpack(&self, archive: &[u8], how: As) -> Result<Vec<String>> {
        let stop = Stop::on_signals().unwrap();
        let mut work = Work::new(&stop, u64::MAX, false);
        let done = unpack(&mut Archive::new(archive), &self.at(""), how, &mut work);
        // Whatever came of it.
        let outside = self.folder.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2);
        done.map(|()| work.notes())
    }

    #[track_caller]
    fn refused(&self, archive: &[u8], says: &str) {
        let error = self.unpack(archive, As::Root).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    fn layer(&self, archive: &[u8]) {
        self.unpack(archive, As::Layer).unwrap();
    }

    /// Every path in the root, in order.
    fn all(&self) -> Vec<String> {
        fn walk(folder: &Path, at: &str, all: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let path = format!("{at}{}", entry.file_name().to_str().unwrap());
                all.push(path.clone());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &format!("{path}/"), all);
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.at(""), "", &mut all);
        all.sort();
        all
    }
}

/// One entry: its kind, path and target. The names are put there as they stand, however bad.
fn entry(kind: EntryType, path: &str, link: &str, text: &str) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(text.len() as u64);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, text: &str) -> Vec<u8> {
    entry(EntryType::Regular, path, "", text)
}

fn folder(path: &str) -> Vec<u8> {
    entry(EntryType::Directory, path, "", "")
}

fn link(path: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Symlink, path, to, "")
}

fn hard(path: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Link, path, to, "")
}

#[test]
fn everything_that_a_root_has_is_unpacked() {
    let scene = Scene::new();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.a", b"\n1".as_slice())]).unwrap();
    let mut archive = builder.get_ref().clone();
    archive.extend(file("usr/bin/su", "program"));
    archive[512 * 2 + 100..][..8].copy_from_slice(b"0004755\0");
    let mut header = Header::from_byte_slice(&archive[1024..1536]).clone();
    header.set_cksum();
    archive[1024..1536].copy_from_slice(header.as_bytes());
    archive.extend(hard("usr/bin/sudo", "usr/bin/su"));
    archive.extend(link("bin", "usr/bin"));
    archive.extend(file("bin/sh", "through the link"));
    archive.extend(entry(EntryType::Fifo, "fifo", "", ""));
    archive.extend(folder("empty/"));
    archive.extend(file("empty/now-not", ""));
    let notes = scene.unpack(&archive, As::Root).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    let su = fs::metadata(scene.at("usr/bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.nlink(), su.mtime()), (0o4755, 2, 1_000_000_000));
    assert_eq!(su.ino(), fs::metadata(scene.at("usr/bin/sudo")).unwrap().ino());
    assert_eq!(fs::read(scene.at("usr/bin/sh")).unwrap(), b"through the link");
    assert!(fs::metadata(scene.at("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(scene.at("empty")).unwrap().mtime(), 1_000_000_000);
    let opened = File::open(scene.at("usr/bin/su")).unwrap();
    let xattrs = crate::sys::files::xattrs(&opened).unwrap();
    assert!(xattrs.contains(&("user.a".into(), b"\n1".to_vec())), "{xattrs:?}");
}

#[test]
fn paths_that_climb_are_refused_and_absolute_ones_are_the_roots_own() {
    let scene = Scene::new();
    scene.refused(&file("../outside/x", ""), "..");
    scene.refused(&file("a/../../outside/x", ""), "..");
    scene.refused(&hard("x", "../outside/file"), "..");
    scene.unpack(&file("/etc/x", "inside"), As::Root).unwrap();
    assert_eq!(fs::read(scene.at("etc/x")).unwrap(), b"inside");
    let own = [link("abs", "/etc"), file("abs/y", "inside")].concat();
    scene.unpack(&own, As::Root).unwrap();
    assert_eq!(fs::read(scene.at("etc/y")).unwrap(), b"inside");
}

#[test]
fn links_lead_nowhere_outside_whenever_they_are_put_there() {
    let scene = Scene::new();
    let outside = scene.folder.path().join("outside").to_str().unwrap().to_owned();
    // A link, then a file through it: the folder is made inside.
    scene.unpack(&[link("l", "../outside"), file("l/x", "in")].concat(), As::Root).unwrap();
    assert_eq!(fs::read(scene.at("outside/x")).unwrap(), b"in");
    // A link in the place of a folder that was used a moment ago.
    let swap = [folder("d"), file("d/a", "1"), link("d", "../../outside"), file("d/b", "2")];
    scene.unpack(&swap.concat(), As::Root).unwrap();
    assert_eq!(fs::read(scene.at("outside/b")).unwrap(), b"2");
    // A file in the place of a link is that file, and does not write through it.
    let through = [link("f", &format!("{outside}/file")), file("f", "mine")].concat();
    scene.unpack(&through, As::Root).unwrap();
    assert_eq!(fs::read(scene.at("f")).unwrap(), b"mine");
    // One more name of what a link names is one more name of the link.
    let of_link = [link("g", &format!("{outside}/file")), hard("h", "g"), file("h", "mine")];
    scene.unpack(&of_link.concat(), As::Root).unwrap();
    // One more name of something that is only outside.
    scene.refused(&hard("i", &format!("{outside}/file")), "find ");
    scene.refused(&[link("j", &outside), hard("k", "j/file")].concat(), "find j/file");
    // Round and round.
    scene.refused(&[link("m", "n"), link("n", "m"), file("m/x", "")].concat(), "m/x");
    // A whiteout through a link.
    symlink("../outside", scene.at("w")).unwrap();
    scene.layer(&[file("w/.wh.file", ""), file("w/.wh..wh..opq", "")].concat());
}

#[test]
fn what_no_root_can_have_is_refused() {
    let scene = Scene::new();
    scene.refused(&link("./", "/etc"), "the root itself");
    scene.refused(&file("", ""), "the root itself");
    scene.refused(&entry(EntryType::new(b'Z'), "x", "", ""), "unknown type 'Z'");
    scene.refused(&[folder("d"), hard("x", "d")].concat(), "name of a folder");
    scene.refused(&hard("x", "missing"), "find missing");
    let deep = "a/".repeat(45);
    let mut climbing = link("l0", &deep);
    for at in 1..12 {
        climbing.extend(link(&format!("l{at}"), &format!("l{}/{deep}", at - 1)));
        climbing.extend(file(&format!("l{at}/x"), ""));
    }
    scene.refused(&climbing, "256 folders deep");
    fs::remove_dir_all(scene.at("a")).unwrap();
    let mut disk = entry(EntryType::Block, "sda", "", "");
    let mut header = Header::from_byte_slice(&disk).clone();
    header.set_device_major(8).unwrap();
    header.set_cksum();
    disk.copy_from_slice(header.as_bytes());
    scene.refused(&disk, "block device 8:0");
    let mut long = Header::new_ustar();
    long.set_entry_type(EntryType::Symlink);
    long.set_mode(0);
    long.set_uid(0);
    long.set_gid(0);
    long.as_old_mut().name[0] = b'x';
    long.set_size(0);
    long.set_cksum();
    scene.refused(long.as_bytes(), "x: ");
}

#[test]
fn attributes_that_would_change_the_hosts_mind_are_left_out_and_said() {
    let scene = Scene::new();
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc".as_slice()),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .unwrap();
    let archive = [builder.get_ref().clone(), file("f", "")].concat();
    let notes = scene.unpack(&archive, As::Root).unwrap();
    assert_eq!(
        notes,
        [
            "left out the attribute security.selinux: f",
            "left out the attribute trusted.overlay.redirect: f"
        ]
    );
}

#[test]
fn whiteouts_remove_what_is_below_and_nothing_of_their_own_layer() {
    let scene = Scene::new();
    let lower = [
        file("a", ""),
        file("d/old", ""),
        file("d/sub/old", ""),
        file("e/1", ""),
        file("e/f/2", ""),
        file("keep/x", ""),
        link("l", "d"),
    ];
    scene.layer(&lower.concat());
    let upper = [
        file(".wh.a", ""),
        // Before and after the opaque mark: both stay.
        file("d/new-1", ""),
        file("d/sub/new", ""),
        file("d/.wh..wh..opq", ""),
        file("d/new-2", ""),
        file("e/.wh.f", ""),
        file("e/.wh.missing", ""),
        file("nowhere/.wh.x", ""),
        // Both gone and there again: there.
        file("keep/x", "new"),
        file("keep/.wh.x", ""),
        file(".wh..wh.plnk", ""),
    ];
    scene.layer(&upper.concat());
    let expected =
        ["d", "d/new-1", "d/new-2", "d/sub", "d/sub/new", "e", "e/1", "keep", "keep/x", "l"];
    assert_eq!(scene.all(), expected);
    // Through a link in the lower layer.
    scene.layer(&file("l/.wh.new-1", ""));
    assert!(!scene.at("d/new-1").exists());
    // A file in a folder's place, and the other way round.
    scene.layer(&[file("d", "file"), folder("e/1"), file("e/1/x", "")].concat());
    assert_eq!(scene.all(), ["d", "e", "e/1", "e/1/x", "keep", "keep/x", "l"]);
    for wrong in ["e/.wh...", "e/.wh..", ".wh."] {
        let error = scene.unpack(&file(wrong, ""), As::Layer).unwrap_err();
        assert!(error.to_string().contains("stands in"), "{error}");
    }
    // In a plain archive the names are names.
    scene.unpack(&file(".wh.d", ""), As::Root).unwrap();
    assert!(scene.at(".wh.d").exists() && scene.at("d").exists());
}

#[test]
fn a_file_that_is_linked_to_itself_stays() {
    let scene = Scene::new();
    scene.unpack(&[file("x", "1"), hard("x", "x"), hard("./x", "/x")].concat(), As::Root).unwrap();
    assert_eq!(fs::read(scene.at("x")).unwrap(), b"1");
}
