//! Both ends of a container's stdio, as containerd and its clients hold them.

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

/// Makes a FIFO and returns its path as a request carries it.
pub fn make(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    path.to_string_lossy().into_owned()
}

#[derive(Clone, Default)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
}

/// A reader that collects what comes out of a FIFO, from a thread of its own.
pub struct Reader {
    seen: watch::Receiver<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Reader {
    /// Opens the FIFO at once, and waits for a writer after that.
    pub fn open(path: impl AsRef<Path>) -> Self {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path.as_ref())
            .unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(20_u8)).unwrap();
                let ready = fds[0].revents().unwrap_or(PollFlags::empty());
                if ready.is_empty() {
                    continue;
                }
                match file.read(&mut buffer) {
                    // Hung up and empty: there was a writer, and it is gone.
                    Ok(0) => {
                        sender.send_modify(|read| read.ended = true);
                        return;
                    }
                    Ok(size) => {
                        sender.send_modify(|read| read.bytes.extend_from_slice(&buffer[..size]));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("read a FIFO: {error}"),
                }
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// All that has come so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.borrow().bytes).into_owned()
    }

    /// Whether the last writer has gone.
    pub fn ended(&self) -> bool {
        self.seen.borrow().ended
    }

    async fn until(&self, what: &str, enough: impl Fn(&Seen) -> bool) -> String {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|read| enough(read));
        let done = tokio::time::timeout(Duration::from_secs(10), wait).await;
        let text = self.text();
        assert!(done.is_ok_and(|found| found.is_ok()), "{what} has not come in 10 s: {text:?}");
        text
    }

    /// Waits until `text` has come, and returns all so far.
    pub async fn line(&self, text: &str) -> String {
        self.until(&format!("{text:?}"), |read| String::from_utf8_lossy(&read.bytes).contains(text))
            .await
    }

    /// Waits for the end, and returns all of it.
    pub async fn end(&self) -> String {
        self.until("the end", |read| read.ended).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The writing end of a stdin FIFO, which the shim has open already.
pub fn writer(path: impl AsRef<Path>) -> File {
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path.as_ref())
        .expect("the shim has not opened its end")
}

/// Writes a line to a stdin FIFO.
pub fn write_line(file: &mut File, line: &str) {
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The three FIFOs of one process.
pub struct Stdio {
    /// Path of its stdin.
    pub stdin: String,
    /// Path of its stdout.
    pub stdout: String,
    /// Path of its stderr.
    pub stderr: String,
}

impl Stdio {
    /// Makes the FIFOs `<name>-stdin` and so on.
    pub fn new(folder: &Path, name: &str) -> Self {
        let fifo = |stream| make(folder, &format!("{name}-{stream}"));
        Self { stdin: fifo("stdin"), stdout: fifo("stdout"), stderr: fifo("stderr") }
    }
}

/// A path that nothing is at.
pub fn missing(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}
