//! The verdict's surroundings as plain tables.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::Hash,
};

use agent_common::{
    abi::{
        Control, Filter, Flow, FlowKey, FragKey, Fragment, Position, Reason, ReverseV4, ReverseV6,
        RouteV4, RouteV6, Side, TargetKind, TargetV4, TargetV6, flags,
    },
    packet::{Addr, Ip, Kernel, NextHop, Rewrite, SwitchState, Traffic, V4, V6, Way},
};

/// Where packets leave, and the MAC addresses they leave with.
pub(crate) const EGRESS: u32 = 7;
pub(crate) const MACS: [u8; 12] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];

/// Address, port (raw) and protocol.
type Key<A> = (A, u16, u8);

#[derive(Default)]
pub(crate) struct Tables<A: Addr + Eq + Hash> {
    pub(crate) routes: HashMap<Key<A>, A::RouteRow>,
    pub(crate) reverses: HashMap<Key<A>, A::ReverseRow>,
    pub(crate) switches: Vec<SwitchState>,
    pub(crate) host_generation: u16,
    pub(crate) now_ns: Cell<u64>,
    pub(crate) asked: RefCell<HashMap<FlowKey, u64>>,
    pub(crate) flows: RefCell<HashMap<FlowKey, Flow>>,
    pub(crate) fragments: RefCell<HashMap<FragKey, Fragment>>,
    pub(crate) hop: Option<NextHop>,
    /// Whose next hops were asked for.
    pub(crate) toward: RefCell<Vec<A>>,
    pub(crate) counted: RefCell<Vec<(u32, Traffic, u64)>>,
    pub(crate) given_up: RefCell<Vec<(u32, Reason)>>,
    pub(crate) icmp_tokens: Cell<u32>,
}

pub(crate) fn direct(mtu: u32) -> NextHop {
    let word = |i: usize| u32::from_ne_bytes([MACS[i], MACS[i + 1], MACS[i + 2], MACS[i + 3]]);
    NextHop {
        way: Way::Direct,
        egress: EGRESS,
        macs: [word(0), word(4), word(8)],
        mtu,
    }
}

pub(crate) fn switch(position: Position, flags: u8) -> SwitchState {
    SwitchState {
        control: Control {
            position: position as u8,
            flags,
            host_generation_seen: 0,
            term: 1,
        },
        lease_ns: 0,
        drain_idle_ns: 60_000_000_000,
    }
}

pub(crate) const TRACKED: u8 = flags::ARMED | flags::TRACK;

/// A service, the copy that stands in for it, and the client.
pub(crate) trait Places: Addr + Eq + Hash {
    const SERVICE: Self;
    const GHOST: Self;
    const CLIENT: Self;
    fn route(ghost_port: u16) -> Self::RouteRow;
    /// The ghost has the service address too, behind the next hop to [`Self::GHOST`].
    fn via() -> Self::RouteRow;
    fn reverse(service_port: u16) -> Self::ReverseRow;
}

impl Places for V4 {
    const SERVICE: Self = V4([198, 51, 100, 10]);
    const GHOST: Self = V4([10, 77, 2, 2]);
    const CLIENT: Self = V4([203, 0, 113, 9]);

    fn route(ghost_port: u16) -> RouteV4 {
        let target = |kind: TargetKind, addr: Self, port: u16| TargetV4 {
            addr_be: addr.0,
            port_be: port.to_be_bytes(),
            kind: kind as u8,
            pad: 0,
        };
        RouteV4 {
            switch: 0,
            counter: 3,
            primary: target(TargetKind::Native, Self::SERVICE, 0),
            ghost: target(TargetKind::Translate, Self::GHOST, ghost_port),
        }
    }

    fn via() -> Self::RouteRow {
        let mut route = Self::route(0);
        route.ghost.kind = TargetKind::Via as u8;
        route
    }

    fn reverse(service_port: u16) -> ReverseV4 {
        ReverseV4 {
            switch: 0,
            counter: 3,
            service_be: Self::SERVICE.0,
            port_be: service_port.to_be_bytes(),
            side: Side::Ghost as u8,
            pad: 0,
        }
    }
}

