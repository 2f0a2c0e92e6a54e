//! Flows: what is written down of them, and where they go while draining.

use agent_common::abi::{Flow, FlowKey, Position, Recent, flags, names};
use anyhow::Result;
use ghostd_tests::{
    clock::now_ns,
    oracle::build::{
        Ends,
        tcp_flags::{ACK, FIN, RST, SYN},
    },
    topology::Family,
};

use crate::{
    lab::{
        BOTH_PROGRAMS, Got, Lab, TICK, Tally::*, arriving, counter, departing, ghost, lab, request,
    },
    packet::{Body, Packet, mapped, payload},
    place::Port,
    rows::switch,
};

/// The flow that a request of the client is part of.
fn key(request: &Packet) -> FlowKey {
    let Ends {
        source,
        target,
        source_port,
        target_port,
    } = request.ends;
    let ports = match request.body {
        Body::Udp(_) | Body::BareUdp(_) | Body::Tcp(..) => [source_port, target_port],
        Body::Echo(_) => [source_port; 2],
        _ => [0; 2],
    };
    FlowKey {
        client_be: mapped(source),
        service_be: mapped(target),
        client_port_be: ports[0].to_be_bytes(),
        service_port_be: ports[1].to_be_bytes(),
        protocol: request.protocol(),
        pad: [0; 3],
    }
}

fn packets(family: Family) -> Vec<Packet> {
    [
        Body::Udp(payload(20)),
        Body::Tcp(SYN, Vec::new()),
        Body::Tcp(ACK, payload(20)),
        Body::Echo(payload(20)),
        Body::Other(132, payload(20)),
    ]
    .map(|body| arriving(Port::Uplink, request(family, 0), body))
    .into()
}

fn tcp(family: Family, flags: u8) -> Packet {
    arriving(
        Port::Uplink,
        request(family, 0),
        Body::Tcp(flags, Vec::new()),
    )
}

/// What the ghost answers.
fn answer(family: Family, flags: u8) -> Packet {
    let ends = request(family, 0).reversed();
    arriving(Port::Wide, ends, Body::Tcp(flags, Vec::new())).with(|p| p.ends.source = ghost(family))
}

fn flows(lab: &Lab) -> Result<Vec<(FlowKey, Flow)>> {
    lab.object.rows(names::FLOWS)
}

/// The only flow that is known.
#[track_caller]
fn only_flow(lab: &Lab, key: FlowKey) -> Result<Flow> {
    let found = flows(lab)?;
    assert!(
        matches!(found[..], [(k, _)] if k == key),
        "{found:?}, not {key:?}"
    );
    Ok(found[0].1)
}

fn expect_ghost(lab: &Lab, what: &str, sent: &Packet, family: Family) {
    let to = sent.clone().with(|p| p.ends.target = ghost(family));
    let want = Got::redirected(&departing(to, Port::Wide))
        .counting(counter(family, 0), &[ToGhost(sent.counted())]);
    lab.expect(what, Port::Uplink, &sent.bytes(), &want);
}

fn expect_primary(lab: &Lab, what: &str, sent: &Packet, family: Family) {
    let frame = sent.bytes();
    let want = Got::untouched(&frame).counting(counter(family, 0), &[ToPrimary(sent.counted())]);
    lab.expect(what, Port::Uplink, &frame, &want);
}

fn put(lab: &mut Lab, sent: &Packet, last_ns: u64, ended: u8) -> Result<()> {
    let flow = Flow {
        last_ns,
        switch: 0,
        ended,
        pad: [0; 3],
    };
    lab.object.insert(names::FLOWS, key(sent), flow)
}

#[test]
fn flows_to_the_ghost_are_written_down_where_the_switch_tracks() -> Result<()> {
    for family in Family::BOTH {
        for sent in packets(family) {
            lab(|lab| {
                lab.serve(family, 0, ghost(family))?;
                expect_ghost(lab, "untracked", &sent, family);
                assert_eq!(flows(lab)?, []);
                lab.set_switch(0, switch(Position::Primary, flags::TRACK))?;
                expect_primary(lab, "at the primary", &sent, family);
                assert_eq!(flows(lab)?, []);
                lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
                let before = now_ns();
                expect_ghost(lab, "tracked", &sent, family);
                let flow = only_flow(lab, key(&sent))?;
                assert_eq!((flow.switch, flow.ended), (0, 0));
                assert!(flow.last_ns <= now_ns());
                assert!(flow.last_ns + TICK >= before, "{flow:?} {before}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn while_draining_the_ghost_keeps_its_flows_and_no_others() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
            for sent in packets(family) {
                let stranger = sent.clone().with(|p| p.ends.source_port += 1);
                expect_ghost(lab, "before", &sent, family);
                lab.set_switch(0, switch(Position::Draining, flags::TRACK))?;
                expect_ghost(lab, "known", &sent, family);
                if key(&stranger) != key(&sent) {
                    expect_primary(lab, "unknown", &stranger, family);
                    expect_primary(lab, "and not written down", &stranger, family);
                }
                lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_idle_flow_drains_to_the_primary() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let mut draining = switch(Position::Draining, 0);
            draining.drain_idle_ns = 60_000_000_000;
            lab.set_switch(0, draining)?;
            for sent in packets(family) {
                let now = now_ns();
                put(lab, &sent, now.saturating_sub(90_000_000_000), 0)?;
                expect_primary(lab, "idle", &sent, family);
                put(lab, &sent, now.saturating_sub(30_000_000_000), 0)?;
                expect_ghost(lab, "not idle yet", &sent, family);
                // It has just had a packet, so it is renewed.
                let flow: Flow = lab.object.lookup(names::FLOWS, &key(&sent))?;
                assert!(flow.last_ns + TICK >= now, "{flow:?}, {now}");
                // From a clock that is ahead.
                put(lab, &sent, u64::MAX, 0)?;
                expect_ghost(lab, "in the future", &sent, family);
            }
        }
        Ok(())
    })
}

#[test]
fn a_new_connection_on_the_ports_of_an_ended_one_goes_to_the_primary() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Draining, 0))?;
            for ended in 0..8 {
                put(lab, &tcp(family, SYN), now_ns(), ended)?;
                expect_ghost(lab, "the rest of it", &tcp(family, ACK), family);
                expect_ghost(lab, "no fresh SYN", &tcp(family, SYN | ACK), family);
                if ended == 0 {
                    expect_ghost(lab, "not over", &tcp(family, SYN), family);
                    continue;
                }
                for (what, flags) in [
                    ("anew", SYN),
                    ("with all that follows", ACK),
                    ("and its SYN again", SYN),
                ] {
                    expect_primary(lab, what, &tcp(family, flags), family);
                }
                assert_eq!(flows(lab)?, []);
            }
        }
        Ok(())
    })
}

