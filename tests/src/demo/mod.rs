//! The demo: reboots that clients do not notice, told as they happen.
//!
//! [`story`] drives, [`clients`] ask without an end and write down what came
//! of it, [`timeline`] says who noticed what and when, [`judgement`] whether
//! the promises held.

mod clients;
mod judgement;
mod paint;
mod story;
mod timeline;
mod world;

pub use clients::Asked;
pub use judgement::{Act, Promise, Seen};
pub use story::run;
pub use timeline::Timeline;