const fn v6(last: u8) -> V6 {
    V6::from_bytes([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

impl Places for V6 {
    const SERVICE: Self = v6(0x10);
    const GHOST: Self = v6(0x22);
    const CLIENT: Self = v6(0x99);

    fn route(ghost_port: u16) -> RouteV6 {
        let target = |kind: TargetKind, addr: Self, port: u16| TargetV6 {
            addr_be: addr.bytes(),
            port_be: port.to_be_bytes(),
            kind: kind as u8,
            pad: 0,
        };
        RouteV6 {
            switch: 0,
            counter: 3,
            primary: target(TargetKind::Native, Self::SERVICE, 0),
            ghost: target(TargetKind::Translate, Self::GHOST, ghost_port),
        }
    }

    fn via() -> Self::RouteRow {
        let mut route = Self::route(0);
        route.ghost.kind = TargetKind::Via as u8;
        route
    }

    fn reverse(service_port: u16) -> ReverseV6 {
        ReverseV6 {
            switch: 0,
            counter: 3,
            service_be: Self::SERVICE.bytes(),
            port_be: service_port.to_be_bytes(),
            side: Side::Ghost as u8,
            pad: [0; 5],
        }
    }
}

impl<A: Places> Tables<A> {
    /// One address route, at `position`.
    pub(crate) fn new(position: Position, flags: u8) -> Self {
        Self {
            routes: HashMap::from([((A::SERVICE, 0, 0), A::route(0))]),
            reverses: HashMap::from([((A::GHOST, 0, 0), A::reverse(0))]),
            ..Self::bare(position, flags)
        }
    }

    /// One port route: `protocol` at `port` goes to `ghost_port`.
    pub(crate) fn with_port(
        position: Position,
        flags: u8,
        protocol: u8,
        port: u16,
        ghost_port: u16,
    ) -> Self {
        Self {
            routes: HashMap::from([((A::SERVICE, port.to_be(), protocol), A::route(ghost_port))]),
            reverses: HashMap::from([((A::GHOST, ghost_port.to_be(), protocol), A::reverse(port))]),
            ..Self::bare(position, flags)
        }
    }

    /// One address route whose ghost is behind a next hop.
    pub(crate) fn via(position: Position, flags: u8) -> Self {
        Self {
            routes: HashMap::from([((A::SERVICE, 0, 0), A::via())]),
            ..Self::bare(position, flags)
        }
    }

    fn bare(position: Position, flags: u8) -> Self {
        Self {
            routes: HashMap::new(),
            reverses: HashMap::new(),
            switches: vec![switch(position, flags)],
            host_generation: 0,
            now_ns: Cell::new(1_000_000_000),
            asked: RefCell::default(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            hop: Some(direct(1500)),
            toward: RefCell::default(),
            counted: RefCell::default(),
            given_up: RefCell::default(),
            icmp_tokens: Cell::new(1),
        }
    }

    pub(crate) fn move_to(&mut self, position: Position) {
        self.switches[0].control.position = position as u8;
    }
}

impl<A: Addr + Eq + Hash> Kernel<A> for Tables<A> {
    fn may_match(&self, filter: Filter) -> bool {
        // As the loader sets them: the bits of all keys, no more.
        self.routes
            .keys()
            .chain(self.reverses.keys())
            .any(|(addr, port, protocol)| {
                addr.filter() == filter
                    || *protocol != 0 && addr.port_filter(*port, *protocol) == filter
            })
    }

    fn route(&self, addr: &A, port_raw: u16, protocol: u8) -> Option<&A::RouteRow> {
        self.routes.get(&(*addr, port_raw, protocol))
    }

    fn reverse(&self, addr: &A, port_raw: u16, protocol: u8) -> Option<&A::ReverseRow> {
        self.reverses.get(&(*addr, port_raw, protocol))
    }

    fn switch(&self, slot: u32) -> Option<SwitchState> {
        self.switches.get(slot as usize).copied()
    }

    fn host_generation(&self) -> u16 {
        self.host_generation
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn asked_lately(&self, key: &FlowKey, now_ns: u64) -> bool {
        let mut asked = self.asked.borrow_mut();
        let lately = asked.get(key).is_some_and(|until_ns| *until_ns > now_ns);
        if !lately {
            asked.insert(*key, now_ns + 100_000_000);
        }
        lately
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.borrow().get(key).copied()
    }

    fn put_flow(&self, key: &FlowKey, flow: &Flow) {
        self.flows.borrow_mut().insert(*key, *flow);
    }

    fn forget_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn fragment(&self, key: &FragKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragKey, fragment: &Fragment) {
        self.fragments.borrow_mut().insert(*key, *fragment);
    }

    fn next_hop(&self, _ip: &Ip<A>, new: &Rewrite<A>) -> NextHop {
        self.toward.borrow_mut().push(new.toward);
        self.hop.unwrap_or(NextHop::other(Way::Up))
    }

    fn count(&self, counter: u32, traffic: Traffic, bytes: u64) {
        self.counted.borrow_mut().push((counter, traffic, bytes));
    }

    fn give_up(&self, counter: u32, reason: Reason) {
        self.given_up.borrow_mut().push((counter, reason));
    }

    fn icmp_token(&self) -> bool {
        let left = self.icmp_tokens.get();
        self.icmp_tokens.set(left.saturating_sub(1));
        left > 0
    }
}
