//! The translation against a slow oracle that builds the expected packet anew
//! and computes every checksum in full.

mod support;

use agent_common::{
    abi::{Position, Reason},
    packet::{Action, ActionKind, Header, NextHop, V4, V6, Way},
};
use proptest::prelude::*;
use support::{
    build::{Ends, MACS, Slow, TCP, UDP, error, frame, packet, segment},
    protocol, request, run,
    tables::{self, EGRESS, Places, TRACKED, Tables},
};

fn there_and_back<A: Places + Slow + Header>(which: u8, ports: (u16, u16), ttl: u8, data: &[u8]) {
    let protocol = protocol::<A>(which);
    let tables = Tables::<A>::new(Position::Ghost, 0);
    let ends = request::<A>(ports.0, if which == 2 { ports.0 } else { ports.1 });
    let mut sent = frame::<A>(
        MACS,
        &packet(ends, protocol, ttl, &segment(ends, protocol, data)),
    );
    let bytes = sent.len() as u64;
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    let at_ghost = Ends {
        dst: A::GHOST,
        ..ends
    };
    let expected = packet(
        at_ghost,
        protocol,
        ttl - 1,
        &segment(at_ghost, protocol, data),
    );
    assert_eq!(sent, frame::<A>(tables::MACS, &expected));

    let back = Ends {
        src: A::GHOST,
        dst: A::CLIENT,
        src_port: ends.dst_port,
        dst_port: ends.src_port,
    };
    let mut reply = frame::<A>(
        MACS,
        &packet(back, protocol, ttl, &segment(back, protocol, data)),
    );
    assert_eq!(run(&tables, &mut reply), Action::send(EGRESS));
    let seen = Ends {
        src: A::SERVICE,
        ..back
    };
    let expected = packet(seen, protocol, ttl - 1, &segment(seen, protocol, data));
    assert_eq!(reply, frame::<A>(tables::MACS, &expected));
    assert_eq!(tables.counted.borrow().len(), 2);
    assert_eq!(tables.counted.borrow()[0].2, bytes);
}

fn port_route<A: Places + Slow + Header>(which: u8, client_port: u16, data: &[u8]) {
    let protocol = protocol::<A>(which);
    let tables = Tables::<A>::with_port(Position::Ghost, 0, protocol, 443, 8443);
    let ends = request::<A>(client_port, 443);
    let mut sent = frame::<A>(
        MACS,
        &packet(ends, protocol, 64, &segment(ends, protocol, data)),
    );
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    let at_ghost = Ends {
        dst: A::GHOST,
        dst_port: 8443,
        ..ends
    };
    let expected = packet(at_ghost, protocol, 63, &segment(at_ghost, protocol, data));
    assert_eq!(sent, frame::<A>(tables::MACS, &expected));

    // Another port is nobody's: untouched.
    let other = request::<A>(client_port, 444);
    let before = frame::<A>(
        MACS,
        &packet(other, protocol, 64, &segment(other, protocol, data)),
    );
    let mut sent = before.clone();
    assert_eq!(run(&tables, &mut sent), Action::PASS);
    assert_eq!(sent, before);
}

/// What of a quoted packet is translated: the checksum of TCP only where its
/// whole header is there, so of less everything but the addresses stays.
fn as_quoted<A: Slow>(protocol: u8, translated: Vec<u8>, before: &[u8]) -> Vec<u8> {
    if protocol == TCP && before.len() < A::HEADER + 20 {
        return [&translated[..A::HEADER], &before[A::HEADER..]].concat();
    }
    translated
}

