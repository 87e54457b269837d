#![doc = include_str!("ARCHITECTURE.md")]

pub mod backend;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod container;
pub mod error;
pub mod event;
pub mod exit;
pub mod id;
pub mod postmortem;
pub mod shim;
pub mod spec;
pub mod stats;
pub mod stdio;
pub mod store;
pub mod sys;
