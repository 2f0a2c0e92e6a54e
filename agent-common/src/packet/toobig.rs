//! Answering a packet that does not fit its path: ICMP "fragmentation needed"
//! (RFC 792, RFC 1191) and ICMPv6 "packet too big" (RFC 4443, 3.2).

use super::{Frame, V4, V6, addr::Addr, checksum::fold, parse::Header};

/// Families differ in the header of the answer.
pub trait Answer: Header {
    /// Bytes that the answer puts before the quoted packet.
    const PREFIX: usize;
    /// Most bytes of the packet that are quoted: as many as keep the answer
    /// within what every path carries (576 bytes, 1,280 bytes).
    const QUOTE_MAX: usize;
    /// Writes network and ICMP header at `l3`; `sum` is over the quoted bytes.
    fn write<F: Frame>(
        frame: &mut F,
        l3: usize,
        from: Self,
        to: Self,
        mtu: u32,
        quote: usize,
        sum: u64,
    ) -> Option<()>;
}

/// Bytes quoted where the linear part of the frame does not hold [`Answer::QUOTE_MAX`].
pub const QUOTE_MIN: usize = 64;

impl Answer for V4 {
    const PREFIX: usize = 28;
    const QUOTE_MAX: usize = 548;

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        l3: usize,
        from: Self,
        to: Self,
        mtu: u32,
        quote: usize,
        sum: u64,
    ) -> Option<()> {
        let [len_hi, len_lo] = ((Self::PREFIX + quote) as u16).to_be_bytes();
        // The packet's type of service, with the precedence "internetwork
        // control" (RFC 1812, 4.3.2.5; net/ipv4/icmp.c).
        let tos = frame.get::<u8>(l3 + Self::PREFIX + 1)? & 0x1e | 0xc0;
        let head = [
            u32::from_ne_bytes([0x45, tos, len_hi, len_lo]),
            0,
            u32::from_ne_bytes([64, Self::ICMP, 0, 0]),
            u32::from_ne_bytes(from.0),
            u32::from_ne_bytes(to.0),
        ];
        let mut header_sum = 0u64;
        for word in head {
            header_sum += u64::from(word);
        }
        for (i, word) in head.into_iter().enumerate() {
            frame.set(l3 + i * 4, word)?;
        }
        frame.set(l3 + 10, !fold(header_sum))?;
        let [mtu_hi, mtu_lo] = (mtu.min(0xffff) as u16).to_be_bytes();
        let icmp = [
            u32::from_ne_bytes([3, 4, 0, 0]),
            u32::from_ne_bytes([0, 0, mtu_hi, mtu_lo]),
        ];
        frame.set(l3 + 20, icmp[0])?;
        frame.set(l3 + 24, icmp[1])?;
        frame.set(
            l3 + 22,
            !fold(sum + u64::from(icmp[0]) + u64::from(icmp[1])),
        )
    }
}

impl Answer for V6 {
    const PREFIX: usize = 48;
    const QUOTE_MAX: usize = 1232;

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        l3: usize,
        from: Self,
        to: Self,
        mtu: u32,
        quote: usize,
        sum: u64,
    ) -> Option<()> {
        let payload = (8 + quote) as u32;
        let [_, _, len_hi, len_lo] = payload.to_be_bytes();
        frame.set(l3, u32::from_ne_bytes([0x60, 0, 0, 0]))?;
        frame.set(l3 + 4, u32::from_ne_bytes([len_hi, len_lo, Self::ICMP, 64]))?;
        from.store(frame, l3 + Self::SRC)?;
        to.store(frame, l3 + Self::DST)?;
        let kind = u32::from_ne_bytes([2, 0, 0, 0]);
        frame.set(l3 + 40, kind)?;
        frame.set(l3 + 44, mtu.to_be())?;
        // Pseudo-header (RFC 8200, 8.1).
        let mut all = sum + u64::from(kind) + u64::from(mtu.to_be()) + u64::from(payload.to_be());
        all += u64::from(u32::from(Self::ICMP).to_be());
        for word in from.0.into_iter().chain(to.0) {
            all += u64::from(word);
        }
        frame.set(l3 + 42, !fold(all))
    }
}

/// Writes the answer over a frame that has been grown by `A::PREFIX` bytes at
/// its head and cut to `l3 + A::PREFIX + quote` bytes. `QUOTE` is a multiple of 4.
///
/// The answer comes from the address that was asked for, and goes back the
/// way the packet came.
#[inline(always)]
pub fn write_too_big<A: Answer, F: Frame, const QUOTE: usize>(
    frame: &mut F,
    l3: usize,
    mtu: u32,
) -> Option<()> {
    let at = l3 + A::PREFIX;
    // The old link header now lies right before the quoted packet.
    let old = A::PREFIX;
    let dst: [u16; 3] = [frame.get(old)?, frame.get(old + 2)?, frame.get(old + 4)?];
    let src: [u16; 3] = [
        frame.get(old + 6)?,
        frame.get(old + 8)?,
        frame.get(old + 10)?,
    ];
    for i in 0..3 {
        frame.set(i * 2, src[i])?;
        frame.set(6 + i * 2, dst[i])?;
    }
    // Tags and type: 2, 6 or 10 bytes.
    for i in 0..5 {
        if 12 + i * 2 >= l3 {
            break;
        }
        let word: u16 = frame.get(old + 12 + i * 2)?;
        frame.set(12 + i * 2, word)?;
    }
    let from = A::load(frame, at + A::DST)?;
    let to = A::load(frame, at + A::SRC)?;
    if !frame.has(at + QUOTE) {
        return None;
    }
    let mut sum = 0u64;
    for i in 0..QUOTE / 4 {
        sum += u64::from(frame.get::<u32>(at + i * 4)?);
    }
    A::write(frame, l3, from, to, mtu, QUOTE, sum)
}
