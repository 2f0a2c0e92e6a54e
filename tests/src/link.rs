//! Virtual cables between namespaces.

use std::process::Command;

use anyhow::Result;

use crate::netns::NetNs;

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub ns: &'a NetNs,
    pub interface: &'a str,
    /// Fixed, so that twins of a topology send equal frames.
    pub mac: [u8; 6],
}

/// Lays a veth pair, sets both ends up, and makes them fit for XDP.
pub fn cable(a: End<'_>, b: End<'_>, mtu: u32) -> Result<()> {
    a.ns.ip(&format!(
        "link add {} address {} mtu {mtu} type veth peer name {} address {} mtu {mtu} netns {}",
        a.interface,
        mac_text(a.mac),
        b.interface,
        mac_text(b.mac),
        b.ns.path().display(),
    ))?;
    // Both before either is up: a veth looks at its peer's GRO, and says
    // whether it takes redirects, only when it is opened.
    fit_for_xdp(a)?;
    fit_for_xdp(b)?;
    for end in [a, b] {
        end.ns.ip(&format!("link set {} up", end.interface))?;
    }
    Ok(())
}

/// Without offload a sender leaves real checksums and sizes for XDP to see;
/// with GRO on, a veth polls, which redirects into its peer need.
fn fit_for_xdp(end: End<'_>) -> Result<()> {
    for (feature, value) in [
        ("tx", "off"),
        ("tso", "off"),
        ("gso", "off"),
        ("txvlan", "off"),
        ("rxvlan", "off"),
        ("gro", "on"),
    ] {
        end.ns
            .command(Command::new("ethtool").args(["-K", end.interface, feature, value]))?;
    }
    Ok(())
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
