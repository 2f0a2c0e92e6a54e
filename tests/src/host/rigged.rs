//! A rig that ghostd steers, its switch thrown: the subject of comparisons.

use anyhow::{Result, ensure};

use super::{Config, Daemon, INSTANCE, ghostctl};
use crate::{
    machine::{Machine, MachineSpec},
    netns::NetNs,
    oracle::Rig,
    topology::Topology,
};

/// Fields end in this order.
#[derive(Debug)]
pub struct Rigged {
    pub daemon: Daemon,
    host: Machine,
    pub rig: Option<Rig>,
}

impl Rigged {
    /// `change` makes of the standard configuration what the story is about.
    pub fn new(net: Topology, change: impl FnOnce(&mut Config)) -> Result<Self> {
        let rig = Rig::over(net)?;
        let spec = MachineSpec {
            name: "host".to_owned(),
            serve: None,
            cgroup: None,
        };
        let host = Machine::start(&rig.net.host, &spec)?;
        let mut config = Config::standard(None);
        change(&mut config);
        let daemon = Daemon::start(host.inside(), &config.text())?;
        let rigged = Self {
            daemon,
            host,
            rig: Some(rig),
        };
        rigged.switch("throw")?;
        Ok(rigged)
    }

    /// The host's namespaces.
    pub fn host(&self) -> &NetNs {
        self.host.inside()
    }

    /// `ghostctl switch ...` for the standard instance.
    pub fn switch(&self, action: &str) -> Result<()> {
        let output = ghostctl(self.host.inside(), &["switch", action, INSTANCE])?;
        ensure!(
            output.status.success(),
            "ghostctl switch {action}: {output:?}"
        );
        Ok(())
    }
}
