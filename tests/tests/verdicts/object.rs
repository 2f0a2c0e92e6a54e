//! The object itself: names, types, and tables of other sizes.

use std::process::Command;

use agent_common::abi::{
    Event, FenceMode, Flow, FlowKey, FragKey, Fragment, Port as Row, Side, names,
};
use anyhow::{Context, Result, ensure};
use ghostd_tests::{
    bpf::{Object, Room},
    topology::Family,
};
use serde_json::Value;

use crate::{
    lab::{
        Got, Lab, SLOTS, Tally::*, arriving, counter, departing, ghost, lab, lab_with, request,
        service,
    },
    packet::{Body, payload},
    place::Port,
    rows::{Key, Target},
};

#[test]
fn maps_and_programs_have_the_names_of_the_abi() -> Result<()> {
    let object = Object::load(Room {
        routes: 1,
        instances: 1,
    })?;
    let sorted = |names: &[&'static str]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    assert_eq!(
        object.names(),
        (sorted(&names::MAPS), sorted(&names::PROGRAMS))
    );
    // The kernel cuts names that are too long for it.
    for name in names::MAPS {
        assert_eq!(object.info(name)?.name_as_str(), Some(name));
    }
    for name in [names::STEER, names::PORT] {
        assert_eq!(object.program(name)?.info()?.name_as_str(), Some(name));
    }
    Ok(())
}

/// A field that `bpftool` is to name in each map's key (if it is no plain
/// number) and value, as JSON pointers.
const FIELDS: [(&str, &str, &str); 20] = [
    (names::META, "", "/abi_version"),
    (names::ROUTES_V4, "/addr_be", "/ghost/kind"),
    (names::ROUTES_V6, "/addr_be", "/ghost/kind"),
    (names::REVERSE_V4, "/port_be", "/service_be"),
    (names::REVERSE_V6, "/port_be", "/service_be"),
    (names::FILTER, "", ""),
    (names::SWITCHES, "", "/control/position"),
    (names::HOST_SWITCH, "", "/generation"),
    (names::INSTANCES, "", "/name"),
    (names::COUNTERS, "", "/ghost_packets"),
    (names::FLOWS, "/client_be", "/last_ns"),
    (names::FRAGMENTS, "/id_be", "/dst_port_be"),
    (names::PORTS, "", "/fenced_packets"),
    (names::EGRESS, "", ""),
    (names::CGROUPS, "", ""),
    (names::ICMP_BUDGET, "", "/tokens"),
    (names::HOPS, "", "/macs"),
    (names::CALLERS, "", "/command"),
    // Working memory: numbers without names.
    (names::SCRATCH, "", "/0"),
    (names::RECENT, "", "/until_ns"),
];

/// A row in each hash table, all zeros but for those of services.
fn fill(lab: &mut Lab) -> Result<()> {
    for family in Family::BOTH {
        lab.serve(family, 0, ghost(family))?;
    }
    let flow_key = FlowKey {
        client_be: [0; 16],
        service_be: [0; 16],
        client_port_be: [0; 2],
        service_port_be: [0; 2],
        protocol: 0,
        pad: [0; 3],
    };
    let flow = Flow {
        last_ns: 0,
        switch: 0,
        ended: 0,
        pad: [0; 3],
    };
    lab.object.insert(names::FLOWS, flow_key, flow)?;
    let key = FragKey {
        src_be: [0; 16],
        dst_be: [0; 16],
        id_be: [0; 4],
        protocol: 0,
        pad: [0; 3],
    };
    let fragment = Fragment {
        seen_ns: 0,
        src_port_be: [0; 2],
        dst_port_be: [0; 2],
        pad: [0; 4],
    };
    lab.object.insert(names::FRAGMENTS, key, fragment)?;
    let port = Row {
        switch: 0,
        side: Side::Ghost as u8,
        fence: FenceMode::Quiet as u8,
        pad: [0; 2],
        lease_ns: 0,
        fenced_packets: 0,
        term: 0,
        pad1: 0,
    };
    lab.object.insert(names::PORTS, 1_u32, port)?;
    lab.object.insert(names::CGROUPS, 1_u64, 1_u32)?;
    let event = Event {
        kind: 1,
        pad: [0; 3],
        switch: 0,
        pid: 0,
        tid: 0,
        uid: 0,
        gid: 0,
        command: 0,
        result: 0,
        cgroup_id: 0,
        entered_ns: 0,
        thrown_ns: 0,
        host_generation: 0,
        comm: [0; 16],
    };
    lab.object.insert(names::CALLERS, 1_u64, event)
}

/// What an operator sees of the first row of a map.
fn dumped(lab: &Lab, map: &str) -> Result<Value> {
    let id = lab.object.info(map)?.id();
    let output = Command::new("bpftool")
        .args(["-j", "map", "dump", "id", &id.to_string()])
        .output()
        .context("start bpftool")?;
    ensure!(output.status.success(), "bpftool: {output:?}");
    let rows: Value = serde_json::from_slice(&output.stdout)?;
    Ok(rows.get(0).context("no rows")?.clone())
}

#[test]
fn bpftool_names_the_fields_of_every_map() -> Result<()> {
    lab(|lab| {
        fill(lab)?;
        for (map, key, value) in FIELDS {
            let row = dumped(lab, map).context(map)?;
            let pointers = [
                format!("/formatted/key{key}"),
                format!("/formatted/value{value}"),
                format!("/formatted/values/0/value{value}"),
            ];
            let [has_key, has_value, has_values] = pointers.map(|at| row.pointer(&at).is_some());
            assert!(has_key && (has_value || has_values), "{map}: {row}");
        }
        // A ring buffer has no rows, so there is nothing to dump of it.
        let named: Vec<&str> = FIELDS.iter().map(|(map, ..)| *map).collect();
        let others = names::MAPS.into_iter().filter(|map| !named.contains(map));
        assert_eq!(others.collect::<Vec<_>>(), [names::EVENTS]);
        Ok(())
    })
}

#[test]
fn tables_of_one_row_steer_and_are_full_after_it() -> Result<()> {
    let room = Room {
        routes: 1,
        instances: 1,
    };
    lab_with(room, |lab| {
        for name in [
            names::ROUTES_V4,
            names::ROUTES_V6,
            names::SWITCHES,
            names::INSTANCES,
        ] {
            assert_eq!(lab.object.info(name)?.max_entries(), 1, "{name}");
        }
        for name in [names::REVERSE_V4, names::REVERSE_V6, names::COUNTERS] {
            assert_eq!(lab.object.info(name)?.max_entries(), 2, "{name}");
        }
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(30)));
            let to_ghost = sent.clone().with(|p| p.ends.target = ghost(family));
            let want = Got::redirected(&departing(to_ghost, Port::Wide))
                .counting(counter(family, 0), &[ToGhost(sent.counted())]);
            lab.expect("small", Port::Uplink, &sent.bytes(), &want);
            let another = Key::whole(service(family, SLOTS));
            let full = lab.route(family, 0, another, [Target::Native; 2]);
            assert!(full.is_err(), "a second route fitted");
        }
        Ok(())
    })
}
