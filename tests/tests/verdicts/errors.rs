//! ICMP errors: translated, and what they quote with them.

use agent_common::abi::{Position, Reason, Side};
use anyhow::Result;
use ghostd_tests::{
    oracle::build::{DESTINATION, Ends, TCP, UDP},
    topology::Family,
};

use crate::{
    lab::{Got, Lab, Tally::*, arriving, client, counter, departing, ghost, lab, request, service},
    packet::{Body, ONE_TAG, Packet, payload},
    place::{Port, REFUSALS, STRANGER, at, refused},
    rows::{Key, Target, switch},
};

/// What an error is about, before and after translation, and how it travels.
#[derive(Clone)]
pub(crate) struct About {
    what: &'static str,
    pub(crate) ingress: Port,
    pub(crate) egress: Port,
    /// Of the error itself.
    outer: [Ends; 2],
    /// Of the packet it quotes.
    quoted: [Ends; 2],
}

fn between(source: std::net::IpAddr, target: std::net::IpAddr) -> Ends {
    Ends {
        source,
        target,
        source_port: 0,
        target_port: 0,
    }
}

/// An error from the client's side about a reply, and one from the ghost's
/// side about a request, both from an end and from a router on the way.
/// `port` is the ghost's, where the service has 443.
pub(crate) fn abouts(family: Family, port: u16) -> Vec<About> {
    let asked = request(family, 0);
    let at_ghost = Ends {
        target: ghost(family),
        target_port: port,
        ..asked
    };
    let mut abouts = Vec::new();
    for from in [client(family), at(family, Port::Uplink, 4)] {
        abouts.push(About {
            what: "about a reply",
            ingress: Port::Uplink,
            egress: Port::Wide,
            outer: [
                between(from, service(family, 0)),
                between(from, ghost(family)),
            ],
            quoted: [asked.reversed(), at_ghost.reversed()],
        });
    }
    for from in [ghost(family), at(family, Port::Wide, 4)] {
        abouts.push(About {
            what: "about a request",
            ingress: Port::Wide,
            egress: Port::Uplink,
            outer: [
                between(from, client(family)),
                between(service(family, 0), client(family)),
            ],
            quoted: [at_ghost, asked],
        });
    }
    abouts
}

impl About {
    /// The error as it comes in, and as it is to be without a way out: it
    /// quotes `bytes` bytes of a packet made by `packet`, from its transport
    /// header on.
    pub(crate) fn error(
        &self,
        kind: [u8; 2],
        packet: impl Fn(Ends) -> Packet,
        bytes: usize,
    ) -> [Packet; 2] {
        let [before, after] = self.quoted.map(|ends| {
            let packet = packet(ends);
            let mut ip = packet.ip();
            let head = ip.len() - packet.segment().len();
            ip.truncate(head + bytes);
            (ip, head, packet.protocol())
        });
        let (before, head, protocol) = before;
        let (mut after, ..) = after;
        // A TCP checksum is touched only where its whole header is quoted.
        if protocol == TCP && bytes < 20 {
            let from = (head + 16).min(after.len());
            after[from..].copy_from_slice(&before[from..]);
        }
        let error =
            |ends, quoted| arriving(self.ingress, ends, Body::Icmp(kind, [0, 0, 5, 220], quoted));
        [error(self.outer[0], before), error(self.outer[1], after)]
    }
}

const fn kinds(family: Family) -> &'static [[u8; 2]] {
    match family {
        Family::V4 => &[[3, 0], [3, 3], [3, 4], [4, 0], [5, 1], [11, 0], [12, 0]],
        Family::V6 => &[[1, 0], [1, 4], [2, 0], [3, 0], [4, 1]],
    }
}

fn quoted_bodies() -> [Body; 6] {
    [
        Body::Udp(payload(21)),
        Body::BareUdp(payload(20)),
        Body::Tcp(0x10, payload(12)),
        Body::Echo(payload(20)),
        Body::Icmp([200, 0], [0; 4], payload(12)),
        Body::Other(132, payload(24)),
    ]
}

fn packet(body: &Body) -> impl Fn(Ends) -> Packet {
    |ends| Packet::new(ends, body.clone()).with(|p| p.ttl = 9)
}

