//! Filling the tables, as the daemon does: filter bits first.

use std::net::IpAddr;

use agent_common::abi::{
    Control, Filter, Position, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6,
    Side, Switch, TargetKind, TargetV4, TargetV6, names,
};
use anyhow::Result;
use ghostd_tests::bpf::Object;

/// An address, or one port of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) addr: IpAddr,
    /// Protocol and port; zeros for the whole address.
    pub(crate) l4: (u8, u16),
}

impl Key {
    pub(crate) const fn whole(addr: IpAddr) -> Self {
        Self { addr, l4: (0, 0) }
    }

    pub(crate) const fn port(addr: IpAddr, protocol: u8, port: u16) -> Self {
        Self {
            addr,
            l4: (protocol, port),
        }
    }
}

/// Where one side's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Native,
    /// The protocol of the key does not matter.
    Translate(Key),
    /// The next hop's address.
    Via(IpAddr),
}

/// Slots of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    pub(crate) switch: u32,
    pub(crate) counter: u32,
}

macro_rules! family {
    ($put_route:ident, $put_reverse:ident, $key:ident, $ip:ident, $bytes:literal,
     $Key:ident, $Route:ident, $Reverse:ident, $Target:ident, $filters:ident,
     $routes:ident, $reverses:ident, $pad:expr) => {
        fn $key(key: Key) -> Result<$Key> {
            let IpAddr::$ip(addr) = key.addr else {
                anyhow::bail!("{} is of the other family", key.addr)
            };
            Ok($Key {
                addr_be: addr.octets(),
                port_be: key.l4.1.to_be_bytes(),
                protocol: key.l4.0,
                pad: 0,
            })
        }

        fn $put_route(
            object: &mut Object,
            at: Slots,
            service: Key,
            sides: [Target; 2],
        ) -> Result<()> {
            let target = |target| -> Result<$Target> {
                let (addr_be, port_be, kind) = match target {
                    Target::Native => ([0; $bytes], [0; 2], TargetKind::Native),
                    Target::Translate(to) => {
                        let to = $key(to)?;
                        (to.addr_be, to.port_be, TargetKind::Translate)
                    }
                    Target::Via(addr) => ($key(Key::whole(addr))?.addr_be, [0; 2], TargetKind::Via),
                };
                Ok($Target {
                    addr_be,
                    port_be,
                    kind: kind as u8,
                    pad: 0,
                })
            };
            let key = $key(service)?;
            set_filter(object, Filter::$filters(&key))?;
            let row = $Route {
                switch: at.switch,
                counter: at.counter,
                primary: target(sides[0])?,
                ghost: target(sides[1])?,
            };
            object.insert(names::$routes, key, row)
        }

        fn $put_reverse(
            object: &mut Object,
            at: Slots,
            copy: Key,
            service: Key,
            side: Side,
        ) -> Result<()> {
            let key = $key(copy)?;
            set_filter(object, Filter::$filters(&key))?;
            let service = $key(service)?;
            let row = $Reverse {
                switch: at.switch,
                counter: at.counter,
                service_be: service.addr_be,
                port_be: service.port_be,
                side: side as u8,
                pad: $pad,
            };
            object.insert(names::$reverses, key, row)
        }
    };
}

family!(
    put_route_v4,
    put_reverse_v4,
    key_v4,
    V4,
    4,
    RouteKeyV4,
    RouteV4,
    ReverseV4,
    TargetV4,
    of_v4,
    ROUTES_V4,
    REVERSE_V4,
    0
);
family!(
    put_route_v6,
    put_reverse_v6,
    key_v6,
    V6,
    16,
    RouteKeyV6,
    RouteV6,
    ReverseV6,
    TargetV6,
    of_v6,
    ROUTES_V6,
    REVERSE_V6,
    [0; 5]
);

/// `sides`: primary, ghost.
pub(crate) fn put_route(
    object: &mut Object,
    at: Slots,
    service: Key,
    sides: [Target; 2],
) -> Result<()> {
    match service.addr {
        IpAddr::V4(_) => put_route_v4(object, at, service, sides),
        IpAddr::V6(_) => put_route_v6(object, at, service, sides),
    }
}

/// What `copy` sends comes from `service`.
pub(crate) fn put_reverse(
    object: &mut Object,
    at: Slots,
    copy: Key,
    service: Key,
    side: Side,
) -> Result<()> {
    match copy.addr {
        IpAddr::V4(_) => put_reverse_v4(object, at, copy, service, side),
        IpAddr::V6(_) => put_reverse_v6(object, at, copy, service, side),
    }
}

fn set_filter(object: &mut Object, bits: [Filter; 2]) -> Result<()> {
    for Filter { word, mask } in bits {
        let old: u64 = object.get(names::FILTER, word)?;
        object.set(names::FILTER, word, old | mask)?;
    }
    Ok(())
}

/// A switch that has no lease, was never moved, and drains flows for a minute.
pub(crate) fn switch(position: Position, flags: u8) -> Switch {
    Switch {
        control: Control {
            position: position as u8,
            flags,
            host_generation_seen: 0,
            term: 5,
        },
        drain_idle_ns: 60_000_000_000,
        ..Switch::UNUSED
    }
}
