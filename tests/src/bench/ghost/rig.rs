//! Primaries and ghosts to be measured, and what they take.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    sync::atomic::Ordering,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::COUNTERS;
use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use serde_json::json;

use crate::{
    bench::mapping::Mapping,
    clock::wait_for,
    microvm::{Client, LIMIT, Memory, MicroVm, Spec},
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
        mut is_ready: impl FnMut(&Memory) -> Result<bool>,
    ) -> Result<Self> {
        let (vm, _) = start(&spec)?;
        let client = vm.connect()?;
        let file = client.memory()?;
        said(&client, "resume", "resumed")?;
        wait_for("the microVM to be ready", LIMIT, || {
            is_ready(&file).ok()?.then_some(())
        })?;
        said(&client, "pause", "paused")?;
        let answer = client.ask("save")?;
        let state = answer
            .file
            .with_context(|| format!("no state: {}", answer.json))?;
        let all = file.bytes()?;
        let pieces = (0..).step_by(PIECE_BYTES).zip(all.chunks(PIECE_BYTES));
        let memory = pieces
            .filter(|(_, piece)| piece.iter().any(|&byte| byte != 0))
            .map(|(at, piece)| (at, piece.to_vec()))
            .collect();
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
        let (vm, _) = start(&self.spec)?;
        let client = vm.connect()?;
        let file = client.memory()?.0;
        for (at, bytes) in &self.memory {
            file.write_all_at(bytes, *at)?;
        }
        // Several may be read at once, each with an offset of its own.
        let state = File::open(format!("/proc/self/fd/{}", self.state.as_raw_fd()))?;
        let answer = client
            .ask_with(&json!({"command": "load"}), Some(&state))?
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
    let word = map.word(usize::try_from(COUNTERS)?)?;
    let before = word.load(Ordering::Relaxed);
    let start = Instant::now();
    client.send(&activate())?;
    while word.load(Ordering::Relaxed) == before {
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
