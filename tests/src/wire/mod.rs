//! What is really on the wire: frames in, frames out, seen where they pass.

mod socket;
mod tap;

pub use socket::{Frame, PacketSocket};
pub use tap::{Tap, payload_of};
