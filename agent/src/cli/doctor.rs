//! What is wrong with a host, and what mends it. Pure over gathered facts.

use std::cmp::Reverse;

use super::{
    facts::{DaemonTrouble, Facts, InterfaceFacts},
    look::count,
};
use crate::control::dto::{FindingDto, RouteDto, RoutesDto, Severity, StatusDto, TargetDto};

/// Oldest kernel that has everything the programs use.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// From this many on, instances without a known cgroup are one finding.
const CGROUPS_NAMED_MAX: usize = 5;

/// CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON (include/uapi/linux/capability.h).
const CAPABILITIES: [(u8, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];

/// All findings, the gravest first.
pub fn examine(facts: &Facts) -> Vec<FindingDto> {
    let mut found = Vec::new();
    found.extend(daemon(facts));
    if let Some(status) = &facts.status {
        found.extend(status.findings.iter().cloned());
    }
    found.extend(pins(facts));
    found.extend(rights(facts));
    found.extend(mounts(facts));
    found.extend(kernel(facts));
    found.extend(facts.interfaces.iter().flat_map(interface));
    found.extend(
        facts
            .foreign_xdp
            .iter()
            .map(|x| foreign(x, &facts.interfaces)),
    );
    found.extend(cgroups(&facts.cgroup_unknown));
    if let Some((before, after)) = &facts.routes {
        found.extend(counters(before, after));
    }
    found.sort_by_key(|finding| Reverse(finding.severity));
    found
}

fn finding(severity: Severity, code: &str, what: &str, mend: &str) -> FindingDto {
    FindingDto::new(severity, code, what.to_owned(), Some(mend.to_owned()))
}

fn daemon(facts: &Facts) -> Option<FindingDto> {
    let trouble = match facts.daemon_trouble.as_ref()? {
        DaemonTrouble::Silent(trouble) => trouble,
        DaemonTrouble::Hidden(trouble) => {
            return Some(FindingDto::new(
                Severity::Error,
                "daemon_hidden",
                format!("cannot tell whether ghostd runs: {trouble}"),
                Some("sudo ghostctl doctor".to_owned()),
            ));
        }
    };
    Some(if facts.pinned {
        FindingDto::new(
            Severity::Error,
            "daemon_dead",
            format!("ghostd does not run ({trouble}), but its pins still steer packets"),
            Some("systemctl start ghostd, or, to end all steering: ghostctl clean".to_owned()),
        )
    } else {
        FindingDto::new(
            Severity::Error,
            "daemon_not_running",
            format!("ghostd does not run ({trouble}) and nothing is pinned: nothing is steered"),
            Some("systemctl start ghostd".to_owned()),
        )
    })
}

/// Among the reasons: another layout version, and missing rights.
fn pins(facts: &Facts) -> Option<FindingDto> {
    let trouble = facts.pins_trouble.as_ref()?;
    Some(FindingDto::new(
        Severity::Error,
        "pins_unreadable",
        trouble.clone(),
        Some("run as root, with the ghostctl of the ghostd that pinned them; or: ghostctl clean, systemctl start ghostd".to_owned()),
    ))
}

/// A running daemon has what it needs; then this is about ghostctl only.
fn rights(facts: &Facts) -> Option<FindingDto> {
    let held = facts.capabilities?;
    let missing = CAPABILITIES
        .iter()
        .filter(|(bit, _)| held & (1 << bit) == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return None;
    }
    let severity = if facts.daemon_trouble.is_some() {
        Severity::Warning
    } else {
        Severity::Info
    };
    Some(FindingDto::new(
        severity,
        "no_rights",
        format!(
            "ghostctl runs without {}: it cannot look at everything, and neither pins nor programs can be read",
            missing.join(", ")
        ),
        Some("sudo ghostctl doctor".to_owned()),
    ))
}

fn mounts(facts: &Facts) -> Vec<FindingDto> {
    let mut found = Vec::new();
    if facts.bpffs == Some(false) {
        found.push(finding(
            Severity::Error,
            "no_bpffs",
            "the BPF file system is not mounted, so nothing can be pinned",
            "mount -t bpf bpf /sys/fs/bpf",
        ));
    }
    if facts.tracefs == Some(false) {
        found.push(finding(
            Severity::Error,
            "no_tracefs",
            "tracefs is not mounted, so reboots cannot be noticed in the kernel",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ));
    }
    found
}

fn kernel(facts: &Facts) -> Vec<FindingDto> {
    let mut found = Vec::new();
    if let Some(release) = &facts.kernel_release
        && kernel_version(release).is_some_and(|version| version < KERNEL_MIN)
    {
        found.push(FindingDto::new(
            Severity::Error,
            "kernel_old",
            format!(
                "the kernel is {release}, older than {}.{}",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
            Some("install a newer kernel and reboot into it".to_owned()),
        ));
    }
    if !facts.btf {
        found.push(finding(
            Severity::Error,
            "no_btf",
            "the kernel has no BTF (/sys/kernel/btf/vmlinux), which the reboot tracepoint needs",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ));
    }
    if facts.jit == Some(0) {
        found.push(finding(
            Severity::Warning,
            "jit_off",
            "BPF programs are interpreted: steering is many times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ));
    }
    let bpf_lsm = facts
        .lsm
        .as_ref()
        .map(|l| l.trim().split(',').any(|m| m == "bpf"));
    if bpf_lsm == Some(false) {
        found.push(finding(
            Severity::Info,
            "no_bpf_lsm",
            "this kernel runs without the BPF LSM: a reboot cannot be held until ghosts are ready",
            "add `bpf` to the kernel parameter lsm= if you want it",
        ));
    }
    found
}

/// Major and minor of a release such as `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn interface(seen: &InterfaceFacts) -> Vec<FindingDto> {
    let InterfaceFacts {
        name,
        v4_forwarding,
        v6_forwarding,
        rp_filter,
        bridge_port,
    } = seen;
    let mut found = Vec::new();
    let mut off = |version: &str, mend: String| {
        found.push(FindingDto::new(
            Severity::Warning,
            "forwarding_off",
            format!("{version} forwarding is off on {name}: packets that need the stack are dropped there"),
            Some(mend),
        ));
    };
    if *v4_forwarding == Some(false) {
        let mend = format!("sysctl -w net.ipv4.conf.{}.forwarding=1", sysctl_name(name));
        off("IPv4", mend);
    }
    if *v6_forwarding == Some(false) {
        // The stack asks `all`, the look-up in XDP asks the interface; this sets both.
        off(
            "IPv6",
            "sysctl -w net.ipv6.conf.all.forwarding=1".to_owned(),
        );
    }
    // Strict is 1 (Documentation/networking/ip-sysctl.rst).
    if *rp_filter == Some(1) {
        found.push(FindingDto::new(
            Severity::Warning,
            "rp_filter_strict",
            format!("reverse path filtering is strict on {name}: replies of a copy that took another way are dropped"),
            Some(format!(
                "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{}.rp_filter=2",
                sysctl_name(name)
            )),
        ));
    }
    // The bridge looks at the frame's MAC address, which is the primary's
    // still, and not at the translated IP address.
    if *bridge_port {
        found.push(FindingDto::new(
            Severity::Warning,
            "bridge_port",
            format!(
                "{name} is a port of a bridge: a packet for the primary's MAC address goes to the primary by the bridge wherever the switch points, unless it leaves by an interface of ghostd's own"
            ),
            Some(format!(
                "take {name} off the bridge (ip link set {name} nomaster) and route to the copies through this host"
            )),
        ));
    }
    found
}

/// sysctl(8) takes `/` for a dot that is part of a name, such as `eth0.100`.
fn sysctl_name(interface: &str) -> String {
    interface.replace('.', "/")
}

/// A program of others on an interface.
fn foreign(seen: &super::facts::ForeignXdp, ours: &[InterfaceFacts]) -> FindingDto {
    let interface = &seen.interface;
    let program = seen.program.as_deref().unwrap_or("of unknown name");
    let wanted = ours.iter().any(|i| i.name == *interface);
    let severity = if wanted {
        Severity::Error
    } else {
        Severity::Info
    };
    FindingDto::new(
        severity,
        "foreign_xdp",
        format!(
            "{interface} carries the XDP program {program} (id {}), which is not ghostd's; ghostd does not attach over it",
            seen.program_id
        ),
        Some(format!(
            "bpftool net detach xdp dev {interface}, if nobody needs it, or `replace_foreign = true` for the interface in the configuration; then systemctl restart ghostd"
        )),
    )
}

/// Beyond a few it is one cause, and must not push the rest off the screen.
fn cgroups(unknown: &[String]) -> Vec<FindingDto> {
    let Some(named) = unknown.get(..CGROUPS_NAMED_MAX) else {
        return unknown.iter().map(|name| cgroup(name)).collect();
    };
    let what = format!(
        "{} instances are armed, but the kernel does not know their cgroups: their own reboots go unnoticed ({}, ...)",
        unknown.len(),
        named.join(", ")
    );
    let mend =
        "start the instances, or mend `cgroup` in the configuration and run: ghostctl reload";
    vec![finding(Severity::Warning, "cgroup_unknown", &what, mend)]
}

fn cgroup(instance: &str) -> FindingDto {
    FindingDto::new(
        Severity::Warning,
        "cgroup_unknown",
        format!(
            "instance {instance} is armed, but the kernel does not know its cgroup: its own reboots go unnoticed"
        ),
        Some(format!(
            "start the instance, or mend `cgroup` of {instance} in the configuration and run: ghostctl reload"
        )),
    )
}

/// A reason that points to trouble: its name, what it means, what to do.
struct Trouble {
    reason: &'static str,
    means: &'static str,
    mend: fn(&RouteDto) -> String,
}

const TROUBLES: [Trouble; 5] = [
    Trouble {
        reason: "neighbour_unresolved",
        means: "packets went up the stack because the next hop's MAC address was not known",
        mend: |route| format!("ip neigh; ping -c 1 {}", target(route)),
    },
    Trouble {
        reason: "forwarding_off",
        means: "packets met an interface with forwarding off",
        mend: |_| "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".to_owned(),
    },
    Trouble {
        reason: "unreachable",
        means: "the routing table refuses the target",
        mend: |route| format!("ip route get {}", target(route)),
    },
    Trouble {
        reason: "too_big_unanswered",
        means: "packets too big for the path were dropped without an answer: more came than may be answered",
        mend: |route| {
            format!(
                "ip route get {}; raise the MTU on that way, or clamp the MSS",
                target(route)
            )
        },
    },
    Trouble {
        reason: "not_owner",
        means: "a copy that does not own the service spoke as it",
        mend: |route| {
            format!(
                "ghostctl switch show {0}; stop the other copy of {0}, or fence its port",
                route.instance
            )
        },
    },
];

/// The address packets really go to: the ghost's, or else the service's.
fn target(route: &RouteDto) -> String {
    match (route.primary, route.ghost) {
        (_, TargetDto::Translate { addr, .. } | TargetDto::Via { addr })
        | (TargetDto::Translate { addr, .. } | TargetDto::Via { addr }, _) => addr.to_string(),
        (TargetDto::Native {}, TargetDto::Native {}) => route.service.addr.to_string(),
    }
}

/// What grows now is a warning, what only happened once is news.
fn counters(before: &RoutesDto, after: &RoutesDto) -> Vec<FindingDto> {
    TROUBLES
        .iter()
        .filter_map(|t| trouble(t, before, after))
        .collect()
}

fn trouble(trouble: &Trouble, before: &RoutesDto, after: &RoutesDto) -> Option<FindingDto> {
    let value = |route: &RouteDto| {
        let reasons = &route.counters.reasons;
        reasons.get(trouble.reason).copied().unwrap_or(0)
    };
    let earlier: std::collections::HashMap<_, _> = before
        .routes
        .iter()
        .map(|r| (r.counter, value(r)))
        .collect();
    let growth = |route: &RouteDto| {
        let before = earlier.get(&route.counter).copied();
        value(route).saturating_sub(before.unwrap_or(value(route)))
    };
    let worst = after.routes.iter().filter(|r| value(r) > 0);
    let worst = worst.max_by_key(|r| (growth(r), value(r)))?;
    let grown = growth(worst);
    let (severity, now) = if grown > 0 {
        (
            Severity::Warning,
            format!(", {} more just now", count(grown)),
        )
    } else {
        (Severity::Info, ", none just now".to_owned())
    };
    Some(FindingDto::new(
        severity,
        trouble.reason,
        format!(
            "{}: {} on route {} of {}{now}",
            trouble.means,
            count(value(worst)),
            worst.service,
            worst.instance
        ),
        Some((trouble.mend)(worst)),
    ))
}

/// Interfaces that steering depends on: uplinks and ports.
pub fn interfaces(status: &StatusDto) -> Vec<String> {
    let uplinks = status.uplinks.iter().map(|u| &u.interface);
    let ports = status
        .instances
        .iter()
        .flat_map(|i| &i.ports)
        .map(|p| &p.interface);
    let mut names: Vec<String> = uplinks
        .chain(ports)
        .filter(|n| !n.is_empty())
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}
