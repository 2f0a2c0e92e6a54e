//! Packets, built and checksummed the slow way (RFC 1071, over 16-bit words).

use agent_common::packet::{Addr, V4, V6};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// The one's-complement sum, complemented.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut all = parts.concat();
    if all.len() % 2 == 1 {
        all.push(0);
    }
    let mut sum = 0u32;
    for word in all.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What the slow oracle needs of a family.
pub(crate) trait Slow: Addr {
    fn octets(self) -> Vec<u8>;
    fn header(src: Self, dst: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8>;
    /// Length of a header without options.
    const HEADER: usize;
    const ICMP_ERROR: [u8; 2];
}

impl Slow for V4 {
    const HEADER: usize = 20;
    /// Port unreachable.
    const ICMP_ERROR: [u8; 2] = [3, 3];

    fn octets(self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn header(src: Self, dst: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let [hi, lo] = ((20 + payload.len()) as u16).to_be_bytes();
        let mut header = vec![0x45, 0, hi, lo, 0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0];
        header.extend(src.0);
        header.extend(dst.0);
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header
    }
}

impl Slow for V6 {
    const HEADER: usize = 40;
    const ICMP_ERROR: [u8; 2] = [1, 4];

    fn octets(self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    fn header(src: Self, dst: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let [hi, lo] = (payload.len() as u16).to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, hi, lo, protocol, ttl];
        header.extend(src.bytes());
        header.extend(dst.bytes());
        header
    }
}

/// Who talks to whom; ports are ports, or both the identifier of an echo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

/// A transport segment with its checksum computed in full.
pub(crate) fn segment<A: Slow>(ends: Ends<A>, protocol: u8, data: &[u8]) -> Vec<u8> {
    let [src, dst] = [ends.src_port.to_be_bytes(), ends.dst_port.to_be_bytes()];
    let (mut bytes, at) = match protocol {
        TCP => {
            let mut b = [
                &src[..],
                &dst,
                &[1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xfa, 0, 0, 0, 0, 0],
            ]
            .concat();
            b.extend(data);
            (b, 16)
        }
        UDP => {
            let length = ((8 + data.len()) as u16).to_be_bytes();
            let mut b = [&src[..], &dst, &length, &[0, 0]].concat();
            b.extend(data);
            (b, 6)
        }
        _ => {
            let kind = if A::HEADER == 20 { 8 } else { 128 };
            let mut b = [&[kind, 0, 0, 0][..], &src, &[0, 1]].concat();
            b.extend(data);
            (b, 2)
        }
    };
    let sum = match (protocol, transport_sum(ends, protocol, &bytes)) {
        (UDP, 0) => 0xffff,
        (_, sum) => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The checksum over a segment whose own field is zero.
pub(crate) fn transport_sum<A: Slow>(ends: Ends<A>, protocol: u8, bytes: &[u8]) -> u16 {
    if protocol == 1 {
        return checksum(&[bytes]);
    }
    let length = (bytes.len() as u32).to_be_bytes();
    let pseudo = [
        ends.src.octets(),
        ends.dst.octets(),
        length.to_vec(),
        vec![0, 0, 0, protocol],
    ]
    .concat();
    checksum(&[&pseudo, bytes])
}

pub(crate) fn packet<A: Slow>(ends: Ends<A>, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    [
        A::header(ends.src, ends.dst, protocol, ttl, payload),
        payload.to_vec(),
    ]
    .concat()
}

pub(crate) fn frame<A: Slow>(macs: [u8; 12], packet: &[u8]) -> Vec<u8> {
    [&macs[..], &A::ETHERTYPE_RAW.to_ne_bytes(), packet].concat()
}

/// An ICMP error from `src` to `dst` about `quoted`.
pub(crate) fn error<A: Slow>(src: A, dst: A, ttl: u8, quoted: &[u8]) -> Vec<u8> {
    let ends = Ends {
        src,
        dst,
        src_port: 0,
        dst_port: 0,
    };
    let mut bytes = [&A::ICMP_ERROR[..], &[0; 6], quoted].concat();
    let sum = transport_sum(ends, A::ICMP, &bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    packet(ends, A::ICMP, ttl, &bytes)
}
