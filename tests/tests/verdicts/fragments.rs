//! Fragments: address routes need no state, port routes remember the first.

use agent_common::abi::{FragKey, Fragment, Position, Reason, Side, names};
use anyhow::Result;
use ghostd_tests::{clock::now_ns, oracle::build::UDP, topology::Family};

use crate::{
    lab::{
        Got, Lab, TICK, Tally::*, arriving, client, counter, departing, ghost, lab, request,
        service,
    },
    packet::{Body, Packet, Part, mapped, payload},
    place::Port,
    rows::{Key, Target, switch},
};

/// A datagram of three fragments, the last of a length of its own.
fn train(whole: &Packet) -> [Packet; 3] {
    let bytes = whole.segment().len();
    assert!(bytes > 96);
    [(0, 48, true), (48, 48, true), (96, bytes - 96, false)].map(|(offset, bytes, more)| {
        let part = Part {
            offset,
            bytes,
            more,
        };
        whole.clone().with(|p| {
            p.part = Some(part);
            p.dont_fragment = false;
        })
    })
}

fn datagram(family: Family, identification: u16) -> Packet {
    arriving(Port::Uplink, request(family, 0), Body::Udp(payload(101)))
        .with(|p| p.identification = identification)
}

/// What a port route of the service makes of a packet.
fn at_port(packet: &Packet, family: Family) -> Packet {
    packet.clone().with(|p| {
        p.ends.target = ghost(family);
        p.ends.target_port = 8443;
    })
}

fn serve_port(lab: &mut Lab, family: Family, position: Position) -> Result<()> {
    let key = Key::port(service(family, 0), UDP, 443);
    let to = Key::port(ghost(family), UDP, 8443);
    lab.route(family, 0, key, [Target::Native, Target::Translate(to)])?;
    lab.reverse(family, 0, to, key, Side::Ghost)?;
    lab.set_switch(0, switch(position, 0))
}

fn expect_ghost(lab: &Lab, what: &str, sent: &Packet, translated: Packet, family: Family) {
    let want = Got::redirected(&departing(translated, Port::Wide))
        .counting(counter(family, 0), &[ToGhost(sent.counted())]);
    lab.expect(what, Port::Uplink, &sent.bytes(), &want);
}

fn expect_untouched(lab: &Lab, what: &str, sent: &Packet) {
    let sent = sent.bytes();
    lab.expect(what, Port::Uplink, &sent, &Got::untouched(&sent));
}

#[test]
fn an_address_route_takes_fragments_in_any_order() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for body in [
                Body::Udp(payload(101)),
                Body::Tcp(0x18, payload(101)),
                Body::Echo(payload(101)),
                Body::Other(132, payload(101)),
            ] {
                let parts = train(&arriving(Port::Uplink, request(family, 0), body));
                for part in [2, 0, 1, 1, 2, 0].map(|i: usize| &parts[i]) {
                    let to = part.clone().with(|p| p.ends.target = ghost(family));
                    expect_ghost(lab, "request", part, to, family);
                    let reply = part.clone().with(|p| {
                        p.ends = p.ends.reversed();
                        p.ends.source = ghost(family);
                        (p.to, p.from) = (Port::Wide.mac(), Port::Wide.far_mac());
                    });
                    let seen = reply.clone().with(|p| p.ends.source = service(family, 0));
                    let want = Got::redirected(&departing(seen, Port::Uplink))
                        .counting(counter(family, 0), &[Reverse(reply.counted())]);
                    lab.expect("reply", Port::Wide, &reply.bytes(), &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_port_route_takes_later_fragments_after_the_first() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            serve_port(lab, family, Position::Ghost)?;
            let [first, second, last] = train(&datagram(family, 7));
            // Nobody knows yet whose these are.
            expect_untouched(lab, "early", &second);
            expect_untouched(lab, "early", &last);
            for part in [&first, &second, &last, &second] {
                expect_ghost(lab, "known", part, at_port(part, family), family);
            }
            let other = train(&datagram(family, 8));
            expect_untouched(lab, "another datagram", &other[1]);
            // A first fragment for another port says that the rest is not ours.
            let [first, second, _] = train(&datagram(family, 7).with(|p| p.ends.target_port = 444));
            expect_untouched(lab, "another port", &first);
            expect_untouched(lab, "its rest", &second);
        }
        Ok(())
    })
}

#[test]
fn replies_of_a_port_route_come_in_fragments_too() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            serve_port(lab, family, Position::Ghost)?;
            let reply = arriving(
                Port::Wide,
                at_port(&datagram(family, 9), family).ends.reversed(),
                Body::Udp(payload(101)),
            );
            let [_, early, _] = train(&reply);
            let frame = early.bytes();
            lab.expect("early", Port::Wide, &frame, &Got::untouched(&frame));
            for part in train(&reply) {
                let seen = part
                    .clone()
                    .with(|p| p.ends = request(family, 0).reversed());
                let want = Got::redirected(&departing(seen, Port::Uplink))
                    .counting(counter(family, 0), &[Reverse(part.counted())]);
                lab.expect("reply", Port::Wide, &part.bytes(), &want);
            }
        }
        Ok(())
    })
}

fn key(family: Family, identification: u16) -> FragKey {
    let [hi, lo] = identification.to_be_bytes();
    FragKey {
        src_be: mapped(client(family)),
        dst_be: mapped(service(family, 0)),
        id_be: match family {
            Family::V4 => [hi, lo, 0, 0],
            Family::V6 => [0, 0, hi, lo],
        },
        protocol: UDP,
        pad: [0; 3],
    }
}

#[test]
fn ports_are_remembered_for_as_long_as_a_datagram_may_take() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            serve_port(lab, family, Position::Ghost)?;
            let [first, second, _] = train(&datagram(family, 0x1234));
            let before = now_ns();
            expect_ghost(lab, "first", &first, at_port(&first, family), family);
            let mut kept: Fragment = lab.object.lookup(names::FRAGMENTS, &key(family, 0x1234))?;
            assert_eq!(kept.src_port_be, 40_000_u16.to_be_bytes());
            assert_eq!(kept.dst_port_be, 443_u16.to_be_bytes());
            assert!(kept.seen_ns <= now_ns() && kept.seen_ns + TICK >= before);
            kept.seen_ns = before.saturating_sub(20_000_000_000);
            lab.object
                .insert(names::FRAGMENTS, key(family, 0x1234), kept)?;
            expect_ghost(lab, "in time", &second, at_port(&second, family), family);
            kept.seen_ns = before.saturating_sub(40_000_000_000);
            lab.object
                .insert(names::FRAGMENTS, key(family, 0x1234), kept)?;
            expect_untouched(lab, "too late", &second);
        }
        Ok(())
    })
}

#[test]
fn while_draining_a_fragment_without_its_first_is_taken_for_a_new_flow() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Draining, 0))?;
            let [first, second, _] = train(&datagram(family, 3));
            let frame = second.bytes();
            let counted = [ToPrimary(second.counted()), GaveUp(Reason::FragmentUnknown)];
            let want = Got::untouched(&frame).counting(counter(family, 0), &counted);
            lab.expect("unknown", Port::Uplink, &frame, &want);
            for part in [&first, &second] {
                let frame = part.bytes();
                let want = Got::untouched(&frame)
                    .counting(counter(family, 0), &[ToPrimary(part.counted())]);
                lab.expect("known, and new", Port::Uplink, &frame, &want);
            }
        }
        Ok(())
    })
}
