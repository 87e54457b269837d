//! Nexcage.

pub mod cli;
pub mod error;
pub mod exit;
pub mod id;
pub mod shim;
pub mod stats;
pub mod sys;
