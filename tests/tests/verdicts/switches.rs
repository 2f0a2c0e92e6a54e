//! Where switches point, port routes, and who may speak as the service.

use std::net::IpAddr;

use agent_common::abi::{HostSwitch, Position, Reason, Side, Switch, flags, names};
use anyhow::Result;
use ghostd_tests::{
    oracle::build::{TCP, UDP},
    topology::Family,
};

use crate::{
    lab::{
        Got, Lab, SLOTS, Tally::*, arriving, client, counter, departing, ghost, lab, request,
        service,
    },
    packet::{Body, Packet, payload},
    place::{Port, at},
    rows::{Key, Target, switch},
};

/// A deadline that is over, and one that will never be.
const PAST: u64 = 1;
const FUTURE: u64 = u64::MAX;

/// A switch, and where it points while the host switch is at generation 1.
struct Pointing(&'static str, Switch, Option<Position>);

fn pointing() -> Vec<Pointing> {
    use Position::{Draining, Ghost, Primary};
    let with = |position, flags, lease_ns, seen| {
        let mut s = switch(position, flags);
        s.lease_ns = lease_ns;
        s.control.host_generation_seen = seen;
        s
    };
    let tag = |tag, flags| {
        let mut s = switch(Primary, flags);
        s.control.position = tag;
        s
    };
    let (armed, lapse) = (flags::ARMED, flags::LAPSE);
    vec![
        Pointing("primary", with(Primary, 0, 0, 1), Some(Primary)),
        Pointing("ghost", with(Ghost, 0, 0, 1), Some(Ghost)),
        Pointing("draining", with(Draining, 0, 0, 1), Some(Draining)),
        Pointing("unused", tag(0, 0), None),
        Pointing("unused and armed", tag(0, armed), None),
        Pointing("no position", tag(4, 0), None),
        Pointing("no position either", tag(255, 0), None),
        Pointing("armed, and seen", with(Primary, armed, 0, 1), Some(Primary)),
        Pointing(
            "thrown by the host switch",
            with(Primary, armed, 0, 0),
            Some(Ghost),
        ),
        Pointing(
            "thrown while draining",
            with(Draining, armed, 0, 0),
            Some(Ghost),
        ),
        Pointing("thrown at the ghost", with(Ghost, armed, 0, 2), Some(Ghost)),
        Pointing("not armed", with(Primary, 0, 0, 0), Some(Primary)),
        Pointing("lapsed", with(Primary, lapse, PAST, 1), Some(Ghost)),
        Pointing("lease runs", with(Primary, lapse, FUTURE, 1), Some(Primary)),
        Pointing("no lease", with(Primary, lapse, 0, 1), Some(Primary)),
        Pointing(
            "may not lapse",
            with(Primary, armed, PAST, 1),
            Some(Primary),
        ),
        Pointing(
            "lapsed while draining",
            with(Draining, lapse, PAST, 1),
            Some(Draining),
        ),
        Pointing(
            "lapsed at the ghost",
            with(Ghost, lapse, PAST, 1),
            Some(Ghost),
        ),
    ]
}

fn host_switch(generation: u64) -> HostSwitch {
    HostSwitch {
        generation,
        thrown_ns: 0,
        cause_pid: 0,
        pad0: 0,
        pad1: [0; 5],
    }
}

fn udp(family: Family) -> Packet {
    arriving(Port::Uplink, request(family, 0), Body::Udp(payload(30)))
}

fn primary(family: Family) -> IpAddr {
    at(family, Port::Wide, 3)
}

/// The packet as it comes out for `target`.
fn out(sent: &Packet, target: IpAddr) -> Packet {
    departing(sent.clone().with(|p| p.ends.target = target), Port::Wide)
}

#[test]
fn a_request_goes_where_the_switch_points() -> Result<()> {
    lab(|lab| {
        // The sixteen bits that slots keep are what counts.
        lab.object
            .set(names::HOST_SWITCH, 0, host_switch(0x7_0001))?;
        for family in Family::BOTH {
            let sent = udp(family);
            let (bytes, frame) = (sent.counted(), sent.bytes());
            for native in [true, false] {
                lab.serve(family, 0, ghost(family))?;
                let to_primary = match native {
                    true => Target::Native,
                    false => Target::Translate(Key::whole(primary(family))),
                };
                let to_ghost = Target::Translate(Key::whole(ghost(family)));
                let key = Key::whole(service(family, 0));
                lab.route(family, 0, key, [to_primary, to_ghost])?;
                for Pointing(what, switch, position) in pointing() {
                    lab.set_switch(0, switch)?;
                    let counter = counter(family, 0);
                    let want = match position {
                        None => Got::untouched(&frame),
                        Some(Position::Ghost) => Got::redirected(&out(&sent, ghost(family)))
                            .counting(counter, &[ToGhost(bytes)]),
                        // A flow that the ghost does not own drains to the primary.
                        Some(_) if native => {
                            Got::untouched(&frame).counting(counter, &[ToPrimary(bytes)])
                        }
                        Some(_) => Got::redirected(&out(&sent, primary(family)))
                            .counting(counter, &[ToPrimary(bytes)]),
                    };
                    lab.expect(what, Port::Uplink, &frame, &want);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_copy_speaks_as_the_service_where_the_switch_points() -> Result<()> {
    lab(|lab| {
        lab.object.set(names::HOST_SWITCH, 0, host_switch(1))?;
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            let key = Key::whole(service(family, 0));
            lab.reverse(family, 0, Key::whole(primary(family)), key, Side::Primary)?;
            for Pointing(what, switch, position) in pointing() {
                lab.set_switch(0, switch)?;
                for (copy, side) in [
                    (ghost(family), Side::Ghost),
                    (primary(family), Side::Primary),
                ] {
                    expect_reply(lab, family, what, copy, position.map(|p| speaks(p, side)));
                }
            }
        }
        Ok(())
    })
}

const fn speaks(position: Position, side: Side) -> bool {
    match position {
        Position::Primary => matches!(side, Side::Primary),
        Position::Ghost => matches!(side, Side::Ghost),
        Position::Draining => true,
    }
}

/// `speaks`: nothing is known of a slot that is not used.
fn expect_reply(lab: &Lab, family: Family, what: &str, copy: IpAddr, speaks: Option<bool>) {
    let sent = arriving(
        Port::Wide,
        request(family, 0).reversed(),
        Body::Udp(payload(30)),
    )
    .with(|p| p.ends.source = copy);
    let counter = counter(family, 0);
    let frame = sent.bytes();
    let want = match speaks {
        None => Got::untouched(&frame),
        Some(false) => Got::untouched(&frame).counting(counter, &[GaveUp(Reason::NotOwner)]),
        Some(true) => {
            let seen = sent.clone().with(|p| p.ends.source = service(family, 0));
            Got::redirected(&departing(seen, Port::Uplink))
                .counting(counter, &[Reverse(sent.counted())])
        }
    };
    lab.expect(what, Port::Wide, &frame, &want);
}

#[test]
fn a_slot_that_does_not_exist_points_nowhere() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            // Rows are written for the last counter, and for a switch that is not there.
            let to = Key::whole(ghost(family));
            let key = Key::whole(service(family, 0));
            let slot = SLOTS + 1;
            lab.route(family, slot, key, [Target::Native, Target::Translate(to)])?;
            lab.reverse(family, slot, to, key, Side::Ghost)?;
            let sent = udp(family).bytes();
            lab.expect("request", Port::Uplink, &sent, &Got::untouched(&sent));
            expect_reply(lab, family, "reply", ghost(family), None);
        }
        Ok(())
    })
}

#[test]
fn one_service_may_call_another() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            lab.serve(family, 0, ghost(family))?;
            lab.serve(family, 1, at(family, Port::Narrow, 2))?;
            let sent = arriving(Port::Wide, request(family, 1), Body::Tcp(2, Vec::new()))
                .with(|p| p.ends.source = ghost(family));
            let seen = sent.clone().with(|p| {
                p.ends.source = service(family, 0);
                p.ends.target = at(family, Port::Narrow, 2);
            });
            let want = Got::redirected(&departing(seen, Port::Narrow))
                .counting(counter(family, 1), &[ToGhost(sent.counted())]);
            lab.expect("ghost to ghost", Port::Wide, &sent.bytes(), &want);
        }
        Ok(())
    })
}

