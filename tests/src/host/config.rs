//! Configuration files for ghostd, as an operator would write them.

use std::{fmt::Write, path::Path};

use crate::topology::{
    GHOST_PORT, GHOST_V4, GHOST_V6, PRIMARY_PORT, SERVICE_V4, SERVICE_V6, UPLINK,
};

/// On the host.
pub const CONFIG_PATH: &str = "/run/ghostd.toml";
pub const SOCKET_PATH: &str = "/run/ghostd/ghostd.sock";
/// Name of the standard instance.
pub const INSTANCE: &str = "web-1";

/// A route as written.
#[derive(Debug, Clone)]
pub struct RouteLine {
    pub service: String,
    /// `tcp` or `udp`, and port.
    pub l4: Option<(&'static str, u16)>,
    /// `None` for native.
    pub primary: Option<String>,
    pub ghost: String,
}

/// A port as written.
#[derive(Debug, Clone)]
pub struct PortLine {
    pub interface: String,
    pub side: &'static str,
    pub fence: &'static str,
}

/// A configuration with one instance; stories change what they are about.
#[derive(Debug, Clone)]
pub struct Config {
    pub uplinks: Vec<String>,
    pub mode: &'static str,
    pub replace_foreign: bool,
    pub limits: Vec<(&'static str, u64)>,
    pub operators: Vec<u32>,
    pub readers: Vec<u32>,
    pub cgroup: Option<String>,
    pub armed: bool,
    pub affinity: &'static str,
    pub routes: Vec<RouteLine>,
    pub ports: Vec<PortLine>,
    pub drain_idle_s: Option<u64>,
    pub drain_max_s: Option<u64>,
    /// Added at the end as it is.
    pub extra: String,
}

impl Config {
    /// The standard topology, the primary's reboots seen in `cgroup`.
    pub fn standard(cgroup: Option<&Path>) -> Self {
        Self {
            uplinks: vec![UPLINK.to_owned()],
            mode: "auto",
            replace_foreign: false,
            limits: Vec::new(),
            operators: Vec::new(),
            readers: Vec::new(),
            cgroup: cgroup.map(|path| path.display().to_string()),
            armed: true,
            affinity: "connections",
            routes: vec![
                RouteLine::to_ghost(&SERVICE_V4.to_string(), &GHOST_V4.to_string()),
                RouteLine::to_ghost(&SERVICE_V6.to_string(), &GHOST_V6.to_string()),
            ],
            ports: vec![
                PortLine::new(PRIMARY_PORT, "primary"),
                PortLine::new(GHOST_PORT, "ghost"),
            ],
            drain_idle_s: None,
            drain_max_s: None,
            extra: String::new(),
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text)
            .unwrap_or_else(|_| unreachable!("a String takes all that is written"));
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[steering]")?;
        writeln!(out, "uplinks = {:?}", self.uplinks)?;
        writeln!(out, "mode = {:?}", self.mode)?;
        writeln!(out, "replace_foreign = {}", self.replace_foreign)?;
        if !self.limits.is_empty() {
            writeln!(out, "\n[limits]")?;
            for (name, value) in &self.limits {
                writeln!(out, "{name} = {value}")?;
            }
        }
        writeln!(out, "\n[api]\nsocket = {SOCKET_PATH:?}")?;
        writeln!(out, "operators = {:?}", self.operators)?;
        writeln!(out, "readers = {:?}", self.readers)?;
        writeln!(out, "\n[[instance]]\nname = {INSTANCE:?}\nowner = \"acme\"")?;
        if let Some(cgroup) = &self.cgroup {
            writeln!(out, "cgroup = {cgroup:?}")?;
        }
        writeln!(
            out,
            "armed = {}\naffinity = {:?}",
            self.armed, self.affinity
        )?;
        for (name, value) in [
            ("drain_idle_s", self.drain_idle_s),
            ("drain_max_s", self.drain_max_s),
        ] {
            if let Some(value) = value {
                writeln!(out, "{name} = {value}")?;
            }
        }
        for route in &self.routes {
            writeln!(out, "\n[[instance.route]]\nservice = {:?}", route.service)?;
            if let Some((protocol, port)) = route.l4 {
                writeln!(out, "protocol = {protocol:?}\nport = {port}")?;
            }
            if let Some(primary) = &route.primary {
                writeln!(out, "primary = {primary:?}")?;
            }
            writeln!(out, "ghost = {:?}", route.ghost)?;
        }
        for port in &self.ports {
            writeln!(out, "\n[[instance.port]]\ninterface = {:?}", port.interface)?;
            writeln!(out, "side = {:?}\nfence = {:?}", port.side, port.fence)?;
        }
        out.write_str(&self.extra)
    }
}

impl RouteLine {
    /// An address route with a native primary.
    pub fn to_ghost(service: &str, ghost: &str) -> Self {
        Self {
            service: service.to_owned(),
            l4: None,
            primary: None,
            ghost: ghost.to_owned(),
        }
    }
}

impl PortLine {
    /// Without a fence.
    pub fn new(interface: &str, side: &'static str) -> Self {
        Self {
            interface: interface.to_owned(),
            side,
            fence: "off",
        }
    }
}
