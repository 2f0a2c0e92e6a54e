//! Packets that do not fit the way out: answered, handed up or dropped.

use std::net::IpAddr;

use agent_common::abi::{IcmpBudget, Reason, names};
use anyhow::Result;
use ghostd_tests::{bpf::XDP_TX, oracle::build::Ends, topology::Family};

use crate::{
    lab::{Got, Lab, Tally::*, arriving, counter, departing, ghost, lab, request},
    packet::{Body, ONE_TAG, Packet, Part, TWO_TAGS, payload},
    place::{Port, at},
};

/// Bytes of the packet that an answer quotes.
pub(crate) const fn quote_max(family: Family) -> usize {
    match family {
        Family::V4 => 548,
        Family::V6 => 1232,
    }
}

/// The answer to a packet, quoting `quote` bytes of it.
pub(crate) fn answer(sent: &Packet, mtu: u32, quote: usize) -> Packet {
    let Ends { source, target, .. } = sent.ends;
    let (kind, tos) = match source.is_ipv4() {
        true => ([3, 4], sent.tos & 0x1e | 0xc0),
        false => ([2, 0], 0),
    };
    let quoted = sent.ip()[..quote].to_vec();
    let ends = Ends {
        source: target,
        target: source,
        source_port: 0,
        target_port: 0,
    };
    Packet::new(ends, Body::Icmp(kind, mtu.to_be_bytes(), quoted)).with(|p| {
        (p.to, p.from) = (sent.from, sent.to);
        p.tags = sent.tags;
        p.tos = tos;
        p.identification = 0;
        p.flow_label = 0;
        p.dont_fragment = false;
    })
}

fn answered(sent: &Packet, family: Family) -> Got {
    let answer = answer(sent, Port::Narrow.mtu(), quote_max(family));
    Got::new(XDP_TX, answer.bytes())
}

fn narrow(family: Family) -> IpAddr {
    at(family, Port::Narrow, 2)
}

/// A packet of `bytes` bytes from the network header on, with a body of each kind.
fn requests(family: Family, bytes: usize) -> Vec<Packet> {
    let room = bytes - if family == Family::V4 { 20 } else { 40 };
    [
        Body::Udp(payload(room - 8)),
        Body::Tcp(0x10, payload(room - 20)),
        Body::Echo(payload(room - 8)),
        Body::Icmp([200, 0], [0; 4], payload(room - 8)),
        Body::Other(132, payload(room)),
    ]
    .map(|body| arriving(Port::Uplink, request(family, 0), body))
    .into()
}

