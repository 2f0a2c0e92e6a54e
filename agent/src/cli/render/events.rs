//! `ghostctl events`: one line an event: when, what, who, how fast.

use std::fmt::Write as _;

use crate::{
    cli::look::{Look, Tone, printable},
    control::dto::{CallerDto, DrainEndDto, EventLine, RebootDto, SideDto, TriggerDto, WhatDto},
};

use super::switches::position;

pub fn event_line(line: &EventLine, look: Look) -> String {
    match line {
        EventLine::Lost { events } => {
            let text =
                format!("{events} events lost: they are no longer kept, or were read too slowly");
            format!("{}\n", look.paint(Tone::Notice, &text))
        }
        EventLine::Event { sequence, at, what } => {
            let (tone, what) = describe(what);
            let at = printable(at);
            format!("{at} {sequence:>5}  {}\n", look.paint(tone, &what))
        }
    }
}

fn describe(what: &WhatDto) -> (Tone, String) {
    match what {
        WhatDto::Started { version, adopted } => {
            let how = if *adopted {
                "what was pinned was adopted"
            } else {
                "nothing was pinned"
            };
            let version = printable(version);
            (Tone::Plain, format!("ghostd {version} started; {how}"))
        }
        WhatDto::Stopping {} => {
            let text = "ghostd stops; steering stays in force";
            (Tone::Plain, text.to_owned())
        }
        WhatDto::ConfigReloaded { instances, routes } => {
            let text = format!("configuration reloaded: {instances} instances, {routes} routes");
            (Tone::Plain, text)
        }
        WhatDto::ConfigRefused { diagnostic } => {
            let first = printable(
                diagnostic
                    .lines()
                    .find(|l| !l.trim().is_empty())
                    .unwrap_or(""),
            );
            let text = format!("configuration refused, the old one stays: {}", first.trim());
            (Tone::Notice, text)
        }
        WhatDto::Reboot { instance, seen } => reboot(instance.as_deref(), seen),
        WhatDto::SwitchMoved { instance, to, by } => {
            let CallerDto { pid, uid, gid: _ } = by;
            let whose = whose(instance.as_deref());
            let to = position(*to);
            (
                Tone::Notice,
                format!("{whose}: switch moved to {to} by pid {pid} (uid {uid})"),
            )
        }
        WhatDto::Drained {
            instance,
            flows_left,
            reason,
        } => {
            let instance = printable(instance);
            let text = match reason {
                DrainEndDto::Empty => format!("{instance}: drained, all flows ended"),
                DrainEndDto::TimedOut => {
                    format!("{instance}: draining timed out with {flows_left} flows left")
                }
            };
            (Tone::Plain, text)
        }
        WhatDto::Attached { interface, mode } => {
            let (interface, mode) = (printable(interface), printable(mode));
            (
                Tone::Plain,
                format!("attached to {interface} in {mode} mode"),
            )
        }
        WhatDto::InterfaceGone { interface } => (
            Tone::Bad,
            format!("interface {} is gone", printable(interface)),
        ),
        WhatDto::Drilled {
            instance,
            is_healthy,
            what,
        } => {
            let (tone, verdict) = match is_healthy {
                true => (Tone::Good, "healthy"),
                false => (Tone::Bad, "not healthy"),
            };
            let (instance, what) = (printable(instance), printable(what));
            (
                tone,
                format!("{instance}: a drill of its ghost: {verdict}, {what}"),
            )
        }
        WhatDto::CopyChanged {
            instance,
            side,
            state,
            epoch,
            reason,
        } => {
            let side = match side {
                SideDto::Primary => "primary",
                SideDto::Ghost => "ghost",
            };
            let mut text = format!("{}: {side} {}", printable(instance), printable(state));
            if let Some(epoch) = epoch {
                let _ = write!(text, " at epoch {epoch}");
            }
            if let Some(reason) = reason {
                let _ = write!(text, ": {}", printable(reason));
            }
            let tone = match (state.as_str(), reason) {
                (_, Some(_)) => Tone::Bad,
                ("active" | "standby", _) => Tone::Notice,
                _ => Tone::Plain,
            };
            (tone, text)
        }
        WhatDto::Degraded { what } => (Tone::Bad, format!("degraded: {}", printable(what))),
        WhatDto::KernelEventsLost { count } => {
            let text = format!("{count} kernel events lost: they came faster than they were read");
            (Tone::Bad, text)
        }
    }
}

fn whose(instance: Option<&str>) -> String {
    instance.map_or("host".to_owned(), printable)
}

fn reboot(instance: Option<&str>, seen: &RebootDto) -> (Tone, String) {
    let RebootDto {
        trigger,
        pid,
        uid,
        comm,
        command,
        command_name,
        errno,
        throw_took_ns,
        ..
    } = seen;
    let whose = whose(instance);
    let command = command_name
        .as_deref()
        .map_or_else(|| format!("command {command:#x}"), printable);
    let who = format!("{command} by {} (pid {pid}, uid {uid})", printable(comm));
    let throw = throw_took_ns.map_or(String::new(), |ns| {
        format!(", thrown after {}.{} us", ns / 1000, ns % 1000 / 100)
    });
    match trigger {
        TriggerDto::HostReboot => (Tone::Bad, format!("{whose}: reboot, {who}{throw}")),
        TriggerDto::InstanceReboot => (Tone::Bad, format!("{whose}: reboot, {who}{throw}")),
        TriggerDto::InstanceRebootUnarmed => (
            Tone::Bad,
            format!("{whose}: reboot, {who}, not armed: switch not thrown"),
        ),
        TriggerDto::GuestReset => (Tone::Bad, format!("{whose}: guest reset, {who}{throw}")),
        TriggerDto::GuestResetUnarmed => (
            Tone::Bad,
            format!("{whose}: guest reset, {who}, not armed: switch not thrown"),
        ),
        TriggerDto::RebootFailed => {
            let errno = errno.map_or(String::new(), |e| format!(" with errno {e}"));
            (
                Tone::Notice,
                format!("{whose}: reboot failed{errno}, {who}"),
            )
        }
    }
}
