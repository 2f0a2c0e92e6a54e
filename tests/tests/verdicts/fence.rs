//! The fence: what a copy may send by its port.

use agent_common::abi::{FenceMode, HostSwitch, Port as Row, Position, Side, Switch, flags, names};
use anyhow::Result;
use ghostd_tests::topology::Family;

use crate::{
    lab::{
        Got, Lab, SLOTS, Tally::*, arriving, client, counter, departing, ghost, lab, request,
        service,
    },
    packet::{Body, ONE_TAG, TWO_TAGS, payload},
    place::{Port, at},
    rows::switch,
};

const PAST: u64 = 1;
const FUTURE: u64 = u64::MAX;

/// The copy behind the wide port.
fn row(side: Side, fence: FenceMode) -> Row {
    Row {
        switch: 0,
        side: side as u8,
        fence: fence as u8,
        pad: [0; 2],
        lease_ns: 0,
        fenced_packets: 0,
        term: 0,
        pad1: 0,
    }
}

/// A frame that no route names, and whether a quiet copy may send it.
struct Probe(&'static str, Vec<u8>, bool);

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for tags in [&[][..], ONE_TAG, TWO_TAGS] {
        let frame = |family, body| {
            let mut ends = request(family, 1).reversed();
            ends.source = at(family, Port::Wide, 4);
            arriving(Port::Wide, ends, body).with(|p| p.tags = tags)
        };
        let of_type = |ethertype: u16| {
            let packet = frame(Family::V4, Body::Udp(payload(20)));
            let mut bytes = packet.bytes();
            let at = packet.l3() - 2;
            bytes[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
            bytes
        };
        let discovery =
            |kind| frame(Family::V6, Body::Icmp([kind, 0], [0; 4], payload(16))).bytes();
        probes.push(Probe("ARP", of_type(0x0806), true));
        probes.push(Probe("solicitation", discovery(135), true));
        probes.push(Probe("advertisement", discovery(136), true));
        probes.push(Probe("router solicitation", discovery(133), false));
        probes.push(Probe("redirect", discovery(137), false));
        probes.push(Probe("LLDP", of_type(0x88cc), false));
        for family in Family::BOTH {
            for body in [
                Body::Udp(payload(9)),
                Body::Tcp(2, Vec::new()),
                Body::Echo(payload(9)),
            ] {
                probes.push(Probe("packet", frame(family, body).bytes(), false));
            }
        }
    }
    probes
}

fn put(lab: &mut Lab, row: Row) -> Result<()> {
    let index = lab.place.index(Port::Wide);
    lab.object.insert(names::PORTS, index, row)
}

/// Sends every probe past the fence in each mode; `speaks`: it is open.
#[track_caller]
fn expect(lab: &mut Lab, what: &str, port: Row, speaks: bool) -> Result<()> {
    for fence in [FenceMode::Off, FenceMode::Quiet, FenceMode::Silent] {
        let mut expected = Row {
            fence: fence as u8,
            ..port
        };
        put(lab, expected)?;
        for Probe(name, frame, resolves) in probes() {
            let passes = match fence {
                FenceMode::Off => true,
                FenceMode::Quiet => speaks || resolves,
                FenceMode::Silent => speaks,
            };
            let want = if passes {
                Got::untouched(&frame)
            } else {
                expected.fenced_packets += 1;
                Got::dropped(&frame)
            };
            let what = format!("{what}: {fence:?}: {name}");
            lab.expect_of(names::PORT, &what, Port::Wide, &frame, &want);
            let row: Row = lab
                .object
                .lookup(names::PORTS, &lab.place.index(Port::Wide))?;
            assert_eq!(row, expected, "{what}");
            // An uplink has no fence.
            lab.expect_of(
                names::STEER,
                &what,
                Port::Wide,
                &frame,
                &Got::untouched(&frame),
            );
        }
    }
    Ok(())
}

#[test]
fn a_copy_speaks_while_the_switch_points_at_it() -> Result<()> {
    lab(|lab| {
        for (position, side, speaks) in [
            (Position::Primary, Side::Primary, true),
            (Position::Primary, Side::Ghost, false),
            (Position::Ghost, Side::Primary, false),
            (Position::Ghost, Side::Ghost, true),
            (Position::Draining, Side::Primary, true),
            (Position::Draining, Side::Ghost, true),
        ] {
            lab.set_switch(0, switch(position, 0))?;
            let what = format!("{position:?} {side:?}");
            expect(lab, &what, row(side, FenceMode::Off), speaks)?;
        }
        Ok(())
    })
}

#[test]
fn an_older_term_or_a_lease_that_is_over_silences() -> Result<()> {
    lab(|lab| {
        for (position, side) in [
            (Position::Primary, Side::Primary),
            (Position::Draining, Side::Ghost),
        ] {
            lab.set_switch(0, switch(position, 0))?;
            for (term, lease_ns, speaks) in [
                (0, 0, true),
                (5, 0, true),
                (6, 0, true),
                (4, 0, false),
                (1, 0, false),
                (u32::MAX, 0, true),
                (0, FUTURE, true),
                (0, PAST, false),
                (5, FUTURE, true),
                (5, PAST, false),
                (4, FUTURE, false),
            ] {
                let port = Row {
                    term,
                    lease_ns,
                    ..row(side, FenceMode::Off)
                };
                expect(lab, &format!("term {term}, lease {lease_ns}"), port, speaks)?;
            }
        }
        Ok(())
    })
}

/// A switch that points at the ghost without having been moved there.
fn moved_by_itself() -> [(&'static str, Switch); 2] {
    let lapsed = Switch {
        lease_ns: PAST,
        ..switch(Position::Primary, flags::LAPSE)
    };
    let thrown = switch(Position::Primary, flags::ARMED);
    [("lapsed", lapsed), ("thrown by the host switch", thrown)]
}

#[test]
fn the_fence_follows_a_switch_that_moves_by_itself() -> Result<()> {
    lab(|lab| {
        let host = HostSwitch {
            generation: 1,
            thrown_ns: 0,
            cause_pid: 0,
            pad0: 0,
            pad1: [0; 5],
        };
        lab.object.set(names::HOST_SWITCH, 0, host)?;
        for (what, switch) in moved_by_itself() {
            lab.set_switch(0, switch)?;
            for lease_ns in [0, FUTURE] {
                for (side, speaks) in [(Side::Primary, false), (Side::Ghost, true)] {
                    let port = Row {
                        lease_ns,
                        ..row(side, FenceMode::Off)
                    };
                    let what = format!("{what}, {side:?}, lease {lease_ns}");
                    expect(lab, &what, port, speaks)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn what_is_not_set_up_fences_nobody() -> Result<()> {
    lab(|lab| {
        let mut unused = switch(Position::Primary, 0);
        unused.control.position = 0;
        lab.set_switch(0, unused)?;
        expect(lab, "unused slot", row(Side::Ghost, FenceMode::Off), true)?;
        lab.set_switch(0, switch(Position::Primary, 0))?;
        let elsewhere = Row {
            switch: SLOTS,
            ..row(Side::Ghost, FenceMode::Off)
        };
        expect(lab, "no such slot", elsewhere, true)?;
        let nobody = Row {
            side: 3,
            ..row(Side::Ghost, FenceMode::Off)
        };
        expect(lab, "no such side", nobody, true)?;
        for fence in [0, 4, 255] {
            let port = Row {
                fence,
                ..row(Side::Ghost, FenceMode::Off)
            };
            put(lab, port)?;
            for Probe(name, frame, _) in probes() {
                lab.expect(name, Port::Wide, &frame, &Got::untouched(&frame));
            }
        }
        Ok(())
    })
}

/// What passes the fence is translated, and what does not is not even counted.
#[test]
fn behind_the_fence_a_reply_is_steered() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let reply = arriving(
                Port::Wide,
                request(family, 0).reversed(),
                Body::Udp(payload(9)),
            )
            .with(|p| p.ends.source = ghost(family));
            let seen = reply.clone().with(|p| p.ends.source = service(family, 0));
            assert_eq!(seen.ends.target, client(family));
            let steered = Got::redirected(&departing(seen, Port::Uplink))
                .counting(counter(family, 0), &[Reverse(reply.counted())]);
            let frame = reply.bytes();
            put(lab, row(Side::Ghost, FenceMode::Silent))?;
            lab.expect("speaks", Port::Wide, &frame, &steered);
            put(lab, row(Side::Primary, FenceMode::Silent))?;
            lab.expect_of(
                names::PORT,
                "silent",
                Port::Wide,
                &frame,
                &Got::dropped(&frame),
            );
            lab.expect_of(names::STEER, "no fence", Port::Wide, &frame, &steered);
            // Another interface is no concern of this row.
            lab.expect("by the uplink", Port::Narrow, &frame, &steered);
        }
        Ok(())
    })
}

#[test]
fn a_quiet_copy_sends_what_resolves_neighbours_at_each_length() -> Result<()> {
    lab(|lab| {
        lab.set_switch(0, switch(Position::Primary, 0))?;
        put(lab, row(Side::Ghost, FenceMode::Quiet))?;
        for Probe(name, frame, resolves) in probes() {
            let tags = tags_of(&frame);
            // ARP is told by its type alone, discovery by the first byte of ICMP.
            let least = if name == "ARP" {
                14 + tags
            } else {
                14 + tags + 41
            };
            for bytes in 14..=frame.len() {
                let cut = &frame[..bytes];
                let want = if resolves && bytes >= least {
                    Got::untouched(cut)
                } else {
                    Got::dropped(cut)
                };
                lab.expect_of(names::PORT, name, Port::Wide, cut, &want);
            }
        }
        Ok(())
    })
}

/// Bytes of tags in a frame.
fn tags_of(frame: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]);
    match (is_tag(12), is_tag(16)) {
        (true, true) => 8,
        (true, false) => 4,
        _ => 0,
    }
}
