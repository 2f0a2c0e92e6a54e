//! A copy behind a next hop, with the service address: what is sent is what
//! came, but for MAC addresses and TTL; what is not sent is what came.

use std::net::IpAddr;

use agent_common::abi::{Position, Reason, Side, names};
use anyhow::Result;
use ghostd_tests::{
    bpf::XDP_TX,
    oracle::build::{Ends, UDP},
    topology::Family,
};

use crate::{
    lab::{Got, Lab, Tally::*, arriving, client, counter, departing, ghost, lab, request, service},
    packet::{Body, ONE_TAG, Packet, TWO_TAGS, payload},
    place::{Port, REFUSALS, at, refused},
    rows::{Key, Target, switch},
    ways::{requests, ways_up},
};

/// By the next hop of the ghost, as it came.
fn expect_sent(lab: &Lab, what: &str, family: Family, slot: u32, sent: &Packet) {
    let out = departing(sent.clone(), Port::Wide);
    let want = Got::redirected(&out).counting(counter(family, slot), &[ToGhost(sent.counted())]);
    lab.expect(what, Port::Uplink, &sent.bytes(), &want);
}

/// Up the stack, as it came, and counted as given up.
fn expect_given_up(lab: &Lab, ingress: Port, counter: u32, sent: &Packet, reason: Reason) {
    let frame = sent.bytes();
    let want = Got::untouched(&frame).counting(counter, &[GaveUp(reason)]);
    lab.expect(reason.name(), ingress, &frame, &want);
}

#[test]
fn a_request_goes_as_it_is_by_the_next_hop() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            for sent in requests(family, 0) {
                expect_sent(lab, "via", family, 0, &sent);
            }
            // A wrong checksum is as good as a right one, and all ones are not
            // all zeros.
            for sum in [[0xff, 0xff], [0, 0], [0x12, 0x34]] {
                let body = [&[0x9c, 0x40, 1, 0xbb, 0, 12][..], &sum, b"data"].concat();
                let sent = arriving(Port::Uplink, request(family, 0), Body::Other(UDP, body));
                expect_sent(lab, "a sum of its own", family, 0, &sent);
            }
        }
        Ok(())
    })
}

#[test]
fn a_next_hop_where_the_packet_came_from_gets_it_by_the_same_interface() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, at(family, Port::Uplink, 3))?;
            for sent in requests(family, 0) {
                let out = departing(sent.clone(), Port::Uplink);
                let want = Got::new(XDP_TX, out.bytes())
                    .counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("hairpin", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn either_side_may_be_behind_a_next_hop() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let key = Key::whole(service(family, 0));
            let sides = [
                Target::Via(at(family, Port::Narrow, 2)),
                Target::Via(ghost(family)),
            ];
            lab.route(family, 0, key, sides)?;
            let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(9)));
            for (position, port, tally) in [
                (Position::Primary, Port::Narrow, ToPrimary(sent.counted())),
                (Position::Ghost, Port::Wide, ToGhost(sent.counted())),
            ] {
                lab.set_switch(0, switch(position, 0))?;
                let want = Got::redirected(&departing(sent.clone(), port))
                    .counting(counter(family, 0), &[tally]);
                lab.expect("a side", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn what_xdp_cannot_send_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            for (slot, (reason, ingress, hop)) in (0..).zip(ways_up(family)) {
                lab.serve_via(family, slot, hop)?;
                for sent in requests(family, slot) {
                    expect_given_up(lab, ingress, counter(family, slot), &sent, reason);
                }
            }
            for (slot, (number, _)) in (3..).zip(REFUSALS) {
                lab.serve_via(family, slot, refused(family, number))?;
                for sent in requests(family, slot) {
                    let counter = counter(family, slot);
                    expect_given_up(lab, Port::Uplink, counter, &sent, Reason::Unreachable);
                }
            }
            // The router itself is no next hop.
            lab.serve_via(family, 6, at(family, Port::Wide, 1))?;
            for sent in requests(family, 6) {
                let counter = counter(family, 6);
                expect_given_up(lab, Port::Uplink, counter, &sent, Reason::Unreachable);
            }
        }
        Ok(())
    })
}

#[test]
fn tags_options_and_what_follows_the_packet_are_for_nobody() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            let plain = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(9)));
            let options = match family {
                // Router alert (RFC 2113, RFC 2711).
                Family::V4 => plain.clone().with(|p| p.options = vec![148, 4, 0, 0]),
                Family::V6 => plain
                    .clone()
                    .with(|p| p.extensions = vec![(0, vec![0, 5, 2, 0, 0, 1, 0])]),
            };
            for odd in [
                plain.clone().with(|p| p.tags = ONE_TAG),
                plain.clone().with(|p| p.tags = TWO_TAGS),
                plain.clone().with(|p| p.padding = 50),
                options,
            ] {
                let counter = counter(family, 0);
                expect_given_up(lab, Port::Uplink, counter, &odd, Reason::HandedUp);
            }
            for ttl in [0, 1] {
                let spent = plain.clone().with(|p| p.ttl = ttl);
                let counter = counter(family, 0);
                expect_given_up(lab, Port::Uplink, counter, &spent, Reason::TtlExceeded);
            }
        }
        Ok(())
    })
}

