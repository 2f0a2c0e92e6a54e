//! Ghosts: prepared, brought up to date, at work, sent home, and left by a
//! primary or a daemon that dies.

use anyhow::{Context as _, Result, ensure};
use ghostd_tests::{
    host::{Hosted, VM},
    microvm,
};
use nix::unistd::Pid;
use serde_json::Value;

/// Counts in its memory for ever.
const COUNTS: &str = "say=up do=spin";

fn ghost(shown: &Value) -> (&str, Option<u64>) {
    let ghost = &shown["ghost"];
    (
        ghost["state"].as_str().unwrap_or("?"),
        ghost["epoch"].as_u64(),
    )
}

fn primary(shown: &Value) -> &str {
    shown["primary"]["state"].as_str().unwrap_or("?")
}

/// `kill -9`, by the PID that ghostd tells: it is of the host's namespace.
fn kill(hosted: &Hosted, copy: &str) -> Result<()> {
    let pid = hosted.show()?[copy]["pid"]
        .as_i64()
        .context("no pid is shown")?;
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let host = hosted.stage.world.host();
    // Whoever sends the signal has to be born into the namespace.
    host.command(std::process::Command::new("kill").args(["-9", &pid.to_string()]))?;
    Ok(())
}

#[test]
fn work_goes_to_a_ghost_and_comes_back() -> Result<()> {
    if !microvm::is_possible("work_goes_to_a_ghost_and_comes_back") {
        return Ok(());
    }
    let hosted = Hosted::new(COUNTS, "")?;
    let before = hosted.traces()?;
    hosted.order("instance", "create")?;
    for epoch in 1..=2 {
        let done = hosted.order("ghost", "prepare")?;
        ensure!(
            ghost(&done["instance"]) == ("suspended", Some(epoch)),
            "{done}"
        );
        ensure!(done["pause_us"].as_u64().is_some_and(|us| us > 0), "{done}");
    }
    let traces = hosted.traces()?;
    ensure!(traces.cgroups == ["vm", "vm.ghost"], "{traces:?}");
    for round in 1..=3 {
        let done = hosted.order("ghost", "activate")?;
        ensure!(
            ghost(&done["instance"]) == ("active", Some(1 + 2 * round)),
            "{done}"
        );
        ensure!(primary(&done["instance"]) == "standby", "{done}");
        ensure!(done["activate_us"].as_u64().is_some(), "{done}");
        let said = hosted.refused("ghost", "destroy")?;
        ensure!(
            said.contains("served by its ghost") && said.contains("ghost suspend"),
            "{said}"
        );
        let done = hosted.order("ghost", "suspend")?;
        ensure!(
            ghost(&done["instance"]) == ("suspended", Some(2 + 2 * round)),
            "{done}"
        );
        ensure!(primary(&done["instance"]) == "running", "{done}");
    }
    hosted.order("ghost", "destroy")?;
    ensure!(ghost(&hosted.show()?).0 == "destroyed");
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn interfaces_come_and_go_with_their_copies() -> Result<()> {
    if !microvm::is_possible("interfaces_come_and_go_with_their_copies") {
        return Ok(());
    }
    let ports = "[[instance.port]]\ninterface = \"vp0\"\nside = \"primary\"\n\
                 [[instance.port]]\ninterface = \"vg0\"\nside = \"ghost\"\n[instance.vm]\n";
    let hosted = Hosted::with(
        COUNTS,
        "mac = \"02:00:00:00:00:99\"\nhost_addresses = [\"10.9.0.1/24\"]",
        |config| {
            config.extra = config.extra.replace("[instance.vm]\n", ports);
        },
    )?;
    let before = hosted.traces()?;
    hosted.order("instance", "create")?;
    hosted.order("ghost", "prepare")?;
    let there = hosted.traces()?.interfaces;
    ensure!(there.contains("vp0") && there.contains("vg0"), "{there:?}");
    let addresses = hosted.stage.world.host().ip("addr show dev vp0")?;
    ensure!(addresses.contains("10.9.0.1/24"), "{addresses}");
    hosted.order("ghost", "activate")?;
    hosted.order("ghost", "suspend")?;
    hosted.order("ghost", "destroy")?;
    let there = hosted.traces()?.interfaces;
    ensure!(there.contains("vp0") && !there.contains("vg0"), "{there:?}");
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn a_ghost_of_an_image_takes_over_when_told() -> Result<()> {
    if !microvm::is_possible("a_ghost_of_an_image_takes_over_when_told") {
        return Ok(());
    }
    let hosted = Hosted::new(COUNTS, "")?;
    let before = hosted.traces()?;
    let done = hosted.order("ghost", "prepare")?;
    ensure!(ghost(&done["instance"]) == ("suspended", Some(0)), "{done}");
    hosted.order("ghost", "activate")?;
    // Its work goes to a primary that is made for it.
    let done = hosted.order("ghost", "suspend")?;
    ensure!(primary(&done["instance"]) == "running", "{done}");
    ensure!(ghost(&done["instance"]) == ("suspended", Some(1)), "{done}");
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn a_ghost_takes_over_from_a_primary_that_is_killed() -> Result<()> {
    if !microvm::is_possible("a_ghost_takes_over_from_a_primary_that_is_killed") {
        return Ok(());
    }
    let hosted = Hosted::new(COUNTS, "")?;
    let before = hosted.traces()?;
    hosted.order("instance", "create")?;
    hosted.order("ghost", "prepare")?;
    kill(&hosted, "primary")?;
    let shown = hosted.wait_state("ghost", "active")?;
    ensure!(ghost(&shown).1 == Some(1), "{shown}");
    ensure!(
        shown["primary"]["reason"] == "its process is gone",
        "{shown}"
    );
    let api = hosted.stage.daemon()?.api();
    ensure!(api.get(&format!("/v1/switches/{VM}"))?["position"] == "ghost");
    hosted.order("ghost", "suspend")?;
    ensure!(api.get(&format!("/v1/switches/{VM}"))?["position"] == "primary");
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn a_ghost_that_is_killed_leaves_nothing() -> Result<()> {
    if !microvm::is_possible("a_ghost_that_is_killed_leaves_nothing") {
        return Ok(());
    }
    let hosted = Hosted::new(COUNTS, "")?;
    hosted.order("instance", "create")?;
    // From the first ghost on, the primary's memory is mapped by the daemon.
    hosted.order("ghost", "prepare")?;
    hosted.order("ghost", "destroy")?;
    let before = hosted.traces()?;
    hosted.order("ghost", "prepare")?;
    kill(&hosted, "ghost")?;
    let shown = hosted.wait_state("ghost", "failed")?;
    ensure!(shown["ghost"]["reason"] == "its process is gone", "{shown}");
    hosted.wait_traces(&before)?;
    let done = hosted.order("ghost", "prepare")?;
    ensure!(ghost(&done["instance"]) == ("suspended", Some(1)), "{done}");
    Ok(())
}

#[test]
fn ghosts_outlive_their_daemon_in_every_state() -> Result<()> {
    if !microvm::is_possible("ghosts_outlive_their_daemon_in_every_state") {
        return Ok(());
    }
    let mut hosted = Hosted::new(COUNTS, "")?;
    let before = hosted.traces()?;
    hosted.order("instance", "create")?;
    for (verb, state) in [
        ("prepare", "suspended"),
        ("activate", "active"),
        ("suspend", "suspended"),
    ] {
        hosted.order("ghost", verb)?;
        let was = hosted.show()?;
        hosted.stage.take_daemon()?.kill()?;
        hosted.stage.start_daemon()?;
        let shown = hosted.wait_state("ghost", state)?;
        ensure!(shown == was, "was {was}, is {shown}");
    }
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}
