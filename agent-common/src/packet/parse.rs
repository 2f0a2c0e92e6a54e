//! Network and transport headers, checked as the kernel's own NAT checks them.

use super::{
    Addr, Frame, Rewrite, V4, V6,
    checksum::{Delta, fold},
    extension::{HOP_BY_HOP, Walk, is_extension},
};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const DCCP: u8 = 33;
const UDPLITE: u8 = 136;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Why a packet is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    Whole,
    /// Carries the transport header.
    First,
    Later,
}

/// Transport ports, raw. For ICMP echo both hold the identifier; zero where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ports {
    pub src_raw: u16,
    pub dst_raw: u16,
}

impl Ports {
    /// As the first word of a transport header has them.
    #[inline(always)]
    const fn from_word(word: u32) -> Self {
        let [s0, s1, d0, d1] = word.to_ne_bytes();
        Self {
            src_raw: u16::from_ne_bytes([s0, s1]),
            dst_raw: u16::from_ne_bytes([d0, d1]),
        }
    }
}

/// A network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<A> {
    /// Offset of this header.
    pub l3: usize,
    /// Offset of what follows the header and its extensions.
    pub l4: usize,
    /// Bytes from `l3` on, as the header says.
    pub total_len: u16,
    pub src: A,
    pub dst: A,
    /// What is at `l4` (for a later IPv6 fragment: what its fragment header names).
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    pub fragment: Fragmentation,
    /// Identification of a fragment, raw.
    pub id_raw: u32,
    /// IPv4 options or IPv6 hop-by-hop options: a router has to look at them.
    pub router_options: bool,
    /// May not be fragmented on its way.
    pub dont_fragment: bool,
}

/// What is above the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    /// UDP, and UDP-Lite and DCCP, whose checksum is at the same place.
    Udp,
    /// ICMP or ICMPv6 echo.
    Echo,
    /// Carries the packet it is about.
    IcmpError,
    /// Other ICMP that may cross a router.
    IcmpOther,
    /// ICMPv6 neighbour and multicast discovery: never crosses a router.
    LinkLocal,
    /// A later fragment, or a protocol without ports.
    Opaque,
}

/// A whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    pub ip: Ip<A>,
    pub transport: Transport,
    /// As in the header: FIN 1, SYN 2, RST 4, ACK 16. Zero if not TCP.
    pub tcp_flags: u8,
    pub ports: Ports,
}

impl<A: Addr> Ip<A> {
    /// What memory holds before a header is read.
    pub const BLANK: Self = Self {
        l3: 0,
        l4: 0,
        total_len: 0,
        src: A::ZERO,
        dst: A::ZERO,
        protocol: 0,
        ttl: 0,
        tos: 0,
        fragment: Fragmentation::Whole,
        id_raw: 0,
        router_options: false,
        dont_fragment: false,
    };
}

impl<A: Addr> Packet<A> {
    /// What memory holds before a packet is read.
    pub const BLANK: Self = Self {
        ip: Ip::BLANK,
        transport: Transport::Opaque,
        tcp_flags: 0,
        ports: Ports {
            src_raw: 0,
            dst_raw: 0,
        },
    };

    /// Offset of the checksum that covers addresses or ports, where there is one.
    #[inline(always)]
    pub fn checksum_offset(&self) -> Option<usize> {
        match self.transport {
            Transport::Tcp => Some(self.ip.l4 + 16),
            Transport::Udp => Some(self.ip.l4 + 6),
            Transport::Echo | Transport::IcmpOther if A::ICMP == ICMPV6 => Some(self.ip.l4 + 2),
            _ => None,
        }
    }
}

