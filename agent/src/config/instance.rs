//! `[[instance]]` with its routes and ports.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use agent_common::abi::{FenceMode, Side};

use super::{
    address::{self, Written},
    problem::{Draft, Problems, Span},
    read::{Section, Value},
    reserve,
    schema::InstancePlace,
    sections,
    vm::{self, FoundVm},
};
use crate::model::{
    Affinity, InstanceName, InstanceSpec, L4, PortSpec, Protocol, RouteSpec, Service, Stake, Target,
};

/// A minute without a packet: longer than the pauses of a busy connection,
/// shorter than most firewalls remember one.
const DRAIN_IDLE: Duration = Duration::from_secs(60);
const DRAIN_IDLE_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86_400);

/// An hour: most sessions end by themselves, and a forgotten one does not
/// keep a ghost running for days.
const DRAIN_MAX: Duration = Duration::from_secs(3600);
const DRAIN_MAX_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 86_400);

/// Bytes of an owner's name; an account id or a domain name fits.
const OWNER_BYTES_MAX: usize = 255;

/// An instance as far as it could be read.
pub(super) struct Found {
    pub(super) span: Span,
    pub(super) name: Option<(InstanceName, Span)>,
    owner: Option<String>,
    pub(super) cgroup: Option<(PathBuf, Span)>,
    armed: bool,
    affinity: Affinity,
    pub(super) routes: Vec<FoundRoute>,
    pub(super) ports: Vec<(PortSpec, Span)>,
    pub(super) vm: Option<FoundVm>,
    stake: Stake,
}

/// A route and where its parts stand.
pub(super) struct FoundRoute {
    pub(super) spec: RouteSpec,
    pub(super) service: Span,
    /// The header of the route where it says nothing about its primary.
    pub(super) primary: Span,
    pub(super) ghost: Span,
}

impl Found {
    /// `None` if the name could not be read; an error has been reported.
    pub(super) fn complete(self) -> Option<(InstanceSpec, InstancePlace)> {
        let (cgroup, cgroup_span) = self.cgroup.unzip();
        let (ports, port_spans) = self.ports.into_iter().unzip();
        let spec = InstanceSpec {
            name: self.name?.0,
            owner: self.owner,
            cgroup,
            armed: self.armed,
            affinity: self.affinity,
            routes: self.routes.into_iter().map(|route| route.spec).collect(),
            ports,
            vm: self.vm.map(|vm| vm.spec),
            stake: self.stake,
        };
        let place = InstancePlace {
            cgroup: cgroup_span,
            ports: port_spans,
        };
        Some((spec, place))
    }
}

pub(super) fn read(mut section: Section<'_>, problems: &mut Problems) -> Found {
    let help = "for example: name = \"db1\"";
    let name = section.require("name", help, problems);
    let name = name.and_then(|value| Some((instance_name(&value, problems)?, value.span)));
    let owner = section.take("owner");
    let owner = owner.and_then(|value| owner_name(&value, problems));
    let cgroup = section.take("cgroup").and_then(|value| {
        let span = value.span.clone();
        Some((sections::path(Some(value), problems)?, span))
    });
    let armed = section.take("armed");
    let armed = armed.and_then(|value| value.boolean(problems));
    let written = section.take("affinity");
    let said = written.is_some();
    let affinity = affinity(written.as_ref(), &mut section, problems);

    let stake = reserve::stake(&mut section, problems);
    let vm = section.section("vm", "[instance.vm]", problems);
    let vm_span = vm.as_ref().map(|section| section.span.clone());
    let vm = vm.and_then(|section| vm::read(section, problems));
    let mut routes = Vec::new();
    let found = section.sections("route", "[[instance.route]]", problems);
    // A microVM may be there for itself.
    if found.as_ref().is_some_and(Vec::is_empty) && vm_span.is_none() {
        let draft = Draft::new(
            section.span.clone(),
            "the instance has no route",
            "no route",
        );
        problems.error(draft.help("add [[instance.route]] with service and ghost"));
    }
    for found in found.into_iter().flatten() {
        routes.extend(route(found, problems));
    }
    let via = |r: &&FoundRoute| matches!(r.spec.ghost, Target::Via { .. });
    if let Some(route) = routes.iter().find(via).filter(|_| !said) {
        let message = "a ghost with the service address, in an instance that has no `affinity`";
        let draft = Draft::new(route.ghost.clone(), message, "may be memory-exact");
        problems.warning(draft.help(
            "affinity = \"none\" if it is: connections go on. With \"connections\", which holds now, \
             they are tracked, and draining lets both copies speak",
        ));
    }
    let mut ports = Vec::new();
    let found = section.sections("port", "[[instance.port]]", problems);
    for found in found.into_iter().flatten() {
        ports.extend(port(found, problems));
    }
    if let (Some(vm), Some(span)) = (&vm, &vm_span) {
        vm::check_ports(vm, span, &ports, problems);
    }
    let span = section.span.clone();
    section.finish(problems);
    let armed = armed.unwrap_or(true);
    if let Some((name, span)) = name.as_ref().filter(|_| armed && cgroup.is_none()) {
        let message = format!("instance `{name}` is armed but has no `cgroup`");
        let draft = Draft::new(span.clone(), message, "no cgroup");
        problems.warning(draft.help(
            "its own reboot will not be noticed: only a reboot of the host, and commands, move it",
        ));
    }
    Found {
        span,
        name,
        owner,
        cgroup,
        armed,
        affinity,
        routes,
        ports,
        vm,
        stake,
    }
}

