//! One error type for everything, with one kind that callers act on.
//!
//! A kind is decided where the cause is known (an exit status, an errno, a structured log line),
//! never by searching a message. `shim::wire` maps kinds to ttrpc codes, `cli` maps them to exit
//! statuses; nothing else does. Context is added on the way out, so that a message reads
//! "create container web-1: crun: …".

use std::fmt;
use std::io;

/// What went wrong, as a caller can act on it. The names are those of containerd's errdefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The container, exec, file or cgroup that was named is not there.
    NotFound,
    /// Something of that id is there already.
    AlreadyExists,
    /// The thing is there, but not in a state that allows this.
    FailedPrecondition,
    /// The request, the bundle or a configuration file is wrong.
    InvalidArgument,
    /// Nexcage, or the backend in use, does not do this.
    Unimplemented,
    /// A bounded wait ran out.
    DeadlineExceeded,
    /// Something that is needed cannot be reached, or is missing on this host.
    Unavailable,
    /// Everything else: an operating system call or the runtime failed.
    Unknown,
}

/// An error: its kind, and one line that says what failed, on what, and what to do. One that has
/// several causes has a line for each.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    /// The lines after the first.
    more: Vec<String>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message of one line.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), more: Vec::new() }
    }

    /// [`Kind::NotFound`]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// [`Kind::AlreadyExists`]
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Kind::AlreadyExists, message)
    }

    /// [`Kind::FailedPrecondition`]
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    /// [`Kind::InvalidArgument`]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// [`Kind::Unimplemented`]
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Kind::Unimplemented, message)
    }

    /// [`Kind::DeadlineExceeded`]
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(Kind::DeadlineExceeded, message)
    }

    /// [`Kind::Unavailable`]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// [`Kind::Unknown`]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Kind::Unknown, message)
    }

    /// What a caller can act on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Says what was being done, in front of what went wrong. The kind stays.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        let within = |line: &String| format!("{doing}: {line}");
        let more = self.more.iter().map(within).collect();
        Self { kind: self.kind, message: within(&self.message), more }
    }

    /// What was wrong in one piece of input, a line each; `None` where nothing was.
    pub fn each(kind: Kind, lines: Vec<String>) -> Option<Self> {
        let mut lines = lines.into_iter();
        Some(Self { kind, message: lines.next()?, more: lines.collect() })
    }

    /// Its lines, for those who have room for them. In one line they are apart by semicolons.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.message).chain(&self.more).map(String::as_str)
    }

    /// One error of several, for teardown that goes on past the first; `None` where all went well.
    /// The kind is the first one's.
    pub fn list(errors: Vec<Self>) -> Option<Self> {
        let kind = errors.first()?.kind;
        let lines: Vec<String> = errors.iter().map(Self::to_string).collect();
        Some(Self::new(kind, lines.join("; ")))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        self.more.iter().try_for_each(|line| write!(out, "; {line}"))
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
            io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
            _ => Kind::Unknown,
        };
        Self::new(kind, source.to_string())
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Adds what was being done to a result's error.
pub trait Context<T> {
    /// `doing` is made only when there is an error.
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}
