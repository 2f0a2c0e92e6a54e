//! Interfaces and cgroups that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{CGROUPS_LOOK, Driver, RETRY};
use crate::{
    model::{Ifindex, UplinkMode, XdpMode},
    orchestrate::{
        agenda::Job,
        event::EventKind,
        plan::Facts,
        wanted::{Carries, surplus_links},
    },
    steer::{Class, Role, SteerError, cgroup_id, ifindex},
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
    pub(super) fn gather(&mut self) -> Facts {
        let mut facts = Facts::default();
        for name in self.wanted.interfaces().keys() {
            if let Ok(index) = ifindex(name) {
                facts.ifindex.insert((*name).to_owned(), index);
            }
        }
        let mut failed = Vec::new();
        for spec in &self.wanted.instances {
            let Some(path) = &spec.cgroup else { continue };
            match cgroup_id(path) {
                Ok(Some(id)) => drop(facts.cgroup_id.insert(spec.name.clone(), id)),
                Ok(None) => {}
                Err(e) => failed.push(SteerError::Read(path.clone(), e)),
            }
        }
        for error in failed {
            self.complain(&error);
        }
        facts
    }

    /// Reconciles if an interface of ours came, went, or is another one now.
    pub(super) fn look_at_interfaces(&mut self) {
        let now = self.gather();
        if now.ifindex != self.facts.ifindex || now.cgroup_id != self.facts.cgroup_id {
            self.reconcile();
        }
        self.agenda.no_later_than(Job::Egress, Instant::now());
    }

    pub(super) fn look_at_cgroups(&mut self) {
        let now = self.gather();
        if now != self.facts {
            self.reconcile();
        }
        self.schedule_cgroups();
    }

    pub(super) fn schedule_cgroups(&mut self) {
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
