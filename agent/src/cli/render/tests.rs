//! What a person sees, kept as golden files, and that odd values do no harm.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_common::abi::{Position, Reason};
use proptest::prelude::*;

use super::*;
use crate::{
    cli::{doctor, facts::*, look::Look},
    control::{
        dto::{
            EventLine, FindingDto, OutcomeDto, PlanDto, RoutesDto, Severity, Source, StatusDto,
            SwitchesDto,
        },
        findings::of_snapshot,
        sample,
    },
    model::Snapshot,
    orchestrate::{
        command::Answer,
        event::{Event, EventKind},
    },
};

/// Compares with `agent/golden/NAME.txt`; BLESS=1 writes it.
#[track_caller]
fn golden(name: &str, text: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let path = format!("{folder}/{name}.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{path} differs (BLESS=1 rewrites it); now:\n{text}"
    );
}

fn status_of(source: Source, seen: &Snapshot) -> StatusDto {
    StatusDto::of(source, None, seen, of_snapshot(seen))
}

fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
        assert_eq!(line, line.trim_end(), "blanks at the end: {line}");
    }
}

#[test]
fn status_screens() {
    let cases = [
        ("status", Source::Daemon, sample::snapshot()),
        ("status_host_thrown", Source::Daemon, sample::host_thrown()),
        ("status_pins", Source::Pins, sample::snapshot()),
        ("status_empty", Source::Daemon, {
            let mut seen = sample::snapshot();
            seen.instances.clear();
            seen.uplinks.clear();
            seen
        }),
    ];
    for (name, source, seen) in cases {
        let text = status(&status_of(source, &seen), Look::PLAIN);
        golden(name, &text);
        fits(&text);
    }
}

#[test]
fn a_thousand_instances_still_are_one_screen() {
    let mut seen = sample::snapshot();
    let primary = sample::switch(Position::Primary);
    for i in 0..1000 {
        let name = format!("a{i:03}");
        seen.instances
            .push(sample::instance(&name, i, primary.clone()));
    }
    let ghost = sample::switch(Position::Ghost);
    seen.instances.push(sample::instance("zz", 1003, ghost));
    let text = status(&status_of(Source::Daemon, &seen), Look::PLAIN);
    assert!(text.lines().count() < 50, "{text}");
    assert!(
        text.lines().any(|l| l.starts_with("zz  ")),
        "what matters first: {text}"
    );
    assert!(
        text.contains("... and 984 more: ghostctl switch show"),
        "{text}"
    );
}

#[test]
fn brief_lines() {
    let lines = [
        brief(&status_of(Source::Daemon, &sample::snapshot())),
        brief(&status_of(Source::Daemon, &sample::host_thrown())),
        brief(&status_of(Source::Pins, &sample::snapshot())),
    ];
    assert!(lines.iter().all(|l| l.lines().count() == 1));
    golden("status_brief", &lines.concat());
}

#[test]
fn tables_of_switches_and_routes() {
    let seen = sample::snapshot();
    let text = switches(&SwitchesDto::from(&seen), Look::PLAIN);
    golden("switches", &text);
    fits(&text);
    let thrown = SwitchesDto::from(&sample::host_thrown());
    let text = switches(&thrown, Look::PLAIN);
    golden("switches_host_thrown", &text);
    fits(&text);
    let text = routes(&RoutesDto::of(&seen, None), Look::PLAIN);
    golden("routes", &text);
    fits(&text);
    let piped = Look {
        width: None,
        ..Look::PLAIN
    };
    golden(
        "routes_piped",
        &routes(&RoutesDto::of(&seen, Some("web")), piped),
    );
    assert_eq!(
        routes(&RoutesDto::of(&seen, Some("nobody")), piped),
        "no routes\n"
    );
}

#[test]
fn plans() {
    let planned = |risks: &[(&str, &str)]| {
        let parsed = risks
            .iter()
            .map(|(name, risk)| (name.parse().unwrap(), risk.parse().unwrap()));
        match sample::planned(&parsed.collect::<Vec<_>>()) {
            Ok(Answer::Planned(planned)) => PlanDto::from(&*planned),
            other => panic!("{other:?}"),
        }
    };
    let look = Look {
        color: false,
        width: Some(80),
    };
    let cases = [
        ("plan", planned(&[])),
        ("plan_supposed", planned(&[("web", "0.5"), ("calm", "0.3")])),
    ];
    for (name, dto) in cases {
        let text = plan(&dto, look);
        fits(&text);
        golden(name, &text);
    }
    let mut empty = planned(&[]);
    empty.grants.clear();
    assert!(plan(&empty, look).ends_with("no instance is a microVM of ghostd's\n"));
}

