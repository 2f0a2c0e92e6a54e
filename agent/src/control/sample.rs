//! A snapshot with one of everything, for tests.

use std::{num::NonZeroU32, path::Path, sync::Mutex, time::Duration};

use agent_common::abi::{
    ABI_VERSION, Cause, EventKind, FenceMode, GuestSignal, Position, Reason, RouteCounters, Side,
};

use crate::{
    allocate::{self, Policy, supposing},
    model::{
        Amounts, CounterIndex, Demand, EventView, GhostState, HostView, Ifindex, InstanceName,
        InstanceView, L4, Need, NotInForce, Planned, PortView, PrimaryState, Priority, Protocol,
        Risk, RouteSpec, RouteView, Service, SlotIndex, Snapshot, SwitchView, Target, UplinkView,
        XdpMode,
    },
    orchestrate::{
        command::{Answer, Caller, Refusal},
        event::{self, DrainEnd},
        vms::{VmDesk, VmDone, VmOrder, VmRefusal, VmRequest, VmView},
    },
};

pub(crate) fn ifindex(index: u32) -> Ifindex {
    Ifindex(NonZeroU32::new(index).unwrap())
}

pub(crate) fn uplink(interface: &str, index: u32, mode: Option<XdpMode>) -> UplinkView {
    UplinkView {
        interface: interface.to_owned(),
        ifindex: ifindex(index),
        mode,
        program_id: 41,
        program: "gd_steer".to_owned(),
    }
}

pub(crate) fn switch(position: Position) -> SwitchView {
    SwitchView {
        position,
        own_position: position,
        by_host: false,
        armed: true,
        tracked: true,
        term: 1,
        cause: None,
        cause_pid: 0,
        moved_ago: None,
        draining_flows: None,
    }
}

pub(crate) fn route(index: u32, addr: &str, l4: Option<L4>, ghost: &str) -> RouteView {
    let mut counters = RouteCounters {
        primary_packets: 1_234_567,
        primary_bytes: 1_600_000_000,
        ghost_packets: 3_400,
        ghost_bytes: 2_100_000,
        reverse_packets: 900_000,
        reverse_bytes: 800_000_000,
        ..RouteCounters::default()
    };
    counters.reasons[Reason::NeighbourUnresolved as usize] = 12;
    RouteView {
        spec: RouteSpec {
            service: Service {
                addr: addr.parse().unwrap(),
                l4,
            },
            primary: Target::Native,
            ghost: Target::Translate {
                addr: ghost.parse().unwrap(),
                port: l4.map(|l4| l4.port + 8000),
            },
        },
        counter: CounterIndex(index),
        counters,
    }
}

pub(crate) fn instance(name: &str, slot: u32, switch: SwitchView) -> InstanceView {
    let https = L4 {
        protocol: Protocol::Tcp,
        port: 443,
    };
    InstanceView {
        name: name.to_owned(),
        slot: SlotIndex(slot),
        switch,
        routes: vec![
            route(2 * slot, "192.0.2.10", None, "198.51.100.20"),
            route(2 * slot + 1, "2001:db8::10", Some(https), "2001:db8:1::20"),
        ],
        ports: vec![PortView {
            interface: format!("tap-{name}"),
            ifindex: ifindex(100 + slot),
            side: Side::Primary,
            fence: FenceMode::Quiet,
            fenced_packets: 17,
        }],
    }
}

/// `db` cannot drain, `mail` drains, `web` is at its ghost after a reboot.
pub(crate) fn snapshot() -> Snapshot {
    let db = SwitchView {
        tracked: false,
        ..switch(Position::Primary)
    };
    let mail = SwitchView {
        cause: Some(Cause::Commanded),
        cause_pid: 900,
        moved_ago: Some(Duration::from_secs(75)),
        draining_flows: Some(42),
        term: 3,
        ..switch(Position::Draining)
    };
    let web = SwitchView {
        cause: Some(Cause::InstanceReboot),
        cause_pid: 4711,
        moved_ago: Some(Duration::from_millis(2_500)),
        term: 2,
        ..switch(Position::Ghost)
    };
    Snapshot {
        host: HostView {
            generation: 0,
            thrown_ago: None,
            cause_pid: 0,
            abi_version: ABI_VERSION,
            ghostd_version: "0.1.0".to_owned(),
        },
        instances: vec![
            instance("db", 0, db),
            instance("mail", 1, mail),
            instance("web", 2, web),
        ],
        uplinks: vec![uplink("eth1", 3, Some(XdpMode::Native))],
        troubles: Vec::new(),
    }
}

