//! What in a snapshot an operator should know. Pure.
//!
//! Counters are not judged here: they only grow, and would keep a host
//! degraded for ever. `ghostctl doctor` compares two readings instead.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use agent_common::abi::{ABI_VERSION, Position};

use super::dto::{FindingDto, Severity};
use crate::{
    model::{
        GhostState, InstanceName, InstanceView, PrimaryState, Snapshot, Trouble, UplinkView,
        XdpMode,
    },
    orchestrate::vms::VmView,
};

/// An instance at its ghost for longer than this was probably forgotten: a
/// host is back from a reboot in less.
pub const GHOST_LONG: Duration = Duration::from_secs(15 * 60);

impl FindingDto {
    pub fn new(severity: Severity, code: &str, what: String, mend: Option<String>) -> Self {
        Self {
            severity,
            code: code.to_owned(),
            what,
            mend,
        }
    }
}

/// Findings of a snapshot, the gravest first.
pub fn of_snapshot(seen: &Snapshot) -> Vec<FindingDto> {
    let mut found = Vec::new();
    found.extend(abi(seen));
    found.extend(seen.uplinks.iter().filter_map(uplink));
    found.extend(seen.troubles.iter().map(trouble));
    found.extend(host_switch(seen));
    found.extend(seen.instances.iter().filter_map(at_ghost));
    found.sort_by_key(|finding| Reverse(finding.severity));
    found
}

fn abi(seen: &Snapshot) -> Option<FindingDto> {
    let pinned = seen.host.abi_version;
    (pinned != ABI_VERSION).then(|| {
        FindingDto::new(
            Severity::Error,
            "abi_differs",
            format!(
                "the pinned maps have layout {pinned} (ghostd {}), this program knows {ABI_VERSION}",
                seen.host.ghostd_version
            ),
            Some("use the ghostctl of that version, or `ghostctl clean` and start ghostd anew".into()),
        )
    })
}

fn uplink(uplink: &UplinkView) -> Option<FindingDto> {
    let index = uplink.ifindex.get();
    match uplink.mode {
        None => Some(FindingDto::new(
            Severity::Error,
            "uplink_gone",
            format!("the interface with index {index} that carried {} is gone", uplink.program),
            Some("bring the interface back (`ip link`); a running ghostd attaches to it by itself, else `ghostctl reload`".into()),
        )),
        Some(XdpMode::Generic) => Some(FindingDto::new(
            Severity::Info,
            "generic_mode",
            format!(
                "{} is attached in generic mode, where each packet gets a socket buffer first: several times the cost of native mode. Often a large MTU or LRO keeps a driver from it",
                uplink.interface
            ),
            Some(format!(
                "ethtool -i {0}; ip link set {0} mtu 1500; ethtool -K {0} lro off; systemctl restart ghostd",
                uplink.interface
            )),
        )),
        Some(XdpMode::Native | XdpMode::Offloaded) => None,
    }
}

/// Copies that are not as they should be.
pub fn of_microvms(all: &[(InstanceName, VmView)]) -> Vec<FindingDto> {
    let found = all
        .iter()
        .flat_map(|(name, vm)| [primary(name, &vm.primary), ghost(name, &vm.ghost)]);
    found.flatten().chain(limits(all)).collect()
}

/// One for the host: what it lacks, it lacks for all copies.
fn limits(all: &[(InstanceName, VmView)]) -> Option<FindingDto> {
    let views = all.iter().map(|(_, vm)| vm);
    let lacking = views.flat_map(|vm| vm.primary_not_in_force.iter().chain(&vm.ghost_not_in_force));
    let files: BTreeSet<&str> = lacking.map(|lacking| lacking.file).collect();
    if files.is_empty() {
        return None;
    }
    let files: Vec<&str> = files.into_iter().collect();
    Some(FindingDto::new(
        Severity::Info,
        "limits_not_in_force",
        format!(
            "this host does not enforce limits of microVMs: {}",
            files.join(", ")
        ),
        Some(
            "`ghostctl instance show` says why; cgroup v2 has all controllers if the kernel \
             starts with cgroup_no_v1=all"
                .to_owned(),
        ),
    ))
}

