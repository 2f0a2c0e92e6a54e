//! How long it takes to plan the ghosts of 1,000 instances.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ghostd::{
    allocate::{Policy, plan},
    model::{Amounts, Demand, Need, Owner, Priority, Risk},
};

use crate::bench::report::{Section, Target};

const INSTANCES: u32 = 1000;
const ROUNDS: usize = 50;
const MIB: u64 = 1 << 20;

pub(in crate::bench) fn measure() -> Result<Section> {
    let mut section = Section::new("Ghosts of 1,000 instances are planned");
    let demands = (0..INSTANCES).map(demand).collect::<Result<Vec<_>>>()?;
    // A quarter of it is the reserve: far from enough for all.
    let capacity = Amounts {
        memory_bytes: 64 * 1024 * MIB,
        huge_pages: 0,
        cpu_milli: 32_000,
        bandwidth: 1_250_000_000,
    };
    let policy = Policy::default();
    let first = plan(None, &demands, &capacity, &policy);
    ensure!(!first.refusals.is_empty(), "a plan that is easy to make");
    let (mut fresh, mut again) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let made = plan(None, &demands, &capacity, &policy);
        fresh.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(made == first, "the same demands made another plan");
        let start = Instant::now();
        let made = plan(Some(&first), &demands, &capacity, &policy);
        again.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(made == first, "planned again, it is another plan");
    }
    section.row("from nothing", fresh, "ms", Target::AtMost(5.0));
    section.row("after an earlier plan", again, "ms", Target::AtMost(5.0));
    let refused = first.refusals.len();
    section.note(format!(
        "{refused} of them get less than their risk asks for"
    ));
    Ok(section)
}

/// Small steps of risk, so that many are near the bounds between grades.
fn demand(number: u32) -> Result<Demand> {
    let memory_bytes = (64 + u64::from(number % 7) * 64) * MIB;
    Ok(Demand {
        name: format!("i{number}").parse()?,
        owner: Some(Owner {
            name: format!("owner{}", number % 13),
            priority: Priority::ORDINARY,
            share_percent: 20,
        }),
        priority: Priority::ORDINARY,
        risk: Risk::from_ppm(number * 997 % 1_000_000).context("no risk")?,
        need: Need {
            memory_bytes,
            working_set_bytes: memory_bytes / 8,
            vcpus: 1,
            dirty_rate: 10_000_000,
        },
    })
}
