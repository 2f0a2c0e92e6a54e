//! `ghostctl status`.

use std::fmt::Write;

use super::{
    findings,
    switches::{because, host_line, position_cell, since, yes},
    vms,
};
use crate::{
    cli::look::{self, Look, Tone, count, printable, right},
    control::dto::{
        InstanceDto, PositionDto, Severity, SideDto, Source, StatusDto, UplinkDto, XdpModeDto,
    },
};

/// One screen holds this many of each; the rest is counted, and the text says
/// which command lists it.
const ROWS_MAX: usize = 20;
const FENCES_MAX: usize = 5;
const FINDINGS_MAX: usize = 5;

/// One screen.
pub fn status(status: &StatusDto, look: Look) -> String {
    let StatusDto {
        source: _,
        host,
        uplinks,
        instances,
        microvms,
        findings,
    } = status;
    let mut text = format!("{}\n", head(status, look));
    let _ = writeln!(text, "host switch  {}", host_line(&host.switch, look));
    if uplinks.is_empty() {
        let _ = writeln!(text, "uplinks      none");
    }
    for (i, uplink) in uplinks.iter().enumerate() {
        let label = if i == 0 { "uplinks" } else { "" };
        let _ = writeln!(text, "{label:<13}{}", uplink_line(uplink, look));
    }
    text.push_str(&fences(instances));
    text.push('\n');
    if instances.is_empty() {
        text.push_str("no instances\n");
    } else {
        text.push_str(&table(instances, look));
    }
    if !microvms.is_empty() {
        let shown = microvms.len().min(ROWS_MAX);
        text.push('\n');
        text.push_str(&vms::table(&microvms[..shown], look));
        if microvms.len() > shown {
            let n = microvms.len() - shown;
            let _ = writeln!(text, "... and {n} more: ghostctl instance list");
        }
    }
    if !findings.is_empty() {
        text.push('\n');
        let shown = findings.len().min(FINDINGS_MAX);
        text.push_str(&findings::findings(&findings[..shown], look));
        if findings.len() > shown {
            let n = findings.len() - shown;
            let _ = writeln!(text, "... and {n} more: ghostctl doctor");
        }
    }
    text
}

fn head(status: &StatusDto, look: Look) -> String {
    let version = printable(&status.host.ghostd_version);
    let source = match status.source {
        Source::Daemon => "running",
        Source::Pins => "NOT RUNNING; this is what is pinned in the kernel",
    };
    let worst = status.findings.iter().map(|f| f.severity).max();
    let (tone, word) = match (status.source, worst) {
        (_, Some(Severity::Error)) => (Tone::Bad, "degraded"),
        (_, Some(Severity::Warning)) => (Tone::Notice, "degraded"),
        (Source::Pins, _) => (Tone::Notice, "no daemon"),
        (Source::Daemon, _) => (Tone::Good, "healthy"),
    };
    let word = look.paint(tone, word);
    let host = status.host.name.as_deref();
    let host = host.map_or_else(String::new, |name| format!(" on {}", printable(name)));
    format!("ghostd       {version}{host}, {source}: {word}")
}

fn uplink_line(uplink: &UplinkDto, look: Look) -> String {
    let name = printable(&uplink.interface);
    let program = printable(&uplink.program);
    let id = uplink.program_id;
    let Some(mode) = uplink.mode else {
        let gone = look.paint(Tone::Bad, "gone");
        return format!(
            "(interface {}) {gone}, program {program} ({id})",
            uplink.ifindex
        );
    };
    let mode = match mode {
        XdpModeDto::Native => look.paint(Tone::Good, "native"),
        XdpModeDto::Generic => look.paint(Tone::Notice, "generic"),
        XdpModeDto::Offloaded => look.paint(Tone::Good, "offloaded"),
    };
    format!("{name} {mode}, program {program} ({id})")
}

/// Instances that are not at their primary first; the rest as far as it fits.
fn table(instances: &[InstanceDto], look: Look) -> String {
    let mut table = look.table(&[
        "INSTANCE",
        "AT",
        "SINCE",
        "BECAUSE",
        "ARMED",
        "ROUTES",
        "TO PRIMARY",
        "TO GHOST",
    ]);
    let mut shown: Vec<&InstanceDto> = instances.iter().collect();
    if shown.len() > ROWS_MAX {
        shown.sort_by_key(|i| i.switch.position == PositionDto::Primary);
    }
    let hidden = shown.split_off(shown.len().min(ROWS_MAX));
    for instance in shown {
        let InstanceDto {
            name,
            switch,
            routes,
            traffic,
            ports: _,
        } = instance;
        table.add_row([
            printable(name).into(),
            position_cell(switch),
            since(switch).into(),
            because(switch).into(),
            yes(switch.armed).into(),
            right(routes.to_string()),
            right(count(traffic.primary_packets)),
            right(count(traffic.ghost_packets)),
        ]);
    }
    let mut text = look::lines(&table);
    if !hidden.is_empty() {
        let n = hidden.len();
        let _ = writeln!(text, "... and {n} more: ghostctl switch show");
    }
    text
}

/// Ports whose fence dropped something: a copy spoke that should not.
fn fences(instances: &[InstanceDto]) -> String {
    let mut text = String::new();
    let ports = instances
        .iter()
        .flat_map(|i| i.ports.iter().map(move |p| (i, p)));
    let dropped: Vec<_> = ports.filter(|(_, p)| p.fenced_packets > 0).collect();
    for (i, (instance, port)) in dropped.iter().take(FENCES_MAX).enumerate() {
        let side = match port.side {
            SideDto::Primary => "primary",
            SideDto::Ghost => "ghost",
        };
        let _ = writeln!(
            text,
            "{:<13}{}: {} frames of {}'s {side} dropped",
            if i == 0 { "fences" } else { "" },
            printable(&port.interface),
            count(port.fenced_packets),
            printable(&instance.name),
        );
    }
    if dropped.len() > FENCES_MAX {
        let n = dropped.len() - FENCES_MAX;
        let _ = writeln!(
            text,
            "             ... and {n} more: ghostctl status -o json"
        );
    }
    text
}

/// One line, for a prompt or a monitor.
pub fn brief(status: &StatusDto) -> String {
    let at = |position| {
        let at = status
            .instances
            .iter()
            .filter(|i| i.switch.position == position);
        at.count()
    };
    let found = |severity| {
        status
            .findings
            .iter()
            .filter(|f| f.severity == severity)
            .count()
    };
    let word = match (status.source, status.healthy()) {
        (Source::Pins, _) => "NO-DAEMON",
        (Source::Daemon, true) => "OK",
        (Source::Daemon, false) => "DEGRADED",
    };
    let up = status.uplinks.iter().filter(|u| u.mode.is_some()).count();
    let host = if status.host.switch.moves_instances > 0 {
        "thrown"
    } else {
        "idle"
    };
    format!(
        "{word} instances={} primary={} ghost={} draining={} uplinks={up}/{} host_switch={host} errors={} warnings={}\n",
        status.instances.len(),
        at(PositionDto::Primary),
        at(PositionDto::Ghost),
        at(PositionDto::Draining),
        status.uplinks.len(),
        found(Severity::Error),
        found(Severity::Warning),
    )
}
