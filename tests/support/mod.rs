//! What the tests and the benchmark share: a client that plays containerd's part towards any shim,
//! with no containerd, and what it needs around it.
//!
//! ```text
//! Scene      a folder, a containerd namespace and an event endpoint of a test's own; removes it all
//! Bundle     a bundle on the test bed's root file system, and the Create request for it
//! Start      one call of the shim's `start`, as containerd makes it
//! Task       the task API of a shim, as version 2 or 3
//! Events     containerd's end of the events, every one recorded
//! guest      a guest as LXC makes it, for nexcage-init, with the supervisor played by hand
//! node       a node of Proxmox VE for the command line
//! oci        the command line, called as conmon calls it
//! fifo       both ends of a container's stdio
//! proc       what /proc tells of a process, waits for conditions, a process of a test's own
//! ```
//!
//! All of it has to run inside `tests/bed/enter`, whose /run is private.

pub mod bed;
pub mod bundle;
pub mod events;
pub mod fifo;
pub mod guest;
pub mod node;
pub mod oci;
pub mod proc;
pub mod scene;
pub mod start;
pub mod task;

pub use bundle::Bundle;
pub use events::Events;
pub use scene::Scene;
pub use start::Start;
pub use task::Task;