/// An error about a packet that the ghost sent as the service, cut to `cut`
/// bytes above its network header.
fn quoted<A: Places + Slow + Header>(which: u8, ports: (u16, u16), data: &[u8], cut: usize) {
    let protocol = protocol::<A>(which);
    let tables = Tables::<A>::new(Position::Ghost, 0);
    let of = |src: A| {
        let port = if which == 2 { ports.0 } else { ports.1 };
        let ends = Ends {
            src,
            dst: A::CLIENT,
            src_port: ports.0,
            dst_port: port,
        };
        let mut whole = packet(ends, protocol, 9, &segment(ends, protocol, data));
        whole.truncate(A::HEADER + cut);
        whole
    };
    let mut sent = frame::<A>(MACS, &error(A::CLIENT, A::SERVICE, 64, &of(A::SERVICE)));
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    let inner = as_quoted::<A>(protocol, of(A::GHOST), &of(A::SERVICE));
    let expected = frame::<A>(tables::MACS, &error(A::CLIENT, A::GHOST, 63, &inner));
    assert_eq!(sent, expected);

    // And back: an error from a router about a packet that went to the ghost.
    let to = |dst: A| {
        let port = if which == 2 { ports.0 } else { ports.1 };
        let ends = Ends {
            src: A::CLIENT,
            dst,
            src_port: ports.0,
            dst_port: port,
        };
        let mut whole = packet(ends, protocol, 9, &segment(ends, protocol, data));
        whole.truncate(A::HEADER + cut);
        whole
    };
    let mut sent = frame::<A>(MACS, &error(A::GHOST, A::CLIENT, 64, &to(A::GHOST)));
    assert_eq!(run(&tables, &mut sent), Action::send(EGRESS));
    let expected = frame::<A>(
        tables::MACS,
        &error(
            A::SERVICE,
            A::CLIENT,
            63,
            &as_quoted::<A>(protocol, to(A::SERVICE), &to(A::GHOST)),
        ),
    );
    assert_eq!(sent, expected);
}

