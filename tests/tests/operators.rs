//! Stories of operators: throw, restore, drain, and what clients see of it.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use ghostd_tests::{
    clock::wait_for,
    host::{LIMIT, Stage},
    machine::Side,
    topology::Family,
    traffic::{self, Client},
};

fn all_by(client: Client, side: Side) {
    let name = client.name().to_owned();
    let record = client.stop();
    let other = record.iter().find(|e| e.answered_by() != Some(side));
    assert!(other.is_none(), "{name}: {other:?}");
}

#[test]
fn throw_and_restore_move_every_new_connection() -> Result<()> {
    let stage = Stage::new()?;
    let ns = &stage.world.net.client;
    for _ in 0..3 {
        for (action, side) in [("throw", Side::Ghost), ("restore", Side::Primary)] {
            stage.switch(action)?;
            for family in Family::BOTH {
                let service = family.service();
                for client in [
                    traffic::udp(ns, service, 1_000)?,
                    traffic::ping(ns, service, 500)?,
                    traffic::long_lived(ns, service, 500)?,
                    traffic::short_lived(ns, service, 500)?,
                    traffic::http(ns, service, 200)?,
                ] {
                    client.wait_answers(side, 10, LIMIT)?;
                    all_by(client, side);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_throw_moves_both_families_at_once_and_loses_nothing() -> Result<()> {
    // Without a fence: it would drop the answers that the primary still has on
    // their way when the switch is thrown.
    let stage = Stage::with(|config| {
        config.affinity = "none";
        for port in &mut config.ports {
            port.fence = "off";
        }
    })?;
    let ns = &stage.world.net.client;
    for _ in 0..10 {
        let clients = [
            traffic::udp(ns, Family::V4.service(), 2_000)?,
            traffic::udp(ns, Family::V6.service(), 2_000)?,
            traffic::ping(ns, Family::V4.service(), 1_000)?,
            traffic::ping(ns, Family::V6.service(), 1_000)?,
        ];
        stage.wait_answers(&clients, Side::Primary)?;
        stage.switch("throw")?;
        stage.wait_answers(&clients, Side::Ghost)?;
        for client in clients {
            let name = client.name().to_owned();
            let record = client.stop();
            let lost = record.iter().find(|e| e.answered_by().is_none());
            assert!(lost.is_none(), "{name}: {lost:?}");
        }
        stage.switch("restore")?;
    }
    Ok(())
}

#[test]
fn while_draining_old_connections_stay_and_new_ones_go_home() -> Result<()> {
    let stage = Stage::with(|config| {
        config.drain_idle_s = Some(30);
        config.drain_max_s = Some(300);
    })?;
    let ns = &stage.world.net.client;
    stage.switch("throw")?;
    let mut old = Vec::new();
    for family in Family::BOTH {
        old.push(traffic::udp(ns, family.service(), 1_000)?);
        old.push(traffic::ping(ns, family.service(), 500)?);
        old.push(traffic::long_lived(ns, family.service(), 500)?);
    }
    stage.wait_answers(&old, Side::Ghost)?;

    stage.switch("drain")?;

    assert_eq!(stage.position()?, "draining");
    for family in Family::BOTH {
        let service = family.service();
        for client in [
            traffic::udp(ns, service, 1_000)?,
            traffic::ping(ns, service, 500)?,
            traffic::long_lived(ns, service, 500)?,
            traffic::short_lived(ns, service, 500)?,
            traffic::http(ns, service, 200)?,
        ] {
            client.wait_answers(Side::Primary, 10, LIMIT)?;
            all_by(client, Side::Primary);
        }
    }
    stage.wait_answers(&old, Side::Ghost)?;
    let shown = stage.shown()?;
    assert!(shown["draining_flows"].as_u64() >= Some(6), "{shown}");
    for client in old {
        all_by(client, Side::Ghost);
    }
    Ok(())
}

#[test]
fn draining_ends_by_itself_when_the_last_connection_has() -> Result<()> {
    let stage = Stage::with(|config| {
        config.drain_idle_s = Some(1);
        config.drain_max_s = Some(300);
    })?;
    let ns = &stage.world.net.client;
    stage.switch("throw")?;
    let old = traffic::long_lived(ns, Family::V4.service(), 500)?;
    old.wait_answers(Side::Ghost, 10, LIMIT)?;
    stage.switch("drain")?;
    old.wait_answers(Side::Ghost, 10, LIMIT)?;
    all_by(old, Side::Ghost);
    let drained = stage.wait_event("drained")?;
    assert_eq!(drained["reason"], "empty", "{drained}");
    assert_eq!(drained["flows_left"], 0, "{drained}");
    stage.wait_position("primary")
}

#[test]
fn draining_ends_at_its_limit_with_connections_left() -> Result<()> {
    let stage = Stage::with(|config| {
        config.drain_idle_s = Some(1);
        config.drain_max_s = Some(2);
    })?;
    let ns = &stage.world.net.client;
    stage.switch("throw")?;
    let old = traffic::udp(ns, Family::V6.service(), 500)?;
    old.wait_answers(Side::Ghost, 10, LIMIT)?;
    stage.switch("drain")?;
    let drained = stage.wait_event("drained")?;
    assert_eq!(drained["reason"], "timed_out", "{drained}");
    stage.wait_position("primary")?;
    old.wait_answers(Side::Primary, 10, LIMIT)?;
    Ok(())
}

/// A veth keeps what its own program sends back to a peer without a program,
/// until something else comes along. Here nothing does.
#[test]
fn a_lone_packet_that_is_too_big_is_answered_at_once() -> Result<()> {
    let stage = Stage::new()?;
    stage.switch("throw")?;
    stage.world.net.host.ip("link set g0 mtu 1400")?;
    let client = &stage.world.net.client;
    for family in Family::BOTH {
        let service = SocketAddr::new(family.service(), 7007);
        client.run(|| -> Result<()> {
            let any = if service.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            UdpSocket::bind(any)?.send_to(&[0; 1_440], service)?;
            Ok(())
        })??;
        wait_for("the path MTU", Duration::from_secs(2), || {
            let route = client.ip(&format!("route get {}", service.ip())).ok()?;
            route.contains("mtu 1400").then_some(())
        })?;
    }
    Ok(())
}
