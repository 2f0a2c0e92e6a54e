//! Switches, tables and kernel events against the real kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{fs, process::Command as Process, time::Duration};

use agent_common::abi::{
    Cause, Control, EventKind, Flow, FlowKey, InstanceRecord, Position, RouteKeyV4, RouteV4,
    Switch, TargetV4, flags, names,
};
use ghostd::{
    model::{EventView, SlotIndex, SwitchView},
    orchestrate::{
        command::{Answer, Command, Refusal, Subject},
        plan::Effect,
    },
    steer::{Events, Pins, monotonic_ns},
};

use support::{Cgroup, PinRoot, eventually, isolated, name, run, runtime, start};

fn record(name: &str) -> InstanceRecord {
    let mut bytes = [0; 60];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    InstanceRecord {
        name: bytes,
        pad: 0,
    }
}

fn switch(flags: u8) -> Switch {
    Switch {
        control: Control {
            position: Position::Primary as u8,
            flags,
            host_generation_seen: 0,
            term: 3,
        },
        drain_idle_ns: 1_000_000_000,
        ..Switch::UNUSED
    }
}

/// Instances `web` (armed, tracked) in slot 1 and `db` (neither) in slot 4.
fn populate(pins: &Pins) {
    let both = flags::ARMED | flags::TRACK;
    for (slot, name, flags) in [(1, "web", both), (4, "db", 0)] {
        let slot = SlotIndex(slot);
        pins.execute(&[
            Effect::ClaimSlot {
                slot,
                record: record(name),
            },
            Effect::InitSwitch {
                slot,
                switch: switch(flags),
            },
        ])
        .unwrap();
    }
}

fn view(pins: &Pins, instance: &str) -> SwitchView {
    let snapshot = pins.snapshot().unwrap();
    let found = snapshot.instances.iter().find(|i| i.name == instance);
    found.unwrap().switch.clone()
}

fn done(pins: &Pins, command: &Command) {
    assert_eq!(pins.command(command, 77).unwrap(), Answer::Done);
}

fn unchanged(pins: &Pins, command: &Command) {
    assert_eq!(pins.command(command, 77).unwrap(), Answer::Unchanged);
}

#[test]
fn commands_move_switches_without_a_daemon() {
    isolated("commands_move_switches", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        populate(start(&root).plane.pins());
        // The daemon is gone; the pins are enough.
        let pins = Pins::open(root.path()).unwrap();
        let web = || Subject::Instance(name("web"));

        unchanged(&pins, &Command::Restore(web()));
        done(&pins, &Command::Throw(web()));
        unchanged(&pins, &Command::Throw(web()));
        let thrown = view(&pins, "web");
        assert_eq!(thrown.position, Position::Ghost);
        assert_eq!(
            (thrown.cause, thrown.cause_pid),
            (Some(Cause::Commanded), 77)
        );
        assert!(thrown.moved_ago.unwrap() < Duration::from_secs(60));
        assert_eq!(thrown.term, 3);
        assert_eq!(view(&pins, "db").position, Position::Primary);

        done(&pins, &Command::Drain(name("web")));
        let draining = view(&pins, "web");
        assert_eq!(draining.position, Position::Draining);
        assert_eq!(draining.draining_flows, Some(0));
        done(&pins, &Command::Restore(web()));
        assert_eq!(view(&pins, "web").position, Position::Primary);
        assert_eq!(view(&pins, "web").draining_flows, None);

        assert!(matches!(
            pins.command(&Command::Drain(name("db")), 1),
            Err(Refusal::NotTracked(_))
        ));
        assert!(matches!(
            pins.command(&Command::Arm(name("nobody")), 1),
            Err(Refusal::UnknownInstance(_))
        ));
        assert!(pins.command(&Command::Reload, 1).is_err());
    });
}

