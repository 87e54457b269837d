//! The shim's actions, called as containerd calls them.

use super::Bundle;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use protobuf::Message;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long an action may take before a test gives it up. containerd's own patience is 10 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// One call of an action, before it is made.
#[derive(Clone)]
pub struct Start {
    /// The shim's program.
    pub program: PathBuf,
    /// The words of the command line.
    pub words: Vec<OsString>,
    /// The working folder.
    pub bundle: PathBuf,
    /// What is written to stdin.
    pub stdin: Vec<u8>,
    /// The environment, beyond PATH.
    pub env: Vec<(OsString, OsString)>,
    /// PATH
    pub path: OsString,
}

/// What an action said.
#[derive(Debug)]
pub struct Reply {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout, read to the end.
    pub stdout: Vec<u8>,
    /// Its stderr, read to the end.
    pub stderr: String,
    /// From its start until both streams had ended.
    pub took: Duration,
}

/// Where a supervisor listens, and which version of the task API containerd would speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `unix://…`
    pub address: String,
    /// 2 or 3
    pub version: u32,
}

impl Start {
    /// `start` with all that containerd gives to it.
    pub fn new(
        program: &Path,
        namespace: &str,
        bundle: &Bundle,
        ttrpc: &Path,
        path: OsString,
    ) -> Self {
        let grpc = ttrpc.with_extension("grpc");
        let words = ["-namespace", namespace, "-address"].map(OsString::from).into_iter();
        let words = words.chain([grpc.clone().into()]);
        let words = words.chain(["-publish-binary", "/bin/true", "-id"].map(OsString::from));
        let words = words.chain([bundle.id.clone().into(), "start".into()]).collect();
        let env = [
            ("TTRPC_ADDRESS", ttrpc.into()),
            ("GRPC_ADDRESS", grpc.into()),
            ("NAMESPACE", OsString::from(namespace)),
            ("GOMAXPROCS", "2".into()),
            ("MAX_SHIM_VERSION", "2".into()),
        ];
        Self {
            program: program.to_owned(),
            words,
            bundle: bundle.path.clone(),
            stdin: Vec::new(),
            env: env.map(|(name, value)| (name.into(), value)).into(),
            path,
        }
    }

    /// Writes this to stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = bytes;
        self
    }

    /// Writes parameters to stdin, as containerd does from 2.3 on.
    #[must_use]
    pub fn params(self, params: &BootstrapParams) -> Self {
        self.stdin(params.write_to_bytes().unwrap())
    }

    /// Adds a flag in front.
    #[must_use]
    pub fn flag(mut self, word: &str) -> Self {
        self.words.insert(0, word.into());
        self
    }

    /// Another action with the same flags and environment; containerd gives `delete` the bundle.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        self.words.pop();
        if action == "delete" {
            self.stdin.clear();
            self.words.extend(["-bundle".into(), self.bundle.clone().into_os_string()]);
        }
        self.words.push(action.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words).current_dir(&self.bundle).process_group(0);
        command.env_clear().env("PATH", &self.path);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Makes the call, and waits until it has ended and nobody holds its stdout or stderr.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn run(&self) -> Reply {
        let began = Instant::now();
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = self.stdin.clone();
        // A shim that has read enough closes its end.
        thread::spawn(move || drop(stdin.write_all(&bytes)));
        let (tell, told) = mpsc::channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let streams: [Box<dyn Read + Send>; 2] = [Box::new(out), Box::new(err)];
        for (index, mut stream) in streams.into_iter().enumerate() {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                drop(stream.read_to_end(&mut bytes));
                drop(tell.send((index, bytes)));
            });
        }
        let mut said = [Vec::new(), Vec::new()];
        for _ in 0..2 {
            let Ok((index, bytes)) = told.recv_timeout(PATIENCE) else {
                drop(child.kill());
                let words = &self.words;
                panic!("{words:?}: stdout or stderr has not ended in {PATIENCE:?}");
            };
            said[index] = bytes;
        }
        let took = began.elapsed();
        let [stdout, stderr] = said;
        let status = child.wait().unwrap();
        Reply { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), took }
    }

    /// Makes the call as containerd does, with one pipe for stdout and stderr, and nothing
    /// around it that would count when its time is taken.
    pub fn run_combined(&self) -> (Vec<u8>, Duration) {
        let mut command = self.command();
        let began = Instant::now();
        let (mut read, write) = std::io::pipe().unwrap();
        command.stdout(write.try_clone().unwrap()).stderr(write);
        command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap();
        drop(command);
        if let Some(mut stdin) = child.stdin.take() {
            // Not every shim reads it.
            stdin.write_all(&self.stdin).ok();
        }
        let mut said = Vec::new();
        read.read_to_end(&mut said).unwrap();
        let status = child.wait().unwrap();
        let took = began.elapsed();
        assert!(status.success(), "{}: {}", self.program.display(), String::from_utf8_lossy(&said));
        (said, took)
    }
}

impl Reply {
    /// The address, of a call that has to have succeeded without a word on stderr.
    #[track_caller]
    pub fn address(&self) -> Address {
        assert!(self.status.success(), "start failed: {:?}", self.stderr);
        assert_eq!(self.stderr, "", "containerd would take this for a part of the address");
        Address::parse(&self.stdout)
    }

    /// What `delete` answered.
    #[track_caller]
    pub fn deleted(&self) -> DeleteResponse {
        assert!(self.status.success(), "delete failed: {:?}", self.stderr);
        DeleteResponse::parse_from_bytes(&self.stdout).unwrap()
    }

    /// The one line in which it said why it failed.
    #[track_caller]
    pub fn refusal(&self) -> &str {
        assert!(!self.status.success(), "succeeded: {self:?}");
        assert!(self.stdout.is_empty(), "a failure with a reply: {self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or(&self.stderr);
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {:?}", self.stderr);
        assert!(line.len() < 1000, "not one sentence: {:?}", self.stderr);
        line
    }
}

impl Address {
    /// Reads a reply in either of the formats that containerd knew before 2.3: an address, which
    /// means version 2, or JSON.
    pub fn parse(reply: &[u8]) -> Self {
        let text = String::from_utf8_lossy(reply);
        let text = text.trim();
        if text.starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(json["protocol"], "ttrpc");
            return Self {
                address: json["address"].as_str().unwrap().to_owned(),
                version: json["version"].as_u64().unwrap() as u32,
            };
        }
        assert!(text.starts_with("unix://"), "{text:?} is no address");
        Self { address: text.to_owned(), version: 2 }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        Path::new(self.address.trim_start_matches("unix://"))
    }
}
