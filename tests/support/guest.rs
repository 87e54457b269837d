//! A guest as LXC makes it, for the real `nexcage-init`, and the supervisor's part played by hand.
//!
//! Mount, pid and uts namespaces of its own, a copy of the bed's root file system, /proc, a tmpfs
//! with a few devices at /dev, and the folder of the init mounted read-only in it.

use super::bed;
use nexcage::init::{Capabilities, Description, First, Process, encode, protocol};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A setpriv(1) flag: guests are made without CAP_SYS_PTRACE, so that who else lacks it, too, may
/// look into their processes unless those do something about it.
pub const NO_TRACING: &str = "--bounding-set=-sys_ptrace";

/// Of an ordinary container.
pub const CAPABILITIES: u64 = 0xa804_25fb;

/// The program that is tested.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_nexcage-init").into()
}

/// A pipe that no other test's child inherits: its end would come with theirs.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

/// `sh -c script` as root, with an ordinary container's capabilities.
pub fn shell(script: &str) -> Process {
    Process {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin:/usr/bin".to_owned()],
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: CAPABILITIES,
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
            ..Capabilities::default()
        }),
        ..Process::default()
    }
}

/// The description of a first process.
pub fn first(process: Process) -> Description {
    Description { process, first: Some(First::default()), exec: None }
}

/// What an init said of its failure.
#[derive(Debug)]
pub struct Failure {
    /// The error number, 0 for none.
    pub errno: i32,
    /// The sentence.
    pub text: String,
}

/// The folders of a guest that has not been started.
pub struct Guest {
    folder: TempDir,
    listener: UnixListener,
    /// Commands of the shell that makes the guest, run before its root is changed, in it.
    pub prepare: String,
    /// Flags of unshare(1) besides the usual.
    pub unshare: Vec<&'static str>,
}

/// A guest at the gate.
pub struct Gated {
    /// The process that made it; its status is the guest's.
    pub child: Child,
    /// The supervisor's end of the socket.
    pub stream: UnixStream,
    /// The other end of its standard output and error.
    pub output: File,
    /// Keeps the folders.
    pub guest: Guest,
}

