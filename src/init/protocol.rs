//! What is said over the gate's socket, a stream.
//!
//! ```text
//! init        connects                                  (SO_PEERCRED tells its host pid)
//! supervisor  u32 length, then that many bytes of Description; with the first byte come three
//!             descriptors, its stdin, stdout and stderr (the same one three times for a terminal);
//!             mounts, and then those that it gets as 3 and on, come with later bytes, 253 at most
//!             with each
//! init        READY, or FAILED and a message            ("created")
//! supervisor  GO                                        ("start")
//! init        end of the stream: it became the process; or FAILED, i32 errno, a message
//! ```
//!
//! Numbers are little-endian. An end of the stream before GO means that the supervisor gave up:
//! the init exits.

/// Folder of the socket and of the program itself inside a guest, below its /dev.
pub const FOLDER: &str = "dev/.nexcage";

/// The socket's name in [`FOLDER`].
pub const SOCKET: &str = "socket";

/// The program's name in [`FOLDER`].
pub const PROGRAM: &str = "init";

/// The number of the first descriptor that a process gets beside its stdio (sd_listen_fds(3),
/// SD_LISTEN_FDS_START).
pub const FIRST_PASSED: i32 = 3;

/// As many descriptors go with one byte (unix(7), SCM_MAX_FD).
pub const MOST_FDS: usize = 253;

/// From the init: everything that could be done before the start is done.
pub const READY: u8 = b'R';

/// From the init: an i32 errno (0 for none) and the rest of the stream as text follow; it exits.
pub const FAILED: u8 = b'E';

/// From the supervisor: become the process.
pub const GO: u8 = b'G';

/// From an exec: an i32 follows, the pid on the host of the process that it made, which waits for
/// GO.
pub const PID: u8 = b'P';
