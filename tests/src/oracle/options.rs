//! IPv4 options and IPv6 extension headers.

use super::{
    Leaf, Rng, Step,
    build::{self, DESTINATION, HOP_BY_HOP, ROUTING},
    flow::{Flow, L3, frame, packet},
};

/// A request and its answer, both with options.
pub(super) fn packets(rng: &mut Rng, flow: Flow) -> Vec<Step> {
    let back = flow.at_ghost().reversed();
    [(Leaf::Client, flow.request), (Leaf::Ghost, back)]
        .into_iter()
        .map(|(from, ends)| {
            let mut l3 = L3::random(rng);
            l3.v4.options = v4(rng);
            l3.v6.extensions = v6(rng);
            let length = rng.below(200);
            let segment = build::udp(ends, &rng.bytes(length), false);
            let frames = vec![frame(from, &packet(ends, &l3, build::UDP, &segment))];
            Step { from, frames }
        })
        .collect()
}

/// RFC 791, 3.1; RFC 2113.
fn v4(rng: &mut Rng) -> Vec<u8> {
    match rng.below(6) {
        // No operation, end of list.
        0 => vec![1; 4 * rng.between(1, 10)],
        1 => vec![1, 1, 1, 0],
        // Record route, with room.
        2 => {
            let room = rng.between(1, 9);
            let mut option = vec![7, (3 + 4 * room) as u8, 4];
            option.resize(3 + 4 * room, 0);
            option.push(0);
            option
        }
        // Time stamps without room: only the overflow is counted. With room
        // twin worlds would write down different times.
        3 => {
            let room = rng.between(1, 4);
            let mut option = vec![68, (4 + 4 * room) as u8, (5 + 4 * room) as u8, 0];
            option.resize(4 + 4 * room, 0);
            option
        }
        // Router alert.
        4 => vec![148, 4, 0, 0],
        // One nobody knows, to be passed on.
        _ => [&[222, 6][..], &rng.bytes(4), &[1, 0]].concat(),
    }
}

/// RFC 8200, 4.
fn v6(rng: &mut Rng) -> Vec<(u8, Vec<u8>)> {
    // A length byte of 0 means 8 bytes; PadN of 4 fills them.
    let pad = || vec![0, 1, 4, 0, 0, 0, 0];
    let mut long_pad = vec![1, 1, 12];
    long_pad.resize(15, 0);
    // Routers drop hop-by-hop options with more than seven bytes of padding
    // (net/ipv6/exthdrs.c): an experimental one that they skip (RFC 4727).
    let mut long_option = vec![1, 0x1e, 12];
    long_option.resize(15, 0);
    match rng.below(5) {
        0 => vec![(HOP_BY_HOP, pad())],
        1 => vec![(DESTINATION, pad())],
        2 => vec![(HOP_BY_HOP, long_option), (DESTINATION, pad())],
        // A routing header that has been used up.
        3 => vec![(ROUTING, vec![0, 253, 0, 0, 0, 0, 0])],
        _ => vec![(DESTINATION, long_pad), (DESTINATION, pad())],
    }
}
