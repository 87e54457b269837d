#![doc = include_str!("ARCHITECTURE.md")]

extern crate alloc;

pub mod backend;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod container;
pub mod cri;
pub mod error;
pub mod event;
pub mod exit;
pub mod guest;
pub mod id;
pub mod init;
pub mod postmortem;
pub mod route;
pub mod shim;
pub mod spec;
pub mod stats;
pub mod stdio;
pub mod store;
pub mod sys;
pub mod vmid;
