//! Where the demo plays: a hypervisor host with ghostd, and a client's machine.
//!
//! ```text
//!   client eth0 ---- eth0 host vnet0 ---- primary   198.51.100.10, 2001:db8:5::10
//!                         host vnet1 ---- ghost     the same
//! ```
//! The client's cable is a veth; vnet0 and vnet1 are taps of the microVMs.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    host::{Cgroup, Daemon, INSTANCE, SOCKET_PATH, ghostctl},
    machine::{Machine, MachineSpec},
    microvm::{Folder, payload},
    netns::NetNs,
    topology::{forward, lay_client},
};

const MTU: u32 = 1500;

/// Fields end in this order.
pub(super) struct World {
    daemon: Option<Daemon>,
    _cgroup: Cgroup,
    _folder: Folder,
    host: Machine,
    pub(super) client: NetNs,
}

impl World {
    pub(super) fn new() -> Result<Self> {
        let (client, host) = (NetNs::new("client")?, NetNs::new("host")?);
        lay_client(&client, &host, MTU)?;
        forward(&host)?;
        let host = Machine::start(
            &host,
            &MachineSpec {
                name: "host".to_owned(),
                serve: None,
                cgroup: None,
            },
        )?;
        let cgroup = Cgroup::new(host.inside())?;
        let folder = Folder::new()?;
        let image = folder.path().join("service.elf");
        std::fs::copy(payload()?, &image).context("copy the payload")?;
        let config = config(&cgroup.path().join("vm"), &image);
        let daemon = Daemon::start(host.inside(), &config)?;
        Ok(Self {
            daemon: Some(daemon),
            _cgroup: cgroup,
            _folder: folder,
            host,
            client,
        })
    }

    pub(super) fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("ghostd is down")
    }

    /// `ghostctl PART VERB web-1`; what it says.
    pub(super) fn order(&self, part: &str, verb: &str) -> Result<Value> {
        let output = ghostctl(self.host.inside(), &["-o", "json", part, verb, INSTANCE])?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "ghostctl {part} {verb} {INSTANCE}: {complaint}"
        );
        serde_json::from_slice(&output.stdout).context("what ghostctl says")
    }

    /// The host as ghostctl shows it, and what ghostd said.
    pub(super) fn look(&self) -> String {
        let host = self.host.inside();
        let mut text = String::new();
        for words in [&["status"][..], &["routes"], &["doctor"], &["events"]] {
            let shown = ghostctl(host, words).map(|output| output.stdout);
            text += &format!("--- ghostctl {}\n", words.join(" "));
            text += &String::from_utf8_lossy(&shown.unwrap_or_default());
        }
        text += "--- ghostd\n";
        text + &self.daemon.as_ref().map(Daemon::said).unwrap_or_default()
    }

    /// Ends the microVMs and the daemon; the daemon's exit is to be a good one.
    pub(super) fn end(mut self) -> Result<()> {
        self.order("instance", "destroy")?;
        let daemon = self.daemon.take().context("ghostd is down")?;
        let exit = daemon.terminate()?;
        ensure!(exit.status.success(), "ghostd ended badly:\n{}", exit.said);
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Copies outlive the daemon. If it is gone, so are they, or nobody
        // can be asked any more.
        if self.daemon.is_some() {
            let _ = self.order("instance", "destroy");
        }
    }
}

/// As an operator would write it.
fn config(cgroup: &Path, image: &Path) -> String {
    format!(
        r#"[steering]
uplinks = ["eth0"]

[api]
socket = {SOCKET_PATH:?}

[[instance]]
name = {INSTANCE:?}
cgroup = {cgroup:?}
affinity = "none"

[instance.vm]
image = {image:?}
command_line = "do=serve addr=198.51.100.10/24 gw=198.51.100.1 addr=2001:db8:5::10/64 gw=2001:db8:5::1"
memory_mib = 64
mac = "02:00:00:00:00:77"
host_addresses = ["198.51.100.1/24", "2001:db8:5::1/64"]

[instance.vm.health]
addr = "198.51.100.10"
port = 7000
protocol = "tcp"
send = "PING\n"
expect = "PONG"

[[instance.port]]
interface = "vnet0"
side = "primary"
fence = "silent"

[[instance.port]]
interface = "vnet1"
side = "ghost"
fence = "silent"

[[instance.route]]
service = "198.51.100.10"
ghost = "via 10.77.9.2"

[[instance.route]]
service = "2001:db8:5::10"
ghost = "via 2001:db8:77:9::2"
"#
    )
}

/// Longest wait for any one thing; all of them take milliseconds.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
