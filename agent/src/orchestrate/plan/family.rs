//! IPv4 and IPv6 tables alike: what the planner needs to know of either.

use std::{collections::BTreeMap, fmt::Debug, net::IpAddr};

use agent_common::abi::{
    Filter, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6, Side, TargetKind,
    TargetV4, TargetV6,
};

use super::{Actual, Effect};
use crate::model::{L4, Target};

/// The tables of one address family.
pub(super) trait Family {
    const NAME: &'static str;
    type Key: Copy + Ord + Debug;
    type Route: Copy + Eq;
    type Reverse: Copy + Eq;

    /// `None` if the address is of the other family.
    fn key(addr: IpAddr, l4: Option<L4>) -> Option<Self::Key>;
    /// `None` if a target is of the other family.
    fn route(slot: u32, counter: u32, primary: Target, ghost: Target) -> Option<Self::Route>;
    /// The reverse entry that gives `service` back.
    fn reverse(slot: u32, counter: u32, service: Self::Key, side: Side) -> Self::Reverse;

    fn slot(route: &Self::Route) -> u32;
    fn counter(route: &Self::Route) -> u32;
    fn reverse_counter(reverse: &Self::Reverse) -> u32;
    /// The key of the route that the reverse entry at `key` belongs to.
    fn service(key: &Self::Key, reverse: &Self::Reverse) -> Self::Key;
    /// The key of the address alone, without protocol and port.
    fn whole(key: &Self::Key) -> Self::Key;
    /// The first and the last possible key with the same address.
    fn span(key: &Self::Key) -> (Self::Key, Self::Key);
    /// Whether both keys name the same protocol and port, or none.
    fn same_l4(a: &Self::Key, b: &Self::Key) -> bool;
    /// The bits that a key sets in `gd_filter`.
    fn filters(key: &Self::Key) -> [Filter; 2];

    fn routes(actual: &Actual) -> &BTreeMap<Self::Key, Self::Route>;
    fn reverses(actual: &Actual) -> &BTreeMap<Self::Key, Self::Reverse>;

    fn put_route(key: Self::Key, value: Self::Route) -> Effect;
    fn put_reverse(key: Self::Key, value: Self::Reverse) -> Effect;
    fn delete_route(key: Self::Key) -> Effect;
    fn delete_reverse(key: Self::Key) -> Effect;
}

pub(super) struct V4;
pub(super) struct V6;

macro_rules! family {
    (
        $family:ident, $name:literal, $ip:ident, $bytes:literal, $pad:expr,
        $Key:ident, $Route:ident, $Reverse:ident, $Target:ident,
        $routes:ident, $reverses:ident, $filter:ident,
        $PutRoute:ident, $PutReverse:ident, $DeleteRoute:ident, $DeleteReverse:ident
    ) => {
        impl Family for $family {
            const NAME: &'static str = $name;
            type Key = $Key;
            type Route = $Route;
            type Reverse = $Reverse;

            fn key(addr: IpAddr, l4: Option<L4>) -> Option<$Key> {
                let IpAddr::$ip(addr) = addr else { return None };
                Some($Key {
                    addr_be: addr.octets(),
                    port_be: l4.map_or([0; 2], |l4| l4.port.to_be_bytes()),
                    protocol: l4.map_or(0, |l4| l4.protocol.number()),
                    pad: 0,
                })
            }

            fn route(slot: u32, counter: u32, primary: Target, ghost: Target) -> Option<$Route> {
                let target = |target| match target {
                    Target::Native => Some($Target {
                        addr_be: [0; $bytes],
                        port_be: [0; 2],
                        kind: TargetKind::Native as u8,
                        pad: 0,
                    }),
                    Target::Translate {
                        addr: IpAddr::$ip(addr),
                        port,
                    } => Some($Target {
                        addr_be: addr.octets(),
                        port_be: port.unwrap_or(0).to_be_bytes(),
                        kind: TargetKind::Translate as u8,
                        pad: 0,
                    }),
                    Target::Via {
                        addr: IpAddr::$ip(addr),
                    } => Some($Target {
                        addr_be: addr.octets(),
                        port_be: [0; 2],
                        kind: TargetKind::Via as u8,
                        pad: 0,
                    }),
                    Target::Translate { .. } | Target::Via { .. } => None,
                };
                Some($Route {
                    switch: slot,
                    counter,
                    primary: target(primary)?,
                    ghost: target(ghost)?,
                })
            }

            fn reverse(slot: u32, counter: u32, service: $Key, side: Side) -> $Reverse {
                $Reverse {
                    switch: slot,
                    counter,
                    service_be: service.addr_be,
                    port_be: service.port_be,
                    side: side as u8,
                    pad: $pad,
                }
            }

            fn slot(route: &$Route) -> u32 {
                route.switch
            }

            fn counter(route: &$Route) -> u32 {
                route.counter
            }

            fn reverse_counter(reverse: &$Reverse) -> u32 {
                reverse.counter
            }

            fn service(key: &$Key, reverse: &$Reverse) -> $Key {
                $Key {
                    addr_be: reverse.service_be,
                    port_be: reverse.port_be,
                    ..*key
                }
            }

            fn whole(key: &$Key) -> $Key {
                $Key {
                    port_be: [0; 2],
                    protocol: 0,
                    ..*key
                }
            }

            fn span(key: &$Key) -> ($Key, $Key) {
                let last = $Key {
                    port_be: [0xff; 2],
                    protocol: 0xff,
                    pad: 0xff,
                    ..*key
                };
                (Self::whole(key), last)
            }

            fn same_l4(a: &$Key, b: &$Key) -> bool {
                (a.port_be, a.protocol) == (b.port_be, b.protocol)
            }

            fn filters(key: &$Key) -> [Filter; 2] {
                Filter::$filter(key)
            }

            fn routes(actual: &Actual) -> &BTreeMap<$Key, $Route> {
                &actual.$routes
            }

            fn reverses(actual: &Actual) -> &BTreeMap<$Key, $Reverse> {
                &actual.$reverses
            }

            fn put_route(key: $Key, value: $Route) -> Effect {
                Effect::$PutRoute { key, value }
            }

            fn put_reverse(key: $Key, value: $Reverse) -> Effect {
                Effect::$PutReverse { key, value }
            }

            fn delete_route(key: $Key) -> Effect {
                Effect::$DeleteRoute { key }
            }

            fn delete_reverse(key: $Key) -> Effect {
                Effect::$DeleteReverse { key }
            }
        }
    };
}

family!(
    V4,
    "IPv4",
    V4,
    4,
    0,
    RouteKeyV4,
    RouteV4,
    ReverseV4,
    TargetV4,
    routes_v4,
    reverse_v4,
    of_v4,
    PutRouteV4,
    PutReverseV4,
    DeleteRouteV4,
    DeleteReverseV4
);
family!(
    V6,
    "IPv6",
    V6,
    16,
    [0; 5],
    RouteKeyV6,
    RouteV6,
    ReverseV6,
    TargetV6,
    routes_v6,
    reverse_v6,
    of_v6,
    PutRouteV6,
    PutReverseV6,
    DeleteRouteV6,
    DeleteReverseV6
);
