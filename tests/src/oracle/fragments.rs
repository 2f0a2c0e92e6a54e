//! Fragmented datagrams: whole trains, in order.

use super::{
    Leaf, Rng, Step,
    build::{self, FRAGMENT},
    flow::{Flow, L3, frame, packet},
};
use crate::topology::Family;

/// A request in two to four fragments of equal size (but the last), and the
/// answer, fragmented too.
pub(super) fn train(rng: &mut Rng, flow: Flow) -> Vec<Step> {
    let there = split(rng, flow, Leaf::Client);
    let back = split(rng, flow, Leaf::Ghost);
    vec![there, back]
}

fn split(rng: &mut Rng, flow: Flow, from: Leaf) -> Step {
    let ends = match from {
        Leaf::Client => flow.request,
        _ => flow.at_ghost().reversed(),
    };
    // IPv6 asks every link for 1,280 bytes; smaller fragments are unusual.
    let piece = match flow.family {
        Family::V4 => 8 * rng.between(1, 90),
        Family::V6 => 8 * rng.between(120, 150),
    };
    let pieces = rng.between(2, 4);
    // The kernel makes one whole packet of IPv6 fragments that fit, without
    // their headers of 8 bytes, where the largest of them fitted.
    let last = match flow.family {
        Family::V4 => rng.between(1, piece),
        Family::V6 => rng.between(9, piece),
    };
    let length = piece * (pieces - 1) + last - 8;
    let payload = rng.bytes(length);
    let segment = build::udp(ends, &payload, rng.one_in(8) && flow.family == Family::V4);
    let l3 = L3::random(rng);
    let id = rng.u32();
    let mut frames = Vec::new();
    for (place, part) in segment.chunks(piece).enumerate() {
        let offset = (place * piece) as u16;
        let more = usize::from(offset) + part.len() < segment.len();
        let mut l3 = l3.clone();
        l3.v4.dont_fragment = false;
        l3.v4.more_fragments = more;
        l3.v4.offset = offset;
        let mut extension = vec![0];
        extension.extend((offset | u16::from(more)).to_be_bytes());
        extension.extend(id.to_be_bytes());
        l3.v6.extensions = vec![(FRAGMENT, extension)];
        frames.push(frame(from, &packet(ends, &l3, build::UDP, part)));
    }
    Step { from, frames }
}
