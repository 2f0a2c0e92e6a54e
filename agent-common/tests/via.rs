//! A side behind a next hop: the packet stays what it was, but for the way it
//! goes. Nothing is translated, so the oracle is the packet itself.

mod support;

use agent_common::{
    abi::{Position, Reason},
    packet::{Action, ActionKind, Header, NextHop, Traffic, V4, V6, Way},
};
use proptest::prelude::*;
use support::{
    build::{Ends, MACS, Slow, TCP, UDP, checksum, error, frame, packet, segment},
    protocol, request, run,
    tables::{self, EGRESS, Places, TRACKED, Tables},
};

/// The frame as the next hop gets it, built anew with another TTL.
fn forwarded<A: Slow>(ends: Ends<A>, protocol: u8, ttl: u8, segment: &[u8]) -> Vec<u8> {
    frame::<A>(tables::MACS, &packet(ends, protocol, ttl - 1, segment))
}

fn goes_as_it_is<A: Places + Slow + Header>(
    which: u8,
    ports: (u16, u16),
    ttl: u8,
    data: &[u8],
    sum: Option<u16>,
) {
    let protocol = protocol::<A>(which);
    let tables = Tables::<A>::via(Position::Ghost, TRACKED);
    let ends = request::<A>(ports.0, if which == 2 { ports.0 } else { ports.1 });
    let mut bytes = segment(ends, protocol, data);
    if let Some(sum) = sum {
        // Right or wrong: it is nobody's business on the way.
        let at = [16, 6, 2][usize::from(which)];
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut sent = frame::<A>(MACS, &packet(ends, protocol, ttl, &bytes));
    let length = sent.len() as u64;
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    assert_eq!(sent, forwarded(ends, protocol, ttl, &bytes));
    assert!(*tables.toward.borrow() == [A::GHOST]);
    assert_eq!(*tables.counted.borrow(), [(3, Traffic::ToGhost, length)]);
    assert_eq!(tables.flows.borrow().len(), 1);

    // What the copy answers carries the service address and is nobody's here.
    let back = Ends {
        src: ends.dst,
        dst: ends.src,
        src_port: ends.dst_port,
        dst_port: ends.src_port,
    };
    let before = frame::<A>(
        MACS,
        &packet(back, protocol, ttl, &segment(back, protocol, data)),
    );
    let mut reply = before.clone();
    assert_eq!(run(&tables, &mut reply), Action::PASS);
    assert_eq!(reply, before);
}

/// An error about what the copy sent, from a router beyond the client's link.
fn errors_follow<A: Places + Slow + Header>(which: u8, data: &[u8], cut: usize) {
    let protocol = protocol::<A>(which);
    let ends = Ends {
        src: A::SERVICE,
        dst: A::CLIENT,
        src_port: 80,
        dst_port: if which == 2 { 80 } else { 4000 },
    };
    let mut quoted = packet(ends, protocol, 9, &segment(ends, protocol, data));
    quoted.truncate(A::HEADER + cut);
    let sent = |ttl| error(A::CLIENT, A::SERVICE, ttl, &quoted);
    let tables = Tables::<A>::via(Position::Ghost, 0);
    let mut bytes = frame::<A>(MACS, &sent(64));
    assert_eq!(run(&tables, &mut bytes), Action::send(EGRESS));
    assert_eq!(bytes, frame::<A>(tables::MACS, &sent(63)));
    assert!(*tables.toward.borrow() == [A::GHOST]);

    let tables = Tables::<A>::via(Position::Primary, 0);
    let mut bytes = frame::<A>(MACS, &sent(64));
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, frame::<A>(MACS, &sent(64)));
}

proptest! {
    #[test]
    fn packets_go_on_as_they_are(
        which in 0u8..3, ports in (1u16.., 1u16..), ttl in 2u8..,
        data in prop::collection::vec(any::<u8>(), 0..600),
        sum in prop::option::of(prop_oneof![Just(0u16), Just(0xffff), any::<u16>()]),
    ) {
        goes_as_it_is::<V4>(which, ports, ttl, &data, sum);
        goes_as_it_is::<V6>(which, ports, ttl, &data, sum);
    }

    #[test]
    fn errors_go_where_the_packets_came_from(
        which in 0u8..3, data in prop::collection::vec(any::<u8>(), 0..200), cut in 8usize..300,
    ) {
        errors_follow::<V4>(which, &data, cut);
        errors_follow::<V6>(which, &data, cut);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_pass_untouched(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool) {
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
            bytes[14] = if v6 { 0x60 } else { 0x45 };
        }
        let before = bytes.clone();
        let action = if v6 {
            run(&Tables::<V6>::via(Position::Ghost, 0), &mut bytes)
        } else {
            run(&Tables::<V4>::via(Position::Ghost, 0), &mut bytes)
        };
        if action.kind == ActionKind::Pass {
            prop_assert_eq!(before, bytes);
        }
    }
}

