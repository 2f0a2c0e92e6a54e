//! Every way out of the router, and every reason not to take it.

use std::net::IpAddr;

use agent_common::abi::{EGRESS_SLOTS, Reason, names};
use anyhow::Result;
use ghostd_tests::{bpf::XDP_TX, topology::Family};

use crate::{
    lab::{Got, Tally::*, arriving, client, counter, departing, ghost, lab, request, service},
    packet::{Body, ONE_TAG, Packet, THREE_TAGS, TWO_TAGS, payload},
    place::{Port, REFUSALS, STRANGER, at, refused},
};

/// What the client sends to the service in `slot`, of every kind.
pub(crate) fn requests(family: Family, slot: u32) -> Vec<Packet> {
    [
        Body::Udp(payload(33)),
        Body::BareUdp(payload(8)),
        Body::Tcp(0x18, payload(100)),
        Body::Tcp(0x02, Vec::new()),
        Body::Echo(payload(56)),
        // ICMP of another kind: an experiment (RFC 4727), and 41 as well.
        Body::Icmp([200, 3], [1, 2, 3, 4], payload(12)),
        // UDP-Lite has its checksum where UDP has it.
        Body::Other(136, udp_lite(family, slot)),
        // A protocol without anything that we know.
        Body::Other(132, payload(21)),
        Body::Other(47, Vec::new()),
    ]
    .map(|body| arriving(Port::Uplink, request(family, slot), body))
    .into()
}

fn udp_lite(family: Family, slot: u32) -> Vec<u8> {
    Packet::new(request(family, slot), Body::Udp(payload(5))).segment()
}

/// The packet when it says `target`. UDP-Lite's checksum is made with UDP's
/// protocol number before and after, so its difference is right.
fn for_target(packet: &Packet, target: IpAddr) -> Packet {
    packet.clone().with(|p| {
        p.ends.target = target;
        if let Body::Other(136, bytes) = &mut p.body {
            *bytes = Packet::new(p.ends, Body::Udp(payload(5))).segment();
        }
    })
}