/// Families differ in their headers only.
pub trait Header: Addr {
    /// Source, destination and next protocol, before anything is checked.
    fn peek<F: Frame>(frame: &F, l3: usize) -> Option<(Self, Self, u8)>;
    /// The header at `l3`. `quoted`: inside an ICMP error, where the packet
    /// may be cut short.
    fn parse<F: Frame>(frame: &F, l3: usize, quoted: Quoted) -> Result<Ip<Self>, Malformed>;
    /// Stores new addresses and a new TTL in the header of `ip`, given what
    /// the addresses add up to.
    fn rewrite<F: Frame>(
        frame: &mut F,
        ip: &Ip<Self>,
        new: &Rewrite<Self>,
        ttl: u8,
        addresses: Delta,
    ) -> Option<()>;
    /// Whether an ICMP error may hide behind this protocol number.
    fn may_be_icmp(protocol: u8) -> bool;
    /// Offsets of source and destination within the header.
    const SRC: usize;
    const DST: usize;
    /// Offset of the header checksum, for IPv4.
    const CHECKSUM: Option<usize>;
    fn icmp_kind(icmp_type: u8) -> Transport;
    /// Reads a whole packet, as [`read`] does. Says whether it is well formed.
    fn read_packet<F: Frame>(frame: &F, l3: usize, packet: &mut Packet<Self>) -> bool;
}

/// Whether a header is a packet's own or quoted in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    No,
    Yes,
}

impl Header for V4 {
    const SRC: usize = 12;
    const DST: usize = 16;
    const CHECKSUM: Option<usize> = Some(10);

    #[inline(always)]
    fn peek<F: Frame>(frame: &F, l3: usize) -> Option<(Self, Self, u8)> {
        let [ttl_protocol, src, dst] = frame.words(l3 + 8)?;
        let [_, protocol, _, _] = ttl_protocol.to_ne_bytes();
        Some((Self(src.to_ne_bytes()), Self(dst.to_ne_bytes()), protocol))
    }

    #[inline(always)]
    fn parse<F: Frame>(frame: &F, l3: usize, quoted: Quoted) -> Result<Ip<Self>, Malformed> {
        let word = |i: usize| frame.get::<u32>(l3 + i * 4).ok_or(Malformed);
        let words = frame.words::<5>(l3).ok_or(Malformed)?;
        let [version_ihl, tos, len_hi, len_lo] = words[0].to_ne_bytes();
        let [_, _, off_hi, off_lo] = words[1].to_ne_bytes();
        let [ttl, protocol, _, _] = words[2].to_ne_bytes();
        let total_len = u16::from_be_bytes([len_hi, len_lo]);
        let offset = u16::from_be_bytes([off_hi, off_lo]);
        let ihl = usize::from(version_ihl & 15);
        if version_ihl >> 4 != 4 || ihl < 5 || usize::from(total_len) < ihl * 4 {
            return Err(Malformed);
        }
        let mut sum = 0u64;
        for w in words {
            sum += u64::from(w);
        }
        for i in 5..15 {
            if i >= ihl {
                break;
            }
            sum += u64::from(word(i)?);
        }
        // A quoted header is as some router saw it: its TTL may already be
        // gone, its checksum is not to be relied on (RFC 1812, 4.3.2.3).
        let whole = fold(sum) == 0xffff && frame.holds(l3 + usize::from(total_len));
        if quoted == Quoted::No && !whole {
            return Err(Malformed);
        }
        let fragment = match (offset & 0x1fff, offset & 0x2000) {
            (0, 0) => Fragmentation::Whole,
            (0, _) => Fragmentation::First,
            _ => Fragmentation::Later,
        };
        Ok(Ip {
            l3,
            l4: l3 + ihl * 4,
            total_len,
            src: Self(words[3].to_ne_bytes()),
            dst: Self(words[4].to_ne_bytes()),
            protocol,
            ttl,
            tos,
            fragment,
            id_raw: words[1] & u32::from_ne_bytes([0xff, 0xff, 0, 0]),
            router_options: ihl > 5,
            dont_fragment: offset & 0x4000 != 0,
        })
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &mut F,
        ip: &Ip<Self>,
        new: &Rewrite<Self>,
        ttl: u8,
        addresses: Delta,
    ) -> Option<()> {
        let [word, _, _] = frame.words(ip.l3 + 8)?;
        let [_, protocol, c0, c1] = word.to_ne_bytes();
        let delta = addresses.u16(
            u16::from_ne_bytes([ip.ttl, 0]),
            u16::from_ne_bytes([ttl, 0]),
        );
        let [c0, c1] = delta.apply(u16::from_ne_bytes([c0, c1])).to_ne_bytes();
        let word = u32::from_ne_bytes([ttl, protocol, c0, c1]);
        let src = u32::from_ne_bytes(new.src.0);
        let dst = u32::from_ne_bytes(new.dst.0);
        frame.set_words(ip.l3 + 8, [word, src, dst])
    }