/// Port 443 of two protocols goes to 8443 of a ghost behind the narrow port,
/// everything else of the address to another ghost.
#[test]
fn a_port_route_comes_before_the_route_of_its_address() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let narrow = at(family, Port::Narrow, 2);
            for protocol in [UDP, TCP] {
                let key = Key::port(service(family, 1), protocol, 443);
                let to = Key::port(narrow, protocol, 8443);
                lab.route(family, 1, key, [Target::Native, Target::Translate(to)])?;
                lab.reverse(family, 1, to, key, Side::Ghost)?;
            }
            lab.set_switch(1, switch(Position::Ghost, 0))?;
            for address_too in [false, true] {
                if address_too {
                    // The same address, by a row and counters of its own.
                    let key = Key::whole(service(family, 1));
                    let to = Target::Translate(Key::whole(ghost(family)));
                    lab.set_switch(0, switch(Position::Ghost, 0))?;
                    lab.route(family, 0, key, [Target::Native, to])?;
                }
                for (body, port) in bodies()
                    .into_iter()
                    .flat_map(|b| [(b.clone(), 443), (b, 444)])
                {
                    let sent = arriving(Port::Uplink, request(family, 1), body)
                        .with(|p| p.ends.target_port = port);
                    let named = port == 443 && [UDP, TCP].contains(&sent.protocol());
                    let want = if named {
                        let to = sent.clone().with(|p| {
                            p.ends.target = narrow;
                            p.ends.target_port = 8443;
                        });
                        Got::redirected(&departing(to, Port::Narrow))
                            .counting(counter(family, 1), &[ToGhost(sent.counted())])
                    } else if address_too {
                        Got::redirected(&out(&sent, ghost(family)))
                            .counting(counter(family, 0), &[ToGhost(sent.counted())])
                    } else {
                        Got::untouched(&sent.bytes())
                    };
                    lab.expect("port", Port::Uplink, &sent.bytes(), &want);
                }
            }
        }
        Ok(())
    })
}

