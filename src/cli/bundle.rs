//! `nexcage bundle`: making and checking bundles.

pub mod create;
pub mod validate;