#[test]
fn outcomes() {
    assert_eq!(
        outcome("throw", "web", OutcomeDto::Done),
        "throw web: done\n"
    );
    let unchanged = outcome("arm", "web", OutcomeDto::Unchanged);
    assert_eq!(unchanged, "arm web: it was so already\n");
}

fn event(sequence: u64, at: SystemTime, kind: EventKind) -> EventLine {
    EventLine::from(&Event { sequence, at, kind })
}

#[test]
fn event_lines() {
    let at = UNIX_EPOCH + Duration::from_micros(1_795_512_345_678_901);
    let mut text = event_line(&EventLine::Lost { events: 3 }, Look::PLAIN);
    for (i, kind) in sample::event_kinds().into_iter().enumerate() {
        text += &event_line(&event(i as u64 + 1, at, kind), Look::PLAIN);
    }
    assert_eq!(
        text.lines().count(),
        sample::event_kinds().len() + 1,
        "one line an event"
    );
    golden("events", &text);
}

fn sick() -> Facts {
    let seen = sample::host_thrown();
    let before = RoutesDto::of(&seen, None);
    let mut later = seen.clone();
    let counters = &mut later.instances[2].routes[0].counters;
    counters.reasons[Reason::NeighbourUnresolved as usize] += 1_500;
    counters.reasons[Reason::NotOwner as usize] += 1;
    let mut after = RoutesDto::of(&later, None);
    for route in &mut after.routes {
        for reason in ["too_big_unanswered", "unreachable", "forwarding_off"] {
            route.counters.reasons.insert(reason.to_owned(), 1);
        }
    }
    Facts {
        capabilities: Some(0),
        bpffs: Some(false),
        tracefs: Some(false),
        kernel_release: Some("5.15.0-91-generic".to_owned()),
        btf: false,
        jit: Some(0),
        lsm: Some("lockdown,capability,landlock\n".to_owned()),
        interfaces: vec![InterfaceFacts {
            name: "eth1.7".to_owned(),
            v4_forwarding: Some(false),
            v6_forwarding: Some(false),
            rp_filter: Some(1),
            bridge_port: false,
        }],
        foreign_xdp: vec![
            ForeignXdp {
                interface: "eth1.7".to_owned(),
                program_id: 9,
                program: Some("katran".to_owned()),
            },
            ForeignXdp {
                interface: "eth5".to_owned(),
                program_id: 10,
                program: None,
            },
        ],
        cgroup_unknown: vec!["web".to_owned()],
        daemon_trouble: Some(DaemonTrouble::Silent(
            "no daemon answers on /run/ghostd/api.sock".to_owned(),
        )),
        pinned: true,
        pins_trouble: Some("cannot read what is pinned in /sys/fs/bpf/ghostd".to_owned()),
        status: Some(status_of(Source::Pins, &seen)),
        routes: Some((before, after)),
    }
}

#[test]
fn doctor_text() {
    let found = doctor::examine(&sick());
    let text = findings(&found, Look::PLAIN);
    golden("doctor", &text);
    assert!(
        found.iter().all(|f| f.mend.is_some()),
        "each finding says what mends it"
    );
    let severities: Vec<Severity> = found.iter().map(|f| f.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "the gravest first");
}

#[test]
fn many_instances_without_a_cgroup_are_one_finding() {
    let facts = Facts {
        cgroup_unknown: (1..=857).map(|i| format!("vm{i}")).collect(),
        ..sick()
    };
    let found = doctor::examine(&facts);
    let mut found = found.iter().filter(|f| f.code == "cgroup_unknown");
    assert!(found.next().unwrap().what.starts_with("857 instances"));
    assert_eq!(found.next(), None);
}

#[test]
fn a_healthy_host_has_no_findings() {
    let facts = Facts {
        capabilities: Some(u64::MAX),
        bpffs: Some(true),
        tracefs: Some(true),
        kernel_release: Some("6.1.0-18-amd64".to_owned()),
        btf: true,
        jit: Some(1),
        lsm: Some("lockdown,capability,landlock,bpf".to_owned()),
        interfaces: vec![InterfaceFacts {
            name: "eth1".to_owned(),
            v4_forwarding: Some(true),
            v6_forwarding: Some(true),
            rp_filter: Some(2),
            bridge_port: false,
        }],
        pinned: true,
        ..Facts::default()
    };
    assert_eq!(doctor::examine(&facts), []);
    let mut bridged = facts.clone();
    bridged.interfaces[0].bridge_port = true;
    let found = doctor::examine(&bridged);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "bridge_port");
    for release in ["7.0", "6.10.3", "6.1"] {
        let kernel_release = Some(release.to_owned());
        let facts = Facts {
            kernel_release,
            ..facts.clone()
        };
        assert_eq!(doctor::examine(&facts), [], "{release}");
    }
}