#[test]
fn the_largest_packet_that_fits_is_sent_and_the_next_answered() -> Result<()> {
    lab(|lab| {
        let mtu = Port::Narrow.mtu() as usize;
        for family in Family::BOTH {
            lab.serve(family, 0, narrow(family))?;
            // Whether the kernel was asked just now or not makes no difference.
            for bytes in [mtu + 1, 9000, mtu, mtu + 1, 3000, 9000] {
                for sent in requests(family, bytes) {
                    let sent = sent.with(|p| p.tos = 0x2d);
                    assert_eq!(sent.ip().len(), bytes);
                    let want = if bytes <= mtu {
                        let to_ghost = sent.clone().with(|p| p.ends.target = narrow(family));
                        Got::redirected(&departing(to_ghost, Port::Narrow))
                            .counting(counter(family, 0), &[ToGhost(sent.counted())])
                    } else {
                        answered(&sent, family)
                            .counting(counter(family, 0), &[GaveUp(Reason::TooBig)])
                    };
                    lab.expect("size", Port::Uplink, &sent.bytes(), &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn an_answer_goes_back_with_the_tags_of_the_packet() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, narrow(family))?;
            for tags in [ONE_TAG, TWO_TAGS] {
                for sent in requests(family, 1401) {
                    let sent = sent.with(|p| p.tags = tags);
                    let want = answered(&sent, family)
                        .counting(counter(family, 0), &[GaveUp(Reason::TooBig)]);
                    lab.expect("tagged", Port::Uplink, &sent.bytes(), &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_ghost_is_told_that_its_reply_does_not_fit() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for sent in requests(family, 1401) {
                let sent = sent.with(|p| {
                    p.ends.source = ghost(family);
                    p.ends.target = at(family, Port::Narrow, 3);
                    (p.to, p.from) = (Port::Wide.mac(), Port::Wide.far_mac());
                });
                let want =
                    answered(&sent, family).counting(counter(family, 0), &[GaveUp(Reason::TooBig)]);
                lab.expect("reply", Port::Wide, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn what_may_be_fragmented_is_handed_up_translated() -> Result<()> {
    lab(|lab| {
        lab.serve(Family::V4, 0, narrow(Family::V4))?;
        for bytes in [1401, 3000] {
            for sent in requests(Family::V4, bytes) {
                let sent = sent.with(|p| p.dont_fragment = false);
                let up = sent.clone().with(|p| p.ends.target = narrow(Family::V4));
                let counted = [ToGhost(sent.counted()), GaveUp(Reason::HandedUp)];
                let want = Got::handed_up(&up).counting(counter(Family::V4, 0), &counted);
                lab.expect("no DF", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn a_spent_ttl_comes_before_the_size() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, narrow(family))?;
            for sent in requests(family, 1401) {
                let sent = sent.with(|p| p.ttl = 1).bytes();
                let want = Got::untouched(&sent)
                    .counting(counter(family, 0), &[GaveUp(Reason::TtlExceeded)]);
                lab.expect("ttl", Port::Uplink, &sent, &want);
            }
        }
        Ok(())
    })
}

fn expect_unanswered(lab: &Lab, what: &str, sent: &Packet, family: Family) {
    let sent = sent.bytes();
    let want =
        Got::dropped(&sent).counting(counter(family, 0), &[GaveUp(Reason::TooBigUnanswered)]);
    lab.expect(what, Port::Uplink, &sent, &want);
}

#[test]
fn later_fragments_and_errors_are_never_answered() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, narrow(family))?;
            let whole = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(2800)));
            let part = |offset, more| {
                whole.clone().with(|p| {
                    let bytes = 1400;
                    p.part = Some(Part {
                        offset,
                        bytes,
                        more,
                    });
                })
            };
            let first = part(0, true);
            let want =
                answered(&first, family).counting(counter(family, 0), &[GaveUp(Reason::TooBig)]);
            lab.expect("first fragment", Port::Uplink, &first.bytes(), &want);
            expect_unanswered(lab, "later fragment", &part(1400, true), family);
            expect_unanswered(lab, "last fragment", &part(1400, false), family);

            let reply = Packet::new(request(family, 0).reversed(), Body::Udp(payload(1400)));
            let kind = if family == Family::V4 { [3, 3] } else { [1, 4] };
            let body = Body::Icmp(kind, [0; 4], reply.ip());
            let error = arriving(Port::Uplink, request(family, 0), body);
            expect_unanswered(lab, "error", &error, family);
        }
        Ok(())
    })
}

#[test]
fn answers_end_with_the_budget() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, narrow(family))?;
            let sent = requests(family, 1401).remove(0);
            let want =
                answered(&sent, family).counting(counter(family, 0), &[GaveUp(Reason::TooBig)]);
            // No token will be earned before the last refill is over.
            let budget = |tokens| IcmpBudget {
                refilled_ns: u64::MAX,
                tokens,
            };
            // One for each program.
            lab.object.set_per_cpu(names::ICMP_BUDGET, 0, budget(2))?;
            lab.expect("the last two", Port::Uplink, &sent.bytes(), &want);
            expect_unanswered(lab, "one too many", &sent, family);
            // A refill long ago fills the bucket, but not beyond its brim.
            let long_ago = IcmpBudget {
                refilled_ns: 0,
                tokens: 0,
            };
            lab.object.set_per_cpu(names::ICMP_BUDGET, 0, long_ago)?;
            lab.expect("refilled", Port::Uplink, &sent.bytes(), &want);
            let left: Vec<IcmpBudget> = lab.object.per_cpu(names::ICMP_BUDGET, 0)?;
            let fullest = left.iter().map(|budget| budget.tokens).max();
            assert!(fullest <= Some(256), "{left:?}");
            assert!(left.iter().any(|budget| budget.tokens >= 254), "{left:?}");
        }
        Ok(())
    })
}
