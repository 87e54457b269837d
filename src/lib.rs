//! Nexcage.

pub mod cli;
pub mod config;
pub mod error;
pub mod exit;
pub mod id;
pub mod shim;
pub mod spec;
pub mod stats;
pub mod stdio;
pub mod sys;