/// Way out, TTL, action, reason: a byte is touched only by what is sent.
fn ways_out<A: Places + Slow + Header>() {
    let ends = request::<A>(4000, 80);
    let sent = |ttl| frame::<A>(MACS, &packet(ends, TCP, ttl, &segment(ends, TCP, b"hello")));
    let other = NextHop::other;
    let too_big = NextHop {
        mtu: 44,
        ..other(Way::TooBig)
    };
    let small = tables::direct(44);
    let pass = Action::PASS;
    let cases = [
        (
            other(Way::Unresolved),
            64,
            pass,
            Reason::NeighbourUnresolved,
        ),
        (other(Way::Up), 64, pass, Reason::HandedUp),
        (other(Way::ForwardingOff), 64, pass, Reason::ForwardingOff),
        (other(Way::Unreachable), 64, pass, Reason::Unreachable),
        (other(Way::Local), 64, pass, Reason::Unreachable),
        (other(Way::Up), 1, pass, Reason::TtlExceeded),
        (tables::direct(1500), 1, pass, Reason::TtlExceeded),
        (too_big, 64, Action::too_big(44), Reason::TooBig),
        (small, 64, Action::too_big(44), Reason::TooBig),
        (small, 1, pass, Reason::TtlExceeded),
    ];
    for (hop, ttl, action, reason) in cases {
        let tables = Tables::<A> {
            hop: Some(hop),
            ..Tables::via(Position::Ghost, 0)
        };
        let mut bytes = sent(ttl);
        assert_eq!(run(&tables, &mut bytes), action, "{hop:?}, ttl {ttl}");
        assert_eq!(bytes, sent(ttl), "{hop:?}, ttl {ttl}");
        assert_eq!(
            *tables.given_up.borrow(),
            [(3, reason)],
            "{hop:?}, ttl {ttl}"
        );
        assert!(tables.counted.borrow().is_empty(), "{hop:?}, ttl {ttl}");
    }
}

#[test]
fn every_give_up_is_the_original_packet() {
    ways_out::<V4>();
    ways_out::<V6>();
}

/// What may be fragmented would have to be by the stack, which does not know the way.
#[test]
fn a_packet_that_may_be_fragmented_passes_untouched() {
    let ends = request::<V4>(4000, 53);
    let mut whole = packet(ends, UDP, 64, &segment(ends, UDP, &[7; 64]));
    whole[6..8].fill(0);
    whole[10..12].fill(0);
    let sum = checksum(&[&whole[..20]]).to_be_bytes();
    whole[10..12].copy_from_slice(&sum);
    let tables = Tables::<V4> {
        hop: Some(tables::direct(60)),
        ..Tables::via(Position::Ghost, 0)
    };
    let before = frame::<V4>(MACS, &whole);
    let mut bytes = before.clone();
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, before);
    assert_eq!(*tables.given_up.borrow(), [(3, Reason::HandedUp)]);
}

#[test]
fn at_the_primary_the_packet_passes_and_is_counted() {
    let tables = Tables::<V6>::via(Position::Primary, 0);
    let ends = request::<V6>(4000, 80);
    let before = frame::<V6>(MACS, &packet(ends, TCP, 64, &segment(ends, TCP, b"hello")));
    let mut bytes = before.clone();
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, before);
    assert!(tables.toward.borrow().is_empty());
    assert_eq!(tables.counted.borrow()[0].1, Traffic::ToPrimary);
}

/// A copy with an address of its own that speaks to a service behind a next
/// hop: translated, and the way of the next hop.
#[test]
fn one_service_may_call_another_that_is_behind_a_next_hop() {
    let caller = V4([10, 77, 3, 3]);
    let service = V4([198, 51, 100, 20]);
    let mut tables = Tables::<V4>::via(Position::Ghost, 0);
    let mut entry = V4::reverse(0);
    entry.service_be = service.0;
    tables.reverses.insert((caller, 0, 0), entry);
    let ends = Ends {
        src: caller,
        ..request::<V4>(4000, 80)
    };
    let mut sent = frame::<V4>(MACS, &packet(ends, TCP, 64, &segment(ends, TCP, b"hello")));
    let before = sent.clone();
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    let seen = Ends {
        src: service,
        ..ends
    };
    assert_eq!(
        sent,
        forwarded(seen, TCP, 64, &segment(seen, TCP, b"hello"))
    );
    assert!(*tables.toward.borrow() == [V4::GHOST]);

    // Where XDP cannot send it, it stays whole.
    tables.hop = Some(NextHop::other(Way::Up));
    let mut bytes = before.clone();
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, before);
}
