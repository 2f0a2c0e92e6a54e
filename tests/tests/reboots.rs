//! Stories of reboots: who calls, and where the traffic goes.

use anyhow::Result;
use ghostd_tests::{
    host::{INSTANCE, LIMIT, Stage},
    machine::{How, Side, Who},
    topology::{Family, LEAF},
    traffic::{self, Client, Summary},
    wire::{Tap, payload_of},
};

/// Every kind of client, over both families.
fn clients(stage: &Stage) -> Result<Vec<Client>> {
    let ns = &stage.world.net.client;
    let mut clients = Vec::new();
    for family in Family::BOTH {
        let service = family.service();
        clients.push(traffic::udp(ns, service, 1_000)?);
        clients.push(traffic::ping(ns, service, 300)?);
        clients.push(traffic::long_lived(ns, service, 300)?);
        clients.push(traffic::short_lived(ns, service, 300)?);
        clients.push(traffic::http(ns, service, 100)?);
    }
    Ok(clients)
}

#[test]
fn clients_of_a_rebooting_instance_are_served_by_its_ghost() -> Result<()> {
    for (how, who) in [
        (How::Restart, Who::Init),
        (How::Restart2, Who::Child),
        (How::Halt, Who::Child),
        (How::PowerOff, Who::Init),
    ] {
        let mut stage = Stage::new()?;
        let at_primary = Tap::start(&stage.world.net.primary, LEAF)?;
        let clients = clients(&stage)?;
        stage.wait_answers(&clients, Side::Primary)?;

        stage.world.reboot_primary(how, who)?;

        stage.wait_answers(&clients, Side::Ghost)?;
        let seen = stage.wait_event("reboot")?;
        assert_eq!(seen["instance"], INSTANCE);
        assert_eq!(seen["seen"]["trigger"], "instance_reboot");
        let entered = seen["seen"]["entered_ns"].as_u64().unwrap_or(0);
        let took = seen["seen"]["throw_took_ns"].as_u64().unwrap_or(0);
        assert!(entered > 0 && took > 0, "{seen}");
        let thrown_ns = entered + took;
        for client in clients {
            let name = client.name().to_owned();
            let summary = Summary::of(&client.stop(), thrown_ns);
            assert_eq!(
                summary.failed_opened_after, 0,
                "{how:?}: {name}: {summary:?}"
            );
        }
        let sent_late = |(_, sent_ns): &(u64, u64)| *sent_ns > thrown_ns;
        let late = at_primary
            .stop()?
            .iter()
            .filter_map(payload_of)
            .filter(sent_late)
            .count();
        assert_eq!(late, 0, "{how:?}: datagrams reached the dead instance");
    }
    Ok(())
}

#[test]
fn the_event_says_who_called() -> Result<()> {
    let mut stage = Stage::new()?;
    let init = stage.world.primary()?.init_pid()?;
    stage.world.reboot_primary(How::Restart, Who::Init)?;
    let seen = stage.wait_event("reboot")?["seen"].clone();
    assert_eq!(seen["pid"], init, "{seen}");
    assert_eq!(seen["uid"], 0);
    assert_eq!(seen["comm"], "gdt-machine");
    assert_eq!(seen["command_name"], "RESTART");
    let shown = stage.shown()?;
    assert_eq!(shown["cause"], "instance_reboot");
    assert_eq!(shown["cause_pid"], init, "{shown}");
    Ok(())
}

#[test]
fn a_host_that_reboots_moves_all_its_armed_instances() -> Result<()> {
    for who in [Who::Init, Who::Child] {
        let mut stage = Stage::new()?;
        let clients = clients(&stage)?;
        stage.wait_answers(&clients, Side::Primary)?;
        let daemon = stage.take_daemon()?;
        stage.world.host_machine().reboot(How::Restart, who)?;
        daemon.gone()?;
        stage.world.reap_primary();
        let ending = stage.world.host_machine().ended(LIMIT)?;
        assert_eq!(ending.signal, Some(1), "the kernel ended the host");
        // ghostd and the primary have ended with the host; the kernel steers on.
        stage.wait_answers(&clients, Side::Ghost)?;
    }
    Ok(())
}

#[test]
fn toggling_ctrl_alt_del_moves_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    let clients = clients(&stage)?;
    for how in [How::CadOff, How::CadOn] {
        for who in [Who::Init, Who::Child] {
            let primary = stage.world.primary()?;
            primary.reboot(how, who)?;
            primary.survived(LIMIT)?;
            let host = stage.world.host_machine();
            host.reboot(how, who)?;
            host.survived(LIMIT)?;
        }
    }
    stage.wait_answers(&clients, Side::Primary)?;
    assert_eq!(stage.position()?, "primary");
    Ok(())
}

#[test]
fn a_process_without_the_right_to_reboot_moves_nothing() -> Result<()> {
    let mut stage = Stage::new()?;
    let clients = clients(&stage)?;
    stage.wait_answers(&clients, Side::Primary)?;
    for _ in 0..20 {
        let primary = stage.world.primary()?;
        primary.reboot(How::Restart, Who::Nobody)?;
        assert_eq!(primary.survived(LIMIT)?, Some(1), "EPERM");
        let host = stage.world.host_machine();
        host.reboot(How::Restart, Who::Nobody)?;
        assert_eq!(host.survived(LIMIT)?, Some(1), "EPERM");
    }
    stage.wait_answers(&clients, Side::Primary)?;
    assert_eq!(stage.position()?, "primary");
    for client in clients {
        let name = client.name().to_owned();
        let answered = |e: &traffic::Exchange| e.answered_by() == Some(Side::Primary);
        assert!(client.stop().iter().all(answered), "{name}");
    }
    Ok(())
}

#[test]
fn an_unarmed_instance_is_left_alone() -> Result<()> {
    let mut stage = Stage::with(|config| config.armed = false)?;
    stage.world.reboot_primary(How::Restart, Who::Init)?;
    let seen = stage.wait_event("reboot")?;
    assert_eq!(seen["seen"]["trigger"], "instance_reboot_unarmed", "{seen}");
    assert_eq!(stage.position()?, "primary");
    stage.world.start_primary()?;
    let client = traffic::udp(&stage.world.net.client, Family::V4.service(), 500)?;
    client.wait_answers(Side::Primary, 10, LIMIT)?;
    Ok(())
}

#[test]
fn somebody_elses_reboot_moves_nothing() -> Result<()> {
    // A second machine on the same host, in no instance's cgroup.
    use ghostd_tests::machine::{Machine, MachineSpec};
    let stage = Stage::new()?;
    let spec = MachineSpec {
        name: "other".to_owned(),
        serve: None,
        cgroup: None,
    };
    let mut other = Machine::start(stage.world.host(), &spec)?;
    other.reboot(How::Restart, Who::Init)?;
    other.ended(LIMIT)?;
    let client = traffic::udp(&stage.world.net.client, Family::V4.service(), 500)?;
    client.wait_answers(Side::Primary, 10, LIMIT)?;
    assert_eq!(stage.position()?, "primary");
    Ok(())
}
