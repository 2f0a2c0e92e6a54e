//! `[instance.vm]`: an instance whose copies ghostd starts itself.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use agent_common::abi::Side;

use super::{
    address,
    problem::{Draft, Problems, Span},
    read::{Section, Value},
    sections,
};
use crate::model::{Health, MacAddress, Network, PortSpec, Protocol, VmSpec};

/// MiB. What `ghost-vmm` runs; a payload with a small service needs 16.
const MEMORY_MIB: RangeInclusive<u32> = 4..=65_536;
/// Enough for a Linux guest with one service, and cheap where pages stay
/// untouched.
const MEMORY_MIB_DEFAULT: u32 = 128;

const VCPUS: RangeInclusive<u32> = 1..=8;

/// As many bytes as a payload's page for it holds (docs/guest-abi.md).
const COMMAND_LINE_BYTES_MAX: usize = 4096;

/// A question, and the beginning of its answer, fit one datagram.
const HEALTH_BYTES_MAX: usize = 1024;

/// ms. A guest that works answers in one; a loaded host takes longer.
const HEALTH_LIMIT_MS: RangeInclusive<u32> = 1..=60_000;
const HEALTH_LIMIT_MS_DEFAULT: u32 = 1000;

/// A microVM, and where those of its parts stand that must not meet others'.
pub(super) struct FoundVm {
    pub(super) spec: VmSpec,
    pub(super) disk: Option<Span>,
    pub(super) mac: Option<Span>,
}

pub(super) fn read(mut section: Section<'_>, problems: &mut Problems) -> Option<FoundVm> {
    let help = "a payload or a kernel, for example: image = \"/var/lib/ghostd/web.elf\"";
    let image = section.require("image", help, problems);
    let image = sections::path(image, problems);
    let initrd = sections::path(section.take("initrd"), problems);
    let command_line = section.take("command_line");
    let command_line = command_line.and_then(|value| command_line_text(&value, problems));
    let memory = section.take("memory_mib");
    let memory = memory.map_or(Some(MEMORY_MIB_DEFAULT), |value| {
        memory_mib(&value, problems)
    });
    let vcpus = section.take("vcpus");
    let vcpus = vcpus.and_then(|value| value.integer(VCPUS, problems));
    let disk = section.take("disk");
    let disk_span = disk.as_ref().map(|value| value.span.clone());
    let disk = sections::path(disk, problems);
    let mac = section.take("mac");
    let mac_span = mac.as_ref().map(|value| value.span.clone());
    let mac = mac.and_then(|value| mac_address(&value, problems));
    let host_addresses = section.take("host_addresses");
    let host_addresses = host_addresses.map_or(Vec::new(), |value| networks(&value, problems));
    let health = section.section("health", "[instance.vm.health]", problems);
    let health = health.and_then(|section| health_question(section, problems));
    section.finish(problems);
    Some(FoundVm {
        disk: disk.as_ref().and(disk_span),
        mac: mac.as_ref().and(mac_span),
        spec: VmSpec {
            image: image?,
            initrd,
            command_line: command_line.unwrap_or_default(),
            memory_mib: u64::from(memory?),
            vcpus: vcpus.and_then(|n| u8::try_from(n).ok()).unwrap_or(1),
            disk,
            mac,
            host_addresses,
            health,
        },
    })
}

/// What a microVM wants of the instance's ports.
pub(super) fn check_ports(
    vm: &FoundVm,
    vm_span: &Span,
    ports: &[(PortSpec, Span)],
    problems: &mut Problems,
) {
    for side in [Side::Primary, Side::Ghost] {
        let mut of_side = ports.iter().filter(|(port, _)| port.side == side);
        let (Some((_, first)), Some((_, second))) = (of_side.next(), of_side.next()) else {
            continue;
        };
        let draft = Draft::new(
            second.clone(),
            "a copy of a microVM has one interface",
            "a second one here",
        );
        problems.error(draft.also(first.clone(), "the first here"));
    }
    if !ports.is_empty() && vm.spec.mac.is_none() {
        let draft = Draft::new(
            vm_span.clone(),
            "the microVM has an interface, but no `mac`",
            "`mac` is missing",
        );
        problems.error(
            draft.help("both copies have the same, for example: mac = \"02:00:00:00:00:01\""),
        );
    }
}

