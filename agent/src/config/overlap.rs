//! What must not meet: names, services, targets, interfaces, cgroups.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use super::{
    instance::{Found, FoundRoute},
    problem::{Draft, Problems, Span},
    schema::Places,
    vm,
};
use crate::model::{L4, Limits, Service, Target};

pub(super) fn check(found: &[Found], places: &Places, limits: &Limits, problems: &mut Problems) {
    totals(found, limits, problems);
    names(found, problems);
    interfaces(found, places, problems);
    cgroups(found, problems);
    microvms(found, problems);
    let services = services(found, problems);
    targets(found, &services, problems);
}

/// Two guests on one disk destroy it; two stations with one address are deaf
/// by turns.
fn microvms(found: &[Found], problems: &mut Problems) {
    let (mut disks, mut macs) = (HashMap::new(), HashMap::new());
    for vm in found.iter().filter_map(|instance| instance.vm.as_ref()) {
        if let Some((disk, span)) = vm::disk_of(vm)
            && let Some(first) = disks.insert(disk, span)
        {
            let message = format!("two microVMs have the disk {}", disk.display());
            let draft = Draft::new(span.clone(), message, "again here");
            problems.error(draft.also(first.clone(), "first here"));
        }
        if let Some((mac, span)) = vm.spec.mac.zip(vm.mac.as_ref())
            && let Some(first) = macs.insert(mac, span)
        {
            let message = format!("two microVMs have the Ethernet address {mac}");
            let draft = Draft::new(span.clone(), message, "again here");
            problems.error(draft.also(first.clone(), "first here"));
        }
    }
}

fn totals(found: &[Found], limits: &Limits, problems: &mut Problems) {
    let help =
        |key| format!("raise `{key}` in [limits]; that needs a clean start, see `ghostctl clean`");
    if let Some(first) = found.get(limits.instances as usize) {
        let (all, limit) = (found.len(), limits.instances);
        let message = format!("{all} instances are more than the limit of {limit}");
        let draft = Draft::new(first.span.clone(), message, "the first beyond the limit");
        problems.error(draft.help(help("instances")));
    }
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let routes = || all_routes(found).filter(|(_, r)| r.spec.service.addr.is_ipv4() == v4);
        if let Some((_, first)) = routes().nth(limits.routes as usize) {
            let (all, limit) = (routes().count(), limits.routes);
            let message = format!("{all} {family} routes are more than the limit of {limit}");
            let draft = Draft::new(first.service.clone(), message, "the first beyond the limit");
            problems.error(draft.help(help("routes")));
        }
    }
}

fn all_routes(found: &[Found]) -> impl Iterator<Item = (usize, &FoundRoute)> {
    found
        .iter()
        .enumerate()
        .flat_map(|(place, instance)| instance.routes.iter().map(move |route| (place, route)))
}

fn names(found: &[Found], problems: &mut Problems) {
    let mut seen = HashMap::new();
    for (name, span) in found.iter().filter_map(|instance| instance.name.as_ref()) {
        if let Some(first) = seen.insert(name, span) {
            let message = format!("two instances are called `{name}`");
            let draft = Draft::new(span.clone(), message, "again here");
            problems.error(draft.also(first.clone(), "first here"));
        }
    }
}

fn interfaces(found: &[Found], places: &Places, problems: &mut Problems) {
    let mut seen: HashMap<&str, (&Span, &str)> = HashMap::new();
    for (name, span) in &places.uplinks {
        seen.insert(name, (span, "an uplink here"));
    }
    for (port, span) in found.iter().flat_map(|instance| &instance.ports) {
        match seen.get(port.interface.as_str()) {
            Some(&(first, what)) => {
                let message = format!("interface `{}` has two uses", port.interface);
                let draft = Draft::new(span.clone(), message, "a port here");
                let draft = draft.also(first.clone(), what);
                problems.error(draft.help("an interface leads to one copy of one instance"));
            }
            None => {
                seen.insert(&port.interface, (span, "a port here already"));
            }
        }
    }
}

fn cgroups(found: &[Found], problems: &mut Problems) {
    let mut seen: HashMap<&PathBuf, &Span> = HashMap::new();
    for (path, span) in found.iter().filter_map(|instance| instance.cgroup.as_ref()) {
        if let Some(first) = seen.insert(path, span) {
            let message = format!("two instances have the cgroup {}", path.display());
            let draft = Draft::new(span.clone(), message, "again here");
            let draft = draft.also(first.clone(), "first here");
            problems.error(draft.help("a reboot would be taken for the wrong instance's"));
        }
    }
}

/// Services or targets with one address: the address as a whole, and ports.
struct At<T> {
    whole: Option<T>,
    ports: BTreeMap<L4, T>,
}

impl<T> Default for At<T> {
    fn default() -> Self {
        Self {
            whole: None,
            ports: BTreeMap::new(),
        }
    }
}

impl<T> At<T> {
    /// Those that have packets in common with `l4`.
    fn meeting(&self, l4: Option<L4>) -> impl Iterator<Item = &T> {
        let (all, one) = match l4 {
            None => (Some(self.ports.values()), None),
            Some(l4) => (None, self.ports.get(&l4)),
        };
        let ports = all.into_iter().flatten().chain(one);
        self.whole.iter().chain(ports)
    }

