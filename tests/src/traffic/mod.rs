//! Clients that never stop asking, and keep a record of every request.
//!
//! Owns: sending at a set rate and writing down what came of it. Refuses:
//! judging; stories and the demo do that from the record.

mod client;
mod http;
mod icmp;
mod lines;
mod storm;
mod summary;
mod udp;

pub use client::{Client, Exchange, Outcome};
pub use http::start as http;
pub use icmp::start as ping;
pub use lines::{long_lived, short_lived};
pub use storm::{Storm, StormReport};
pub use summary::Summary;
pub use udp::start as udp;

use std::time::Duration;

/// A request without an answer for this long has failed. Far above any round
/// trip between namespaces, even on a loaded machine.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