fn expect_sent(lab: &Lab, about: &About, [before, after]: [Packet; 2]) {
    let want = Got::redirected(&departing(after, about.egress));
    lab.expect(about.what, about.ingress, &before.bytes(), &want);
}

fn expect_untouched(lab: &Lab, about: &About, [before, _]: &[Packet; 2]) {
    let frame = before.bytes();
    lab.expect(about.what, about.ingress, &frame, &Got::untouched(&frame));
}

#[test]
fn an_error_is_translated_with_what_it_quotes() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for about in abouts(family, 443) {
                for body in quoted_bodies() {
                    for kind in kinds(family) {
                        expect_sent(lab, &about, about.error(*kind, packet(&body), 24));
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_quote_of_each_length() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let kind = kinds(family)[1];
            for about in abouts(family, 443) {
                for body in quoted_bodies() {
                    let whole = packet(&body)(about.quoted[0]).segment().len();
                    for bytes in 0..=whole {
                        let error = about.error(kind, packet(&body), bytes);
                        // Eight bytes are what every error quotes at least.
                        if bytes < 8 {
                            expect_untouched(lab, &about, &error);
                            // What is behind the packet is no part of it.
                            expect_untouched(
                                lab,
                                &about,
                                &error.map(|e| e.with(|p| p.padding = 40)),
                            );
                        } else {
                            expect_sent(lab, &about, error);
                        }
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_quoted_header_cut_at_each_length_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for about in abouts(family, 443) {
                let quoted = packet(&Body::Udp(payload(8)))(about.quoted[0]);
                let head = quoted.ip().len() - quoted.segment().len();
                for bytes in 0..head {
                    let body = Body::Icmp(kinds(family)[1], [0; 4], quoted.ip()[..bytes].to_vec());
                    let error = arriving(about.ingress, about.outer[0], body);
                    expect_untouched(lab, &about, &[error.clone(), error]);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn quoted_ports_of_a_port_route() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.set_switch(0, switch(Position::Ghost, 0))?;
            for protocol in [UDP, TCP] {
                let key = Key::port(service(family, 0), protocol, 443);
                let to = Key::port(ghost(family), protocol, 8443);
                lab.route(family, 0, key, [Target::Native, Target::Translate(to)])?;
                lab.reverse(family, 0, to, key, Side::Ghost)?;
            }
            for about in abouts(family, 8443) {
                for body in quoted_bodies() {
                    for bytes in [8, 16, 17, 18, 19, 20, 28] {
                        let error = about.error(kinds(family)[0], packet(&body), bytes);
                        if matches!(body, Body::Udp(_) | Body::BareUdp(_) | Body::Tcp(..)) {
                            expect_sent(lab, &about, error);
                        } else {
                            expect_untouched(lab, &about, &error);
                        }
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn quoted_options_and_stale_header_checksums() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for about in abouts(family, 443) {
                let options = |ends| {
                    packet(&Body::Udp(payload(20)))(ends).with(|p| {
                        p.options = vec![1; 12];
                        p.extensions = vec![(DESTINATION, vec![0, 1, 4, 0, 0, 0, 0]); 2];
                    })
                };
                expect_sent(lab, &about, about.error(kinds(family)[0], options, 20));
                let tail =
                    |p: &mut Packet| p.extensions = vec![(DESTINATION, vec![0, 1, 4, 0, 0, 0, 0])];
                if family == Family::V6 {
                    let error = about.error(kinds(family)[0], options, 20);
                    expect_sent(lab, &about, error.map(|e| e.with(tail)));
                }
                // A router may count the TTL down and quote the header with
                // its old checksum.
                let error = about.error(kinds(family)[0], packet(&Body::Udp(payload(9))), 17);
                let stale = error.map(|e| {
                    e.with(|p| {
                        if let Body::Icmp(_, _, quoted) = &mut p.body {
                            quoted[if family == Family::V4 { 8 } else { 7 }] = 0;
                        }
                    })
                });
                expect_sent(lab, &about, stale);
            }
        }
        Ok(())
    })
}

#[test]
fn an_error_that_both_ends_are_services_of() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let (caller, called) = (ghost(family), at(family, Port::Narrow, 2));
            lab.serve(family, 0, caller)?;
            lab.serve(family, 1, called)?;
            let (one, other) = (service(family, 0), service(family, 1));
            let ports = |source, target| Ends {
                source_port: 5,
                target_port: 6,
                ..between(source, target)
            };
            let about = About {
                what: "service to service",
                ingress: Port::Narrow,
                egress: Port::Wide,
                outer: [between(called, one), between(other, caller)],
                quoted: [ports(one, called), ports(caller, other)],
            };
            for body in quoted_bodies() {
                expect_sent(
                    lab,
                    &about,
                    about.error(kinds(family)[0], packet(&body), 20),
                );
            }
        }
        Ok(())
    })
}

#[test]
fn errors_that_pass_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for about in abouts(family, 443) {
                let udp = Body::Udp(payload(20));
                // Not to the sender of what it is about.
                let mut astray = about.clone();
                astray.outer[0].target = at(family, about.egress, 3);
                let error = astray.error(kinds(family)[0], packet(&udp), 20);
                expect_untouched(lab, &astray, &error);
                // About an error.
                let kind = kinds(family)[0];
                let inner = Body::Icmp(kind, [0; 4], payload(30));
                expect_untouched(lab, &about, &about.error(kind, packet(&inner), 30));
                // About nobody of ours.
                let mut foreign = about.clone();
                foreign.quoted[0].source = at(family, about.egress, 3);
                foreign.quoted[0].target = at(family, about.ingress, 3);
                foreign.outer[0].target = at(family, about.egress, 3);
                expect_untouched(lab, &foreign, &foreign.error(kind, packet(&udp), 20));
            }
        }
        Ok(())
    })
}