#[test]
fn only_what_grows_is_a_warning() {
    let seen = sample::snapshot();
    let routes = RoutesDto::of(&seen, None);
    let facts = Facts {
        btf: true,
        routes: Some((routes.clone(), routes)),
        ..Facts::default()
    };
    let found = doctor::examine(&facts);
    let [FindingDto { severity, code, .. }] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (*severity, code.as_str()),
        (Severity::Info, "neighbour_unresolved")
    );
}

/// Hostile text, also such as a terminal would obey.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("\x1b]0;x\x07\u{202e}\n".to_owned()),
        "[a-z]{0,300}"
    ]
}

fn look() -> impl Strategy<Value = Look> {
    (any::<bool>(), any::<Option<u16>>()).prop_map(|(color, width)| Look { color, width })
}

prop_compose! {
    fn odd_snapshot()(
        name in text(),
        program in text(),
        numbers in any::<[u64; 6]>(),
        ago in any::<Option<Duration>>(),
        flags in any::<[bool; 3]>(),
    ) -> Snapshot {
        let mut seen = sample::host_thrown();
        seen.host.ghostd_version.clone_from(&program);
        seen.host.thrown_ago = ago;
        seen.host.generation = numbers[0];
        seen.uplinks[0].interface.clone_from(&name);
        seen.uplinks[1].program = program;
        for instance in &mut seen.instances {
            instance.name.clone_from(&name);
            instance.switch.moved_ago = ago;
            [instance.switch.by_host, instance.switch.armed, instance.switch.tracked] = flags;
            instance.switch.draining_flows = Some(numbers[1]);
            instance.ports[0].fenced_packets = numbers[2];
            for route in &mut instance.routes {
                route.counters.primary_packets = numbers[3];
                route.counters.ghost_bytes = numbers[4];
                route.counters.reasons = [numbers[5]; agent_common::abi::ROUTE_REASONS];
            }
        }
        seen
    }
}

/// Nothing but our own newlines and colours reaches the terminal.
fn harmless(text: &str, look: Look) -> Result<(), TestCaseError> {
    for c in text.chars() {
        let ours = c == '\n' || (look.color && c == '\x1b');
        prop_assert!(ours || !c.is_control(), "{c:?} in {text:?}");
        prop_assert!(c != '\u{202e}', "{text:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_breaks_a_screen(seen in odd_snapshot(), look in look()) {
        let routes_dto = RoutesDto::of(&seen, None);
        let status_dto = status_of(Source::Pins, &seen);
        let mut facts = sick();
        facts.routes = Some((routes_dto.clone(), routes_dto.clone()));
        let texts = [
            status(&status_dto, look),
            brief(&status_dto),
            switches(&SwitchesDto::from(&seen), look),
            routes(&routes_dto, look),
            findings(&doctor::examine(&facts), look),
        ];
        for text in texts {
            harmless(&text, look)?;
        }
    }

    #[test]
    fn no_event_breaks_a_line(name in text(), secs in any::<u32>(), command: u32, look in look()) {
        let at = UNIX_EPOCH + Duration::from_secs(u64::from(secs));
        let mut seen = sample::reboot(agent_common::abi::EventKind::InstanceReboot);
        seen.comm.clone_from(&name);
        seen.command = command;
        seen.throw_took = Some(Duration::from_secs(u64::from(secs)));
        let kinds = [
            EventKind::Reboot { instance: Some(name.clone()), seen },
            EventKind::ConfigRefused { diagnostic: name.clone() },
            EventKind::Degraded { what: name },
        ];
        for kind in kinds {
            let line = event_line(&event(u64::MAX, at, kind), look);
            prop_assert_eq!(line.matches('\n').count(), 1);
            harmless(&line, look)?;
        }
    }

    #[test]
    fn no_release_string_breaks_the_doctor(release in text()) {
        let facts = Facts { kernel_release: Some(release), ..Facts::default() };
        doctor::examine(&facts);
    }
}