fn bodies() -> Vec<Body> {
    vec![
        Body::Udp(payload(10)),
        Body::BareUdp(payload(10)),
        Body::Tcp(0x18, payload(10)),
        Body::Echo(payload(10)),
        Body::Other(132, payload(20)),
    ]
}

#[test]
fn a_reply_from_a_port_route_comes_from_the_service_port() -> Result<()> {
    lab(|lab| {
        for family in Family::BOTH {
            let copy = Key::port(ghost(family), UDP, 8443);
            let key = Key::port(service(family, 0), UDP, 443);
            lab.reverse(family, 0, copy, key, Side::Ghost)?;
            lab.set_switch(0, switch(Position::Ghost, 0))?;
            for (body, port) in bodies()
                .into_iter()
                .flat_map(|b| [(b.clone(), 8443), (b, 443)])
            {
                let sent = arriving(Port::Wide, request(family, 0).reversed(), body).with(|p| {
                    p.ends.source = ghost(family);
                    p.ends.source_port = port;
                });
                let want = if port == 8443 && sent.protocol() == UDP {
                    let seen = sent.clone().with(|p| {
                        p.ends.source = service(family, 0);
                        p.ends.source_port = 443;
                        p.ends.target = client(family);
                    });
                    Got::redirected(&departing(seen, Port::Uplink))
                        .counting(counter(family, 0), &[Reverse(sent.counted())])
                } else {
                    Got::untouched(&sent.bytes())
                };
                lab.expect("port", Port::Wide, &sent.bytes(), &want);
            }
        }
        Ok(())
    })
}
