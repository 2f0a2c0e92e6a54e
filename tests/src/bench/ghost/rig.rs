//! Primaries and ghosts to be measured, and what they take.

use std::{fs, fs::File, time::Instant};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::COUNTERS;
use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use serde_json::json;

use super::map::Mapping;
use crate::{
    clock::wait_for,
    microvm::{Client, LIMIT, MicroVm, Spec},
};

/// A ghost of this much memory, suspended.
pub(super) fn ghost(memory_mib: u64, command_line: &str) -> Result<Spec> {
    let mut spec = Spec::new(command_line)?;
    spec.memory_mib = memory_mib;
    spec.has_control = true;
    spec.more.push("--suspended".to_owned());
    Ok(spec)
}

/// Starts it; gives it and how long it took until it said that it is there.
pub(super) fn start(spec: &Spec) -> Result<(MicroVm, f64)> {
    let start = Instant::now();
    let mut vm = MicroVm::start(spec)?;
    let event = vm.event()?;
    let took_us = start.elapsed().as_secs_f64() * 1e6;
    ensure!(event["event"] == "started", "an unexpected event: {event}");
    Ok((vm, took_us))
}

pub(super) fn activate() -> Vec<u8> {
    let generation = "000102030405060708090a0b0c0d0e0f";
    json!({"command": "activate", "generation": generation})
        .to_string()
        .into_bytes()
}

/// What was cut of a microVM that ran: enough to make ghosts of it.
pub(super) struct Saved {
    spec: Spec,
    state: File,
    /// Pieces that are not zero, by where they are.
    memory: Vec<(u64, Vec<u8>)>,
}

/// Of a scan for zeros.
const PIECE_BYTES: usize = 4096;

impl Saved {
    /// Runs a microVM until `is_ready`, and cuts it. It is gone afterwards.
    pub(super) fn of(
        spec: Spec,
        mut is_ready: impl FnMut(&Mapping) -> Result<bool>,
    ) -> Result<Self> {
        let (vm, _) = start(&spec)?;
        let client = vm.connect()?;
        let file = client.memory()?.0;
        let map = Mapping::new(&file, usize::try_from(spec.memory_mib << 20)?)?;
        said(&client, "resume", "resumed")?;
        wait_for("the microVM to be ready", LIMIT, || {
            is_ready(&map).ok()?.then_some(())
        })?;
        said(&client, "pause", "paused")?;
        let answer = client.ask("save")?;
        let state = answer
            .file
            .with_context(|| format!("no state: {}", answer.json))?;
        let mut memory = Vec::new();
        for at in (0..map.bytes()).step_by(PIECE_BYTES) {
            let piece = map.piece(at, PIECE_BYTES)?;
            if piece.iter().any(|&byte| byte != 0) {
                memory.push((at as u64, piece));
            }
        }
        Ok(Self {
            spec,
            state,
            memory,
        })
    }

    /// Bytes that are not zero.
    pub(super) fn bytes(&self) -> u64 {
        (self.memory.len() * PIECE_BYTES) as u64
    }

    /// A suspended ghost with this memory and state.
    pub(super) fn ghost(&self) -> Result<(MicroVm, Client)> {
        use std::os::unix::fs::FileExt as _;
        let (vm, _) = start(&self.spec)?;
        let client = vm.connect()?;
        let file = client.memory()?.0;
        for (at, bytes) in &self.memory {
            file.write_all_at(bytes, *at)?;
        }
        let answer = client
            .ask_with(&json!({"command": "load"}), Some(&self.state))?
            .json;
        ensure!(answer["answer"] == "loaded", "not loaded: {answer}");
        Ok((vm, client))
    }
}

/// Activates a ghost that counts; gives the time to its first store, and what
/// the VMM said that it took, in us.
pub(super) fn first_store(client: &Client, memory_mib: u64) -> Result<(f64, f64)> {
    let memory = client.memory()?.0;
    let map = Mapping::new(&memory, usize::try_from(memory_mib << 20)?)?;
    let at = usize::try_from(COUNTERS)?;
    let before = map.word(at)?;
    let start = Instant::now();
    client.send(&activate())?;
    while map.word(at)? == before {
        ensure!(start.elapsed() < LIMIT, "the ghost does not run");
        std::hint::spin_loop();
    }
    let us = start.elapsed().as_secs_f64() * 1e6;
    let answer = client.receive()?.json;
    let told = answer["activate_us"].as_f64();
    Ok((
        us,
        told.with_context(|| format!("no activate_us: {answer}"))?,
    ))
}

/// Asks, and wants this answer.
pub(super) fn said(client: &Client, command: &str, answer: &str) -> Result<()> {
    let got = client.ask(command)?.json;
    ensure!(got["answer"] == answer, "asked to {command}: {got}");
    Ok(())
}

/// Resident memory of a process that is not guest memory, in KiB: private
/// pages and pages of files. Guest memory is a memfd, which counts as shared.
pub(super) fn overhead_kib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in the status of {pid}"))?;
        let number = line.split_whitespace().next().unwrap_or_default();
        Ok(number.parse()?)
    };
    Ok(of("RssAnon:")? + of("RssFile:")?)
}

/// Makes and maps memory as a ghost has it, touched by nobody.
pub(super) fn mapping_us(memory_mib: u64) -> Result<f64> {
    let start = Instant::now();
    let fd = memfd_create(c"bench", MFdFlags::MFD_CLOEXEC)?;
    let bytes = memory_mib << 20;
    ftruncate(&fd, i64::try_from(bytes)?)?;
    let map = Mapping::new(&fd, usize::try_from(bytes)?)?;
    let took = start.elapsed();
    drop(map);
    Ok(took.as_secs_f64() * 1e6)
}