/// After `reboot(2)` on the host, with one uplink in generic mode and one gone.
pub(crate) fn host_thrown() -> Snapshot {
    let mut seen = snapshot();
    seen.host.generation = 1;
    seen.host.thrown_ago = Some(Duration::from_secs(3));
    seen.host.cause_pid = 1;
    for instance in &mut seen.instances {
        instance.switch.position = Position::Ghost;
        instance.switch.by_host = true;
    }
    seen.uplinks = vec![
        uplink("eth1", 3, Some(XdpMode::Generic)),
        uplink("", 4, None),
    ];
    seen
}

pub(crate) fn reboot(kind: EventKind) -> EventView {
    let thrown = matches!(
        kind,
        EventKind::HostReboot | EventKind::InstanceReboot | EventKind::GuestReset
    );
    let command = match kind {
        EventKind::GuestReset => GuestSignal::Port {
            port: 0x64,
            value: 0xfe,
        }
        .to_word(),
        EventKind::GuestResetUnarmed => GuestSignal::Exit { reason: 8 }.to_word(),
        _ => 0x0123_4567,
    };
    let of_host = matches!(kind, EventKind::HostReboot);
    EventView {
        kind,
        slot: (!of_host).then_some(SlotIndex(2)),
        pid: 4711,
        tid: 4711,
        uid: 0,
        gid: 0,
        comm: "init".to_owned(),
        command,
        errno: matches!(kind, EventKind::RebootFailed).then_some(1),
        cgroup_id: 77,
        entered: Duration::from_secs(1000),
        throw_took: thrown.then_some(Duration::from_nanos(1_420)),
        host_generation: u64::from(of_host),
    }
}

/// One event of each kind, and of each shape of a kind.
pub(crate) fn event_kinds() -> Vec<event::EventKind> {
    use agent_common::abi::EventKind::{
        GuestReset, GuestResetUnarmed, HostReboot, InstanceReboot, InstanceRebootUnarmed,
        RebootFailed,
    };
    let by = Caller {
        pid: 900,
        uid: 1000,
        gid: 1000,
    };
    let web = || Some("web".to_owned());
    let rebooted = |instance, kind| event::EventKind::Reboot {
        instance,
        seen: reboot(kind),
    };
    vec![
        event::EventKind::Started {
            version: "0.1.0".to_owned(),
            adopted: true,
        },
        event::EventKind::Started {
            version: "0.1.0".to_owned(),
            adopted: false,
        },
        event::EventKind::Attached {
            interface: "eth1".to_owned(),
            mode: "native",
        },
        event::EventKind::ConfigReloaded {
            instances: 3,
            routes: 6,
        },
        event::EventKind::ConfigRefused {
            diagnostic: "\n  x unknown key `adr`\n  3 | adr = 1".to_owned(),
        },
        rebooted(web(), InstanceReboot),
        rebooted(web(), InstanceRebootUnarmed),
        rebooted(web(), GuestReset),
        rebooted(web(), GuestResetUnarmed),
        rebooted(web(), RebootFailed),
        rebooted(None, HostReboot),
        event::EventKind::SwitchMoved {
            instance: web(),
            to: Position::Ghost,
            by,
        },
        event::EventKind::SwitchMoved {
            instance: None,
            to: Position::Primary,
            by,
        },
        event::EventKind::Drained {
            instance: "web".to_owned(),
            flows_left: 0,
            reason: DrainEnd::Empty,
        },
        event::EventKind::Drained {
            instance: "web".to_owned(),
            flows_left: 7,
            reason: DrainEnd::TimedOut,
        },
        event::EventKind::InterfaceGone {
            interface: "eth1".to_owned(),
        },
        event::EventKind::CopyChanged {
            instance: "web".to_owned(),
            side: Side::Ghost,
            state: "suspended",
            epoch: Some(3),
            reason: None,
        },
        event::EventKind::CopyChanged {
            instance: "web".to_owned(),
            side: Side::Primary,
            state: "ended",
            epoch: None,
            reason: Some("the guest reset itself".to_owned()),
        },
        event::EventKind::Drilled {
            instance: "web".to_owned(),
            is_healthy: false,
            what: "no answer within 500 ms".to_owned(),
        },
        event::EventKind::Degraded {
            what: "cannot attach to eth2".to_owned(),
        },
        event::EventKind::Lost { count: 12 },
        event::EventKind::Stopping,
    ]
}

