//! Instances that ghostd runs itself, as an operator sees them.

mod basics;
mod demo;
mod limits;
mod takeover;
