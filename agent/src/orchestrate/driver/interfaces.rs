//! Interfaces and cgroups that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{CGROUPS_LOOK, Driver, RETRY};
use crate::{
    model::{Ifindex, InstanceName, UplinkMode, XdpMode},
    orchestrate::{
        agenda::Job,
        event::EventKind,
        plan::Facts,
        wanted::{Carries, surplus_links},
    },
    steer::{Class, Role, SteerError, cgroup_id, interfaces},
};

const fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
        XdpMode::Offloaded => "offloaded",
    }
}

impl Driver {
    /// What the host says now about the names in the configuration.
    pub(super) fn gather(&mut self) {
        self.facts = Facts {
            ifindex: self.find_interfaces(),
            cgroup_id: self.find_cgroups(),
        };
    }

    fn find_interfaces(&mut self) -> BTreeMap<String, Ifindex> {
        let found = interfaces(self.wanted.interfaces().into_keys());
        // Unknown is not the same as gone: what was known stands.
        self.note(found)
            .unwrap_or_else(|| self.facts.ifindex.clone())
    }

    fn find_cgroups(&mut self) -> BTreeMap<InstanceName, u64> {
        let mut found = BTreeMap::new();
        let mut failed = Vec::new();
        for spec in &self.wanted.instances {
            let Some(path) = &spec.cgroup else { continue };
            match cgroup_id(path) {
                Ok(Some(id)) => drop(found.insert(spec.name.clone(), id)),
                Ok(None) => {}
                Err(e) => failed.push(SteerError::Read(path.clone(), e)),
            }
        }
        for error in failed {
            self.complain(&error);
        }
        found
    }

    /// Reconciles if an interface of ours came, went, or is another one now.
    pub(super) fn look_at_interfaces(&mut self) {
        if self.find_interfaces() != self.facts.ifindex {
            self.reconcile();
        }
        self.agenda.no_later_than(Job::Egress, Instant::now());
    }

    /// Reconciles if a cgroup came, went, or is another one now.
    pub(super) fn look_at_cgroups(&mut self) {
        // First the watch, then the look: what comes in between is news.
        self.watch_cgroups();
        if self.find_cgroups() != self.facts.cgroup_id {
            self.reconcile();
        }
    }

    pub(super) fn watch_cgroups(&mut self) {
        let paths = self.wanted.instances.iter();
        let paths = paths.filter_map(|i| i.cgroup.as_deref());
        let result = self.cgroups.watch(paths);
        self.note(result);
        if self.wanted.instances.iter().any(|i| i.cgroup.is_some()) {
            self.agenda.set(Job::Cgroups, Instant::now() + CGROUPS_LOOK);
        } else {
            self.agenda.clear(Job::Cgroups);
        }
    }

    /// Brings our programs onto all wanted interfaces that exist, and takes
    /// them off all others. Gives the errors.
    pub(super) fn attach_all(&mut self) -> Vec<SteerError> {
        let wanted: Vec<(String, Carries)> = self
            .wanted
            .interfaces()
            .into_iter()
            .map(|(name, carries)| (name.to_owned(), carries))
            .collect();
        let mut errors = Vec::new();
        let mut present = BTreeMap::new();
        for (name, carries) in wanted {
            let Some(&index) = self.facts.ifindex.get(&name) else {
                self.gone(&name);
                continue;
            };
            let (role, mode) = match carries {
                Carries::Steer(mode) => (Role::Uplink, mode),
                Carries::Port => (Role::Port, UplinkMode::Auto),
            };
            let replace_foreign = self.wanted.replace_foreign;
            match self.plane.attach(index, role, mode, replace_foreign) {
                Ok(attached) => {
                    if attached.fresh || self.attached.get(&name) != Some(&index) {
                        self.record(EventKind::Attached {
                            interface: name.clone(),
                            mode: mode_name(attached.mode),
                        });
                    }
                    present.insert(name, index);
                }
                Err(e) => errors.push(e),
            }
        }
        self.attached = present;
        errors.extend(self.remove_surplus());
        if errors.iter().any(|e| e.class() != Class::Fatal) {
            self.agenda
                .no_later_than(Job::Reconcile, Instant::now() + RETRY);
        }
        errors
    }

    fn gone(&mut self, name: &str) {
        if self.attached.contains_key(name) {
            self.record(EventKind::InterfaceGone {
                interface: name.to_owned(),
            });
        }
    }

    fn remove_surplus(&mut self) -> Vec<SteerError> {
        let linked = match self.plane.linked() {
            Ok(linked) => linked,
            Err(e) => return vec![e],
        };
        // Those that should carry a program and could not be given the new
        // one keep what they have.
        let wanted: BTreeSet<Ifindex> = self.facts.ifindex.values().copied().collect();
        let surplus = surplus_links(&linked, &wanted);
        surplus
            .into_iter()
            .filter_map(|index| self.plane.detach(index).err())
            .collect()
    }
}
