//! What a person reads. Pure: from API types to text.
//!
//! All text that comes from outside (names of tasks, interfaces, programs,
//! messages) passes [`super::look::printable`].

mod events;
mod findings;
mod plan;
mod routes;
mod status;
mod switches;
#[cfg(test)]
mod tests;
mod vms;

pub use events::event_line;
pub use findings::findings;
pub use plan::plan;
pub use routes::routes;
pub use status::{brief, status};
pub use switches::{host_switch, outcome, switches};
pub use vms::{vm, vm_done, vms};
