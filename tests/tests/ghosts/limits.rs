//! Ghosts take no more than the reserve, and what the host does not enforce
//! is named.

use anyhow::{Result, ensure};
use ghostd_tests::{
    host::{Hosted, VM},
    microvm,
};

const RUNS: &str = "say=up do=spin";

/// With a reserve of so much memory.
fn with_reserve(memory: &str) -> Result<Hosted> {
    Hosted::with(RUNS, "", |config| {
        config
            .extra
            .insert_str(0, &format!("\n[reserve]\nmemory = \"{memory}\"\n"));
    })
}

#[test]
fn a_ghost_beyond_the_reserve_is_refused_with_the_figures() -> Result<()> {
    if !microvm::is_possible("a_ghost_beyond_the_reserve_is_refused_with_the_figures") {
        return Ok(());
    }
    // 16 MiB and 8 MiB of the VMM's are needed.
    let hosted = with_reserve("23MiB")?;
    hosted.order("instance", "create")?;
    let before = hosted.traces()?;
    let said = hosted.refused("ghost", "prepare")?;
    let figures = "the reserve has 23 MiB left, vm-1 needs 24 MiB; ghosts hold 0 MiB of 23 MiB";
    ensure!(said.contains(figures), "{said}");
    ensure!(said.contains("`ghostctl plan`"), "{said}");
    let shown = hosted.show()?;
    ensure!(shown["ghost"]["state"] == "absent", "{shown}");
    ensure!(shown["primary"]["state"] == "running", "{shown}");
    hosted.wait_traces(&before)
}

#[test]
fn what_a_ghost_held_is_free_when_it_goes() -> Result<()> {
    if !microvm::is_possible("what_a_ghost_held_is_free_when_it_goes") {
        return Ok(());
    }
    let mut hosted = with_reserve("24MiB")?;
    hosted.order("instance", "create")?;
    for _ in 0..2 {
        hosted.order("ghost", "prepare")?;
        // Brought up to date: it holds its part already.
        hosted.order("ghost", "prepare")?;
        hosted.order("ghost", "destroy")?;
    }
    hosted.order("ghost", "prepare")?;
    // A ghost that is there is not sent away by a smaller reserve.
    hosted.stage.take_daemon()?.kill()?;
    let smaller = hosted.stage.config.extra.replace("24MiB", "10MiB");
    hosted.stage.config.extra = smaller;
    hosted.stage.start_daemon()?;
    hosted.wait_state("ghost", "suspended")?;
    hosted.order("ghost", "prepare")?;
    hosted.order("ghost", "destroy")?;
    let said = hosted.refused("ghost", "prepare")?;
    ensure!(said.contains("the reserve has 10 MiB left"), "{said}");
    Ok(())
}

/// What a host offers its copies differs: whatever a limit's file shows is in
/// force, and what is not is named.
#[test]
fn limits_are_in_force_or_named() -> Result<()> {
    if !microvm::is_possible("limits_are_in_force_or_named") {
        return Ok(());
    }
    let hosted = Hosted::new(RUNS, "")?;
    hosted.order("instance", "create")?;
    let done = hosted.order("ghost", "prepare")?;
    let mut lacking = 0;
    for (copy, file, value) in [
        ("primary", "pids.max", "64"),
        ("ghost", "pids.max", "64"),
        ("ghost", "memory.max", "25165824"),
        ("ghost", "cpu.max", ""),
        ("ghost", "hugetlb.2MB.max", "0"),
    ] {
        let named = &done["instance"][copy]["not_in_force"];
        let named = named.as_array().map_or(&[][..], Vec::as_slice);
        let is_named = named.iter().any(|limit| limit["limit"] == file);
        let shown = hosted.cgroup_file(copy, file)?;
        match shown {
            Some(shown) if !is_named => ensure!(
                shown.trim().starts_with(value) && !shown.starts_with("max"),
                "{copy} {file}: {shown}"
            ),
            shown => {
                ensure!(is_named, "{copy} {file} shows {shown:?}: {done}");
                lacking += 1;
            }
        }
    }
    let text = hosted.ghostctl(&["instance", "show", VM])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("not in force") == (lacking > 0), "{text}");
    let status = hosted.ghostctl(&["status"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let is_found = status.contains("this host does not enforce limits of microVMs");
    ensure!(is_found == (lacking > 0), "{status}");
    Ok(())
}
