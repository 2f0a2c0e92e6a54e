//! What an operator sees of a configuration: golden messages, and that no
//! text whatsoever makes the parser panic.
//!
//! `BLESS=1 cargo test -p ghostd --test config` rewrites the golden files.

// Outside `#[test]` functions too, a test may say that something must be there.
#![allow(clippy::unwrap_used)]

mod golden;
mod property;
mod values;

const EXAMPLE: &str = include_str!("../../../packaging/ghostd.toml");