fn primary(name: &InstanceName, state: &PrimaryState) -> Option<FindingDto> {
    let (code, what) = match state {
        PrimaryState::Ended(end) => ("primary_ended", format!("the primary of {name}: {end}")),
        PrimaryState::Failed(why) => ("primary_failed", format!("the primary of {name}: {why}")),
        PrimaryState::Absent
        | PrimaryState::Running
        | PrimaryState::Paused
        | PrimaryState::Standby => return None,
    };
    let mend = format!("ghostctl instance show {name}; ghostctl instance reset {name}");
    Some(FindingDto::new(Severity::Error, code, what, Some(mend)))
}

fn ghost(name: &InstanceName, state: &GhostState) -> Option<FindingDto> {
    let GhostState::Failed(why) = state else {
        return None;
    };
    Some(FindingDto::new(
        Severity::Error,
        "ghost_failed",
        format!("the ghost of {name}: {why}"),
        Some(format!("ghostctl ghost prepare {name}")),
    ))
}

fn trouble(trouble: &Trouble) -> FindingDto {
    let (severity, code, what, mend) = match trouble {
        Trouble::Bare { interface } => (
            Severity::Error,
            "not_attached",
            format!(
                "{interface} carries no program of ghostd, so what arrives there is neither steered nor fenced"
            ),
            format!(
                "ip link show {interface}; ghostd attaches when it comes back, or at `ghostctl reload`"
            ),
        ),
        Trouble::OtherMode { interface, mode } => (
            Severity::Warning,
            "other_mode",
            format!(
                "{interface} carries its program in {} mode, unlike the configuration: the mode is fixed while the program is attached",
                match mode {
                    XdpMode::Native => "native",
                    XdpMode::Generic => "generic",
                    XdpMode::Offloaded => "offloaded",
                }
            ),
            "systemctl stop ghostd; ghostctl clean; systemctl start ghostd (steering pauses)"
                .to_owned(),
        ),
        Trouble::Unwatched { pin } => (
            Severity::Error,
            "reboot_unwatched",
            format!("the pin {pin} is gone, so the kernel does not move instances that reboot"),
            "systemctl restart ghostd".to_owned(),
        ),
        Trouble::GuestsUnwatched { pin } => (
            Severity::Info,
            "guests_unwatched",
            format!(
                "the pin {pin} is not there, so the kernel does not move instances whose guests reset themselves; without KVM it need not"
            ),
            "modprobe kvm; ghostd watches within seconds".to_owned(),
        ),
        Trouble::Failed { what } => (
            Severity::Error,
            "failed",
            what.clone(),
            "ghostctl reload; journalctl -u ghostd".to_owned(),
        ),
    };
    FindingDto::new(severity, code, what, Some(mend))
}

fn host_switch(seen: &Snapshot) -> Option<FindingDto> {
    let moved = seen.instances.iter().filter(|i| i.switch.by_host).count();
    (moved > 0).then(|| {
        FindingDto::new(
            Severity::Warning,
            "host_switch_thrown",
            format!(
                "the host switch is thrown and keeps instances at their ghosts ({moved} of {})",
                seen.instances.len()
            ),
            Some("ghostctl switch restore --host".into()),
        )
    })
}

fn at_ghost(instance: &InstanceView) -> Option<FindingDto> {
    let switch = &instance.switch;
    if switch.position != Position::Ghost || switch.by_host {
        return None;
    }
    let long = switch.moved_ago.is_none_or(|ago| ago >= GHOST_LONG);
    let (severity, code) = if long {
        (Severity::Warning, "ghost_for_long")
    } else {
        (Severity::Info, "at_ghost")
    };
    let since = switch
        .moved_ago
        .map_or(String::new(), |ago| match ago.as_secs() {
            s @ 0..120 => format!(" for {s} s"),
            s => format!(" for {} min", s / 60),
        });
    let verb = if switch.tracked { "drain" } else { "restore" };
    Some(FindingDto::new(
        severity,
        code,
        format!("instance {} is at its ghost{since}", instance.name),
        Some(format!("ghostctl switch {verb} {}", instance.name)),
    ))
}
