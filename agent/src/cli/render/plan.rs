//! `ghostctl plan`.

use std::fmt::Write as _;

use crate::{
    cli::look::{self, Look, Tone, printable, right},
    control::dto::{
        AmountsDto, ChangeDto, GradeDto, GrantDto, PlanDto, ReasonDto, RefusalDto, ResourceDto,
        ShortageDto,
    },
};

pub fn plan(plan: &PlanDto, look: Look) -> String {
    let mut text = resources(plan, look);
    text.push('\n');
    if plan.grants.is_empty() {
        text.push_str("no instance is a microVM of ghostd's\n");
        return text;
    }
    let mut table = look.table(&[
        "INSTANCE", "RISK", "GHOST", "MEMORY", "CPU", "WEIGHT", "SYNC", "EPOCH",
    ]);
    for grant in &plan.grants {
        let mut row = vec![printable(&grant.instance).into(), right(risk(grant.risk))];
        row.push(grade(grant.grade).into());
        if grant.grade == GradeDto::None {
            row.extend((0..5).map(|_| right("-".to_owned())));
        } else {
            let amounts = &grant.amounts;
            row.push(right(size(amounts.memory_bytes)));
            row.push(right(cpus(amounts.cpu_milli)));
            row.push(right(grant.cpu_weight.to_string()));
            row.push(right(rate(amounts.bandwidth_bytes_per_second)));
            row.push(right(format!("{} ms", grant.epoch_ms)));
        }
        table.add_row(row);
    }
    text.push_str(&look::lines(&table));
    text.push_str(&refusals("\nrefused\n", &plan.refusals, look));
    if let Some(supposed) = &plan.supposed {
        text.push_str("\nat the supposed risks\n");
        if supposed.changes.is_empty() {
            text.push_str("  nothing changes\n");
        }
        for change in &supposed.changes {
            text.push_str(&changed(change));
        }
        let new = supposed.refusals.iter();
        let new: Vec<RefusalDto> = new
            .filter(|r| !plan.refusals.contains(r))
            .cloned()
            .collect();
        text.push_str(&refusals("\nrefused then\n", &new, look));
    }
    text
}

fn resources(plan: &PlanDto, look: Look) -> String {
    let mut table = look.table(&["RESERVE", "USED", "RESERVED", "HOST HAS"]);
    type Show = fn(&AmountsDto) -> String;
    let rows: [(&str, Show); 4] = [
        ("memory", |a| size(a.memory_bytes)),
        ("huge pages", |a| a.huge_pages.to_string()),
        ("cpu", |a| cpus(a.cpu_milli)),
        ("bandwidth", |a| rate(a.bandwidth_bytes_per_second)),
    ];
    for (name, show) in rows {
        table.add_row([
            name.into(),
            right(show(&plan.used)),
            right(show(&plan.reserve)),
            right(show(&plan.capacity)),
        ]);
    }
    look::lines(&table)
}

fn refusals(head: &str, refusals: &[RefusalDto], look: Look) -> String {
    if refusals.is_empty() {
        return String::new();
    }
    let mut text = head.to_owned();
    for refusal in refusals {
        let what = format!(
            "{}: {}",
            printable(&refusal.instance),
            wanted(refusal.wanted)
        );
        let what = look.paint(Tone::Notice, &what);
        let _ = writeln!(text, "  {what}");
        let (whose, shortages) = match &refusal.reason {
            ReasonDto::SmallRisk { threshold } => {
                let _ = writeln!(text, "    its risk is below {}", risk(*threshold));
                continue;
            }
            ReasonDto::Reserve { shortages } => ("the reserve", shortages),
            ReasonDto::OwnersShare { shortages } => ("its owner's share", shortages),
        };
        for shortage in shortages {
            text.push_str(&short(whose, shortage));
        }
    }
    text
}

fn short(whose: &str, shortage: &ShortageDto) -> String {
    let show: fn(u64) -> String = match shortage.resource {
        ResourceDto::Memory => |n| format!("{} of memory", size(n)),
        ResourceDto::HugePages => |n| format!("{n} huge pages"),
        ResourceDto::Cpu => |n| format!("{} CPUs", cpus(n)),
        ResourceDto::Bandwidth => |n| format!("{} for sync", rate(n)),
    };
    format!(
        "    takes {}, {whose} has {} left\n    {} would do for all\n",
        show(shortage.wanted),
        show(shortage.left),
        show(shortage.enough_for_all)
    )
}

fn changed(change: &ChangeDto) -> String {
    let ChangeDto { from, to } = change;
    let mut parts = Vec::new();
    let mut differ = |name: &str, from: String, to: String| {
        if from != to {
            parts.push(format!("{name} {from} -> {to}"));
        }
    };
    let (before, after) = (&from.amounts, &to.amounts);
    differ("risk", risk(from.risk), risk(to.risk));
    differ(
        "ghost",
        grade(from.grade).to_owned(),
        grade(to.grade).to_owned(),
    );
    differ(
        "memory",
        size(before.memory_bytes),
        size(after.memory_bytes),
    );
    differ("cpu", cpus(before.cpu_milli), cpus(after.cpu_milli));
    let sync = |grant: &GrantDto| rate(grant.amounts.bandwidth_bytes_per_second);
    differ("sync", sync(from), sync(to));
    let epoch = |grant: &GrantDto| format!("{} ms", grant.epoch_ms);
    differ("epoch", epoch(from), epoch(to));
    let mut text = format!("  {}\n", printable(&to.instance));
    for part in parts {
        let _ = writeln!(text, "    {part}");
    }
    text
}

const fn grade(grade: GradeDto) -> &'static str {
    match grade {
        GradeDto::None => "none",
        GradeDto::Lazy => "lazy",
        GradeDto::Resident => "resident",
        GradeDto::Huge => "huge pages",
    }
}

const fn wanted(grade: GradeDto) -> &'static str {
    match grade {
        GradeDto::None | GradeDto::Lazy => "no ghost",
        GradeDto::Resident => "its ghost's memory is not resident",
        GradeDto::Huge => "its ghost's memory is not in huge pages",
    }
}

fn risk(risk: f64) -> String {
    let text = format!("{risk:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Tenths of the greatest unit that gives at least one.
fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 1;
    let mut name = 0;
    while name + 1 < units.len() && number / unit >= step {
        unit *= step;
        name += 1;
    }
    let tenths = number / unit * 10 + number % unit * 10 / unit;
    let name = units.get(name).copied().unwrap_or_default();
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

fn size(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn rate(bytes_per_second: u64) -> String {
    let bits = bytes_per_second.saturating_mul(8);
    scaled(bits, 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn cpus(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
