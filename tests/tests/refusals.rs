//! Stories of what ghostd refuses, and of what it bears.

use anyhow::Result;
use ghostd_tests::{
    clock::wait_for,
    host::{Config, Daemon, Exit, INSTANCE, LIMIT, RouteLine, Stage, World, bpf, http::Request},
    link::{End, cable},
    machine::Side,
    topology::{
        CLIENT_MAC, CLIENT_V4, CLIENT_V6, Family, HOST_V4, HOST_V6, LEAF, UPLINK, UPLINK_MAC,
    },
    traffic,
};

/// A configuration that is wrong: exit status 2, the words, nothing opened.
fn refused(world: &World, change: impl FnOnce(&mut Config)) -> Result<Exit> {
    let mut config = Config::standard(None);
    change(&mut config);
    let exit = Daemon::refused(world.host(), &config.text())?;
    assert_eq!(exit.status.code(), Some(2), "{}", exit.said);
    let opened = world.host().run(|| {
        ["/sys/fs/bpf/ghostd/gd_switches", "/run/ghostd/ghostd.sock"]
            .map(|path| std::path::Path::new(path).exists())
    })?;
    assert_eq!(opened, [false, false], "something was opened");
    Ok(exit)
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_opened() -> Result<()> {
    let world = World::new()?;
    let exit = refused(&world, |c| c.extra = "\n[steering2]\n".to_owned())?;
    assert!(
        exit.said.contains("steering2") && exit.said.contains("ghostd.toml"),
        "{}",
        exit.said
    );

    let exit = refused(&world, |c| c.uplinks = vec!["eth7".to_owned()])?;
    assert!(exit.said.contains("eth7"), "{}", exit.said);

    let exit = refused(&world, |c| c.routes[0].ghost = "10.77.2.300".to_owned())?;
    assert!(exit.said.contains("10.77.2.300"), "{}", exit.said);

    let exit = refused(&world, |c| {
        let again = c.routes[0].clone();
        c.routes.push(again);
    })?;
    assert!(exit.said.contains("198.51.100.10"), "{}", exit.said);

    let exit = refused(&world, |c| {
        c.routes[0].ghost = "2001:db8:77:2::2".to_owned();
    })?;
    assert!(exit.said.contains("2001:db8:77:2::2"), "{}", exit.said);

    let exit = refused(&world, |c| c.extra = "\n= broken\n".to_owned())?;
    assert!(exit.said.contains("ghostd.toml"), "{}", exit.said);
    Ok(())
}

#[test]
fn a_wrong_reload_is_refused_and_the_old_configuration_stays() -> Result<()> {
    let stage = Stage::new()?;
    stage.switch("throw")?;
    let path = ghostd_tests::host::CONFIG_PATH;
    stage
        .world
        .host()
        .run(|| std::fs::write(path, "[steering]\nuplinks = 7\n"))??;
    let output = ghostd_tests::host::ghostctl(stage.world.host(), &["reload"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    stage.wait_event("config_refused")?;
    assert_eq!(stage.position()?, "ghost");
    let client = traffic::udp(&stage.world.net.client, Family::V4.service(), 500)?;
    client.wait_answers(Side::Ghost, 10, LIMIT)?;
    Ok(())
}

#[test]
fn somebody_elses_xdp_program_is_named_and_left_alone() -> Result<()> {
    let world = World::new()?;
    let foreign = bpf::foreign_xdp(&world.net.host, UPLINK, "their_firewall")?;
    let config = Config::standard(Some(&world.primary_cgroup()));
    let exit = Daemon::refused(world.host(), &config.text())?;
    assert!(!exit.status.success());
    assert!(exit.said.contains("their_firewall"), "{}", exit.said);
    assert!(exit.said.contains(UPLINK), "{}", exit.said);
    let shown = world.net.host.ip(&format!("-d link show dev {UPLINK}"))?;
    assert!(shown.contains("their_firewall"), "{shown}");
    drop(foreign);
    // With the other gone, there is nothing to refuse.
    let daemon = Daemon::start(world.host(), &config.text())?;
    assert!(daemon.terminate()?.status.success());
    Ok(())
}

#[test]
fn a_process_without_rights_may_not_even_look() -> Result<()> {
    let stage = Stage::new()?;
    let api = stage.daemon()?.api();
    // The socket itself may refuse; if it does not, the API does.
    if let Ok(stream) = api.connect_as(65534, 65534) {
        let response = Request::get("/v1/status").send(stream)?;
        assert_eq!(response.status, 403, "{}", response.text());
    }
    Ok(())
}

#[test]
fn readers_may_look_and_operators_may_change() -> Result<()> {
    let stage = Stage::with(|config| {
        config.operators = vec![4001];
        config.readers = vec![4002];
    })?;
    let api = stage.daemon()?.api();
    let throw = Request::post(&format!("/v1/switches/{INSTANCE}/throw"), None);
    let status = Request::get("/v1/status");
    let cases = [
        (65534, &status, 403),
        (65534, &throw, 403),
        (4002, &status, 200),
        (4002, &throw, 403),
        (4001, &status, 200),
    ];
    for (gid, request, expected) in cases {
        let response = request.send(api.connect_as(65534, gid)?)?;
        assert_eq!(
            response.status,
            expected,
            "gid {gid}, {request:?}: {}",
            response.text()
        );
    }
    assert_eq!(stage.position()?, "primary");
    let response = throw.send(api.connect_as(65534, 4001)?)?;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(stage.position()?, "ghost");
    Ok(())
}

#[test]
fn an_uplink_that_goes_and_comes_back_is_steered_again() -> Result<()> {
    let stage = Stage::new()?;
    stage.switch("throw")?;
    let net = &stage.world.net;
    for _ in 0..3 {
        net.host.ip(&format!("link del {UPLINK}"))?;
        stage.wait_event("interface_gone")?;
        let host = End {
            ns: &net.host,
            interface: UPLINK,
            mac: UPLINK_MAC,
        };
        let client = End {
            ns: &net.client,
            interface: LEAF,
            mac: CLIENT_MAC,
        };
        cable(host, client, 1500)?;
        net.host
            .ip(&format!("addr add {HOST_V4}/24 dev {UPLINK}"))?;
        net.host
            .ip(&format!("addr add {HOST_V6}/64 dev {UPLINK} nodad"))?;
        net.client
            .ip(&format!("addr add {CLIENT_V4}/24 dev {LEAF}"))?;
        net.client
            .ip(&format!("addr add {CLIENT_V6}/64 dev {LEAF} nodad"))?;
        net.client.ip(&format!("route add default via {HOST_V4}"))?;
        net.client
            .ip(&format!("-6 route add default via {HOST_V6}"))?;
        let attached = wait_for("ghostd to attach again", LIMIT, || {
            let status = stage.daemon().ok()?.api().get("/v1/status").ok()?;
            let uplink = status["uplinks"]
                .as_array()?
                .iter()
                .find(|u| u["interface"] == UPLINK)?
                .clone();
            let index = net.host.ifindex(UPLINK).ok()?;
            (uplink["ifindex"] == index && !uplink["mode"].is_null()).then_some(())
        });
        attached?;
        for family in Family::BOTH {
            let client = traffic::udp(&net.client, family.service(), 500)?;
            client.wait_answers(Side::Ghost, 10, LIMIT)?;
        }
    }
    Ok(())
}

#[test]
fn a_full_flow_table_forgets_the_oldest_and_serves_everybody() -> Result<()> {
    let stage = Stage::with(|config| {
        config.limits = vec![("flows", 64)];
        config.drain_idle_s = Some(30);
        config.drain_max_s = Some(300);
    })?;
    let ns = &stage.world.net.client;
    stage.switch("throw")?;
    // Each connection is a flow: many times more than there is room for.
    let many = traffic::short_lived(ns, Family::V4.service(), 2_000)?;
    many.wait_answers(Side::Ghost, 1_000, LIMIT)?;
    stage.switch("drain")?;
    many.wait_answers(Side::Primary, 100, LIMIT)?;
    let record = many.stop();
    let failed = record.iter().find(|e| e.failed());
    assert!(failed.is_none(), "{failed:?}");
    Ok(())
}

#[test]
fn more_routes_than_there_is_room_for_are_refused() -> Result<()> {
    let world = World::new()?;
    let exit = refused(&world, |config| {
        // One for each family, and one more.
        config.limits = vec![("routes", 1)];
        config
            .routes
            .push(RouteLine::to_ghost("198.51.100.11", "10.77.2.3"));
    })?;
    assert!(exit.said.contains("routes"), "{}", exit.said);
    Ok(())
}
