//! `cargo xtask bench steer`: the data plane and the daemon in numbers.

mod daemon;
mod fleet;
mod frames;
mod live;
mod packets;
mod pins;
mod rig;
mod routes;
mod store;
mod tables;
mod throws;

use super::Suite;

pub(super) const SUITE: Suite = Suite {
    name: "steer",
    sections: &[
        ("packets", packets::measure),
        ("live", live::measure),
        ("routes", routes::measure),
        ("fleet", fleet::measure),
        ("throws", throws::measure),
        ("daemon", daemon::measure),
    ],
};
