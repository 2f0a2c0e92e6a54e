//! The kernel's own NAT, by nftables: the reference, and a stand-in for
//! steering where a test is about the harness itself.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    netns::NetNs,
    topology::{GHOST_V4, GHOST_V6, SERVICE_V4, SERVICE_V6},
};

/// Loads a ruleset in one transaction.
pub fn load(ns: &NetNs, ruleset: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ns.run(|| command.spawn())?.context("start nft")?;
    child
        .stdin
        .take()
        .context("nft's input")?
        .write_all(ruleset.as_bytes())?;
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "nft refused:\n{complaint}{ruleset}"
    );
    Ok(())
}

/// New connections to the service address go to the ghost.
pub fn steer_to_ghost(ns: &NetNs) -> Result<()> {
    load(
        ns,
        &format!(
            "table ip steer {{
               chain pre {{
                 type nat hook prerouting priority dstnat
                 ip daddr {SERVICE_V4} dnat to {GHOST_V4}
               }}
             }}
             table ip6 steer {{
               chain pre {{
                 type nat hook prerouting priority dstnat
                 ip6 daddr {SERVICE_V6} dnat to {GHOST_V6}
               }}
             }}\n"
        ),
    )
}

/// New connections go to the primary again.
pub fn stop_steering(ns: &NetNs) -> Result<()> {
    load(ns, "delete table ip steer\ndelete table ip6 steer")
}

/// What the reference does not check, because translation is what it is asked
/// about: conntrack would leave packets with a wrong checksum, or outside of
/// a TCP window, untranslated.
pub fn be_liberal(ns: &NetNs) -> Result<()> {
    ns.sysctl("netfilter/nf_conntrack_checksum", "0")?;
    ns.sysctl("netfilter/nf_conntrack_tcp_be_liberal", "1")
}