/// The narrow port takes 1,400 bytes.
#[test]
fn a_packet_that_does_not_fit_is_answered_or_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, at(family, Port::Narrow, 2))?;
            let large = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(1_400)));
            if family == Family::V4 {
                let may = large.clone().with(|p| p.dont_fragment = false);
                let counter = counter(family, 0);
                expect_given_up(lab, Port::Uplink, counter, &may, Reason::HandedUp);
            }
            for program in [names::STEER, names::PORT] {
                let got = lab.run(program, Port::Uplink, &large.bytes())?;
                assert_eq!(got.action, XDP_TX);
                // It comes from the service, and goes back to the client.
                let ip = &got.frame[14..];
                let ends = match family {
                    Family::V4 => &ip[12..20],
                    Family::V6 => &ip[8..40],
                };
                let want = [service(family, 0), client(family)].map(octets);
                assert_eq!(ends, want.concat());
            }
        }
        Ok(())
    })
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().into(),
        IpAddr::V6(addr) => addr.octets().into(),
    }
}

#[test]
fn fragments_and_errors_go_by_the_next_hop_too() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            let whole = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(64)));
            for (offset, bytes, more) in [(0, 40, true), (40, 32, false)] {
                let part = whole.clone().with(|p| {
                    p.part = Some(crate::packet::Part {
                        offset,
                        bytes,
                        more,
                    });
                    p.dont_fragment = false;
                });
                expect_sent(lab, "a fragment", family, 0, &part);
            }
            let reply = Packet::new(request(family, 0).reversed(), Body::Udp(payload(20)));
            let error = match family {
                Family::V4 => [3, 1],
                Family::V6 => [1, 3],
            };
            let ends = Ends {
                source: at(family, Port::Uplink, 4),
                ..request(family, 0)
            };
            let sent = arriving(Port::Uplink, ends, Body::Icmp(error, [0; 4], reply.ip()));
            let want = Got::redirected(&departing(sent.clone(), Port::Wide));
            lab.expect("an error", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn a_reply_carries_the_service_address_and_is_left_to_the_stack() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            let ends = request(family, 0).reversed();
            let reply = arriving(Port::Wide, ends, Body::Tcp(0x18, payload(30))).bytes();
            lab.expect("a reply", Port::Wide, &reply, &Got::untouched(&reply));
        }
        Ok(())
    })
}

/// A translated copy that calls a service behind a next hop.
#[test]
fn a_copy_may_call_a_service_that_is_behind_a_next_hop() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            let caller = at(family, Port::Narrow, 3);
            lab.serve(family, 1, caller)?;
            let ends = Ends {
                source: caller,
                ..request(family, 0)
            };
            let sent = arriving(Port::Narrow, ends, Body::Tcp(0x10, payload(20)));
            let seen = sent.clone().with(|p| p.ends.source = service(family, 1));
            let want = Got::redirected(&departing(seen, Port::Wide))
                .counting(counter(family, 0), &[ToGhost(sent.counted())]);
            lab.expect("a call", Port::Narrow, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn a_kept_answer_serves_whoever_goes_that_way() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            // The same address once as a target, once as a next hop.
            lab.serve(family, 0, ghost(family))?;
            lab.serve_via(family, 1, ghost(family))?;
            for _ in 0..3 {
                let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(5)));
                let out = sent.clone().with(|p| p.ends.target = ghost(family));
                let want = Got::redirected(&departing(out, Port::Wide))
                    .counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("translated", Port::Uplink, &sent.bytes(), &want);
                let sent = arriving(Port::Uplink, request(family, 1), Body::Udp(payload(5)));
                expect_sent(lab, "via", family, 1, &sent);
            }
        }
        Ok(())
    })
}

#[test]
fn a_copy_behind_a_next_hop_is_fenced_like_any_other() -> Result<()> {
    use agent_common::abi::{FenceMode, Port as FencePort};
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve_via(family, 0, ghost(family))?;
            let port = FencePort {
                switch: 0,
                side: Side::Ghost as u8,
                fence: FenceMode::Silent as u8,
                pad: [0; 2],
                lease_ns: 0,
                fenced_packets: 0,
                term: 0,
                pad1: 0,
            };
            lab.object
                .insert(names::PORTS, lab.place.index(Port::Wide), port)?;
            let ends = request(family, 0).reversed();
            let reply = arriving(Port::Wide, ends, Body::Tcp(0x18, payload(30))).bytes();
            for (position, want) in [
                (Position::Primary, Got::dropped(&reply)),
                (Position::Ghost, Got::untouched(&reply)),
            ] {
                lab.set_switch(0, switch(position, 0))?;
                lab.expect_of(names::PORT, "a reply", Port::Wide, &reply, &want);
            }
        }
        Ok(())
    })
}
