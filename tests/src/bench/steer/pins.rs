//! ghostd's pinned maps, opened from outside.

use std::{
    fs,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
};

use agent_common::abi::{Event, names};
use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, RingBuf};

use crate::netns::NetNs;

/// A pinned map of the ghostd on `host`.
pub(super) fn open(host: &NetNs, name: &str) -> Result<MapData> {
    let path = format!("{}/{name}", names::PIN_ROOT);
    host.run(|| MapData::from_pin(&path))?
        .with_context(|| format!("open {path} on the host"))
}

/// An array of `V`.
pub(super) fn array<V: aya::Pod>(host: &NetNs, name: &str) -> Result<Array<MapData, V>> {
    Ok(Map::Array(open(host, name)?).try_into()?)
}

/// Bytes of kernel memory that a map takes.
pub(super) fn bytes(host: &NetNs, name: &str) -> Result<u64> {
    let map = open(host, name)?;
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        .with_context(|| format!("no memlock in {text}"))
}

/// The kernel's events, which ghostd reads too: only while it is dead do they
/// all come here.
pub(super) struct Events(RingBuf<MapData>);

/// When a throw by the kernel began and was done; CLOCK_MONOTONIC in ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thrown {
    pub(super) kind: u8,
    pub(super) entered_ns: u64,
    pub(super) thrown_ns: u64,
}

impl Events {
    pub(super) fn open(host: &NetNs) -> Result<Self> {
        Ok(Self(Map::RingBuf(open(host, names::EVENTS)?).try_into()?))
    }

    pub(super) fn next(&mut self) -> Option<Thrown> {
        let item = self.0.next()?;
        let word = |offset: usize| {
            let bytes = item.get(offset..offset + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        Some(Thrown {
            kind: *item.first()?,
            entered_ns: word(offset_of!(Event, entered_ns))?,
            thrown_ns: word(offset_of!(Event, thrown_ns))?,
        })
    }
}
