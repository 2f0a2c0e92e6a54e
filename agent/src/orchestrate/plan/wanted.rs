//! What the maps are to hold, before slots and counters are given out.

use std::collections::{BTreeMap, btree_map::Entry};

use agent_common::abi::Side;

use super::{Facts, PlanError, family::Family};
use crate::model::{Ifindex, InstanceSpec, L4, PortSpec, RouteSpec, Service, Target};

/// A route of an instance, by the instance's place in the configuration.
pub(super) struct WantedRoute {
    pub(super) instance: usize,
    pub(super) spec: RouteSpec,
}

/// The wanted tables of one family.
pub(super) struct Tables<F: Family> {
    pub(super) routes: BTreeMap<F::Key, WantedRoute>,
    /// Reverse key to the service it gives back, and whose packets these are.
    pub(super) reverses: BTreeMap<F::Key, (F::Key, Side)>,
}

impl<F: Family> Tables<F> {
    /// Takes the routes whose service is of this family.
    pub(super) fn collect(desired: &[InstanceSpec]) -> Result<Self, PlanError> {
        let mut tables = Self {
            routes: BTreeMap::new(),
            reverses: BTreeMap::new(),
        };
        for (instance, spec) in desired.iter().enumerate() {
            for route in &spec.routes {
                let Some(key) = F::key(route.service.addr, route.service.l4) else {
                    continue;
                };
                tables.insert(key, instance, route)?;
            }
        }
        Ok(tables)
    }

    fn insert(&mut self, key: F::Key, instance: usize, spec: &RouteSpec) -> Result<(), PlanError> {
        let service = spec.service;
        let Entry::Vacant(vacant) = self.routes.entry(key) else {
            return Err(PlanError::SharedService(service));
        };
        vacant.insert(WantedRoute {
            instance,
            spec: *spec,
        });
        for (target, side) in [(spec.primary, Side::Primary), (spec.ghost, Side::Ghost)] {
            let Some(reverse_key) = reverse_key::<F>(service, target)? else {
                continue;
            };
            if self.reverses.insert(reverse_key, (key, side)).is_some() {
                return Err(PlanError::SharedTarget(service));
            }
        }
        Ok(())
    }
}

/// Under which key the packets of a target are found; `None` if they carry the
/// service address already.
fn reverse_key<F: Family>(service: Service, target: Target) -> Result<Option<F::Key>, PlanError> {
    let (addr, port) = match target {
        Target::Native => return Ok(None),
        Target::Via { addr } if addr.is_ipv4() == service.addr.is_ipv4() => return Ok(None),
        Target::Via { .. } => return Err(PlanError::MixedFamilies(service)),
        Target::Translate { addr, port } => (addr, port),
    };
    // A port on an address route, or none on a port route, names no packets.
    let l4 = match (service.l4, port) {
        (None, None) => None,
        (Some(l4), Some(port)) => Some(L4 {
            protocol: l4.protocol,
            port,
        }),
        _ => return Err(PlanError::PortMismatch(service)),
    };
    let key = F::key(addr, l4).ok_or(PlanError::MixedFamilies(service))?;
    Ok(Some(key))
}

/// Ports whose interface exists, with the place of their instance.
pub(super) fn ports<'a>(
    desired: &'a [InstanceSpec],
    facts: &Facts,
) -> Result<BTreeMap<Ifindex, (usize, &'a PortSpec)>, PlanError> {
    let mut ports = BTreeMap::<Ifindex, (usize, &PortSpec)>::new();
    for (instance, spec) in desired.iter().enumerate() {
        for port in &spec.ports {
            let Some(&ifindex) = facts.ifindex.get(&port.interface) else {
                continue;
            };
            if let Some((_, other)) = ports.insert(ifindex, (instance, port)) {
                return Err(PlanError::SharedInterface {
                    first: other.interface.clone(),
                    second: port.interface.clone(),
                });
            }
        }
    }
    Ok(ports)
}

/// Cgroups that exist, with the place of their instance.
pub(super) fn cgroups(
    desired: &[InstanceSpec],
    facts: &Facts,
) -> Result<BTreeMap<u64, usize>, PlanError> {
    let mut cgroups = BTreeMap::new();
    for (instance, spec) in desired.iter().enumerate() {
        let Some(&id) = facts.cgroup_id.get(&spec.name) else {
            continue;
        };
        if let Some(other) = cgroups.insert(id, instance) {
            return Err(PlanError::SharedCgroup {
                first: desired[other].name.clone(),
                second: spec.name.clone(),
            });
        }
    }
    Ok(cgroups)
}
