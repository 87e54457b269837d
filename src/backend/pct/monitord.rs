//! LXC's monitor daemon, which pct itself leans on: how a guest ended, and that it has stopped.
//!
//! It tells everybody who is connected, of every guest below /var/lib/lxc, and only what happens
//! from then on: so it is connected to before the guest can run.

use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::guest::told;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream as Std};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Its abstract socket: a hash of the path that follows it.
const SOCKET: &str = "lxc/ad055575fe28ddd5//var/lib/lxc";

/// The kind of a message that carries a state, and the states that mean the end.
const STATE: i32 = 0;
const STOPPED: i32 = 0;
const ABORTING: i32 = 4;

/// What will be heard of one guest.
#[derive(Debug)]
pub struct Heard {
    /// How its init ended.
    pub exit: oneshot::Receiver<Exit>,
    /// The guest has stopped, or did not start. A sender that is dropped means that the daemon is
    /// gone.
    pub stopped: oneshot::Receiver<()>,
}

/// A connection to the daemon. Whoever has one reads it, or the daemon comes to wait for that.
///
/// # Errors
/// `Unavailable` when the daemon does not run.
pub fn connect() -> Result<OwnedFd> {
    connect_to(SOCKET)
}

fn connect_to(socket: &str) -> Result<OwnedFd> {
    let connected =
        SocketAddr::from_abstract_name(socket).and_then(|address| Std::connect_addr(&address));
    connected.map(OwnedFd::from).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::ConnectionRefused => ": `systemctl start lxc-monitord`",
            _ => "",
        };
        Error::unavailable(format!(
            "connect to LXC's monitor daemon, without which nobody sees a guest start or end: \
             {error}{advice}"
        ))
    })
}

/// Begins to listen. To be called in a tokio runtime.
///
/// # Errors
/// `Unknown` for what is no connection to the daemon.
pub fn listen(connection: OwnedFd, vmid: u32) -> Result<Heard> {
    let stream = Std::from(connection);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let (exit, exit_receiver) = oneshot::channel();
    let (stopped, stopped_receiver) = oneshot::channel();
    tokio::spawn(hear(stream, vmid.to_string(), exit, stopped));
    Ok(Heard { exit: exit_receiver, stopped: stopped_receiver })
}

async fn hear(
    mut stream: UnixStream,
    name: String,
    exit: oneshot::Sender<Exit>,
    mut stopped: oneshot::Sender<()>,
) {
    let mut exit = Some(exit);
    let mut message = [0; told::MESSAGE];
    loop {
        // Until nobody wants to know any more; half a message that is then lost matters to nobody.
        let unwanted = async {
            if let Some(exit) = &mut exit {
                exit.closed().await;
            }
            stopped.closed().await;
        };
        tokio::select! {
            read = stream.read_exact(&mut message) => if read.is_err() { return },
            () = unwanted => return,
        }
        if let Some(status) = told::exit_in(&message, &name) {
            if let Some(exit) = exit.take() {
                // Whoever drops the receiver asks somebody else.
                exit.send(status).ok();
            }
        } else if is_end(&message, &name) {
            stopped.send(()).ok();
            return;
        }
    }
}

/// Whether a message says that the guest of that name has stopped.
fn is_end(message: &[u8; told::MESSAGE], name: &str) -> bool {
    let number = |at: usize| {
        let bytes = message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_ne_bytes)
    };
    let named = message.get(4..260).and_then(|bytes| bytes.split(|&byte| byte == 0).next());
    let ended = matches!(number(260), Some(STOPPED | ABORTING));
    number(0) == Some(STATE) && ended && named == Some(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    fn message(kind: i32, name: &str, value: i32) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(told::MESSAGE - 4, 0);
        bytes.extend_from_slice(&value.to_ne_bytes());
        bytes
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_guests_exit_and_stop_are_heard_among_those_of_others() {
        let socket = format!("nexcage-test-{}", std::process::id());
        let error = connect_to(&socket).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("systemctl start lxc-monitord"), "{error}");
        let address = SocketAddr::from_abstract_name(&socket).unwrap();
        let daemon = UnixListener::bind_addr(&address).unwrap();
        let heard = listen(connect_to(&socket).unwrap(), 150).unwrap();
        let mut stream = daemon.accept().unwrap().0;
        for bytes in [
            message(0, "150", 2),
            message(2, "1500", 7),
            message(0, "151", 0),
            message(2, "150", 9),
            message(0, "150", 3),
        ] {
            stream.write_all(&bytes).unwrap();
        }
        assert_eq!(heard.exit.await.unwrap().status, 137);
        let mut stopped = heard.stopped;
        assert!(stopped.try_recv().is_err());
        stream.write_all(&message(0, "150", 0)).unwrap();
        stopped.await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_daemon_that_dies_leaves_nothing_to_wait_for() {
        let socket = format!("nexcage-test-dies-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&socket).unwrap();
        let daemon = UnixListener::bind_addr(&address).unwrap();
        let heard = listen(connect_to(&socket).unwrap(), 150).unwrap();
        drop(daemon.accept().unwrap());
        assert!(heard.exit.await.is_err() && heard.stopped.await.is_err());
    }
}
