//! File descriptors that travel over a unix socket.

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One message's descriptors, close-on-exec. `None` at the end of the stream. The text that came
/// along is dropped, and so are descriptors past the fourth: the kernel closes those.
///
/// # Errors
/// `EAGAIN` where the socket does not block and nothing has come yet.
pub fn receive(socket: impl AsFd) -> Result<Option<Vec<OwnedFd>>, Errno> {
    Ok(receive_whole(socket)?.map(|message| message.fds))
}

/// What has come at once.
pub struct Message {
    /// The first 512 bytes of the text.
    pub text: Vec<u8>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

/// As [`receive`], with the text.
///
/// # Errors
/// As [`receive`].
pub fn receive_whole(socket: impl AsFd) -> Result<Option<Message>, Errno> {
    let mut text = [0; 512];
    let mut control = nix::cmsg_space!([libc::c_int; 4]);
    let mut slices = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            #[expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
            // SAFETY: recvmsg(2) has just made these, they are ours, and nothing else has them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    let text = text.get(..length).unwrap_or_default().to_vec();
    Ok((length > 0 || !fds.is_empty()).then_some(Message { text, fds }))
}

/// Sends descriptors with the first of `bytes`; returns how many bytes have gone.
///
/// # Errors
/// `EAGAIN` where the socket does not block and is full: nothing has gone then.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
}
