//! From what maps hold to what people talk about. Pure.
//!
//! Map contents come from a pinned map, which anyone with the right to may
//! have written: what makes no sense is shown as far as it does, and never
//! panics.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use agent_common::abi::{
    Cause, Flow, HostSwitch, InstanceRecord, Meta, Position, RouteCounters, RouteKeyV4, RouteKeyV6,
    RouteV4, RouteV6, Switch, TargetKind, TargetV4, TargetV6, flags,
};

use crate::model::{L4, Protocol, RouteSpec, Service, SwitchView, Target};

pub(super) fn name(record: &InstanceRecord) -> Option<String> {
    text(&record.name)
}

pub(super) fn ghostd_version(meta: &Meta) -> String {
    text(&meta.ghostd_version).unwrap_or_default()
}

/// NUL-padded text; `None` if empty.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn l4(protocol: u8, port_be: [u8; 2]) -> Option<L4> {
    let protocol = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|p| p.number() == protocol)?;
    Some(L4 {
        protocol,
        port: u16::from_be_bytes(port_be),
    })
}

fn target(kind: u8, addr: IpAddr, port_be: [u8; 2]) -> Target {
    match TargetKind::from_tag(kind) {
        Some(TargetKind::Translate) => {
            let port = u16::from_be_bytes(port_be);
            Target::Translate {
                addr,
                port: (port != 0).then_some(port),
            }
        }
        Some(TargetKind::Via) => Target::Via { addr },
        // As the programs take it.
        Some(TargetKind::Native) | None => Target::Native,
    }
}

fn target_v4(t: &TargetV4) -> Target {
    target(t.kind, Ipv4Addr::from(t.addr_be).into(), t.port_be)
}

fn target_v6(t: &TargetV6) -> Target {
    target(t.kind, Ipv6Addr::from(t.addr_be).into(), t.port_be)
}

pub(super) fn route_v4(key: &RouteKeyV4, route: &RouteV4) -> RouteSpec {
    RouteSpec {
        service: Service {
            addr: Ipv4Addr::from(key.addr_be).into(),
            l4: l4(key.protocol, key.port_be),
        },
        primary: target_v4(&route.primary),
        ghost: target_v4(&route.ghost),
    }
}

pub(super) fn route_v6(key: &RouteKeyV6, route: &RouteV6) -> RouteSpec {
    RouteSpec {
        service: Service {
            addr: Ipv6Addr::from(key.addr_be).into(),
            l4: l4(key.protocol, key.port_be),
        },
        primary: target_v6(&route.primary),
        ghost: target_v6(&route.ghost),
    }
}

/// How long ago `at_ns` was; `None` for zero, which is "never".
pub(super) fn ago(now_ns: u64, at_ns: u64) -> Option<Duration> {
    (at_ns != 0).then(|| Duration::from_nanos(now_ns.saturating_sub(at_ns)))
}

/// `None` for an unused slot. Flows are not counted here.
pub(super) fn switch(switch: &Switch, generation: u64, now_ns: u64) -> Option<SwitchView> {
    let control = switch.control;
    let own_position = Position::from_tag(control.position)?;
    let position = control.effective(HostSwitch::short(generation))?;
    let armed = control.flags & flags::ARMED != 0;
    Some(SwitchView {
        position,
        own_position,
        by_host: armed && control.host_generation_seen != HostSwitch::short(generation),
        armed,
        tracked: control.flags & flags::TRACK != 0,
        term: control.term,
        cause: Cause::from_tag(switch.cause),
        cause_pid: switch.cause_pid,
        moved_ago: ago(now_ns, switch.moved_ns),
        draining_flows: None,
    })
}

/// Whether a flow of the ghost still lives, as the kernel side judges it.
pub(super) fn is_live(flow: &Flow, idle_ns: u64, now_ns: u64) -> bool {
    !flow.closed() && now_ns.saturating_sub(flow.last_ns) < idle_ns
}

/// Adds up what each CPU counted.
pub(super) fn sum(per_cpu: &[RouteCounters]) -> RouteCounters {
    let mut all = RouteCounters::default();
    for one in per_cpu {
        let RouteCounters {
            primary_packets,
            primary_bytes,
            ghost_packets,
            ghost_bytes,
            reverse_packets,
            reverse_bytes,
            reasons,
            pad: _,
        } = one;
        for (total, part) in [
            (&mut all.primary_packets, primary_packets),
            (&mut all.primary_bytes, primary_bytes),
            (&mut all.ghost_packets, ghost_packets),
            (&mut all.ghost_bytes, ghost_bytes),
            (&mut all.reverse_packets, reverse_packets),
            (&mut all.reverse_bytes, reverse_bytes),
        ]
        .into_iter()
        .chain(all.reasons.iter_mut().zip(reasons))
        {
            *total = total.wrapping_add(*part);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use agent_common::abi::Control;

    use super::*;

    #[test]
    fn a_slot_under_the_host_switch_shows_both_positions() {
        let slot = Switch {
            control: Control {
                position: Position::Primary as u8,
                flags: flags::ARMED,
                host_generation_seen: 1,
                term: 0,
            },
            moved_ns: 5,
            ..Switch::UNUSED
        };
        let view = switch(&slot, 2, 105).unwrap();
        assert_eq!(view.own_position, Position::Primary);
        assert_eq!(view.position, Position::Ghost);
        assert!(view.by_host && view.armed && !view.tracked);
        assert_eq!(view.moved_ago, Some(Duration::from_nanos(100)));
        assert!(!switch(&slot, 1, 105).unwrap().by_host);
    }

    #[test]
    fn counters_add_up_over_cpus() {
        let one = RouteCounters {
            ghost_packets: 3,
            reasons: [1; agent_common::abi::ROUTE_REASONS],
            ..RouteCounters::default()
        };
        let total = sum(&[one, one, RouteCounters::default()]);
        assert_eq!(total.ghost_packets, 6);
        assert_eq!(total.reasons, [2; agent_common::abi::ROUTE_REASONS]);
        assert_eq!(total.primary_packets, 0);
    }

    #[test]
    fn a_flow_ends_by_closing_or_by_silence() {
        let flow = Flow {
            last_ns: 100,
            switch: 0,
            ended: 0,
            pad: [0; 3],
        };
        assert!(is_live(&flow, 50, 149));
        assert!(!is_live(&flow, 50, 150));
        let reset = Flow {
            ended: Flow::RESET,
            ..flow
        };
        assert!(!is_live(&reset, 50, 100));
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(b"web\0\0"), Some("web".to_owned()));
        assert_eq!(text(b"full"), Some("full".to_owned()));
        assert_eq!(text(b"\0x"), None);
    }
}
