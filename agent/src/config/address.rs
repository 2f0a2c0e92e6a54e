//! Addresses of services and of their copies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    problem::{Draft, Problems},
    read::Value,
};

/// An address that routes can have.
pub(super) fn service(value: &Value<'_>, problems: &mut Problems) -> Option<IpAddr> {
    let text = value.string(problems)?;
    match text.parse() {
        Ok(addr) => usable(addr, value, problems),
        Err(_) => {
            let help = if text.parse::<SocketAddr>().is_ok() {
                "give the port apart, with its protocol: protocol = \"tcp\" and port = ..."
            } else if text.contains('/') {
                "a route serves one address, not a network"
            } else if text.contains('%') {
                "scoped addresses cannot be steered"
            } else {
                "for example 198.51.100.10 or 2001:db8::10"
            };
            refuse(text, help, value, problems);
            None
        }
    }
}

/// Where a side of a route is, as written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Native,
    At { addr: IpAddr, port: Option<u16> },
    Via { addr: IpAddr },
}

pub(super) fn target(value: &Value<'_>, problems: &mut Problems) -> Option<Written> {
    let text = value.string(problems)?;
    if text == "native" {
        return Some(Written::Native);
    }
    if let Some(("via", next_hop)) = text
        .split_once(' ')
        .or((text == "via").then_some((text, "")))
    {
        return via(next_hop.trim(), value, problems);
    }
    if text.contains('%') {
        refuse(text, "scoped addresses cannot be steered", value, problems);
        return None;
    }
    let (addr, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(addr), _) => (addr, None),
        (_, Ok(socket)) => (socket.ip(), Some(socket.port())),
        (Err(_), Err(_)) => {
            let help = "for example 10.0.0.3, 10.0.0.3:8443, 2001:db8::3 or [2001:db8::3]:8443";
            refuse(text, help, value, problems);
            return None;
        }
    };
    if port == Some(0) {
        let draft = Draft::new(value.span.clone(), "a port is from 1 to 65535", "port 0");
        problems.error(draft);
        return None;
    }
    let addr = usable(addr, value, problems)?;
    Some(Written::At { addr, port })
}

fn via(text: &str, value: &Value<'_>, problems: &mut Problems) -> Option<Written> {
    match text.parse() {
        Ok(addr) => Some(Written::Via {
            addr: usable(addr, value, problems)?,
        }),
        Err(_) => {
            let help = if text.parse::<SocketAddr>().is_ok() {
                "a next hop has no port: packets keep theirs"
            } else if text.contains('%') {
                "scoped addresses cannot be steered"
            } else {
                "for example \"via 10.77.9.2\" or \"via 2001:db8:77:9::2\""
            };
            let shown = if text.is_empty() { "via" } else { text };
            refuse(shown, help, value, problems);
            None
        }
    }
}

fn refuse(text: &str, help: &str, value: &Value<'_>, problems: &mut Problems) {
    let message = format!("`{}` is not an address", text.escape_debug());
    problems.error(Draft::new(value.span.clone(), message, "not an address").help(help));
}

fn usable(addr: IpAddr, value: &Value<'_>, problems: &mut Problems) -> Option<IpAddr> {
    let fault = match addr {
        IpAddr::V4(addr) => unusable_v4(addr),
        IpAddr::V6(addr) => unusable_v6(addr),
    };
    let Some((what, help)) = fault else {
        return Some(addr);
    };
    let message = format!("{addr} is {what}, which cannot be steered");
    problems.error(Draft::new(value.span.clone(), message, what).help(help));
    None
}

type Fault = Option<(&'static str, &'static str)>;

const ONE_COPY: &str = "give the address of one copy of the service";

fn unusable_v4(addr: Ipv4Addr) -> Fault {
    if addr.octets()[0] == 0 {
        Some(("an unspecified address", ONE_COPY))
    } else if addr.is_loopback() {
        Some(("a loopback address", "its packets never reach an uplink"))
    } else if addr.is_multicast() {
        Some(("a multicast address", ONE_COPY))
    } else if addr.is_broadcast() {
        Some(("the broadcast address", ONE_COPY))
    } else if addr.is_link_local() {
        Some((
            "a link-local address",
            "it means something else on each link",
        ))
    } else {
        None
    }
}

fn unusable_v6(addr: Ipv6Addr) -> Fault {
    if addr.is_unspecified() {
        Some(("the unspecified address", ONE_COPY))
    } else if addr.is_loopback() {
        Some(("the loopback address", "its packets never reach an uplink"))
    } else if addr.is_multicast() {
        Some(("a multicast address", ONE_COPY))
    } else if addr.is_unicast_link_local() {
        Some((
            "a link-local address",
            "it means something else on each link",
        ))
    } else if addr.to_ipv4_mapped().is_some() {
        Some(("an IPv4-mapped address", "write the IPv4 address itself"))
    } else {
        None
    }
}
