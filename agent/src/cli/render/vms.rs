//! Instances that this host runs itself.

use std::fmt::Write;

use comfy_table::Cell;

use crate::{
    cli::look::{self, Look, Tone, count, printable, right, toned},
    control::dto::{CopyDto, NotInForceDto, VerdictDto, VmDoneDto, VmDto, VmsDto},
};

/// `ghostctl instance list`.
pub fn vms(all: &VmsDto, look: Look) -> String {
    if all.instances.is_empty() {
        return "no instance has an [instance.vm]\n".to_owned();
    }
    table(&all.instances, look)
}

pub(super) fn table(all: &[VmDto], look: Look) -> String {
    let mut table = look.table(&[
        "INSTANCE", "PRIMARY", "PID", "GHOST", "EPOCH", "PID", "MIB", "CPUS",
    ]);
    for vm in all {
        table.add_row([
            printable(&vm.name).into(),
            state_cell(&vm.primary),
            right(number(vm.primary.pid)),
            state_cell(&vm.ghost),
            right(number(vm.ghost.epoch)),
            right(number(vm.ghost.pid)),
            right(vm.memory_mib.to_string()),
            right(vm.vcpus.to_string()),
        ]);
    }
    look::lines(&table)
}

fn number<T: ToString>(number: Option<T>) -> String {
    number.map_or("-".to_owned(), |n| n.to_string())
}

fn tone(state: &str) -> Tone {
    match state {
        "running" | "suspended" => Tone::Good,
        "active" | "standby" | "ended" | "failed" => Tone::Bad,
        "paused" | "preparing" | "activating" | "returning" => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn state_cell(copy: &CopyDto) -> Cell {
    toned(tone(&copy.state), &printable(&copy.state))
}

/// `ghostctl instance show`.
pub fn vm(vm: &VmDto, look: Look) -> String {
    let VmDto {
        name,
        primary,
        ghost,
        memory_mib,
        vcpus,
        image,
    } = vm;
    let mut text = format!("instance     {}\n", printable(name));
    let _ = writeln!(text, "primary      {}", copy(primary, look));
    text.push_str(&not_in_force(primary, look));
    let _ = writeln!(text, "ghost        {}", copy(ghost, look));
    text.push_str(&not_in_force(ghost, look));
    let _ = writeln!(text, "memory       {memory_mib} MiB");
    let _ = writeln!(text, "processors   {vcpus}");
    let _ = writeln!(text, "image        {}", printable(image));
    text
}

fn copy(copy: &CopyDto, look: Look) -> String {
    let CopyDto {
        state,
        epoch,
        reason,
        pid,
        not_in_force: _,
    } = copy;
    let mut text = look.paint(tone(state), &printable(state));
    if let Some(epoch) = epoch {
        let _ = write!(text, ", epoch {epoch}");
    }
    if let Some(pid) = pid {
        let _ = write!(text, ", pid {pid}");
    }
    if let Some(reason) = reason {
        let _ = write!(text, ": {}", printable(reason));
    }
    text
}

/// A line for each reason.
fn not_in_force(copy: &CopyDto, look: Look) -> String {
    let mut text = String::new();
    let limits = &copy.not_in_force;
    for same in limits.chunk_by(|a, b| a.why == b.why) {
        let names = same
            .iter()
            .map(|NotInForceDto { limit, .. }| printable(limit).to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        let why = same.first().map_or("", |limit| limit.why.as_str());
        let words = look.paint(Tone::Notice, "not in force");
        let _ = writeln!(text, "             {words}: {names} ({})", printable(why));
    }
    text
}

/// What an order did, in words.
pub fn vm_done(verb: &str, name: &str, done: &VmDoneDto, look: Look) -> String {
    let VmDoneDto {
        took_us,
        pause_us,
        activate_us,
        pages,
        pages_paused,
        verdict,
        instance,
    } = done;
    let mut text = format!("{verb} {}: done in {}\n", printable(name), time(*took_us));
    if let Some(us) = pause_us {
        let _ = writeln!(text, "stood still  {}", time(*us));
    }
    if let Some(us) = activate_us {
        let _ = writeln!(text, "activated    in {}", time(*us));
    }
    if let Some(all) = pages {
        let paused = pages_paused.unwrap_or_default();
        let (all, paused) = (count(*all), count(paused));
        let _ = writeln!(
            text,
            "pages        {all} while it ran, {paused} while it stood still"
        );
    }
    if let Some(found) = verdict {
        let VerdictDto {
            is_healthy,
            what,
            answered_us,
        } = found;
        let (tone, word) = match is_healthy {
            true => (Tone::Good, "healthy"),
            false => (Tone::Bad, "NOT HEALTHY"),
        };
        let after = answered_us.map_or(String::new(), |us| format!(" after {}", time(us)));
        let word = look.paint(tone, word);
        let _ = writeln!(text, "verdict      {word}{after}: {}", printable(what));
    }
    let _ = writeln!(text, "primary      {}", copy(&instance.primary, look));
    let _ = writeln!(text, "ghost        {}", copy(&instance.ghost, look));
    text
}

/// Three digits are enough.
fn time(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}