    #[inline(always)]
    fn may_be_icmp(protocol: u8) -> bool {
        protocol == ICMP
    }

    /// RFC 792.
    #[inline(always)]
    fn icmp_kind(icmp_type: u8) -> Transport {
        match icmp_type {
            0 | 8 => Transport::Echo,
            3 | 4 | 5 | 11 | 12 => Transport::IcmpError,
            _ => Transport::IcmpOther,
        }
    }

    #[inline(never)]
    fn read_packet<F: Frame>(frame: &F, l3: usize, packet: &mut Packet<Self>) -> bool {
        read(frame, l3, packet)
    }
}

impl Header for V6 {
    const SRC: usize = 8;
    const DST: usize = 24;
    const CHECKSUM: Option<usize> = None;

    #[inline(always)]
    fn peek<F: Frame>(frame: &F, l3: usize) -> Option<(Self, Self, u8)> {
        let dst = Self::load(frame, l3 + 24)?;
        let src = Self::load(frame, l3 + 8)?;
        Some((src, dst, frame.get(l3 + 6)?))
    }

    #[inline(always)]
    fn parse<F: Frame>(frame: &F, l3: usize, quoted: Quoted) -> Result<Ip<Self>, Malformed> {
        let (src, dst, next) = Self::peek(frame, l3).ok_or(Malformed)?;
        let [v, t, _, _] = frame.get::<u32>(l3).ok_or(Malformed)?.to_ne_bytes();
        let [len_hi, len_lo, _, ttl] = frame.get::<u32>(l3 + 4).ok_or(Malformed)?.to_ne_bytes();
        let payload = u16::from_be_bytes([len_hi, len_lo]);
        let total_len = payload.checked_add(40).ok_or(Malformed)?;
        if v >> 4 != 6 || quoted == Quoted::No && !frame.holds(l3 + usize::from(total_len)) {
            return Err(Malformed);
        }
        let router_options = next == HOP_BY_HOP;
        let mut walk = Walk {
            l4: l3 + 40,
            protocol: next,
            fragment: Fragmentation::Whole,
            id_raw: 0,
        };
        if is_extension(next) {
            walk = Walk::unpack(frame.walk_extensions(l3, next)).ok_or(Malformed)?;
        }
        let Walk {
            l4,
            protocol,
            fragment,
            id_raw,
        } = walk;
        if l4 > l3 + usize::from(total_len) {
            return Err(Malformed);
        }
        Ok(Ip {
            l3,
            l4,
            total_len,
            src,
            dst,
            protocol,
            ttl,
            tos: v << 4 | t >> 4,
            fragment,
            id_raw,
            router_options,
            dont_fragment: true,
        })
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &mut F,
        ip: &Ip<Self>,
        new: &Rewrite<Self>,
        ttl: u8,
        _: Delta,
    ) -> Option<()> {
        frame.set(ip.l3 + 7, ttl)?;
        if new.src != ip.src {
            new.src.store(frame, ip.l3 + Self::SRC)?;
        }
        if new.dst != ip.dst {
            new.dst.store(frame, ip.l3 + Self::DST)?;
        }
        Some(())
    }