#[test]
fn an_error_goes_with_its_switch() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.set_switch(0, switch(Position::Primary, 0))?;
            for about in abouts(family, 443) {
                let [error, _] = about.error(kinds(family)[0], packet(&Body::Udp(payload(9))), 17);
                let frame = error.bytes();
                let mut want = Got::untouched(&frame);
                // The ghost speaks out of turn; the primary has the address itself.
                if about.ingress == Port::Wide {
                    want = want.counting(counter(family, 0), &[GaveUp(Reason::NotOwner)]);
                }
                lab.expect(about.what, about.ingress, &frame, &want);
            }
        }
        Ok(())
    })
}

#[test]
fn errors_take_the_same_ways_out_as_packets() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let about = &abouts(family, 443)[0];
            let refusals = REFUSALS.map(|(n, _)| (refused(family, n), Reason::Unreachable));
            let up = [
                (at(family, Port::Unlisted, 2), Reason::HandedUp),
                (
                    at(family, Port::Wide, STRANGER),
                    Reason::NeighbourUnresolved,
                ),
            ];
            for (target, reason) in up.into_iter().chain(refusals) {
                lab.serve(family, 0, target)?;
                let mut about = about.clone();
                about.outer[1].target = target;
                about.quoted[1].source = target;
                let [before, after] =
                    about.error(kinds(family)[0], packet(&Body::Udp(payload(9))), 17);
                let frame = before.bytes();
                let want = match reason {
                    Reason::Unreachable => Got::untouched(&frame),
                    _ => Got::handed_up(&after),
                };
                let want = want.counting(counter(family, 0), &[GaveUp(reason)]);
                lab.expect(reason.name(), about.ingress, &frame, &want);
            }
            lab.serve(family, 0, ghost(family))?;
            let error = about.error(kinds(family)[0], packet(&Body::Udp(payload(9))), 17);
            let [before, after] = error.clone().map(|e| e.with(|p| p.tags = ONE_TAG));
            let want =
                Got::handed_up(&after).counting(counter(family, 0), &[GaveUp(Reason::HandedUp)]);
            lab.expect("tagged", about.ingress, &before.bytes(), &want);
            for ttl in [0, 1] {
                let frame = error[0].clone().with(|p| p.ttl = ttl).bytes();
                let want = Got::untouched(&frame)
                    .counting(counter(family, 0), &[GaveUp(Reason::TtlExceeded)]);
                lab.expect("ttl", about.ingress, &frame, &want);
            }
        }
        Ok(())
    })
}