#[test]
fn the_end_of_a_connection_is_written_down_from_both_sides() -> Result<()> {
    let cases = [
        (FIN | ACK, 0, Flow::FIN_CLIENT),
        (0, FIN | ACK, Flow::FIN_SERVICE),
        (FIN | ACK, FIN | ACK, Flow::FIN_CLIENT | Flow::FIN_SERVICE),
        (RST, 0, Flow::RESET),
        (0, RST | ACK, Flow::RESET),
        (FIN | RST, 0, Flow::FIN_CLIENT | Flow::RESET),
        (ACK, ACK, 0),
    ];
    for (family, position) in [
        (Family::V4, Position::Ghost),
        (Family::V4, Position::Draining),
        (Family::V6, Position::Ghost),
        (Family::V6, Position::Draining),
    ] {
        lab(|lab| {
            lab.serve(family, 0, ghost(family))?;
            for (ours, theirs, ended) in cases {
                lab.set_switch(0, switch(position, flags::TRACK))?;
                put(lab, &tcp(family, SYN), now_ns(), 0)?;
                for program in BOTH_PROGRAMS {
                    if ours != 0 {
                        lab.run(program, Port::Uplink, &tcp(family, ours).bytes())?;
                    }
                    if theirs != 0 {
                        lab.run(program, Port::Wide, &answer(family, theirs).bytes())?;
                    }
                }
                let flow = only_flow(lab, key(&tcp(family, SYN)))?;
                assert_eq!(flow.ended, ended, "{family:?} {position:?} {ours} {theirs}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_new_connection_to_the_ghost_on_the_ports_of_an_ended_one_starts_afresh() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
            put(lab, &tcp(family, SYN), now_ns(), Flow::RESET)?;
            expect_ghost(lab, "the rest of it", &tcp(family, ACK), family);
            let flow: Flow = lab.object.lookup(names::FLOWS, &key(&tcp(family, SYN)))?;
            assert_eq!(flow.ended, Flow::RESET);
            expect_ghost(lab, "anew", &tcp(family, SYN), family);
            let flow: Flow = lab.object.lookup(names::FLOWS, &key(&tcp(family, SYN)))?;
            assert_eq!(flow.ended, 0);
        }
        Ok(())
    })
}

/// A CPU does not look up each packet's flow, but one that the table has lost
/// meanwhile comes back.
#[test]
fn an_evicted_flow_is_written_down_again_once_its_time_is_over() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
            let sent = tcp(family, ACK);
            expect_ghost(lab, "the first", &sent, family);
            only_flow(lab, key(&sent))?;
            lab.object.remove::<_, Flow>(names::FLOWS, &key(&sent))?;
            // As if a tenth of a second had passed.
            let slot = Recent::slot(key(&sent).words());
            let old = Recent {
                key: key(&sent),
                until_ns: now_ns() - TICK,
                pad: [0; 2],
            };
            lab.object.set_per_cpu(names::RECENT, slot, old)?;
            expect_ghost(lab, "the next", &sent, family);
            only_flow(lab, key(&sent))?;
            lab.object.remove::<_, Flow>(names::FLOWS, &key(&sent))?;
        }
        Ok(())
    })
}

/// What begins or ends a connection is always news.
#[test]
fn an_end_is_written_down_however_lately_the_flow_was_seen() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Ghost, flags::TRACK))?;
            for (flag, ended) in [(ACK, 0), (FIN, Flow::FIN_CLIENT), (RST, 5)] {
                let sent = tcp(family, flag);
                expect_ghost(lab, "a segment", &sent, family);
                assert_eq!(only_flow(lab, key(&sent))?.ended, ended);
            }
            lab.object
                .remove::<_, Flow>(names::FLOWS, &key(&tcp(family, ACK)))?;
        }
        Ok(())
    })
}
