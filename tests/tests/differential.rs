//! ghostd against the kernel's own NAT: the same frames, the same bytes.
//!
//! `GDT_SEED` and `GDT_CASES` repeat or lengthen a run.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ghostd_tests::{
    host::{Rigged, nft},
    oracle::{Case, Generator, Rig, Twins, Verdict, run_cases, run_seed},
    topology::Topology,
};

fn twins(mode: &'static str, mtu: u32) -> Result<(Rigged, Twins)> {
    let reference = Rig::over(Topology::with_mtu(mtu)?)?;
    nft::steer_to_ghost(&reference.net.host)?;
    nft::be_liberal(&reference.net.host)?;
    let mut rigged = Rigged::new(Topology::with_mtu(mtu)?, |config| config.mode = mode)?;
    let subject = rigged.rig.take().context("the rig")?;
    Ok((rigged, Twins::new(reference, subject)))
}

/// Plays the corpus, then new cases; stops at the tenth failure.
fn play(mode: &'static str, mtu: u32) -> Result<()> {
    let (_rigged, mut twins) = twins(mode, mtu)?;
    let mut generator = Generator::new(run_seed()).with_packets_up_to(mtu);
    println!("{mode}, mtu {mtu}, seed {}", generator.seed());
    let mut failures = 0;
    let new = (0..run_cases(3_000)).map(|_| Ok(generator.case()));
    for case in corpus()?.into_iter().map(Ok).chain(new) {
        let case: Case = case.map_err(|error: anyhow::Error| error)?;
        if let Verdict::Differs(difference) = twins.play(&case)? {
            failures += 1;
            println!("{}{difference}\nkept in {}\n", case, keep(&case)?);
            if failures == 10 {
                break;
            }
        }
    }
    println!("{}", twins.tally);
    ensure!(failures == 0, "{failures} cases came out differently");
    ensure!(
        twins.tally.frames_out > twins.tally.frames_in / 2,
        "too little came out to tell"
    );
    Ok(())
}

fn corpus() -> Result<Vec<Case>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "hex"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)?;
            text.parse().with_context(|| path.display().to_string())
        })
        .collect()
}

/// Writes a failure down for the corpus.
fn keep(case: &Case) -> Result<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differs");
    std::fs::create_dir_all(&folder)?;
    let name: String = case
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let path = folder.join(name).with_extension("hex");
    std::fs::write(&path, case.to_string())?;
    Ok(path.display().to_string())
}

#[test]
fn native_xdp_translates_as_the_kernel_does() -> Result<()> {
    play("native", 1500)
}

#[test]
fn generic_xdp_translates_as_the_kernel_does() -> Result<()> {
    play("generic", 1500)
}

/// The ghost's link is 1,500 bytes wide, the client's more: packets have to be
/// fragmented, or their senders told.
#[test]
fn packets_too_big_for_the_ghosts_link_are_answered_as_the_kernel_does() -> Result<()> {
    play("native", 3_000)
}