fn command_line_text(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let text = value.string(problems)?;
    if text.len() > COMMAND_LINE_BYTES_MAX || text.contains('\0') {
        let message =
            format!("a command line is at most {COMMAND_LINE_BYTES_MAX} bytes without a NUL");
        problems.error(Draft::new(
            value.span.clone(),
            message,
            "not a command line",
        ));
        return None;
    }
    Some(text.to_owned())
}

fn memory_mib(value: &Value<'_>, problems: &mut Problems) -> Option<u32> {
    let mib = value.integer(MEMORY_MIB, problems)?;
    if mib % 2 != 0 {
        let draft = Draft::new(value.span.clone(), "`memory_mib` must be even", "odd");
        problems.error(draft.help("memory is mapped in pages of 2 MiB"));
        return None;
    }
    Some(mib)
}

fn mac_address(value: &Value<'_>, problems: &mut Problems) -> Option<MacAddress> {
    let text = value.string(problems)?;
    let Some(mac) = parse_mac(text) else {
        let message = format!("`{}` is not an Ethernet address", text.escape_debug());
        let draft = Draft::new(value.span.clone(), message, "not an Ethernet address");
        problems.error(draft.help("six hexadecimal bytes, for example 02:00:00:00:00:01"));
        return None;
    };
    if mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
        let message = format!("{mac} is not the address of one station");
        let draft = Draft::new(value.span.clone(), message, "not of one station");
        problems.error(draft.help("begin with 02 for an address of your own"));
        return None;
    }
    Some(mac)
}

fn parse_mac(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddress(bytes))
}

fn networks(value: &Value<'_>, problems: &mut Problems) -> Vec<Network> {
    let items = value.array("addresses", problems).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| network(item, problems))
        .collect()
}

fn network(value: &Value<'_>, problems: &mut Problems) -> Option<Network> {
    let text = value.string(problems)?;
    let parsed = text.split_once('/').and_then(|(addr, prefix)| {
        let addr: IpAddr = addr.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Network { addr, prefix })
    });
    if parsed.is_none() {
        let message = format!("`{}` is not an address with a prefix", text.escape_debug());
        let draft = Draft::new(value.span.clone(), message, "not an address with a prefix");
        problems.error(draft.help("for example 10.0.0.1/24 or 2001:db8::1/64"));
    }
    parsed
}

fn health_question(mut section: Section<'_>, problems: &mut Problems) -> Option<Health> {
    let addr = section.require("addr", "one of the guest's own addresses", problems);
    let addr = addr.and_then(|value| address::service(&value, problems));
    let port = section.require("port", "where the guest answers", problems);
    let port = port.and_then(|value| value.integer(1..=65_535, problems));
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = section.take("protocol");
    let protocol = protocol.map_or(Some(Protocol::Tcp), |value| {
        value.choice(&protocols, problems)
    });
    let send_span = section.take("send");
    let send = send_span
        .as_ref()
        .map_or(Some(Vec::new()), |value| health_text(value, problems));
    let expect = section.take("expect");
    let expect = expect.map_or(Some(Vec::new()), |value| health_text(&value, problems));
    let limit = section.take("limit_ms");
    let limit = limit.map_or(Some(HEALTH_LIMIT_MS_DEFAULT), |value| {
        value.integer(HEALTH_LIMIT_MS, problems)
    });
    let span = section.span.clone();
    section.finish(problems);
    let (protocol, send) = (protocol?, send?);
    if protocol == Protocol::Udp && send.is_empty() {
        let draft = Draft::new(
            span,
            "a question by UDP needs something to send",
            "no `send`",
        );
        problems.error(draft.help("for example: send = \"ping\""));
        return None;
    }
    Some(Health {
        addr: addr?,
        port: u16::try_from(port?).ok()?,
        protocol,
        send,
        expect: expect?,
        limit: Duration::from_millis(u64::from(limit?)),
    })
}

fn health_text(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<u8>> {
    let text = value.string(problems)?;
    if text.len() > HEALTH_BYTES_MAX {
        let message = format!("at most {HEALTH_BYTES_MAX} bytes are sent or compared");
        problems.error(Draft::new(value.span.clone(), message, "too long"));
        return None;
    }
    Some(text.as_bytes().to_vec())
}

/// Paths that a copy of the instance writes to.
pub(super) fn disk_of(vm: &FoundVm) -> Option<(&PathBuf, &Span)> {
    vm.spec.disk.as_ref().zip(vm.disk.as_ref())
}
