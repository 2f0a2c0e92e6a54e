//! `[host]`, `[steering]`, `[limits]`, `[api]` and `[ghosts]`.

use std::path::{Component, Path, PathBuf};

use super::{
    problem::{Draft, Problems},
    read::{Section, Value},
    schema::{ApiConfig, GhostsConfig, Group, HostConfig, Places, SteeringConfig},
};
use crate::model::{Limits, UplinkMode};

/// Longest interface name in bytes (IFNAMSIZ in include/uapi/linux/if.h,
/// without the terminating NUL).
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// HOST_NAME_MAX of Linux.
const HOST_NAME_BYTES_MAX: usize = 64;

/// LOGIN_NAME_MAX of shadow-utils for groups.
const GROUP_NAME_BYTES_MAX: usize = 32;

/// Bytes of the path of a unix socket (sun_path, without the NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn host(section: Option<Section<'_>>, problems: &mut Problems) -> HostConfig {
    let mut config = HostConfig { name: None };
    let Some(mut section) = section else {
        return config;
    };
    if let Some(value) = section.take("name") {
        config.name = host_name(&value, problems);
    }
    section.finish(problems);
    config
}

fn host_name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = value.string(problems)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if !name.is_empty() && name.len() <= HOST_NAME_BYTES_MAX && name.bytes().all(allowed) {
        return Some(name.to_owned());
    }
    let message = format!("`{}` is not a host name", name.escape_debug());
    let help = format!("1 to {HOST_NAME_BYTES_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`");
    problems.error(Draft::new(value.span.clone(), message, "not a host name").help(help));
    None
}

pub(super) fn steering(
    section: Option<Section<'_>>,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<SteeringConfig> {
    let mut section = section?;
    let help = "for example: uplinks = [\"eth0\"]";
    if let Some(value) = section.require("uplinks", help, problems) {
        places.uplinks = uplinks(&value, problems);
    }
    let modes = [
        ("auto", UplinkMode::Auto),
        ("native", UplinkMode::Native),
        ("generic", UplinkMode::Generic),
    ];
    let mode = section.take("mode");
    let mode = mode.and_then(|value| value.choice(&modes, problems));
    let replace = section.take("replace_foreign");
    let replace = replace.and_then(|value| value.boolean(problems));
    let pins = path(section.take("pins"), problems);
    section.finish(problems);
    let uplinks = places.uplinks.iter().map(|(name, _)| name.clone());
    Some(SteeringConfig {
        uplinks: uplinks.collect(),
        mode: mode.unwrap_or(UplinkMode::Auto),
        replace_foreign: replace.unwrap_or(false),
        pins: pins.unwrap_or_else(|| PathBuf::from(SteeringConfig::PINS)),
    })
}

fn uplinks(value: &Value<'_>, problems: &mut Problems) -> Vec<(String, super::problem::Span)> {
    let mut uplinks: Vec<(String, super::problem::Span)> = Vec::new();
    let items = value.array("interface names", problems);
    if items.as_ref().is_some_and(Vec::is_empty) {
        let draft = Draft::new(
            value.span.clone(),
            "there is no uplink",
            "at least one is needed",
        );
        problems.error(draft);
    }
    for item in items.into_iter().flatten() {
        let Some(name) = interface_name(&item, problems) else {
            continue;
        };
        match uplinks.iter().find(|(other, _)| *other == name) {
            Some((_, first)) => {
                let message = format!("interface `{name}` is an uplink twice");
                let draft = Draft::new(item.span, message, "again here");
                problems.error(draft.also(first.clone(), "first here"));
            }
            None => uplinks.push((name, item.span)),
        }
    }
    uplinks
}

pub(super) fn limits(section: Option<Section<'_>>, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = section else {
        return limits;
    };
    let sizes = [
        ("routes", &mut limits.routes, Limits::ROUTES_MAX),
        ("instances", &mut limits.instances, Limits::INSTANCES_MAX),
        ("flows", &mut limits.flows, Limits::FLOWS_MAX),
        ("fragments", &mut limits.fragments, Limits::FRAGMENTS_MAX),
    ];
    for (key, size, max) in sizes {
        let value = section.take(key);
        if let Some(value) = value.and_then(|v| v.integer(1..=max, problems)) {
            *size = value;
        }
    }
    section.finish(problems);
    limits
}