    #[inline(always)]
    fn may_be_icmp(protocol: u8) -> bool {
        protocol == ICMPV6 || is_extension(protocol)
    }

    /// RFC 4443; 130 to 137 and 143 to 153 are RFC 2710, 4861, 3810, 4286:
    /// what `nf_conntrack` leaves alone as well.
    #[inline(always)]
    fn icmp_kind(icmp_type: u8) -> Transport {
        match icmp_type {
            1..=4 => Transport::IcmpError,
            128 | 129 => Transport::Echo,
            130..=137 | 143..=153 => Transport::LinkLocal,
            _ => Transport::IcmpOther,
        }
    }

    /// A function of its own: inlined, all those words do not fit the stack of
    /// a BPF program.
    #[inline(never)]
    fn read_packet<F: Frame>(frame: &F, l3: usize, packet: &mut Packet<Self>) -> bool {
        read(frame, l3, packet)
    }
}

/// Reads network and transport header.
#[inline(always)]
fn read<A: Header, F: Frame>(frame: &F, l3: usize, packet: &mut Packet<A>) -> bool {
    let parsed = A::parse(frame, l3, Quoted::No).and_then(|ip| transport(frame, ip));
    match parsed {
        Ok(read) => {
            *packet = read;
            true
        }
        Err(Malformed) => false,
    }
}

/// Reads what is above a packet's own network header.
#[inline(always)]
fn transport<A: Header, F: Frame>(frame: &F, ip: Ip<A>) -> Result<Packet<A>, Malformed> {
    let bare = Packet {
        ip,
        transport: Transport::Opaque,
        tcp_flags: 0,
        ports: Ports::default(),
    };
    if ip.fragment == Fragmentation::Later {
        return Ok(bare);
    }
    let l4 = ip.l4;
    let l4_len = (ip.l3 + usize::from(ip.total_len)).wrapping_sub(l4);
    match ip.protocol {
        TCP => {
            let segment = frame.words::<5>(l4).ok_or(Malformed)?;
            let [offset, tcp_flags, _, _] = segment[3].to_ne_bytes();
            let header = usize::from(offset >> 4) * 4;
            if l4_len < 20 || header < 20 || header > l4_len {
                return Err(Malformed);
            }
            Ok(Packet {
                transport: Transport::Tcp,
                tcp_flags,
                ports: Ports::from_word(segment[0]),
                ..bare
            })
        }
        UDP | UDPLITE | DCCP => {
            let [ports, length_sum] = frame.words(l4).ok_or(Malformed)?;
            let [len_hi, len_lo, _, _] = length_sum.to_ne_bytes();
            let length = usize::from(u16::from_be_bytes([len_hi, len_lo]));
            let whole_udp = ip.protocol == UDP && ip.fragment == Fragmentation::Whole;
            if l4_len < 8 || whole_udp && (length < 8 || length > l4_len) {
                return Err(Malformed);
            }
            Ok(Packet {
                transport: Transport::Udp,
                ports: Ports::from_word(ports),
                ..bare
            })
        }
        p if p == A::ICMP => {
            let kind = A::icmp_kind(frame.get(l4).ok_or(Malformed)?);
            if l4_len < 8 || !frame.has(l4 + 8) {
                return Err(Malformed);
            }
            let ports = match kind {
                Transport::Echo => {
                    let id = frame.get(l4 + 4).ok_or(Malformed)?;
                    Ports {
                        src_raw: id,
                        dst_raw: id,
                    }
                }
                _ => Ports::default(),
            };
            Ok(Packet {
                transport: kind,
                ports,
                ..bare
            })
        }
        _ => Ok(bare),
    }
}

#[inline(always)]
pub(super) fn ports<F: Frame>(frame: &F, l4: usize) -> Result<Ports, Malformed> {
    frame.get(l4).map(Ports::from_word).ok_or(Malformed)
}