#[test]
fn a_request_is_sent_to_the_ghost() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for sent in requests(family, 0) {
                let out = departing(for_target(&sent, ghost(family)), Port::Wide);
                let want =
                    Got::redirected(&out).counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("to the ghost", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn a_reply_is_sent_as_the_service() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for asked in requests(family, 0) {
                let sent = for_target(&asked, ghost(family)).with(|p| {
                    p.ends = p.ends.reversed();
                    (p.to, p.from) = (Port::Wide.mac(), Port::Wide.far_mac());
                });
                let sent = for_target(&sent, client(family));
                let seen = sent.clone().with(|p| p.ends.source = service(family, 0));
                let out = departing(for_target(&seen, client(family)), Port::Uplink);
                let want =
                    Got::redirected(&out).counting(counter(family, 0), &[Reverse(sent.counted())]);
                lab.expect("from the ghost", Port::Wide, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn a_ghost_where_the_packet_came_from_gets_it_by_the_same_interface() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let target = at(family, Port::Uplink, 3);
            lab.serve(family, 0, target)?;
            for sent in requests(family, 0) {
                let out = departing(for_target(&sent, target), Port::Uplink);
                let want = Got::new(XDP_TX, out.bytes())
                    .counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("hairpin", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

/// Each way out that only the stack can take: why, in by what, and whereto.
pub(crate) fn ways_up(family: Family) -> [(Reason, Port, IpAddr); 3] {
    [
        (
            Reason::HandedUp,
            Port::Uplink,
            at(family, Port::Unlisted, 2),
        ),
        (
            Reason::NeighbourUnresolved,
            Port::Uplink,
            at(family, Port::Wide, STRANGER),
        ),
        (
            Reason::ForwardingOff,
            Port::NotForwarding,
            at(family, Port::Wide, 3),
        ),
    ]
}

#[test]
fn what_the_stack_has_to_send_is_handed_up_translated() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            for (slot, (reason, ingress, target)) in (0..).zip(ways_up(family)) {
                lab.serve(family, slot, target)?;
                for sent in requests(family, slot) {
                    let counted = [ToGhost(sent.counted()), GaveUp(reason)];
                    let want = Got::handed_up(&for_target(&sent, target))
                        .counting(counter(family, slot), &counted);
                    lab.expect(reason.name(), ingress, &sent.bytes(), &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn an_interface_whose_place_another_has_taken_is_sent_to_by_the_stack() -> Result<()> {
    lab(|lab| {
        let index = lab.place.index(Port::Wide);
        lab.object
            .set(names::EGRESS, index % EGRESS_SLOTS, index + EGRESS_SLOTS)?;
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let sent = arriving(Port::Uplink, request(family, 0), Body::Udp(payload(9)));
            let counted = [ToGhost(sent.counted()), GaveUp(Reason::HandedUp)];
            let want = Got::handed_up(&for_target(&sent, ghost(family)))
                .counting(counter(family, 0), &counted);
            lab.expect("taken", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn what_the_routing_table_refuses_passes_untouched() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            for (slot, (number, kind)) in (0..).zip(REFUSALS) {
                lab.serve(family, slot, refused(family, number))?;
                for sent in requests(family, slot) {
                    let sent = sent.bytes();
                    let want = Got::untouched(&sent)
                        .counting(counter(family, slot), &[GaveUp(Reason::Unreachable)]);
                    lab.expect(kind, Port::Uplink, &sent, &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_ghost_on_the_router_itself_gets_the_packet_with_any_ttl() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let target = at(family, Port::Wide, 1);
            lab.serve(family, 0, target)?;
            for (sent, ttl) in requests(family, 0)
                .into_iter()
                .zip([0, 1, 2, 255].into_iter().cycle())
            {
                let sent = sent.with(|p| p.ttl = ttl);
                let want = Got::handed_up(&for_target(&sent, target))
                    .counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("local", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn a_spent_ttl_passes_untouched_whatever_the_way() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.serve(family, 1, at(family, Port::Uplink, 3))?;
            let ways = [(0, Port::Uplink), (1, Port::Uplink)];
            let up = (2..)
                .zip(ways_up(family))
                .map(|(slot, (_, ingress, target))| {
                    lab.serve(family, slot, target)?;
                    Ok((slot, ingress))
                });
            let up = up.collect::<Result<Vec<_>>>()?;
            for ((slot, ingress), ttl) in ways.into_iter().chain(up).flat_map(|w| [(w, 0), (w, 1)])
            {
                for sent in requests(family, slot) {
                    let sent = sent.with(|p| p.ttl = ttl).bytes();
                    let want = Got::untouched(&sent)
                        .counting(counter(family, slot), &[GaveUp(Reason::TtlExceeded)]);
                    lab.expect("ttl", ingress, &sent, &want);
                }
            }
            let last = requests(family, 0).remove(0).with(|p| p.ttl = 2);
            let out = departing(for_target(&last, ghost(family)), Port::Wide);
            assert_eq!(out.ttl, 1);
            let want =
                Got::redirected(&out).counting(counter(family, 0), &[ToGhost(last.counted())]);
            lab.expect("the last hop but one", Port::Uplink, &last.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn tagged_packets_are_translated_and_handed_up_with_their_tags() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for tags in [ONE_TAG, TWO_TAGS] {
                for sent in requests(family, 0) {
                    let sent = sent.with(|p| p.tags = tags);
                    let counted = [ToGhost(sent.counted()), GaveUp(Reason::HandedUp)];
                    let want = Got::handed_up(&for_target(&sent, ghost(family)))
                        .counting(counter(family, 0), &counted);
                    lab.expect("tagged", Port::Uplink, &sent.bytes(), &want);
                }
            }
            let sent = requests(family, 0)
                .remove(0)
                .with(|p| p.tags = THREE_TAGS)
                .bytes();
            lab.expect("three tags", Port::Uplink, &sent, &Got::untouched(&sent));
        }
        Ok(())
    })
}

#[test]
fn padding_of_a_link_goes_along_and_more_is_for_the_stack() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for padding in 1..60 {
                let sent = requests(family, 0).remove(0).with(|p| p.padding = padding);
                let up = for_target(&sent, ghost(family));
                let want = if padding <= 46 {
                    Got::redirected(&departing(up, Port::Wide))
                        .counting(counter(family, 0), &[ToGhost(sent.counted())])
                } else {
                    let counted = [ToGhost(sent.counted()), GaveUp(Reason::HandedUp)];
                    Got::handed_up(&up).counting(counter(family, 0), &counted)
                };
                lab.expect("padded", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}
