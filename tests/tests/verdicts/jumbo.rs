//! Frames longer than a page of memory, which XDP gets in several buffers.

use agent_common::abi::Reason;
use anyhow::Result;
use ghostd_tests::{bpf::XDP_TX, topology::Family};

use crate::{
    lab::{Got, Tally::*, arriving, client, counter, departing, ghost, lab, request, service},
    packet::{Body, ONE_TAG, Packet, payload},
    place::{Port, at},
};

fn bodies(bytes: usize) -> [Body; 5] {
    [
        Body::Udp(payload(bytes)),
        Body::BareUdp(payload(bytes)),
        Body::Tcp(0x18, payload(bytes)),
        Body::Echo(payload(bytes)),
        Body::Other(132, payload(bytes)),
    ]
}

/// Around what is left of a page beside the kernel's own, and up to 9,000
/// bytes and the whole of the link.
fn sizes() -> impl Iterator<Item = usize> {
    (3400..3560).step_by(7).chain([4096, 8192, 9000, 9440])
}

fn to_ghost(sent: &Packet, family: Family) -> Packet {
    sent.clone().with(|p| p.ends.target = ghost(family))
}

#[test]
fn jumbo_frames_are_translated() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.serve(family, 1, at(family, Port::Uplink, 3))?;
            for body in sizes().flat_map(bodies) {
                let sent = arriving(Port::Uplink, request(family, 0), body);
                let want = Got::redirected(&departing(to_ghost(&sent, family), Port::Wide))
                    .counting(counter(family, 0), &[ToGhost(sent.counted())]);
                lab.expect("request", Port::Uplink, &sent.bytes(), &want);

                let reply = sent.clone().with(|p| {
                    p.ends = request(family, 0).reversed();
                    p.ends.source = ghost(family);
                    (p.to, p.from) = (Port::Wide.mac(), Port::Wide.far_mac());
                });
                let seen = reply.clone().with(|p| p.ends.source = service(family, 0));
                assert_eq!(seen.ends.target, client(family));
                let want = Got::redirected(&departing(seen, Port::Uplink))
                    .counting(counter(family, 0), &[Reverse(reply.counted())]);
                lab.expect("reply", Port::Wide, &reply.bytes(), &want);

                let hairpin = sent.clone().with(|p| p.ends.target = service(family, 1));
                let back = hairpin
                    .clone()
                    .with(|p| p.ends.target = at(family, Port::Uplink, 3));
                let want = Got::new(XDP_TX, departing(back, Port::Uplink).bytes())
                    .counting(counter(family, 1), &[ToGhost(hairpin.counted())]);
                lab.expect("hairpin", Port::Uplink, &hairpin.bytes(), &want);
            }
        }
        Ok(())
    })
}

#[test]
fn a_datagram_of_9000_bytes() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let head = if family == Family::V4 { 28 } else { 48 };
            let sent = arriving(
                Port::Uplink,
                request(family, 0),
                Body::Udp(payload(9000 - head)),
            );
            assert_eq!(sent.ip().len(), 9000);
            let want = Got::redirected(&departing(to_ghost(&sent, family), Port::Wide))
                .counting(counter(family, 0), &[ToGhost(9014)]);
            lab.expect("9,000 bytes", Port::Uplink, &sent.bytes(), &want);
        }
        Ok(())
    })
}

#[test]
fn jumbo_frames_are_handed_up_whole_and_left_alone_whole() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            for body in bodies(8900) {
                let sent = arriving(Port::Uplink, request(family, 0), body);
                let tagged = sent.clone().with(|p| p.tags = ONE_TAG);
                let counted = [ToGhost(tagged.counted()), GaveUp(Reason::HandedUp)];
                let want = Got::handed_up(&to_ghost(&tagged, family))
                    .counting(counter(family, 0), &counted);
                lab.expect("tagged", Port::Uplink, &tagged.bytes(), &want);

                let spent = sent.clone().with(|p| p.ttl = 1).bytes();
                let want = Got::untouched(&spent)
                    .counting(counter(family, 0), &[GaveUp(Reason::TtlExceeded)]);
                lab.expect("ttl", Port::Uplink, &spent, &want);

                let foreign = sent.with(|p| p.ends.target = service(family, 1)).bytes();
                lab.expect("foreign", Port::Uplink, &foreign, &Got::untouched(&foreign));
            }
        }
        Ok(())
    })
}

#[test]
fn one_byte_more_than_the_jumbo_link_takes_is_answered() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let head = if family == Family::V4 { 28 } else { 48 };
            for (bytes, fits) in [(9500, true), (9501, false)] {
                let body = Body::Udp(payload(bytes - head));
                let sent = arriving(Port::Uplink, request(family, 0), body);
                let want = if fits {
                    Got::redirected(&departing(to_ghost(&sent, family), Port::Wide))
                        .counting(counter(family, 0), &[ToGhost(sent.counted())])
                } else {
                    let quote = crate::toobig::quote_max(family);
                    let answer = crate::toobig::answer(&sent, Port::Wide.mtu(), quote);
                    Got::new(XDP_TX, answer.bytes())
                        .counting(counter(family, 0), &[GaveUp(Reason::TooBig)])
                };
                lab.expect("size", Port::Uplink, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}