#[test]
fn the_host_switch_moves_the_armed_and_only_them() {
    isolated("the_host_switch", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let plane = start(&root).plane;
        let pins = plane.pins();
        populate(pins);
        unchanged(pins, &Command::Restore(Subject::Host));
        done(pins, &Command::Throw(Subject::Host));
        let snapshot = pins.snapshot().unwrap();
        assert_eq!((snapshot.host.generation, snapshot.host.cause_pid), (1, 77));
        let web = view(pins, "web");
        assert!(web.by_host);
        assert_eq!(web.position, Position::Ghost);
        assert_eq!(web.own_position, Position::Primary);
        assert_eq!(view(pins, "db").position, Position::Primary);

        // Arming does not let an old throw move it; disarming undoes none.
        done(pins, &Command::Arm(name("db")));
        assert_eq!(view(pins, "db").position, Position::Primary);
        done(pins, &Command::Disarm(name("web")));
        assert_eq!(view(pins, "web").position, Position::Ghost);
        done(pins, &Command::Arm(name("web")));

        done(pins, &Command::Restore(Subject::Host));
        assert_eq!(view(pins, "web").position, Position::Primary);
        done(pins, &Command::Throw(Subject::Host));
        assert_eq!(view(pins, "web").position, Position::Ghost);
        assert_eq!(view(pins, "db").position, Position::Ghost);
    });
}

#[test]
fn flows_that_ended_do_not_count() {
    isolated("flows_that_ended", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let plane = start(&root).plane;
        let pins = plane.pins();
        populate(pins);
        let now = monotonic_ns();
        let pin = root.path().join(names::FLOWS);
        let put = |port: u8, flow: Flow| {
            let mut key = vec![0u8; size_of::<FlowKey>()];
            key[33] = port;
            let mut value = flow.last_ns.to_ne_bytes().to_vec();
            value.extend(flow.switch.to_ne_bytes());
            value.extend([flow.ended, 0, 0, 0]);
            let hex = |b: &[u8]| b.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
            run(&format!(
                "bpftool map update pinned {} key {} value {}",
                pin.display(),
                hex(&key),
                hex(&value)
            ));
        };
        let flow = |last_ns, switch, ended| Flow {
            last_ns,
            switch,
            ended,
            pad: [0; 3],
        };
        // An hour ahead, so that nothing idles out while the test runs.
        let live = now + 3_600_000_000_000;
        put(1, flow(live, 1, 0));
        put(2, flow(live, 1, Flow::FIN_CLIENT));
        put(3, flow(live, 1, Flow::RESET));
        put(4, flow(1, 1, 0));
        put(5, flow(live, 4, 0));
        assert_eq!(pins.live_flows(SlotIndex(1)).unwrap(), 2);
        done(pins, &Command::Throw(Subject::Instance(name("web"))));
        done(pins, &Command::Drain(name("web")));
        assert_eq!(view(pins, "web").draining_flows, Some(2));
    });
}

#[test]
fn tables_larger_than_a_batch_read_back_whole() {
    isolated("tables_larger_than_a_batch", || {
        const ROUTES: u32 = 20_000;
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let limits = ghostd::model::Limits {
            routes: ROUTES,
            ..support::limits()
        };
        let started =
            ghostd::steer::Plane::start(root.path(), &limits, &support::object()).unwrap();
        let pins = started.plane.pins();
        let target = |kind| TargetV4 {
            addr_be: [192, 0, 2, 1],
            port_be: [0; 2],
            kind,
            pad: 0,
        };
        let key = |i: u32| RouteKeyV4 {
            addr_be: i.to_be_bytes(),
            port_be: [0; 2],
            protocol: 0,
            pad: 0,
        };
        let value = |i: u32| RouteV4 {
            switch: 1,
            counter: i,
            primary: target(1),
            ghost: target(2),
        };
        let puts: Vec<Effect> = (0..ROUTES)
            .map(|i| Effect::PutRouteV4 {
                key: key(i),
                value: value(i),
            })
            .collect();
        pins.execute(&puts).unwrap();
        let actual = pins.actual().unwrap();
        assert_eq!(actual.routes_v4.len(), ROUTES as usize);
        assert!((0..ROUTES).all(|i| actual.routes_v4.get(&key(i)) == Some(&value(i))));

        // One more than there is room for: the error names the map.
        let full = pins.execute(&[Effect::PutRouteV4 {
            key: key(ROUTES),
            value: value(0),
        }]);
        let text = full.unwrap_err().to_string();
        assert!(text.contains(names::ROUTES_V4), "{text}");
        pins.execute(&[Effect::DeleteRouteV4 { key: key(7) }])
            .unwrap();
        assert_eq!(pins.actual().unwrap().routes_v4.len(), ROUTES as usize - 1);
    });
}

