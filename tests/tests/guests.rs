//! Stories of guests that end: the kernel sees it, whichever VMM runs them, and
//! throws the switch of the instance in whose cgroup that VMM is.

use std::process::Command;

use anyhow::{Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    host::{Cgroup, INSTANCE, LIMIT, Stage, binary},
    machine::Side,
    microvm::{Ended, MicroVm, Spec, is_possible},
    topology::Family,
    traffic,
};
use serde_json::Value;

/// `mov al, 0xfe; out 0x64, al; hlt`.
const KEYBOARD: &str = "b0fee664f4";
/// `mov dx, 0xcf9; mov al, 6; out dx, al; hlt`.
const CONTROL: &str = "baf90cb006eef4";
/// `mov dx, 0xcf9; mov ax, 4; out dx, ax; hlt`.
const CONTROL_WORD: &str = "baf90cb80400eff4";
/// `mov si, 0x2000; mov cx, 1; mov dx, 0x64; cld; rep outsb; hlt`.
const STRING: &str = "be0020b90100ba6400fcf36ef4";

/// Other values, other ports, reads: a guest's everyday life.
const HARMLESS: [&str; 6] = [
    "b0d1e664f4",
    "b0fee660f4",
    "b002baf90ceef4",
    "e464f4",
    "b0fee680f4",
    "baf90cecf4",
];

/// Runs code in a VMM of somebody else's on the host, in the cgroup.
fn run_foreign(stage: &Stage, cgroup: &std::path::Path, code: &str) -> Result<()> {
    let vmm = binary("GDT_FOREIGN_VMM", "gdt-foreign-vmm")?;
    let mut command = Command::new(vmm);
    let said = stage.world.host().command(command.arg(cgroup).arg(code))?;
    ensure!(said.trim() == "hlt", "{code}: {said}");
    Ok(())
}

/// Runs the payload in ghost-vmm on the host, in the instance's cgroup.
fn run_own(stage: &Stage, line: &str) -> Result<Ended> {
    let mut spec = Spec::new(line)?;
    spec.cgroup = Some(stage.world.primary_cgroup());
    MicroVm::start_in(stage.world.host(), &spec)?.ended()
}

fn position(stage: &Stage) -> Result<(String, String)> {
    let shown = stage.shown()?;
    let text = |key: &str| shown[key].as_str().unwrap_or("").to_owned();
    Ok((text("position"), text("cause")))
}

fn at_ghost(stage: &Stage, what: &str) -> Result<()> {
    // The store came before the VMM heard of it, so there is nothing to wait for.
    let expected = ("ghost".to_owned(), "guest_reset".to_owned());
    let seen = position(stage)?;
    ensure!(seen == expected, "{what}: {seen:?}");
    Ok(())
}

/// The newest event of a trigger.
fn triggered(stage: &Stage, trigger: &str) -> Result<Value> {
    Ok(wait_for(&format!("the event {trigger}"), LIMIT, || {
        let events = stage.events().ok()?;
        let of = |e: &&Value| e["what"]["seen"]["trigger"] == trigger;
        events.iter().rev().find(of).map(|e| e["what"].clone())
    })?)
}

#[test]
fn a_guest_that_resets_itself_throws_the_switch_whatever_the_vmm() -> Result<()> {
    if !is_possible("a_guest_that_resets_itself_throws_the_switch_whatever_the_vmm") {
        return Ok(());
    }
    let stage = Stage::new()?;
    let cgroup = stage.world.primary_cgroup();
    for (code, name) in [
        (KEYBOARD, "port 0x64 value 0xfe"),
        (CONTROL, "port 0xcf9 value 0x6"),
        (CONTROL_WORD, "port 0xcf9 value 0x4"),
        (STRING, "port 0x64 value 0xfe"),
    ] {
        run_foreign(&stage, &cgroup, code)?;
        at_ghost(&stage, name)?;
        let seen = wait_for(name, LIMIT, || {
            let event = triggered(&stage, "guest_reset").ok()?;
            (event["seen"]["command_name"] == name).then_some(event)
        })?;
        assert_eq!(seen["instance"], INSTANCE);
        assert_eq!(seen["seen"]["comm"], "gdt-foreign-vmm");
        let took = seen["seen"]["throw_took_ns"].as_u64().unwrap_or(0);
        println!("{name}: thrown after {took} ns");
        assert!(took > 0, "{seen}");
        stage.switch("restore")?;
    }
    Ok(())
}