    /// Keeps what was there first.
    fn insert(&mut self, l4: Option<L4>, value: T) {
        match l4 {
            None => {
                self.whole.get_or_insert(value);
            }
            Some(l4) => {
                self.ports.entry(l4).or_insert(value);
            }
        }
    }
}

struct Served<'f> {
    instance: usize,
    service: Service,
    span: &'f Span,
}

type Services<'f> = HashMap<IpAddr, At<Served<'f>>>;

/// A service has one route. An address and one of its ports may have a route
/// each, where the port's wins, but only within one instance.
fn services<'f>(found: &'f [Found], problems: &mut Problems) -> Services<'f> {
    let mut services = Services::new();
    for (instance, route) in all_routes(found) {
        let service = route.spec.service;
        let at = services.entry(service.addr).or_default();
        let clash = at
            .meeting(service.l4)
            .find(|other| other.service == service || other.instance != instance);
        if let Some(other) = clash {
            let message = if other.service == service {
                format!("two routes serve {service}")
            } else {
                format!(
                    "routes of two instances overlap: {service} and {}",
                    other.service
                )
            };
            let draft = Draft::new(route.service.clone(), message, "again here");
            let draft = draft.also(other.span.clone(), "first here");
            problems.error(draft.help("each packet must belong to one route of one instance"));
        }
        let served = Served {
            instance,
            service,
            span: &route.service,
        };
        at.insert(service.l4, served);
    }
    services
}

struct Targeted<'f> {
    route: &'f FoundRoute,
    /// Protocol and port of the target.
    l4: Option<L4>,
    span: &'f Span,
}

/// What a target sends is given back the address of its service. That has to
/// be told from the target's address (and port) alone, so a target serves one
/// service; and steering a service to another would steer it twice.
fn targets(found: &[Found], services: &Services<'_>, problems: &mut Problems) {
    let mut targets: HashMap<IpAddr, At<Targeted<'_>>> = HashMap::new();
    for (_, route) in all_routes(found) {
        let spec = &route.spec;
        if spec.primary == spec.ghost {
            let message = format!("primary and ghost of {} are the same", spec.service);
            let draft = Draft::new(route.ghost.clone(), message, "the ghost");
            problems.error(draft.also(route.primary.clone(), "the primary"));
            continue;
        }
        let sides = [
            (spec.primary, &route.primary, "primary"),
            (spec.ghost, &route.ghost, "ghost"),
        ];
        for (target, span, side) in sides {
            let (addr, port) = match target {
                Target::Native => continue,
                Target::Via { addr } => {
                    next_hop(addr, side, &route.spec.service, span, problems);
                    continue;
                }
                Target::Translate { addr, port } => (addr, port),
            };
            let service_l4 = spec.service.l4;
            let l4 = service_l4.zip(port).map(|(l4, port)| L4 { port, ..l4 });
            let mine = Targeted { route, l4, span };
            if is_a_service(addr, side, &mine, services, problems) {
                continue;
            }
            let at = targets.entry(addr).or_default();
            if let Some(other) = at.meeting(l4).find(|other| !agree(&mine, other)) {
                let both = (spec.service, other.route.spec.service);
                let message = format!("{} and {} have a target in common", both.0, both.1);
                let draft = Draft::new(span.clone(), message, "again here");
                let draft = draft.also(other.span.clone(), "first here");
                problems.error(draft.help(
                    "replies could not be told apart: give each service an address or a port of its own",
                ));
            }
            at.insert(l4, mine);
        }
    }
}

/// Reports a next hop that is the service itself. Several routes may share
/// one: packets are told apart by what they say.
fn next_hop(addr: IpAddr, side: &str, service: &Service, span: &Span, problems: &mut Problems) {
    if addr != service.addr {
        return;
    }
    let message = format!("the next hop to the {side} of {service} is the service address");
    let draft = Draft::new(span.clone(), message, "the service address itself");
    problems.error(draft.help("give the address of the neighbour behind which the copy is"));
}

/// Reports a target that is the address of a service.
fn is_a_service(
    addr: IpAddr,
    side: &str,
    target: &Targeted<'_>,
    services: &Services<'_>,
    problems: &mut Problems,
) -> bool {
    let at = services.get(&addr);
    let Some(other) = at.and_then(|at| at.meeting(target.l4).next()) else {
        return false;
    };
    let own = other.service == target.route.spec.service;
    let draft = if own {
        let message = format!(
            "the {side} of {} has the address of the service",
            other.service
        );
        let help = match side {
            "primary" => "if the primary owns the service address, write primary = \"native\"",
            _ => "give the address that the ghost has of its own",
        };
        Draft::new(target.span.clone(), message, "the service address itself").help(help)
    } else {
        let message = format!("the {side} is itself a service: {}", other.service);
        let draft = Draft::new(target.span.clone(), message, "would be steered again");
        draft.help("give the address that the copy has of its own")
    };
    problems.error(draft.also(other.span.clone(), "the service"));
    true
}

/// A port of an address that is a target as a whole may be one too, if both
/// routes lead its packets back to the same address and port.
fn agree(a: &Targeted<'_>, b: &Targeted<'_>) -> bool {
    let (a_service, b_service) = (a.route.spec.service, b.route.spec.service);
    a_service != b_service
        && a_service.addr == b_service.addr
        && a_service.l4 == a.l4
        && b_service.l4 == b.l4
}