fn instance_name(value: &Value<'_>, problems: &mut Problems) -> Option<InstanceName> {
    let text = value.string(problems)?;
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let draft = Draft::new(value.span.clone(), error.to_string(), "not a name");
            problems.error(draft.help("for example db1, or web-2.acme"));
            None
        }
    }
}

pub(super) fn owner_name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let text = value.string(problems)?;
    if text.is_empty() || text.len() > OWNER_BYTES_MAX || text.contains(char::is_control) {
        let message = format!("an owner is 1 to {OWNER_BYTES_MAX} bytes of printable text");
        problems.error(Draft::new(value.span.clone(), message, "not an owner"));
        return None;
    }
    Some(text.to_owned())
}

fn affinity(
    written: Option<&Value<'_>>,
    section: &mut Section<'_>,
    problems: &mut Problems,
) -> Affinity {
    let tracked =
        written.and_then(|value| value.choice(&[("connections", true), ("none", false)], problems));
    let idle = section.take("drain_idle_s");
    let drain_max = section.take("drain_max_s");
    if tracked == Some(false) {
        for value in [&idle, &drain_max].into_iter().flatten() {
            let message = "with affinity = \"none\" there is nothing to drain";
            problems.warning(Draft::new(value.span.clone(), message, "has no effect"));
        }
    }
    let idle = idle.and_then(|value| value.seconds(DRAIN_IDLE_RANGE, problems));
    let drain_max = drain_max.and_then(|value| value.seconds(DRAIN_MAX_RANGE, problems));
    match tracked {
        Some(false) => Affinity::None,
        // The safe choice: tracking costs a little, a broken connection more.
        Some(true) | None => Affinity::Connections {
            idle: idle.unwrap_or(DRAIN_IDLE),
            drain_max: drain_max.unwrap_or(DRAIN_MAX),
        },
    }
}

fn route(mut section: Section<'_>, problems: &mut Problems) -> Option<FoundRoute> {
    let span = section.span.clone();
    let service = section.require("service", "the address that clients use", problems);
    let l4 = l4(&mut section, problems);
    let primary = section.take("primary");
    let help = "the address of the ghost, for example: ghost = \"10.0.0.3\"";
    let ghost = section.require("ghost", help, problems);
    section.finish(problems);

    let primary_span = primary.as_ref().map_or(span, |value| value.span.clone());
    let primary = match primary {
        Some(value) => address::target(&value, problems),
        None => Some(Written::Native),
    };
    let ghost_span = ghost.as_ref().map(|value| value.span.clone());
    let ghost = ghost.and_then(|value| address::target(&value, problems));
    let service_span = service.as_ref().map(|value| value.span.clone());
    let addr = service.and_then(|value| address::service(&value, problems));

    let service = Service {
        addr: addr?,
        l4: l4?,
    };
    let (service_span, ghost_span) = (service_span?, ghost_span?);
    if ghost == Some(Written::Native) {
        let draft = Draft::new(
            ghost_span,
            "a ghost needs an address of its own",
            "the service address is the primary's",
        );
        problems.error(draft.help(
            "if the ghost has the service address too, say behind which next hop: ghost = \"via 10.77.9.2\"",
        ));
        return None;
    }
    let primary = target(service, &service_span, primary?, &primary_span, problems);
    let ghost = target(service, &service_span, ghost?, &ghost_span, problems);
    Some(FoundRoute {
        spec: RouteSpec {
            service,
            primary: primary?,
            ghost: ghost?,
        },
        service: service_span,
        primary: primary_span,
        ghost: ghost_span,
    })
}