proptest! {
    #[test]
    fn packets_are_translated_there_and_back(
        which in 0u8..3, ports in (1u16.., 1u16..), ttl in 2u8.., data in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        there_and_back::<V4>(which, ports, ttl, &data);
        there_and_back::<V6>(which, ports, ttl, &data);
    }

    #[test]
    fn port_routes_translate_ports(
        which in 0u8..2, client_port in 1u16.., data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        port_route::<V4>(which, client_port, &data);
        port_route::<V6>(which, client_port, &data);
    }

    #[test]
    fn quoted_packets_are_translated(
        which in 0u8..3, ports in (1u16.., 1u16..), data in prop::collection::vec(any::<u8>(), 0..200), cut in 8usize..300,
    ) {
        // The slow oracle's checksum of a cut packet is over what was cut off
        // too, as it is in a real quotation.
        quoted::<V4>(which, ports, &data, cut);
        quoted::<V6>(which, ports, &data, cut);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays(data in prop::collection::vec(any::<u8>(), 0..100)) {
        let ends = request::<V4>(5000, 53);
        let mut bytes = segment(ends, UDP, &data);
        bytes[6..8].fill(0);
        let mut sent = frame::<V4>(MACS, &packet(ends, UDP, 64, &bytes));
        prop_assert_eq!(run(&Tables::<V4>::new(Position::Ghost, 0), &mut sent), Action::send(EGRESS));
        prop_assert_eq!(&sent[14 + 20 + 6..14 + 20 + 8], &[0, 0]);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_pass_untouched_or_whole(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool) {
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
            bytes[14] = if v6 { 0x60 } else { 0x45 };
        }
        let before = bytes.clone();
        let action = if v6 {
            run(&Tables::<V6>::new(Position::Ghost, 0), &mut bytes)
        } else {
            run(&Tables::<V4>::new(Position::Ghost, 0), &mut bytes)
        };
        if action.kind == ActionKind::Pass {
            prop_assert_eq!(before, bytes);
        }
    }
}

/// Everything that makes the verdict give up, with the frame cut at each length.
fn untouched_at_every_length<A: Places + Slow + Header>() {
    for which in 0..3 {
        let protocol = protocol::<A>(which);
        let ends = request::<A>(4000, 4000);
        let whole = frame::<A>(
            MACS,
            &packet(ends, protocol, 64, &segment(ends, protocol, b"0123456789")),
        );
        for length in 0..whole.len() {
            let tables = Tables::<A>::new(Position::Ghost, 0);
            let mut cut = whole[..length].to_vec();
            assert_eq!(run(&tables, &mut cut), Action::PASS, "{length}");
            assert_eq!(cut, whole[..length]);
        }
    }
}

#[test]
fn a_packet_cut_at_any_length_passes_untouched() {
    untouched_at_every_length::<V4>();
    untouched_at_every_length::<V6>();
}

/// The reason, the action and whether the packet was translated, per way out.
fn ways_out<A: Places + Slow + Header>() {
    let ends = request::<A>(4000, 80);
    let sent = |ttl| frame::<A>(MACS, &packet(ends, TCP, ttl, &segment(ends, TCP, b"hello")));
    let at_ghost = Ends {
        dst: A::GHOST,
        ..ends
    };
    let translated = |ttl| {
        frame::<A>(
            MACS,
            &packet(at_ghost, TCP, ttl, &segment(at_ghost, TCP, b"hello")),
        )
    };
    let too_big = NextHop {
        mtu: 44,
        ..NextHop::other(Way::TooBig)
    };
    let small = tables::direct(44);
    // Way out, TTL, action, reason, whether it was translated (without leaving).
    let cases = [
        (
            NextHop::other(Way::Unresolved),
            64,
            Action::PASS,
            Some(Reason::NeighbourUnresolved),
            true,
        ),
        (
            NextHop::other(Way::Up),
            64,
            Action::PASS,
            Some(Reason::HandedUp),
            true,
        ),
        (
            NextHop::other(Way::ForwardingOff),
            64,
            Action::PASS,
            Some(Reason::ForwardingOff),
            true,
        ),
        (
            NextHop::other(Way::Unreachable),
            64,
            Action::PASS,
            Some(Reason::Unreachable),
            false,
        ),
        (NextHop::other(Way::Local), 1, Action::PASS, None, true),
        (
            NextHop::other(Way::Up),
            1,
            Action::PASS,
            Some(Reason::TtlExceeded),
            false,
        ),
        (
            tables::direct(1500),
            1,
            Action::PASS,
            Some(Reason::TtlExceeded),
            false,
        ),
        (
            too_big,
            64,
            Action::too_big(44),
            Some(Reason::TooBig),
            false,
        ),
        (small, 64, Action::too_big(44), Some(Reason::TooBig), false),
        (small, 1, Action::PASS, Some(Reason::TtlExceeded), false),
    ];
    for (hop, ttl, action, reason, is_translated) in cases {
        let tables = Tables::<A> {
            hop: Some(hop),
            ..Tables::new(Position::Ghost, 0)
        };
        let mut bytes = sent(ttl);
        assert_eq!(run(&tables, &mut bytes), action, "{hop:?}, ttl {ttl}");
        assert_eq!(
            bytes,
            if is_translated {
                translated(ttl)
            } else {
                sent(ttl)
            },
            "{hop:?}, ttl {ttl}"
        );
        let reasons: Vec<_> = tables
            .given_up
            .borrow()
            .iter()
            .map(|(_, reason)| *reason)
            .collect();
        assert_eq!(
            reasons,
            reason.into_iter().collect::<Vec<_>>(),
            "{hop:?}, ttl {ttl}"
        );
    }
    // Without a token the sender is not told.
    let tables = Tables::<A> {
        hop: Some(too_big),
        ..Tables::new(Position::Ghost, 0)
    };
    tables.icmp_tokens.set(0);
    assert_eq!(run(&tables, &mut sent(64)), Action::DROP);
}

#[test]
fn every_way_out_is_decided_before_a_byte_is_touched() {
    ways_out::<V4>();
    ways_out::<V6>();
}

#[test]
fn at_the_primary_the_packet_goes_on_untouched_and_is_counted() {
    let tables = Tables::<V4>::new(Position::Primary, 0);
    let ends = request::<V4>(4000, 80);
    let before = frame::<V4>(MACS, &packet(ends, TCP, 64, &segment(ends, TCP, b"hello")));
    let mut bytes = before.clone();
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, before);
    assert_eq!(tables.counted.borrow().len(), 1);
}

