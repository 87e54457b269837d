//! The init's end of the gate's socket.

use super::failure::{Context, Failure};
use super::sys::{self, Fd};
use crate::description::{Description, decode};
use crate::protocol::{self, FIRST_PASSED};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;
use core::convert::Infallible;

/// More than a config.json may have, which is 16 MiB; nothing longer is taken into memory.
const LONGEST: usize = 64 << 20;

/// Standard input, output and error.
const STDIO: usize = 3;

/// The connection to the supervisor.
pub struct Gate(Fd);

impl Gate {
    /// Over a socket, which an exec closes: that is how the supervisor sees it.
    pub fn new(socket: Fd) -> Self {
        Self(socket)
    }

    /// Takes the description, and the descriptors, which become standard input, output and error,
    /// and what the process gets beside them; those of mounts are returned.
    pub fn receive(&mut self) -> Result<(Description, Vec<Fd>), Failure> {
        let what = || "receive the description of the container".to_owned();
        let mut fds = Vec::new();
        let mut length = [0; 4];
        self.fill(&mut length, &mut fds).context(what)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(Failure::new(format!("a description of {length} bytes is too long")));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            // Grows with what comes, not with what was announced.
            let start = bytes.len();
            bytes.resize(length.min(start + 0x1_0000), 0);
            self.fill(bytes.get_mut(start..).unwrap_or_default(), &mut fds).context(what)?;
        }
        let description = decode(&bytes).ok_or_else(|| {
            Failure::new(
                "the description cannot be read: nexcage-init and the supervisor are not of the \
                 same version"
                    .to_owned(),
            )
        })?;
        let mounts = description.first.as_ref().map_or(0, |first| first.mounts.len());
        let wanted = STDIO + mounts + description.process.passed_fds as usize;
        if fds.len() != wanted {
            return Err(Failure::new(format!(
                "{} descriptors came with the description, not {wanted}",
                fds.len()
            )));
        }
        for (fd, number) in fds.drain(..STDIO).zip(0..) {
            sys::duplicate_over(&fd, number).context(|| format!("set up descriptor {number}"))?;
        }
        let mounts =
            self.place(fds, mounts).context(|| "set up the descriptors from 3 on".to_owned())?;
        Ok((description, mounts))
    }

    /// Puts descriptors at 3 and on, except for the first ones, as many as there are `mounts`,
    /// which it returns. Nothing else is there from here to the exec, and nobody but the process
    /// gets them.
    fn place(&mut self, fds: Vec<Fd>, mounts: usize) -> sys::Result<Vec<Fd>> {
        let passed = i32::try_from(fds.len() - mounts).map_err(|_| sys::Errno(libc::EMFILE))?;
        let beyond = passed + FIRST_PASSED;
        if self.0.number() < beyond {
            self.0 = sys::duplicate_beyond(&self.0, beyond)?;
        }
        let clear = |fd: Fd| match fd.number() < beyond {
            true => sys::duplicate_beyond(&fd, beyond),
            false => Ok(fd),
        };
        let mut fds = fds.into_iter().map(clear).collect::<sys::Result<Vec<Fd>>>()?;
        let passed = fds.split_off(mounts);
        let mut numbered = passed.iter().zip(FIRST_PASSED..);
        numbered.try_for_each(|(fd, number)| sys::duplicate_at(fd, number))?;
        Ok(fds)
    }

    fn fill(&self, mut buffer: &mut [u8], fds: &mut Vec<Fd>) -> sys::Result<()> {
        while !buffer.is_empty() {
            match sys::receive(&self.0, buffer, fds)? {
                0 => return Err(sys::Errno(libc::ECONNRESET)),
                length => buffer = buffer.split_at_mut(length).1,
            }
        }
        Ok(())
    }

    /// "created".
    pub fn ready(&self) -> Result<(), Failure> {
        sys::write(&self.0, &[protocol::READY])
            .context(|| "tell the supervisor that the container is created".to_owned())
    }

    /// Waits for the word. `false` if it never comes: the supervisor gave up.
    pub fn wait(&self) -> bool {
        let mut byte = [0];
        matches!(sys::read(&self.0, &mut byte), Ok(1)) && byte == [protocol::GO]
    }

    /// Tells the pid of an exec's process on the host.
    pub fn tell_pid(&self, pid: i32) -> sys::Result<()> {
        let mut message = [0; 5];
        let (kind, number) = message.split_at_mut(1);
        kind.copy_from_slice(&[protocol::PID]);
        number.copy_from_slice(&pid.to_le_bytes());
        sys::write(&self.0, &message)
    }

    /// Does what the supervisor says, which ends by exec or by exit; what goes wrong is told, and
    /// ends the program.
    pub fn follow(mut self, follow: impl FnOnce(&mut Self) -> Result<Infallible, Failure>) -> ! {
        let Err(failure) = follow(&mut self);
        self.fail(&failure);
        sys::exit(failure.status)
    }

    /// Tells what went wrong. Where even that is impossible nobody is left to tell.
    pub fn fail(&self, failure: &Failure) {
        let mut message = Vec::new();
        message.push(protocol::FAILED);
        message.extend_from_slice(&failure.errno.to_le_bytes());
        message.extend_from_slice(failure.text.as_bytes());
        sys::write(&self.0, &message).ok();
    }
}
