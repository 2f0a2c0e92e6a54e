//! Bends a good frame as an attacker or a broken device would.

use super::{Rng, build};

/// Offset of the IP header in an untagged frame.
const IP: usize = 14;

/// Changes `frame` in one way.
pub(super) fn bend(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(8) {
        // Cut short, headers say otherwise.
        0 => frame.truncate(rng.between(IP, frame.len())),
        // Rubbish after the packet, as link padding may be.
        1 => {
            let length = rng.between(1, 40);
            frame.extend(rng.bytes(length));
            // Longer ones do not fit the cable.
            frame.truncate(IP + 1500);
        }
        // A wrong length in the IP header.
        2 => {
            let at = if is_v4(frame) { IP + 2 } else { IP + 4 };
            let value = rng.u16() % 1600;
            put(frame, at, &value.to_be_bytes());
            mend_v4(frame);
        }
        // A wrong header length.
        3 if is_v4(frame) => {
            let value = 0x40 | rng.byte() & 0x0f;
            put(frame, IP, &[value]);
            mend_v4(frame);
        }
        // A wrong IP checksum.
        4 if is_v4(frame) => {
            let value = rng.u16();
            put(frame, IP + 10, &value.to_be_bytes());
        }
        // A source that cannot be one.
        5 => {
            let (at, sources): (usize, &[&[u8]]) = if is_v4(frame) {
                (IP + 12, &V4_SOURCES)
            } else {
                (IP + 8, &V6_SOURCES)
            };
            let source = *rng.pick(sources);
            put(frame, at, source);
            mend_v4(frame);
        }
        // A byte of the L4 header.
        6 => {
            let l4 = IP + if is_v4(frame) { 20 } else { 40 };
            let at = l4 + rng.below(24);
            let value = rng.byte();
            put(frame, at, &[value]);
        }
        // Any byte after the addresses of the link.
        _ => {
            let at = rng.between(12, frame.len() - 1);
            let value = rng.byte();
            put(frame, at, &[value]);
        }
    }
}

/// Nothing, loopback, multicast, broadcast.
const V4_SOURCES: [&[u8]; 4] = [&[0; 4], &[127, 0, 0, 1], &[224, 0, 0, 5], &[255; 4]];

/// Nothing, loopback, multicast, link-local.
const V6_SOURCES: [&[u8]; 4] = [
    &[0; 16],
    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
];

fn is_v4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Makes the IPv4 header's checksum right again, so that something else is
/// what is wrong with it.
fn mend_v4(frame: &mut [u8]) {
    if !is_v4(frame) {
        return;
    }
    let head = usize::from(frame.get(IP).copied().unwrap_or(0) & 0x0f) * 4;
    put(frame, IP + 10, &[0, 0]);
    if let Some(header) = frame.get(IP..IP + head) {
        let sum = build::checksum(header);
        put(frame, IP + 10, &sum.to_be_bytes());
    }
}