/// The outer `None` is an error that has been reported.
fn l4(section: &mut Section<'_>, problems: &mut Problems) -> Option<Option<L4>> {
    let protocol = section.take("protocol");
    let port = section.take("port");
    let (protocol, port) = match (protocol, port) {
        (None, None) => return Some(None),
        (Some(protocol), Some(port)) => (protocol, port),
        (Some(alone), None) => {
            let draft = Draft::new(
                alone.span,
                "a route with a protocol needs a port",
                "no port",
            );
            problems.error(draft.help("a route serves one port, or all protocols of an address"));
            return None;
        }
        (None, Some(alone)) => {
            let message = "a route with a port needs a protocol";
            let draft = Draft::new(alone.span, message, "no protocol");
            problems.error(draft.help("add protocol = \"tcp\" or protocol = \"udp\""));
            return None;
        }
    };
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = protocol.choice(&protocols, problems);
    let port = port.integer(1..=65_535, problems);
    Some(Some(L4 {
        protocol: protocol?,
        port: u16::try_from(port?).ok()?,
    }))
}

/// What the side means on a route of this service.
fn target(
    service: Service,
    service_span: &Span,
    written: Written,
    span: &Span,
    problems: &mut Problems,
) -> Option<Target> {
    let (addr, port) = match written {
        Written::Native => return Some(Target::Native),
        Written::At { addr, port } => (addr, port),
        Written::Via { addr } => (addr, None),
    };
    let family = |addr: IpAddr| if addr.is_ipv4() { "IPv4" } else { "IPv6" };
    if family(addr) != family(service.addr) {
        let (to, from) = (family(addr), family(service.addr));
        let message = format!("an {from} service cannot be steered to an {to} address");
        let draft = Draft::new(span.clone(), message, to);
        problems.error(draft.also(service_span.clone(), from));
        return None;
    }
    if let Written::Via { addr } = written {
        return Some(Target::Via { addr });
    }
    let port = match (service.l4, port) {
        (Some(l4), port) => Some(port.unwrap_or(l4.port)),
        (None, None) => None,
        (None, Some(_)) => {
            let message = "a route of a whole address cannot change the port";
            let draft = Draft::new(span.clone(), message, "names a port");
            let draft = draft.also(service_span.clone(), "all protocols and ports");
            problems.error(draft.help("add protocol and port, or leave the port out here"));
            return None;
        }
    };
    Some(Target::Translate { addr, port })
}

fn port(mut section: Section<'_>, problems: &mut Problems) -> Option<(PortSpec, Span)> {
    let help = "the host's end of the copy's interface, for example: interface = \"vnet0\"";
    let interface = section.require("interface", help, problems);
    let interface =
        interface.and_then(|value| Some((sections::interface_name(&value, problems)?, value.span)));
    let sides = [("primary", Side::Primary), ("ghost", Side::Ghost)];
    let side = section.require("side", "\"primary\" or \"ghost\"", problems);
    let side = side.and_then(|value| value.choice(&sides, problems));
    let fences = [
        ("off", FenceMode::Off),
        ("quiet", FenceMode::Quiet),
        ("silent", FenceMode::Silent),
    ];
    let fence = section.take("fence");
    // Default: nothing is heard of a copy that may not speak, but neighbours
    // stay resolved, so that the first packet after a throw finds its way.
    let fence = match fence {
        Some(value) => value.choice(&fences, problems),
        None => Some(FenceMode::Quiet),
    };
    section.finish(problems);
    let (interface, span) = interface?;
    let spec = PortSpec {
        interface,
        side: side?,
        fence: fence?,
    };
    Some((spec, span))
}
