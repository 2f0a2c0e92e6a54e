//! The demo: a reboot that clients do not notice, told as it happens.
//!
//! [`story`] drives, [`timeline`] writes down who noticed what and when,
//! [`judgement`] counts what the clients saw and says whether the promise held.

mod judgement;
mod paint;
mod story;
mod timeline;

pub use judgement::{Arrivals, Judgement, describe};
pub use story::run;
pub use timeline::Timeline;