/// Has the init of a new PID namespace, in `cgroup`, call `reboot(2)`. Nothing
/// is called unless it really is the init of a namespace of its own.
fn reboot_in(cgroup: &Cgroup) {
    let script = "exit 3 if $$ != 1; syscall(169, 0xfee1dead, 672274793, 0x01234567, 0); exit 4";
    let status = Process::new("sh")
        .arg("-c")
        .arg("echo $$ > \"$1/cgroup.procs\" && exec unshare --pid --fork perl -e \"$2\"")
        .args(["sh", &cgroup.path().display().to_string(), script])
        .status()
        .unwrap();
    // The namespace's init is ended by SIGHUP (kernel/pid_namespace.c), which
    // unshare passes on.
    assert!(status.code().is_none_or(|c| c != 3 && c != 4), "{status}");
}

async fn next_event(events: &mut Events) -> EventView {
    let read = tokio::time::timeout(Duration::from_secs(10), events.next());
    let read = read.await.expect("an event").unwrap();
    assert_eq!(read.unreadable, 0);
    read.events.into_iter().next().unwrap()
}

#[test]
fn a_reboot_in_an_instance_throws_its_switch_and_is_told() {
    isolated("a_reboot_in_an_instance", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let cgroup = Cgroup::new();
        let mut started = start(&root);
        let pins = started.plane.pins();
        populate(pins);
        let id = ghostd::steer::cgroup_id(cgroup.path()).unwrap().unwrap();
        let enter = |slot| {
            pins.execute(&[Effect::PutCgroup {
                cgroup_id: id,
                slot: SlotIndex(slot),
            }])
            .unwrap();
        };

        enter(1);
        reboot_in(&cgroup);
        let web = view(pins, "web");
        assert_eq!(web.position, Position::Ghost);
        assert_eq!(web.cause, Some(Cause::InstanceReboot));
        assert_eq!(view(pins, "db").position, Position::Primary);
        assert_eq!(pins.snapshot().unwrap().host.generation, 0);
        let seen = runtime.block_on(next_event(&mut started.events));
        assert_eq!(seen.kind, EventKind::InstanceReboot);
        assert_eq!(seen.slot, Some(SlotIndex(1)));
        assert_eq!((seen.uid, seen.comm.as_str()), (0, "perl"));
        assert_eq!((seen.command, seen.errno), (0x0123_4567, None));
        assert!(seen.throw_took.unwrap() < Duration::from_millis(100));
        assert_eq!(seen.cgroup_id, id);

        // Not armed: told, not thrown. And told to whoever runs next.
        enter(4);
        reboot_in(&cgroup);
        assert_eq!(view(pins, "db").position, Position::Primary);
        drop(started);
        let mut second = start(&root);
        let seen = runtime.block_on(next_event(&mut second.events));
        assert_eq!(seen.kind, EventKind::InstanceRebootUnarmed);
        assert_eq!(seen.throw_took, None);
    });
}

#[test]
fn tracepoints_are_replaced_and_never_missing() {
    isolated("tracepoints_are_replaced", || {
        let runtime = runtime();
        let _guard = runtime.enter();
        let root = PinRoot::new();
        let cgroup = Cgroup::new();
        drop(start(&root));
        let link = root.path().join("gd_link_reboot");
        let first = run(&format!("bpftool link show pinned {}", link.display()));
        let started = start(&root);
        let second = run(&format!("bpftool link show pinned {}", link.display()));
        assert_ne!(first, second);
        drop(started);
        // Nobody runs; the kernel throws all the same.
        let pins = Pins::open(root.path()).unwrap();
        populate(&pins);
        let id = ghostd::steer::cgroup_id(cgroup.path()).unwrap().unwrap();
        pins.execute(&[Effect::PutCgroup {
            cgroup_id: id,
            slot: SlotIndex(1),
        }])
        .unwrap();
        reboot_in(&cgroup);
        assert_eq!(view(&pins, "web").position, Position::Ghost);
        // One link each: the old ones are gone.
        let left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains("reboot") && n.starts_with("gd_link"))
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let cleaned = eventually(Duration::from_secs(1), || Pins::clean(root.path()).ok());
        assert!(cleaned.unwrap().len() > 20);
    });
}
