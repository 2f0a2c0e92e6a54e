//! `[reserve]`, `[[owner]]`, and what is at stake with an instance.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::{
    instance,
    problem::{Draft, Problems, Span},
    read::{Section, Value},
};
use crate::model::{Allocation, Owner, Portion, Priority, Reserve, Risk, Stake};

/// More than any host has, and far from the end of `u64`.
const CPUS_MAX: u32 = 65_536;
const HUGE_PAGES_MAX: u32 = 1 << 30;

const MEMORY: &[(&str, u64)] = &[("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Bits a second, in bytes a second.
const BANDWIDTH: &[(&str, u64)] = &[("Mbit", 125_000), ("Gbit", 125_000_000)];

/// Digits of an amount: enough for a petabyte in MiB.
const DIGITS_MAX: usize = 10;

pub(super) fn reserve(section: Option<Section<'_>>, problems: &mut Problems) -> Reserve {
    let mut reserve = Reserve::default();
    let Some(mut section) = section else {
        return reserve;
    };
    let help = "for example \"25%\", \"512MiB\" or \"8GiB\"";
    let memory = section.take("memory");
    let memory = memory.and_then(|value| portion(&value, MEMORY, help, problems));
    let huge_pages = section.take("huge_pages");
    let huge_pages = huge_pages.and_then(|value| {
        let help = "a number of 2 MiB pages, or for example \"10%\"";
        count(&value, HUGE_PAGES_MAX, 1, help, problems)
    });
    let cpu = section.take("cpu");
    let cpu = cpu.and_then(|value| {
        let help = "a number of CPUs, or for example \"25%\"";
        count(&value, CPUS_MAX, 1000, help, problems)
    });
    let help = "for example \"25%\", \"500Mbit\" or \"10Gbit\"";
    let bandwidth = section.take("bandwidth");
    let bandwidth = bandwidth.and_then(|value| portion(&value, BANDWIDTH, help, problems));
    section.finish(problems);
    let parts = [
        (&mut reserve.memory, memory),
        (&mut reserve.huge_pages, huge_pages),
        (&mut reserve.cpu, cpu),
        (&mut reserve.bandwidth, bandwidth),
    ];
    for (part, found) in parts {
        *part = found.unwrap_or(*part);
    }
    reserve
}

/// A number of things of so many units, or a percentage.
fn count(
    value: &Value<'_>,
    max: u32,
    unit: u64,
    help: &str,
    problems: &mut Problems,
) -> Option<Portion> {
    match value.inner {
        DeValue::Integer(_) => {
            let number = value.integer(0..=max, problems)?;
            Some(Portion::Absolute(u64::from(number) * unit))
        }
        DeValue::String(_) => portion(value, &[], help, problems),
        _ => {
            value.wrong("a whole number, or a percentage", problems);
            None
        }
    }
}

/// A percentage, or a number with one of the units behind it.
fn portion(
    value: &Value<'_>,
    units: &[(&str, u64)],
    help: &str,
    problems: &mut Problems,
) -> Option<Portion> {
    let text = value.string(problems)?;
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let number = (digits.len() <= DIGITS_MAX).then(|| digits.parse::<u64>().ok());
    let found = match (number.flatten(), unit.trim_start()) {
        (Some(percent), "%") => match u8::try_from(percent) {
            Ok(percent @ 0..=100) => Some(Portion::Percent(percent)),
            _ => None,
        },
        (Some(number), unit) => {
            let unit = units.iter().find(|(name, _)| *name == unit);
            let amount = unit.and_then(|(_, size)| number.checked_mul(*size));
            amount.map(Portion::Absolute)
        }
        (None, _) => None,
    };
    if found.is_none() {
        let message = format!("`{}` is not a part of what a host has", text.escape_debug());
        let draft = Draft::new(value.span.clone(), message, "not an amount");
        problems.error(draft.help(help));
    }
    found
}

pub(super) fn owners(sections: Option<Vec<Section<'_>>>, problems: &mut Problems) -> Vec<Owner> {
    let mut owners: BTreeMap<String, (Owner, Span)> = BTreeMap::new();
    for mut section in sections.into_iter().flatten() {
        let help = "as instances name it, for example: name = \"acme\"";
        let name = section.require("name", help, problems);
        let span = name.as_ref().map(|value| value.span.clone());
        let name = name.and_then(|value| instance::owner_name(&value, problems));
        let priority = priority(&mut section, problems);
        let share = section.take("share_percent");
        let share = share.and_then(|value| value.integer(0..=100, problems));
        section.finish(problems);
        let (Some(name), Some(span)) = (name, span) else {
            continue;
        };
        if let Some((_, first)) = owners.get(&name) {
            let message = format!("owner `{}` is there twice", name.escape_debug());
            let draft = Draft::new(span, message, "again here");
            problems.error(draft.also(first.clone(), "first here"));
            continue;
        }
        let share_percent = share.and_then(|share| u8::try_from(share).ok());
        let owner = Owner {
            name: name.clone(),
            priority,
            share_percent: share_percent.unwrap_or(100),
        };
        owners.insert(name, (owner, span));
    }
    owners.into_values().map(|(owner, _)| owner).collect()
}

/// `priority` and `risk` of an instance.
pub(super) fn stake(section: &mut Section<'_>, problems: &mut Problems) -> Stake {
    let priority = priority(section, problems);
    let risk = section.take("risk");
    let risk = risk.and_then(|value| risk_of(&value, problems));
    Stake {
        priority,
        risk: risk.unwrap_or(Stake::default().risk),
    }
}

fn priority(section: &mut Section<'_>, problems: &mut Problems) -> Priority {
    let value = section.take("priority");
    let number = value.and_then(|value| value.integer(1..=Priority::MAX, problems));
    number.and_then(Priority::new).unwrap_or(Priority::ORDINARY)
}

fn risk_of(value: &Value<'_>, problems: &mut Problems) -> Option<Risk> {
    let text = match value.inner {
        DeValue::Float(float) => float.as_str(),
        DeValue::Integer(integer) => integer.as_str(),
        _ => {
            value.wrong("a number from 0 to 1", problems);
            return None;
        }
    };
    match text.parse() {
        Ok(risk) => Some(risk),
        Err(error) => {
            let error: crate::model::RiskError = error;
            let draft = Draft::new(value.span.clone(), error.to_string(), "not a risk");
            problems.error(draft);
            None
        }
    }
}

pub(super) fn allocation(
    reserve: Option<Section<'_>>,
    owners: Option<Vec<Section<'_>>>,
    problems: &mut Problems,
) -> Allocation {
    Allocation {
        reserve: self::reserve(reserve, problems),
        owners: self::owners(owners, problems),
    }
}