pub(super) fn api(section: Option<Section<'_>>, problems: &mut Problems) -> ApiConfig {
    let mut config = ApiConfig {
        socket: PathBuf::from(ApiConfig::SOCKET),
        operators: vec![Group::Name(ApiConfig::OPERATORS.to_owned())],
        readers: Vec::new(),
    };
    let Some(mut section) = section else {
        return config;
    };
    if let Some(value) = section.take("socket") {
        let span = value.span.clone();
        if let Some(path) = path(Some(value), problems) {
            if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                let message =
                    format!("the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes");
                problems.error(Draft::new(span, message, "too long"));
            }
            config.socket = path;
        }
    }
    if let Some(value) = section.take("operators") {
        config.operators = groups(&value, problems);
    }
    if let Some(value) = section.take("readers") {
        config.readers = groups(&value, problems);
    }
    section.finish(problems);
    config
}

pub(super) fn ghosts(section: Option<Section<'_>>, problems: &mut Problems) -> GhostsConfig {
    let Some(mut section) = section else {
        return GhostsConfig::default();
    };
    let vmm = path(section.take("vmm"), problems);
    section.finish(problems);
    GhostsConfig { vmm }
}

fn groups(value: &Value<'_>, problems: &mut Problems) -> Vec<Group> {
    let items = value
        .array("group names or ids", problems)
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| group(item, problems))
        .collect()
}

fn group(item: &Value<'_>, problems: &mut Problems) -> Option<Group> {
    if let toml::de::DeValue::Integer(_) = item.inner {
        // u32::MAX is "no group" to chown(2) and the like.
        return item.integer(0..=u32::MAX - 1, problems).map(Group::Id);
    }
    let name = item.string(problems)?;
    if name.parse::<u32>().is_ok() {
        let message = format!("`{name}` is a number, not the name of a group");
        let draft = Draft::new(item.span.clone(), message, "in quotes");
        problems.error(draft.help(format!("write the group id without quotes: {name}")));
        return None;
    }
    let separator = |c: char| c.is_whitespace() || c.is_control() || ":,/".contains(c);
    if name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX || name.contains(separator) {
        let message = format!("`{}` is not the name of a group", name.escape_debug());
        problems.error(Draft::new(item.span.clone(), message, "not a group"));
        return None;
    }
    Some(Group::Name(name.to_owned()))
}

/// A name that the kernel lets an interface have (dev_valid_name() in
/// net/core/dev.c).
pub(super) fn interface_name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = value.string(problems)?;
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let fault = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > INTERFACE_NAME_BYTES_MAX {
        format!("is longer than {INTERFACE_NAME_BYTES_MAX} bytes")
    } else if name == "." || name == ".." || name.contains(forbidden) {
        "has characters that no interface name has".to_owned()
    } else {
        return Some(name.to_owned());
    };
    let message = format!("interface name `{}` {fault}", name.escape_debug());
    problems.error(Draft::new(
        value.span.clone(),
        message,
        "not an interface name",
    ));
    None
}

/// An absolute path without `.` and `..`.
pub(super) fn path(value: Option<Value<'_>>, problems: &mut Problems) -> Option<PathBuf> {
    let value = value?;
    let text = value.string(problems)?;
    let path = Path::new(text);
    let fault = if text.contains('\0') {
        "has a NUL byte"
    } else if !path.is_absolute() {
        "is not absolute"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "has `..` in it"
    } else if path.parent().is_none() {
        "is the root directory"
    } else {
        // Collecting drops double and trailing slashes and `.`.
        return Some(path.components().collect());
    };
    let message = format!("path `{}` {fault}", text.escape_debug());
    let draft = Draft::new(value.span, message, "not a usable path");
    problems.error(draft.help("write the full path, from /"));
    None
}
