//! `cargo xtask bench ghost`: microVMs in numbers.

mod activate;
mod create;
mod fleet;
mod harvest;
mod planner;
mod rig;

use super::Suite;

pub(super) const SUITE: Suite = Suite {
    name: "ghost",
    sections: &[
        ("create", create::measure),
        ("activate", activate::measure),
        ("fleet", fleet::measure),
        ("harvest", harvest::measure),
        ("planner", planner::measure),
    ],
};