#[test]
fn a_copy_that_does_not_own_the_service_is_not_translated() {
    let tables = Tables::<V4>::new(Position::Primary, 0);
    let back = Ends {
        src: V4::GHOST,
        dst: V4::CLIENT,
        src_port: 80,
        dst_port: 4000,
    };
    let before = frame::<V4>(MACS, &packet(back, TCP, 64, &segment(back, TCP, b"hello")));
    let mut bytes = before.clone();
    assert_eq!(run(&tables, &mut bytes), Action::PASS);
    assert_eq!(bytes, before);
    assert_eq!(*tables.given_up.borrow(), [(3, Reason::NotOwner)]);
}

#[test]
fn while_draining_known_flows_stay_and_new_ones_go_home() {
    let mut tables = Tables::<V4>::new(Position::Ghost, TRACKED);
    let send = |tables: &Tables<V4>, port: u16, flags: u8| {
        let ends = request::<V4>(port, 80);
        let mut bytes = segment(ends, TCP, b"x");
        bytes[13] = flags;
        bytes[16..18].fill(0);
        let sum = support::build::transport_sum(ends, TCP, &bytes).to_be_bytes();
        bytes[16..18].copy_from_slice(&sum);
        run(
            tables,
            &mut frame::<V4>(MACS, &packet(ends, TCP, 64, &bytes)),
        )
        .kind
    };
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const RST: u8 = 4;
    assert_eq!(send(&tables, 1001, SYN), ActionKind::Send);
    assert_eq!(send(&tables, 1002, ACK), ActionKind::Send);
    tables.move_to(Position::Draining);
    assert_eq!(
        send(&tables, 1001, ACK),
        ActionKind::Send,
        "a known flow stays"
    );
    assert_eq!(
        send(&tables, 1003, SYN),
        ActionKind::Pass,
        "a new one goes to the primary"
    );
    assert_eq!(
        send(&tables, 1002, RST),
        ActionKind::Send,
        "its reset goes to its owner"
    );
    assert_eq!(
        send(&tables, 1002, SYN),
        ActionKind::Pass,
        "after it the port is free"
    );
    assert_eq!(
        send(&tables, 1002, ACK),
        ActionKind::Pass,
        "what follows goes where the SYN went"
    );
    tables.now_ns.set(200_000_000_000);
    assert_eq!(
        send(&tables, 1001, ACK),
        ActionKind::Pass,
        "an idle flow has ended"
    );
}

#[test]
fn later_fragments_follow_the_first_of_a_port_route() {
    let tables = Tables::<V4>::with_port(Position::Ghost, 0, UDP, 53, 5353);
    let ends = request::<V4>(4000, 53);
    let bytes = segment(ends, UDP, &[7; 64]);
    let fragment = |offset: u16, more: u16, part: &[u8], ends: Ends<V4>, ttl: u8, macs| {
        let mut whole = packet(ends, UDP, ttl, part);
        whole[6..8].copy_from_slice(&((offset / 8) | (more << 13)).to_be_bytes());
        whole[10..12].fill(0);
        let sum = support::build::checksum(&[&whole[..20]]).to_be_bytes();
        whole[10..12].copy_from_slice(&sum);
        frame::<V4>(macs, &whole)
    };
    let later = |ends, ttl, macs| fragment(40, 0, &bytes[40..], ends, ttl, macs);
    let mut lost = later(ends, 64, MACS);
    assert_eq!(
        run(&tables, &mut lost),
        Action::PASS,
        "its first was never seen"
    );
    assert_eq!(lost, later(ends, 64, MACS));
    let mut first = fragment(0, 1, &bytes[..40], ends, 64, MACS);
    assert_eq!(run(&tables, &mut first), Action::send(EGRESS));
    let mut second = later(ends, 64, MACS);
    assert_eq!(run(&tables, &mut second), Action::send(EGRESS));
    let at_ghost = Ends {
        dst: V4::GHOST,
        dst_port: 5353,
        ..ends
    };
    assert_eq!(second, later(at_ghost, 63, tables::MACS));
}