impl Guest {
    /// With a root file system of its own.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("gate");
        fs::create_dir(&gate).unwrap();
        fs::copy(program(), gate.join(protocol::PROGRAM)).unwrap();
        let listener = UnixListener::bind(gate.join(protocol::SOCKET)).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .args([bed::rootfs(), folder.path().join("root")])
            .status()
            .unwrap();
        assert!(copied.success(), "copy {}", bed::rootfs().display());
        Self { folder, listener, prepare: String::new(), unshare: Vec::new() }
    }

    /// Its root, as the host sees it.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Lets the init come to the gate, and answers with what stands there.
    pub fn connect(self) -> Gated {
        const MAKE: &str = r#"
            set -e
            mount --make-rprivate /
            cd "$1"
            mount --bind root root
            cd root
            mount -t proc proc proc
            mount -t tmpfs -o mode=755 tmpfs dev
            mkdir dev/.nexcage dev/pts old
            for device in "null 1 3" "zero 1 5" "tty 5 0"; do
                set -- "$1" $device
                mknod -m 666 dev/$2 c $3 $4 2>/dev/null ||
                    { touch dev/$2; mount --bind /dev/$2 dev/$2; }
            done
            mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
            mount --bind ../gate dev/.nexcage
            mount -o remount,bind,ro dev/.nexcage
        "#;
        const LEAVE: &str = r#"
            pivot_root . old
            # What the one before the init may have left open: folders of the host.
            exec 7</old 9</old/tmp
            exec /bin/chroot . /bin/sh -c '
                umount -l /old; rmdir /old; exec /dev/.nexcage/init'
        "#;
        let script = format!("{MAKE}\n{}\n{LEAVE}", self.prepare);
        let (output, theirs) = pipe();
        let child = Command::new("setpriv")
            .args([NO_TRACING, "--", "unshare"])
            .args(["--mount", "--pid", "--uts", "--fork", "--kill-child=SIGKILL"])
            .args(&self.unshare)
            .args(["--", "sh", "-c", &script, "make"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let mut output = File::from(output);
        if !ready(self.listener.as_fd()) {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            panic!("nobody came to the gate: {text}");
        }
        let (stream, _) = self.listener.accept().unwrap();
        Gated { child, stream, output, guest: self }
    }

    /// Lets the init come to the gate, and hands it a description.
    pub fn start(self, description: &Description) -> Gated {
        let mut gated = self.connect();
        let (output, theirs) = pipe();
        gated.output = File::from(output);
        let null = File::open("/dev/null").unwrap();
        send(&gated.stream, description, [null.as_fd(), theirs.as_fd(), theirs.as_fd()]);
        gated
    }
}

impl Gated {
    /// Waits until it is created.
    #[track_caller]
    pub fn created(&mut self) {
        if let Err(failure) = self.answer() {
            panic!("not created: {failure:?}");
        }
    }

    /// READY, or what went wrong.
    pub fn answer(&mut self) -> Result<(), Failure> {
        let mut byte = [0];
        assert!(ready(self.stream.as_fd()), "the init says nothing");
        match self.stream.read_exact(&mut byte) {
            Ok(()) if byte == [protocol::READY] => Ok(()),
            Ok(()) if byte == [protocol::FAILED] => Err(failure(&mut self.stream)),
            other => panic!("neither ready nor failed: {byte:?} {other:?}"),
        }
    }

    /// Lets it through the gate; answers with what it said of its failure, if it failed.
    pub fn go(&mut self) -> Option<Failure> {
        self.stream.write_all(&[protocol::GO]).unwrap();
        ended(&mut self.stream)
    }

    /// Waits for its end: the status, and all that it wrote.
    pub fn end(&mut self) -> (i32, String) {
        let mut bytes = Vec::new();
        self.output.read_to_end(&mut bytes).unwrap();
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Through the gate to the end, which must be good; what it wrote.
    #[track_caller]
    pub fn finish(mut self) -> String {
        self.created();
        self.finish_started()
    }

    /// [`Gated::finish`] of one that is created already.
    #[track_caller]
    pub fn finish_started(mut self) -> String {
        if let Some(failure) = self.go() {
            panic!("not started: {failure:?}");
        }
        let (status, output) = self.end();
        assert_eq!(status, 0, "{output}");
        output
    }

    /// The guest's first process, as this one sees it.
    pub fn init(&self) -> i32 {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        // It is gone already where the test got that far.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs one to its end.
#[track_caller]
pub fn run(description: &Description) -> String {
    Guest::new().start(description).finish()
}

/// Sends a description and three descriptors.
pub fn send(stream: &UnixStream, description: &Description, stdio: [BorrowedFd<'_>; 3]) {
    let bytes = encode(description);
    let mut frame = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(bytes);
    send_bytes(stream, &frame, &stdio);
}

/// Sends anything.
pub fn send_bytes(mut stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let (head, tail) = bytes.split_at(1);
    let (slices, rights) = ([IoSlice::new(head)], [ControlMessage::ScmRights(&fds)]);
    sendmsg::<()>(stream.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None).unwrap();
    // An init that refuses what it has seen so far reads no more.
    stream.write_all(tail).ok();
}

/// The end of the stream, which is an exec, or what went wrong.
pub fn ended(stream: &mut UnixStream) -> Option<Failure> {
    assert!(ready(stream.as_fd()), "neither an exec nor a failure");
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => None,
        Ok(_) if byte == [protocol::FAILED] => Some(failure(stream)),
        other => panic!("{byte:?} {other:?}"),
    }
}

fn failure(stream: &mut UnixStream) -> Failure {
    let mut errno = [0; 4];
    stream.read_exact(&mut errno).unwrap();
    let mut text = Vec::new();
    // Ends with an error if the init had not read all that was sent.
    stream.read_to_end(&mut text).ok();
    Failure { errno: i32::from_le_bytes(errno), text: String::from_utf8(text).unwrap() }
}

/// Whether there is something to read within 10 s.
pub fn ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap() == 1
}

/// `nexcage-init exec`: the pid of the process, its output, and what went wrong.
pub fn exec(description: &Description) -> (Option<i32>, OwnedFd, Option<Failure>) {
    let null = File::open("/dev/null").unwrap();
    let (output, theirs) = pipe();
    let stdio = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
    let (pid, failure) = exec_with(description, stdio);
    (pid, output, failure)
}

/// [`exec`] with a stdio of one's own.
pub fn exec_with(
    description: &Description,
    stdio: [BorrowedFd<'_>; 3],
) -> (Option<i32>, Option<Failure>) {
    let (mut ours, said) = begin_exec(description, stdio);
    match said {
        Ok(pid) => {
            ours.write_all(&[protocol::GO]).unwrap();
            (Some(pid), ended(&mut ours))
        }
        Err(failure) => (None, Some(failure)),
    }
}

/// An exec whose supervisor is gone once it has been told the pid.
pub fn abandoned_exec(description: &Description, stdio: [BorrowedFd<'_>; 3]) -> i32 {
    begin_exec(description, stdio).1.unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn begin_exec(
    description: &Description,
    stdio: [BorrowedFd<'_>; 3],
) -> (UnixStream, Result<i32, Failure>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut starter = Command::new("sh")
        .args(["-c", "exec \"$0\" exec 3<&0 </dev/null"])
        .arg(program())
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    send(&ours, description, stdio);
    let mut byte = [0];
    assert!(ready(ours.as_fd()), "the exec says nothing");
    ours.read_exact(&mut byte).unwrap();
    let said = if byte == [protocol::PID] {
        let mut pid = [0; 4];
        ours.read_exact(&mut pid).unwrap();
        Ok(i32::from_le_bytes(pid))
    } else {
        assert_eq!(byte, [protocol::FAILED]);
        Err(failure(&mut ours))
    };
    starter.wait().unwrap();
    (ours, said)
}

/// Whether a path is there, without following it.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
