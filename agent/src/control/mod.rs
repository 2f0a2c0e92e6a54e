//! The local API: HTTP and JSON on a unix socket.
//!
//! Owns: the socket ([`bind`], [`serve`]), the words on it ([`dto`]), who may
//! do what ([`access`]), and the generated OpenAPI document ([`openapi`]).
//! Works with `curl --unix-socket /run/ghostd/ghostd.sock http://ghostd/v1/status`.
//!
//! Refuses: to decide or to touch the kernel. Requests go to the driver over a
//! bounded channel; a full one is an answer (503), not a wait.
//!
//! How it fails: bad input gets a problem (RFC 9457) and changes nothing; a
//! slow or silent peer costs one of a bounded number of connections.

pub mod access;
mod api;
mod console;
pub mod dto;
mod events;
pub mod findings;
mod instances;
pub mod openapi;
mod peer;
mod plan;
mod respond;
#[cfg(test)]
pub(crate) mod sample;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use server::{ApiState, serve};
pub use socket::{ControlError, SOCKET_PATH, bind};
