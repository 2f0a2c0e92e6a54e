//! What it costs to learn which pages a guest wrote.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::rig::{said, start};
use crate::{
    bench::report::{Section, Target},
    microvm::{Client, Spec},
    netns::NetNs,
};

const MEMORY_MIB: u64 = 1024;
const ROUNDS: usize = 30;
/// Pages a second at which a guest dirties about one in a hundred of its
/// pages between two looks.
const RATE: u64 = 27_000;
const GAP: Duration = Duration::from_millis(100);

pub(in crate::bench) fn measure() -> Result<Section> {
    let mut section = Section::new("Dirty pages are harvested, 1 GiB, about 1 % dirty");
    for (name, pattern) in [
        ("side by side", "sequential"),
        ("all over memory", "random"),
    ] {
        let (us, pages) = harvests(pattern)?;
        section.row(
            format!("{name}: command to answer"),
            us,
            "us",
            Target::AtMost(1000.0),
        );
        section.row(format!("{name}: pages in it"), pages, "", Target::None);
    }
    section.note("the guest runs and writes on while it is asked");
    Ok(section)
}

/// Time and pages of each harvest but the first.
fn harvests(pattern: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    // The payload's own memory ends a little below that of the guest.
    let pages = MEMORY_MIB * 256 - 4096;
    let write = format!("write=rate:{RATE},pages:{pages},pattern:{pattern},content:word");
    // The service writes, and wants a network.
    let ns = NetNs::new("bench")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    let mut spec = Spec::new(&format!("do=serve {write}"))?;
    spec.memory_mib = MEMORY_MIB;
    spec.has_control = true;
    let net = ["--tap", "tap0", "--mac", "02:00:00:00:00:77"];
    spec.more.extend(net.map(str::to_owned));
    let (vm, _) = ns.run(|| start(&spec))??;
    let client = vm.connect()?;
    said(&client, "track", "tracking")?;
    let (mut times, mut counts) = (Vec::new(), Vec::new());
    let (_, mut release, _) = harvest(&client, 0)?;
    for _ in 0..ROUNDS {
        // What is measured is a look after a while, not waiting for anything.
        thread::sleep(GAP);
        let (us, sequence, pages) = harvest(&client, release)?;
        release = sequence;
        times.push(us);
        counts.push(pages);
    }
    ensure!(
        counts.iter().all(|&pages| pages > 0.0),
        "the guest writes nothing"
    );
    Ok((times, counts))
}

/// Time in us, the harvest's number, and how many pages it names.
fn harvest(client: &Client, release: u64) -> Result<(f64, u64, f64)> {
    let start = Instant::now();
    let answer = client.ask_with(&json!({"command": "dirty", "release": release}), None)?;
    let us = start.elapsed().as_secs_f64() * 1e6;
    let json = answer.json;
    let number = |name: &str| {
        json[name]
            .as_u64()
            .with_context(|| format!("no {name}: {json}"))
    };
    Ok((us, number("sequence")?, number("pages")? as f64))
}
