//! LXC's monitor daemon, as whoever waits for a guest's states hears it.

use crate::report::{Outcome, fail, reason};
use std::io::{ErrorKind, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// The abstract socket's name: a hash of LXC's folder, and the folder.
pub const NAME: &str = "lxc/ad055575fe28ddd5//var/lib/lxc";

/// What the daemon sends for each change: what kind of news, whose, and a value.
const RECORD: usize = 264;

/// A guest's state, by the daemon's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Ended.
    Stopped,
    /// Being started.
    Starting,
    /// Its init runs.
    Running,
    /// Failed to start.
    Aborting,
    /// Anything else.
    Other,
}

/// A connection to the daemon.
pub struct Monitor {
    stream: UnixStream,
    end: Option<Instant>,
}

impl Monitor {
    /// Connects.
    pub fn connect() -> std::io::Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        Ok(Self { stream: UnixStream::connect_addr(&address)?, end: None })
    }

    /// From now on, `next` waits until then; with nothing, for ever.
    pub fn give_up_after(&mut self, limit: Option<Duration>) {
        self.end = limit.map(|limit| Instant::now() + limit);
    }

    /// The next state of that guest.
    pub fn next(&mut self, vmid: u32) -> Outcome<State> {
        loop {
            let left = self.end.map(|end| {
                end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
            });
            self.stream.set_read_timeout(left).or_else(|error| fail(reason(&error)))?;
            let mut record = [0; RECORD];
            match self.stream.read_exact(&mut record) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return fail("got timeout");
                }
                Err(error) => return fail(reason(&error)),
            }
            let (kind, rest) = record.split_at(4);
            let (name, value) = rest.split_at(256);
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if kind != [0; 4] || name != vmid.to_string().as_bytes() {
                continue;
            }
            return Ok(match value.first() {
                Some(0) => State::Stopped,
                Some(1) => State::Starting,
                Some(2) => State::Running,
                Some(4) => State::Aborting,
                _ => State::Other,
            });
        }
    }
}
