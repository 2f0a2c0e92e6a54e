//! Stories of ghostd's own life and death, under 100,000 packets a second:
//! whatever happens to the daemon, no packet is lost or sent to the wrong copy.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    host::{LIMIT, Stage},
    machine::Side,
    topology::Family,
    traffic::{self, Storm},
};
use serde_json::Value;

const RATE: u32 = 100_000;

fn storm(stage: &Stage, family: Family) -> Result<Storm> {
    let net = &stage.world.net;
    let receivers = [
        (&net.primary, family.service()),
        (&net.ghost, family.ghost()),
    ];
    let storm = Storm::start(&net.client, family.service(), RATE, &receivers)?;
    let running = || (storm.sent() > u64::from(RATE) / 10).then_some(());
    wait_for("the storm to blow", LIMIT, running)?;
    Ok(storm)
}

/// Ends a storm: all of it has arrived at `side`, each datagram once.
fn all_at(storm: Storm, side: Side) -> Result<()> {
    let report = storm.stop()?;
    println!("{} sent, {} a second", report.sent, report.rate_per_second);
    let expected = match side {
        Side::Primary => [report.sent, 0],
        Side::Ghost => [0, report.sent],
    };
    ensure!(
        report.arrived == expected && report.lost.is_empty() && report.doubled.is_empty(),
        "not all at the {side}: {report:?}"
    );
    Ok(())
}

/// Does something to ghostd, twice at each side, while the storm blows.
fn under_storm(what: impl Fn(&mut Stage) -> Result<()>) -> Result<()> {
    for family in Family::BOTH {
        let mut stage = Stage::new()?;
        for (action, side) in [("restore", Side::Primary), ("throw", Side::Ghost)] {
            stage.switch(action)?;
            let storm = storm(&stage, family)?;
            for _ in 0..2 {
                what(&mut stage)?;
            }
            all_at(storm, side)?;
        }
    }
    Ok(())
}

#[test]
fn kill_9_and_start_lose_no_packet() -> Result<()> {
    under_storm(|stage| {
        stage.take_daemon()?.kill()?;
        stage.start_daemon()
    })
}

#[test]
fn a_clean_stop_and_start_lose_no_packet() -> Result<()> {
    under_storm(|stage| {
        let exit = stage.take_daemon()?.terminate()?;
        ensure!(exit.status.success(), "{exit:?}");
        stage.start_daemon()
    })
}

#[test]
fn an_upgrade_loses_no_packet() -> Result<()> {
    let Some(next) = std::env::var_os("GHOSTD_NEXT_BIN").map(PathBuf::from) else {
        let why = "GHOSTD_NEXT_BIN names no ghostd with another BPF object";
        ghostd_tests::skip("an_upgrade_loses_no_packet", why);
        return Ok(());
    };
    let program = |stage: &Stage| -> Result<Value> {
        let status = stage.daemon()?.api().get("/v1/status")?;
        Ok(status["uplinks"][0]["program_id"].clone())
    };
    under_storm(|stage| {
        let old = program(stage)?;
        stage.take_daemon()?.terminate()?;
        stage.start_daemon_as(&next)?;
        ensure!(program(stage)? != old, "the old program still runs");
        stage.take_daemon()?.kill()?;
        stage.start_daemon()
    })
}

#[test]
fn a_reload_loses_no_packet() -> Result<()> {
    under_storm(|stage| stage.ghostctl(&["reload"]))
}

#[test]
fn a_dead_daemon_still_steers_and_a_reboot_still_throws() -> Result<()> {
    use ghostd_tests::machine::{How, Who};
    let mut stage = Stage::new()?;
    let ns = &stage.world.net.client;
    let clients = [
        traffic::udp(ns, Family::V4.service(), 1_000)?,
        traffic::ping(ns, Family::V6.service(), 500)?,
    ];
    stage.wait_answers(&clients, Side::Primary)?;
    stage.take_daemon()?.kill()?;
    stage.world.reboot_primary(How::Restart, Who::Init)?;
    stage.wait_answers(&clients, Side::Ghost)?;
    stage.start_daemon()?;
    assert_eq!(stage.position()?, "ghost", "adopted as it was");
    stage.wait_answers(&clients, Side::Ghost)?;
    let started = stage.wait_event("started")?;
    assert_eq!(started["adopted"], true, "{started}");
    Ok(())
}

#[test]
fn clean_ends_steering_and_leaves_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.switch("throw")?;
    let client = traffic::udp(&stage.world.net.client, Family::V4.service(), 500)?;
    client.wait_answers(Side::Ghost, 10, LIMIT)?;
    stage.take_daemon()?.kill()?;
    stage.ghostctl(&["clean", "--yes"])?;
    client.wait_answers(Side::Primary, 10, LIMIT)?;
    let pins = stage
        .world
        .host()
        .run(|| std::fs::read_dir("/sys/fs/bpf/ghostd").map(Iterator::count));
    assert!(matches!(pins?, Err(_) | Ok(0)), "pins are left");
    Ok(())
}