/// A plan for a host with little to spare: `web` and `big` are microVMs, `db`
/// is none.
pub(crate) fn planned(risks: &[(InstanceName, Risk)]) -> Result<Answer, Refusal> {
    let ghost = |name: &str, at: &str, memory_mib: u64| Demand {
        name: name.parse().unwrap(),
        owner: None,
        priority: Priority::ORDINARY,
        risk: at.parse().unwrap(),
        need: Need {
            memory_bytes: memory_mib << 20,
            working_set_bytes: memory_mib << 16,
            vcpus: 2,
            dirty_rate: memory_mib << 14,
        },
    };
    let demand = vec![
        ghost("big", "0.2", 2048),
        ghost("calm", "0.001", 64),
        ghost("web", "0.1", 512),
    ];
    let capacity = Amounts {
        memory_bytes: 9 << 30,
        huge_pages: 9 << 9,
        cpu_milli: 8000,
        bandwidth: 125_000_000,
    };
    let (supposed, unknown) = supposing(demand.clone(), risks);
    if let Some(name) = unknown.first() {
        return Err(match name.as_str() {
            "db" => Refusal::NoMicrovm(name.clone()),
            _ => Refusal::UnknownInstance(name.clone()),
        });
    }
    let plan = allocate::plan(None, &demand, &capacity, &Policy::default());
    let supposed = allocate::plan(Some(&plan), &supposed, &capacity, &Policy::default());
    Ok(Answer::Planned(Box::new(Planned {
        plan,
        capacity,
        supposed: (!risks.is_empty()).then_some(supposed),
    })))
}

pub(crate) const CONSOLE: &str = "up\n";

/// The instance `web`, with a console in this file. Its second order of each
/// kind is not now, the third fails, the fourth finds it busy, the fifth is
/// never done.
pub(crate) fn desk(console: &Path) -> VmDesk {
    std::fs::write(console, CONSOLE).unwrap();
    let desk = VmDesk::default();
    let view = VmView {
        primary: PrimaryState::Running,
        ghost: GhostState::Suspended { epoch: 3 },
        primary_pid: Some(70),
        ghost_pid: Some(71),
        memory_mib: 128,
        vcpus: 2,
        image: "/srv/web.elf".to_owned(),
        primary_not_in_force: Vec::new(),
        ghost_not_in_force: vec![NotInForce {
            file: "memory.max",
            why: "no memory controller in /sys/fs/cgroup/cgroup.controllers".to_owned(),
        }],
    };
    let name: InstanceName = "web".parse().unwrap();
    let held = Mutex::new(Vec::new());
    let line = move |request: VmRequest| {
        let result = match request.order {
            VmOrder::Create | VmOrder::Prepare => Ok(done()),
            VmOrder::Pause | VmOrder::Activate => Err(VmRefusal::NotNow {
                what: "web has no ghost".to_owned(),
                hint: "`ghostctl ghost prepare web` makes one".to_owned(),
            }),
            VmOrder::Resume | VmOrder::Suspend => Err(VmRefusal::Failed(
                "cannot pause the ghost of web".to_owned(),
            )),
            VmOrder::Reset | VmOrder::DestroyGhost => {
                return Err(VmRefusal::Busy("web".parse().unwrap()));
            }
            VmOrder::Destroy | VmOrder::Drill => {
                held.lock().unwrap().push(request);
                return Ok(());
            }
        };
        request.reply.send(result).unwrap();
        Ok(())
    };
    let console = console.to_owned();
    let log = move |side| match side {
        Side::Primary => console.clone(),
        Side::Ghost => console.with_extension("none"),
    };
    desk.open(&name, view, Box::new(line), log);
    desk
}

pub(crate) fn done() -> VmDone {
    VmDone {
        took: Duration::from_micros(21_500),
        pause: Some(Duration::from_micros(740)),
        activate: None,
        pages: Some(4_200),
        pages_paused: Some(19),
        verdict: None,
    }
}
