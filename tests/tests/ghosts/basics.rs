//! One primary: made, looked at, paused, reset, destroyed.

use anyhow::{Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    host::{Hosted, LIMIT, VM},
    microvm,
};

/// Says a word on the console, and runs for ever.
const RUNS: &str = "say=up do=spin";

#[test]
fn a_primary_lives_and_leaves_nothing() -> Result<()> {
    if !microvm::is_possible("a_primary_lives_and_leaves_nothing") {
        return Ok(());
    }
    let hosted = Hosted::new(RUNS, "")?;
    let before = hosted.traces()?;
    let done = hosted.order("instance", "create")?;
    ensure!(done["instance"]["primary"]["state"] == "running", "{done}");
    ensure!(done["took_us"].as_u64().is_some_and(|us| us > 0), "{done}");

    let list = hosted.ghostctl(&["instance", "list"])?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    ensure!(list.contains(VM) && list.contains("running"), "{list}");
    wait_for("a word on the console", LIMIT, || {
        hosted
            .console("primary")
            .ok()
            .filter(|text| !text.is_empty())
    })?;
    let traces = hosted.traces()?;
    ensure!(traces.processes.len() == 1, "{traces:?}");
    ensure!(traces.cgroups == ["vm"], "{traces:?}");

    hosted.order("instance", "pause")?;
    ensure!(hosted.show()?["primary"]["state"] == "paused");
    let complaint = hosted.refused("instance", "pause")?;
    ensure!(complaint.contains("vm-1 is paused already"), "{complaint}");
    ensure!(
        complaint.contains("`ghostctl instance resume vm-1`"),
        "{complaint}"
    );
    hosted.order("instance", "resume")?;
    hosted.order("instance", "reset")?;
    ensure!(hosted.show()?["primary"]["state"] == "running");
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn orders_that_make_no_sense_are_refused_with_what_helps() -> Result<()> {
    if !microvm::is_possible("orders_that_make_no_sense_are_refused_with_what_helps") {
        return Ok(());
    }
    let hosted = Hosted::new(RUNS, "")?;
    for (what, verb, complaint, hint) in [
        (
            "ghost",
            "activate",
            "vm-1 has no ghost",
            "ghost prepare vm-1",
        ),
        (
            "ghost",
            "suspend",
            "vm-1 has no ghost",
            "ghost prepare vm-1",
        ),
        (
            "ghost",
            "destroy",
            "vm-1 has no ghost",
            "ghost prepare vm-1",
        ),
        ("ghost", "drill", "vm-1 has no ghost", "ghost prepare vm-1"),
        (
            "instance",
            "destroy",
            "vm-1 has no copy",
            "instance create vm-1",
        ),
        (
            "instance",
            "pause",
            "no primary that runs",
            "instance create vm-1",
        ),
        (
            "instance",
            "reset",
            "no primary that runs",
            "instance create vm-1",
        ),
    ] {
        let said = hosted.refused(what, verb)?;
        ensure!(
            said.contains(complaint) && said.contains(hint),
            "{what} {verb}: {said}"
        );
    }
    hosted.order("instance", "create")?;
    let said = hosted.refused("instance", "create")?;
    ensure!(said.contains("has a primary already"), "{said}");
    Ok(())
}

#[test]
fn a_primary_outlives_its_daemon() -> Result<()> {
    if !microvm::is_possible("a_primary_outlives_its_daemon") {
        return Ok(());
    }
    let mut hosted = Hosted::new(RUNS, "")?;
    let before = hosted.traces()?;
    let made = hosted.order("instance", "create")?;
    for clean in [false, true] {
        let daemon = hosted.stage.take_daemon()?;
        match clean {
            true => daemon.terminate()?,
            false => daemon.kill()?,
        };
        hosted.stage.start_daemon()?;
        let shown = hosted.wait_state("primary", "running")?;
        ensure!(
            shown["primary"]["pid"] == made["instance"]["primary"]["pid"],
            "{shown}"
        );
    }
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn a_primary_that_ends_is_told_with_its_reason() -> Result<()> {
    if !microvm::is_possible("a_primary_that_ends_is_told_with_its_reason") {
        return Ok(());
    }
    let hosted = Hosted::new("do=reset", "")?;
    let before = hosted.traces()?;
    hosted.order("instance", "create")?;
    let shown = hosted.wait_state("primary", "ended")?;
    ensure!(
        shown["primary"]["reason"] == "the guest reset itself",
        "{shown}"
    );
    let status = hosted.ghostctl(&["status"])?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(status.status.code() == Some(1), "{text}");
    ensure!(
        text.contains("the primary of vm-1: the guest reset itself"),
        "{text}"
    );
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before)
}

#[test]
fn an_image_that_is_none_leaves_nothing() -> Result<()> {
    if !microvm::is_possible("an_image_that_is_none_leaves_nothing") {
        return Ok(());
    }
    let hosted = Hosted::with(RUNS, "", |config| {
        let wrong = config.extra.replace("ghost-guest", "no-such-guest");
        config.extra = wrong;
    })?;
    let before = hosted.traces()?;
    let said = hosted.refused("instance", "create")?;
    ensure!(said.contains("no-such-guest"), "{said}");
    ensure!(said.contains("cannot start the primary of vm-1"), "{said}");
    hosted.wait_traces(&before)
}
