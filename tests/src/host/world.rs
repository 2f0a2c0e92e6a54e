//! The standard world: the topology, a host, a primary on it, and a ghost.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::Cgroup;
use crate::{
    machine::{Ending, How, Machine, MachineSpec, Side, Who},
    netns::NetNs,
    topology::{GHOST_V4, GHOST_V6, SERVICE_V4, SERVICE_V6, Topology},
};

/// The kernel ends a namespace in milliseconds; a loaded machine takes more.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Everything but ghostd. The primary lives on the host, in its PID
/// namespace; the ghost does not, and outlives it.
///
/// Networks outlive machines, as a microVM's tap outlives its reboot.
/// Fields end in this order.
#[derive(Debug)]
pub struct World {
    primary: Option<Machine>,
    ghost: Option<Machine>,
    cgroup: Cgroup,
    host: Machine,
    pub net: Topology,
}

impl World {
    pub fn new() -> Result<Self> {
        Self::over(Topology::new()?)
    }

    pub fn over(net: Topology) -> Result<Self> {
        let host = Machine::start(
            &net.host,
            &MachineSpec {
                name: "host".to_owned(),
                serve: None,
                cgroup: None,
            },
        )?;
        let cgroup = Cgroup::new(host.inside())?;
        let mut world = Self {
            primary: None,
            ghost: None,
            cgroup,
            host,
            net,
        };
        world.start_primary()?;
        world.start_ghost()?;
        Ok(world)
    }

    /// The host's namespaces: where ghostd runs.
    pub fn host(&self) -> &NetNs {
        self.host.inside()
    }

    /// Has the host itself call `reboot(2)`: its PID namespace is that of the host.
    pub fn host_machine(&mut self) -> &mut Machine {
        &mut self.host
    }

    pub fn primary(&mut self) -> Result<&mut Machine> {
        self.primary.as_mut().context("the primary is down")
    }

    /// Waits for what the end of the host has ended. The host's PID namespace
    /// is gone only after all in it were waited for, by whoever started them.
    pub fn reap_primary(&mut self) {
        self.primary = None;
    }

    pub fn primary_cgroup(&self) -> PathBuf {
        self.cgroup.path().to_owned()
    }

    /// Starts the primary, on the host, in its cgroup.
    pub fn start_primary(&mut self) -> Result<()> {
        // The host's namespaces but for the network, which is its own.
        let place = self.net.primary.inside(self.host.init_pid()?)?;
        let spec = MachineSpec {
            name: "primary".to_owned(),
            serve: Some((Side::Primary, vec![SERVICE_V4.into(), SERVICE_V6.into()])),
            cgroup: Some(self.primary_cgroup()),
        };
        self.primary = Some(Machine::start(&place, &spec)?);
        Ok(())
    }

    fn start_ghost(&mut self) -> Result<()> {
        let spec = MachineSpec {
            name: "ghost".to_owned(),
            serve: Some((Side::Ghost, vec![GHOST_V4.into(), GHOST_V6.into()])),
            cgroup: None,
        };
        self.ghost = Some(Machine::start(&self.net.ghost, &spec)?);
        Ok(())
    }

    /// Reboots the primary and waits for its end; gives the time of the call.
    pub fn reboot_primary(&mut self, how: How, who: Who) -> Result<(u64, Ending)> {
        let primary = self.primary()?;
        let at_ns = primary.reboot(how, who)?;
        let ending = primary.ended(END_LIMIT)?;
        self.primary = None;
        Ok((at_ns, ending))
    }
}
