//! Instances that ghostd runs itself, as an operator sees them.

mod basics;
mod demo;
mod drill;
mod limits;
mod takeover;
