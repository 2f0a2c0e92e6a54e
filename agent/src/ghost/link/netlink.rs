//! One interface, changed over rtnetlink and read back.
//!
//! State and addresses are read by `getifaddrs`: the packet library refuses a
//! whole description of a link when a newer kernel says something more in it.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::{InterfaceFlags, if_indextoname, if_nametoindex},
    sys::socket::LinkAddr,
};
use rtnetlink::{
    Error, Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAttribute, RouteMessage, RouteScope, RouteType},
    },
};
use tokio::runtime::{Builder, Runtime};

use super::LinkError;
use crate::model::{MacAddress, Network};

/// The kernel answers within the call; other changes may hold its lock for a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Work that the kernel puts off takes milliseconds, and longer on a busy host.
const OWN_LIMIT: Duration = Duration::from_secs(2);
const OWN_LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) struct Link {
    runtime: Runtime,
    handle: Handle,
    interface: String,
    index: u32,
}

/// What the kernel says of an interface.
#[derive(Debug, Default)]
struct State {
    mac: Option<MacAddress>,
    is_up: bool,
    addresses: Vec<Network>,
}

impl Link {
    /// In this thread's network namespace.
    pub(super) fn open(interface: &str) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Open {
            interface: interface.to_owned(),
            source,
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        drop(entered);
        runtime.spawn(connection);
        let index = if_nametoindex(interface).map_err(|errno| LinkError::Missing {
            interface: interface.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            runtime,
            handle,
            interface: interface.to_owned(),
            index,
        })
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
        // The timer is to be made inside of the runtime.
        let answer = async { tokio::time::timeout(ANSWER_LIMIT, question).await };
        match self.runtime.block_on(answer) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::NetlinkError(message))) => Err(message.to_io()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn change(&self, what: String, done: io::Result<()>) -> Result<(), LinkError> {
        done.map_err(|source| LinkError::Change {
            interface: self.interface.clone(),
            what,
            source,
        })
    }

    fn unread(&self, what: &'static str) -> impl Fn(io::Error) -> LinkError {
        let interface = self.interface.clone();
        move |source| LinkError::Read {
            interface: interface.clone(),
            what,
            source,
        }
    }

    fn undone(&self, wanted: String) -> LinkError {
        let interface = self.interface.clone();
        LinkError::Undone { interface, wanted }
    }

    /// Switches it on, with this MAC.
    pub(super) fn raise(&self, mac: MacAddress) -> Result<(), LinkError> {
        let state = self.state()?;
        let this = || LinkUnspec::new_with_index(self.index);
        let mut is_up = state.is_up;
        if state.mac != Some(mac) {
            // The link-local address is made of the MAC when it goes up.
            if is_up {
                let done = self.ask(self.handle.link().change(this().down().build()).execute());
                self.change("switch down".to_owned(), done)?;
                is_up = false;
            }
            let message = this().address(mac.0.to_vec()).build();
            let done = self.ask(self.handle.link().change(message).execute());
            self.change(format!("set the MAC {mac}"), done)?;
        }
        if !is_up {
            let done = self.ask(self.handle.link().change(this().up().build()).execute());
            self.change("switch up".to_owned(), done)?;
        }
        Ok(())
    }

    pub(super) fn add_address(&self, network: Network) -> Result<(), LinkError> {
        let Network { addr, prefix } = network;
        let mut request = self.handle.address().add(self.index, addr, prefix);
        if addr.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            message.attributes.push(flags);
        }
        let done = is_there(self.ask(request.execute()));
        self.change(format!("add the address {addr}/{prefix}"), done)
    }

    /// To one address, which is on the link. One that is there already is
    /// left alone: [`Self::check_route`] tells whether it is ours.
    pub(super) fn add_route(&self, addr: IpAddr) -> Result<(), LinkError> {
        let scope = match addr {
            IpAddr::V4(_) => RouteScope::Link,
            IpAddr::V6(_) => RouteScope::Universe,
        };
        let route = route_to(addr).map(|route| {
            let route = route.output_interface(self.index).scope(scope);
            self.handle.route().add(route.build())
        });
        let done = route.and_then(|request| is_there(self.ask(request.execute())));
        self.change(format!("add a route to {addr}"), done)
    }

    pub(super) fn add_neighbour(&self, addr: IpAddr, mac: MacAddress) -> Result<(), LinkError> {
        let request = self
            .handle
            .neighbours()
            .add(self.index, addr)
            .state(NeighbourState::Permanent)
            .link_layer_address(&mac.0)
            .replace();
        let done = self.ask(request.execute());
        self.change(format!("set the neighbour {addr} to {mac}"), done)
    }

    /// Questions for this address that come by this interface are answered,
    /// although another one has it: so does IPv4 by itself.
    pub(super) fn answer_for(&self, addr: IpAddr) -> Result<(), LinkError> {
        let request = self
            .handle
            .neighbours()
            .add(self.index, addr)
            .flags(NeighbourFlags::Proxy | NeighbourFlags::Router)
            .replace();
        let done = self.ask(request.execute());
        self.change(format!("answer for the address {addr}"), done)
    }

    fn state(&self) -> Result<State, LinkError> {
        let unread = self.unread("the state");
        let mut state = State::default();
        let all = getifaddrs().map_err(|errno| unread(errno.into()))?;
        for entry in all.filter(|entry| entry.interface_name == self.interface) {
            state.is_up |= entry.flags.contains(InterfaceFlags::IFF_UP);
            let Some(address) = entry.address else {
                continue;
            };
            if let Some(mac) = address.as_link_addr().and_then(LinkAddr::addr) {
                state.mac = Some(MacAddress(mac));
            }
            let mask = entry.netmask;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            let ones = mask.and_then(|mask| {
                let v4 = mask.as_sockaddr_in().map(|m| m.ip().to_bits().count_ones());
                let v6 = mask.as_sockaddr_in6();
                v4.or(v6.map(|m| m.ip().to_bits().count_ones()))
            });
            if let (Some(addr), Some(ones)) = (v4.or(v6), ones) {
                let prefix = u8::try_from(ones).unwrap_or(u8::MAX);
                state.addresses.push(Network { addr, prefix });
            }
        }
        Ok(state)
    }

    pub(super) fn check_state(
        &self,
        mac: MacAddress,
        addresses: &[Network],
    ) -> Result<(), LinkError> {
        let state = self.state()?;
        if state.mac != Some(mac) {
            return Err(self.undone(format!("MAC {mac}")));
        }
        if !state.is_up {
            return Err(self.undone("state UP".to_owned()));
        }
        match addresses.iter().find(|a| !state.addresses.contains(a)) {
            Some(Network { addr, prefix }) => Err(self.undone(format!("address {addr}/{prefix}"))),
            None => Ok(()),
        }
    }

    /// The kernel takes an IPv6 address into use a moment after it has taken
    /// it in, and forwards packets to it until then.
    pub(super) fn await_own(&self, addr: IpAddr) -> Result<(), LinkError> {
        let deadline = Instant::now() + OWN_LIMIT;
        loop {
            let route = self.look_up(addr)?;
            if route.is_some_and(|route| route.header.kind == RouteType::Local) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.undone(format!("address {addr} in use")));
            }
            std::thread::sleep(OWN_LOOK_EVERY);
        }
    }

    fn look_up(&self, addr: IpAddr) -> Result<Option<RouteMessage>, LinkError> {
        let unread = self.unread("the routes");
        let request = route_to(addr).map_err(&unread)?.build();
        let mut answers = std::pin::pin!(self.handle.route().get(request).execute());
        match self.ask(answers.try_next()) {
            // As the kernel says that there is no way.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH)
                ) =>
            {
                Ok(None)
            }
            answer => answer.map_err(&unread),
        }
    }

    /// Asks as the kernel asks itself when a packet is to go there.
    pub(super) fn check_route(&self, addr: IpAddr) -> Result<(), LinkError> {
        let route = self.look_up(addr)?;
        match route.as_ref().and_then(interface_of) {
            Some(index) if index == self.index => Ok(()),
            Some(index) => Err(LinkError::Elsewhere {
                interface: self.interface.clone(),
                addr,
                other: if_indextoname(index).map_or_else(
                    |_| format!("interface {index}"),
                    |name| name.to_string_lossy().into_owned(),
                ),
            }),
            None => Err(self.undone(format!("route to {addr}"))),
        }
    }

    pub(super) fn check_neighbour(&self, addr: IpAddr, mac: MacAddress) -> Result<(), LinkError> {
        let family = match addr {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let all = self.handle.neighbours().get().set_address_family(family);
        let all = self.ask(all.execute().try_collect::<Vec<_>>());
        let all = all.map_err(self.unread("the neighbours"))?;
        let wanted = |n: &&NeighbourMessage| {
            n.header.ifindex == self.index
                && n.header.state == NeighbourState::Permanent
                && is_of(n, addr, mac)
        };
        match all.iter().find(wanted) {
            Some(_) => Ok(()),
            None => Err(self.undone(format!("neighbour {addr} at {mac}"))),
        }
    }
}

/// That it is there already is as good.
fn is_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done,
    }
}

fn route_to(addr: IpAddr) -> io::Result<RouteMessageBuilder<IpAddr>> {
    let prefix = if addr.is_ipv4() { 32 } else { 128 };
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(addr, prefix)
        .map_err(io::Error::other)
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn is_of(neighbour: &NeighbourMessage, addr: IpAddr, mac: MacAddress) -> bool {
    let attributes = &neighbour.attributes;
    let is_addr = |a: &NeighbourAttribute| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => IpAddr::V4(*v4) == addr,
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => IpAddr::V6(*v6) == addr,
        _ => false,
    };
    let is_mac = |a: &NeighbourAttribute| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice() == mac.0.as_slice(),
        _ => false,
    };
    attributes.iter().any(is_addr) && attributes.iter().any(is_mac)
}
