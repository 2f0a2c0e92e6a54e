//! Good frames of many kinds, and what is to become of each.

use agent_common::abi::Reason;
use anyhow::Result;
use ghostd_tests::{
    oracle::build::{DESTINATION, HOP_BY_HOP},
    topology::Family,
};

use crate::{
    errors::abouts,
    lab::{Got, Lab, Tally::*, arriving, client, counter, departing, ghost, request, service},
    packet::{Body, ONE_TAG, Packet, Part, TWO_TAGS, payload},
    place::Port,
};

/// A good frame, and what becomes of it when it is whole.
pub(crate) struct Sample {
    pub(crate) what: String,
    pub(crate) family: Family,
    pub(crate) ingress: Port,
    pub(crate) sent: Packet,
    /// As much as has to be there to translate it.
    pub(crate) headers: usize,
    pub(crate) want: Got,
}

impl Sample {
    /// Whether a cut frame of this kind is charged to the service: it is for
    /// it, and both addresses are still there.
    fn is_charged(&self, bytes: usize) -> bool {
        let header = if self.family == Family::V4 { 20 } else { 40 };
        self.sent.ends.target == service(self.family, 0) && bytes >= self.sent.l3() + header
    }

    /// What becomes of it where only `bytes` of its bytes can be seen.
    pub(crate) fn cut(&self, frame: &[u8], bytes: usize) -> Got {
        let untouched = Got::untouched(frame);
        if self.is_charged(bytes) {
            untouched.counting(counter(self.family, 0), &[GaveUp(Reason::Malformed)])
        } else {
            untouched
        }
    }

    /// What becomes of the whole frame where programs see `linear` bytes of it.
    pub(crate) fn hidden(&self, frame: &[u8], linear: usize) -> Got {
        if linear >= self.headers {
            self.want.clone()
        } else if linear >= self.sent.headers() {
            // A good error about something that cannot be seen.
            Got::untouched(frame)
        } else {
            self.cut(frame, linear)
        }
    }
}

/// Sets up a service for each family; its samples.
pub(crate) fn samples(lab: &mut Lab) -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        lab.serve(family, 0, ghost(family))?;
        for tags in [&[][..], ONE_TAG, TWO_TAGS] {
            for packet in packets(family) {
                let packet = packet.with(|p| p.tags = tags);
                all.push(there(family, &packet));
                all.push(back(family, &packet));
            }
            all.extend(errors(family, tags));
        }
    }
    Ok(all)
}

fn packets(family: Family) -> Vec<Packet> {
    let plain = |body| arriving(Port::Uplink, request(family, 0), body);
    let mut packets: Vec<Packet> = [
        Body::Udp(payload(17)),
        Body::BareUdp(payload(16)),
        Body::Tcp(0x02, Vec::new()),
        Body::Tcp(0x18, payload(15)),
        Body::Echo(payload(14)),
        Body::Icmp([200, 0], [0; 4], payload(13)),
        Body::Other(132, payload(12)),
    ]
    .into_iter()
    .map(plain)
    .collect();
    for (offset, more) in [(0, true), (16, true), (16, false)] {
        let bytes = 16;
        packets.push(plain(Body::Udp(payload(24))).with(|p| {
            p.part = Some(Part {
                offset,
                bytes,
                more,
            });
            p.dont_fragment = false;
        }));
    }
    let pad = || vec![0, 1, 4, 0, 0, 0, 0];
    let chains = match family {
        Family::V4 => vec![],
        Family::V6 => vec![
            vec![(DESTINATION, pad()); 2],
            vec![(HOP_BY_HOP, pad()), (DESTINATION, pad())],
        ],
    };
    for extensions in chains {
        packets.push(plain(Body::Tcp(0x10, payload(3))).with(|p| p.extensions = extensions));
    }
    if family == Family::V4 {
        packets.push(plain(Body::Tcp(0x10, payload(3))).with(|p| p.options = vec![1; 12]));
    }
    packets
}

/// Whether routers have to look into the packet.
fn has_router_options(packet: &Packet) -> bool {
    !packet.options.is_empty() || packet.extensions.iter().any(|e| e.0 == HOP_BY_HOP)
}

fn outcome(translated: Packet, egress: Port) -> (Got, bool) {
    if !translated.tags.is_empty() || has_router_options(&translated) {
        return (Got::handed_up(&translated), true);
    }
    (Got::redirected(&departing(translated, egress)), false)
}

fn there(family: Family, packet: &Packet) -> Sample {
    let sent = packet.clone();
    let (want, up) = outcome(
        sent.clone().with(|p| p.ends.target = ghost(family)),
        Port::Wide,
    );
    let mut counted = vec![ToGhost(sent.counted())];
    counted.extend(up.then_some(GaveUp(Reason::HandedUp)));
    Sample {
        what: format!("request {sent:?}"),
        family,
        ingress: Port::Uplink,
        want: want.counting(counter(family, 0), &counted),
        headers: sent.headers(),
        sent,
    }
}

fn back(family: Family, packet: &Packet) -> Sample {
    let sent = packet.clone().with(|p| {
        p.ends = p.ends.reversed();
        p.ends.source = ghost(family);
        (p.to, p.from) = (Port::Wide.mac(), Port::Wide.far_mac());
    });
    assert_eq!(sent.ends.target, client(family));
    let seen = sent.clone().with(|p| p.ends.source = service(family, 0));
    let (want, up) = outcome(seen, Port::Uplink);
    let mut counted = vec![Reverse(sent.counted())];
    counted.extend(up.then_some(GaveUp(Reason::HandedUp)));
    Sample {
        what: format!("reply {sent:?}"),
        family,
        ingress: Port::Wide,
        want: want.counting(counter(family, 0), &counted),
        headers: sent.headers(),
        sent,
    }
}

fn errors(family: Family, tags: &'static [[u16; 2]]) -> Vec<Sample> {
    let kind = if family == Family::V4 { [3, 3] } else { [1, 4] };
    let quoted = |ends| Packet::new(ends, Body::Udp(payload(9)));
    abouts(family, 443)
        .into_iter()
        .map(|about| {
            let [sent, translated] = about
                .error(kind, quoted, 17)
                .map(|e| e.with(|p| p.tags = tags));
            let (mut want, up) = outcome(translated, about.egress);
            if up {
                want = want.counting(counter(family, 0), &[GaveUp(Reason::HandedUp)]);
            }
            Sample {
                what: format!("error {sent:?}"),
                family,
                ingress: about.ingress,
                // Down to the eighth byte of the quoted UDP header.
                headers: sent.bytes().len() - 9,
                sent,
                want,
            }
        })
        .collect()
}
