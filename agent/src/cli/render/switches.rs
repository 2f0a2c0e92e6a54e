//! Switches and what commands did to them.

use comfy_table::Cell;

use crate::{
    cli::look::{self, Look, Tone, age, count, printable, right, toned},
    control::dto::{CauseDto, HostSwitchDto, OutcomeDto, PositionDto, SwitchDto, SwitchesDto},
};

/// `ghostctl switch show`.
pub fn switches(shown: &SwitchesDto, look: Look) -> String {
    let SwitchesDto { host, switches } = shown;
    let mut table = look.table(&[
        "INSTANCE", "AT", "SINCE", "BECAUSE", "ARMED", "DRAIN", "FLOWS", "TERM", "SLOT",
    ]);
    for switch in switches {
        table.add_row([
            printable(&switch.instance).into(),
            position_cell(switch),
            since(switch).into(),
            because_in_full(switch).into(),
            yes(switch.armed).into(),
            yes(switch.tracked).into(),
            right(switch.draining_flows.map_or("-".to_owned(), count)),
            right(switch.term.to_string()),
            right(switch.slot.to_string()),
        ]);
    }
    let head = host_switch(host, look);
    if switches.is_empty() {
        return format!("{head}\nno instances\n");
    }
    format!("{head}\n{}", look::lines(&table))
}

/// `ghostctl switch show --host`.
pub fn host_switch(host: &HostSwitchDto, look: Look) -> String {
    format!("host switch  {}\n", host_line(host, look))
}

/// What a command did, in words.
pub fn outcome(verb: &str, subject: &str, outcome: OutcomeDto) -> String {
    match outcome {
        OutcomeDto::Done => format!("{verb} {subject}: done\n"),
        OutcomeDto::Unchanged => format!("{verb} {subject}: it was so already\n"),
    }
}

pub(super) fn host_line(host: &HostSwitchDto, look: Look) -> String {
    let HostSwitchDto {
        generation,
        thrown_ago_ms,
        cause_pid,
        moves_instances,
    } = *host;
    let Some(ago) = thrown_ago_ms else {
        return "never thrown".to_owned();
    };
    let ago = age(ago);
    let by = match cause_pid {
        0 => String::new(),
        pid => format!(" by pid {pid}"),
    };
    let effect = match moves_instances {
        0 => look.paint(Tone::Good, "restored"),
        n => look.paint(Tone::Bad, &format!("instances at their ghosts: {n}")),
    };
    format!("thrown {ago} ago{by} (throw {generation}), {effect}")
}

pub(super) const fn position(position: PositionDto) -> &'static str {
    match position {
        PositionDto::Primary => "primary",
        PositionDto::Ghost => "ghost",
        PositionDto::Draining => "draining",
    }
}

pub(super) fn position_cell(switch: &SwitchDto) -> Cell {
    let tone = match switch.position {
        PositionDto::Primary => Tone::Good,
        PositionDto::Ghost => Tone::Bad,
        PositionDto::Draining => Tone::Notice,
    };
    toned(tone, position(switch.position))
}

pub(super) fn since(switch: &SwitchDto) -> String {
    switch.moved_ago_ms.map_or("-".to_owned(), age)
}

/// Why the switch is where it is.
pub(super) fn because(switch: &SwitchDto) -> String {
    if switch.by_host {
        return "host switch".to_owned();
    }
    let cause = match switch.cause {
        None => return "-".to_owned(),
        Some(CauseDto::Commanded) => "command",
        Some(CauseDto::InstanceReboot) => "reboot",
        Some(CauseDto::HostReboot) => "host reboot",
        Some(CauseDto::GuestReset) => "guest reset",
    };
    match switch.cause_pid {
        0 => cause.to_owned(),
        pid => format!("{cause} ({pid})"),
    }
}

/// As [`because`], and where the slot would point without the host switch.
fn because_in_full(switch: &SwitchDto) -> String {
    if switch.by_host {
        return format!("host, own {}", position(switch.own_position));
    }
    because(switch)
}

pub(super) const fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