#[test]
fn a_guest_of_ghost_vmm_that_ends_badly_throws_the_switch() -> Result<()> {
    if !is_possible("a_guest_of_ghost_vmm_that_ends_badly_throws_the_switch") {
        return Ok(());
    }
    let stage = Stage::new()?;
    let client = traffic::udp(&stage.world.net.client, Family::V4.service(), 500)?;
    for (line, name) in [
        ("do=reset", "port 0x64 value 0xfe"),
        ("do=reset-control", "port 0xcf9 value 0x6"),
        ("do=triple-fault", "KVM_EXIT_SHUTDOWN"),
    ] {
        client.wait_answers(Side::Primary, 10, LIMIT)?;
        let ended = run_own(&stage, line)?;
        at_ghost(&stage, &format!("{line}: {ended:?}"))?;
        client.wait_answers(Side::Ghost, 10, LIMIT)?;
        let seen = triggered(&stage, "guest_reset")?;
        assert_eq!(seen["seen"]["command_name"], name, "{seen}");
        stage.switch("restore")?;
    }
    Ok(())
}

#[test]
fn with_the_daemon_dead_a_guest_still_throws_its_switch() -> Result<()> {
    if !is_possible("with_the_daemon_dead_a_guest_still_throws_its_switch") {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    let client = traffic::udp(&stage.world.net.client, Family::V6.service(), 500)?;
    client.wait_answers(Side::Primary, 10, LIMIT)?;
    stage.take_daemon()?.kill()?;
    run_foreign(&stage, &stage.world.primary_cgroup(), KEYBOARD)?;
    client.wait_answers(Side::Ghost, 10, LIMIT)?;
    stage.start_daemon()?;
    at_ghost(&stage, "adopted")?;
    // The kernel kept the report for the next daemon.
    let seen = triggered(&stage, "guest_reset")?;
    assert_eq!(seen["instance"], INSTANCE);
    Ok(())
}

#[test]
fn strangers_and_everyday_ports_move_nothing() -> Result<()> {
    if !is_possible("strangers_and_everyday_ports_move_nothing") {
        return Ok(());
    }
    let stage = Stage::new()?;
    let stranger = Cgroup::new(stage.world.host())?;
    for code in [KEYBOARD, CONTROL, STRING] {
        run_foreign(&stage, stranger.path(), code)?;
    }
    for code in HARMLESS {
        run_foreign(&stage, &stage.world.primary_cgroup(), code)?;
    }
    assert_eq!(position(&stage)?.0, "primary");
    // What is at the ghost stays there, and keeps the reason why.
    stage.switch("throw")?;
    run_foreign(&stage, &stage.world.primary_cgroup(), KEYBOARD)?;
    let expected = ("ghost".to_owned(), "commanded".to_owned());
    assert_eq!(position(&stage)?, expected);
    stage.switch("restore")?;
    let seen = stage.events()?;
    assert!(
        !seen.iter().any(|e| e["what"]["kind"] == "reboot"),
        "{seen:?}"
    );
    Ok(())
}

#[test]
fn a_guest_whose_switch_is_not_armed_is_reported_once_in_a_while() -> Result<()> {
    if !is_possible("a_guest_whose_switch_is_not_armed_is_reported_once_in_a_while") {
        return Ok(());
    }
    let stage = Stage::new()?;
    stage.switch("disarm")?;
    // `mov al, 0xfe; mov cx, 1000; out 0x64, al; loop; hlt`.
    let loops = "b0feb9e803e664e2fcf4";
    run_foreign(&stage, &stage.world.primary_cgroup(), loops)?;
    let seen = triggered(&stage, "guest_reset_unarmed")?;
    assert_eq!(seen["instance"], INSTANCE);
    assert_eq!(position(&stage)?.0, "primary");
    stage.switch("arm")?;
    run_foreign(&stage, &stage.world.primary_cgroup(), CONTROL)?;
    at_ghost(&stage, "armed again")?;
    triggered(&stage, "guest_reset")?;
    let reports = stage.events()?;
    let unarmed = |e: &&Value| e["what"]["seen"]["trigger"] == "guest_reset_unarmed";
    let count = reports.iter().filter(unarmed).count();
    assert!(count < 100, "{count} reports of a thousand writes");
    Ok(())
}
