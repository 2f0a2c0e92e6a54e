//! Stories of one microVM: what it prints, how it ends, what is in its memory,
//! what it says on the network, and what ghost-vmm refuses.

mod block;
mod dirty;
mod drill;
mod inherited;
mod jail;
mod net;
mod refusals;
mod service;
mod state;

use anyhow::{Context, Result, ensure};
use ghost_guest::pattern::{COUNTERS, Hash, PATTERN, word};
use ghostd_tests::{
    clock::wait_for,
    microvm::{LIMIT, Memory, MicroVm, Spec, is_possible},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PAGE: u64 = 4096;

/// What is left of a guest that ran: its log. A jailed process, which root's
/// is, cannot remove the control socket: that is its owner's.
fn left_of_a_run() -> &'static [&'static str] {
    match nix::unistd::geteuid().is_root() {
        true => &["console", "control"],
        false => &["console"],
    }
}

fn held(command_line: &str) -> Result<Spec> {
    Ok(Spec {
        has_control: true,
        ..Spec::new(command_line)?
    })
}

#[test]
fn a_payload_prints_and_resets() -> Result<()> {
    if !is_possible("a_payload_prints_and_resets") {
        return Ok(());
    }
    let ended = MicroVm::run(&Spec::new("say=hello do=reset")?)?;
    assert_eq!(ended.console, "hello\ncpus 1 low 16777216 high 0\n");
    assert_eq!(ended.events[0]["event"], "started");
    assert_eq!(ended.events[0]["memory_bytes"], 16 << 20);
    let reset = json!({"event":"ended","vcpu":0,"reason":"reset","port":0x64,"value":0xfe});
    assert_eq!(ended.events[1..], [reset]);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.left, ["console"]);
    Ok(())
}

#[test]
fn each_way_to_end_is_told_with_its_reason() -> Result<()> {
    if !is_possible("each_way_to_end_is_told_with_its_reason") {
        return Ok(());
    }
    let ways: [(&str, Value, i32); 5] = [
        (
            "reset",
            json!({"reason":"reset","port":0x64,"value":0xfe}),
            0,
        ),
        (
            "reset-control",
            json!({"reason":"reset","port":0xcf9,"value":6}),
            0,
        ),
        ("power-off", json!({"reason":"power-off"}), 0),
        ("triple-fault", json!({"reason":"triple-fault"}), 3),
        ("null", json!({"reason":"triple-fault"}), 3),
    ];
    for (way, mut expected, code) in ways {
        let ended = MicroVm::run(&Spec::new(&format!("do={way}"))?)?;
        expected["event"] = json!("ended");
        expected["vcpu"] = json!(0);
        assert_eq!(ended.events.last(), Some(&expected), "{way}");
        assert_eq!(ended.status.code(), Some(code), "{way}");
    }
    Ok(())
}

#[test]
fn memory_is_seen_through_the_memfd_and_held_after_the_end() -> Result<()> {
    if !is_possible("memory_is_seen_through_the_memfd_and_held_after_the_end") {
        return Ok(());
    }
    let mut vm = MicroVm::start(&held("seed=7 bytes=1048576 do=reset")?)?;
    while vm.event()?["event"] != "ended" {}
    let client = vm.connect()?;
    let status = client.ask("status")?.json;
    assert_eq!(status["state"], "ended");
    assert_eq!(status["reason"], "reset");
    let words = client.memory()?.words(PATTERN, 1_048_576 / 8)?;
    let expected: Vec<u64> = (0..words.len() as u64).map(|i| word(7, i)).collect();
    ensure!(words == expected, "memory differs from the pattern");
    let hash = words.into_iter().fold(Hash::NEW, Hash::with).value();
    let line = format!("pattern 131072 words hash {hash:016x}");
    assert!(vm.console().contains(&line), "{}", vm.console());
    assert_eq!(client.ask("stop")?.json, json!({"answer":"stopping"}));
    let ended = vm.ended()?;
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.left, left_of_a_run());
    Ok(())
}

#[test]
fn the_memfd_cannot_change_its_size() -> Result<()> {
    if !is_possible("the_memfd_cannot_change_its_size") {
        return Ok(());
    }
    let vm = MicroVm::start(&held("do=spin")?)?;
    let Memory(file) = vm.connect()?.memory()?;
    assert_eq!(file.metadata()?.len(), 16 << 20);
    for size in [0, 32 << 20] {
        let error = file.set_len(size).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
    Ok(())
}

#[test]
fn memory_above_four_gib_is_there() -> Result<()> {
    if !is_possible("memory_above_four_gib_is_there") {
        return Ok(());
    }
    let mut spec = held("seed=3 do=reset")?;
    spec.memory_mib = 4096;
    let mut vm = MicroVm::start(&spec)?;
    while vm.event()?["event"] != "ended" {}
    let answer = vm.connect()?.ask("memory")?;
    let expected = json!([
        {"address": 0, "bytes": 3_u64 << 30, "file_offset": 0},
        {"address": 4_u64 << 30, "bytes": 1 << 30, "file_offset": 3_u64 << 30},
    ]);
    assert_eq!(answer.json["regions"], expected);
    let memory = Memory(answer.file.context("no memfd")?);
    assert_eq!(memory.word((4 << 30) - 8)?, word(3, 0));
    Ok(())
}

#[test]
fn all_vcpus_run_and_none_outlives_a_stop() -> Result<()> {
    if !is_possible("all_vcpus_run_and_none_outlives_a_stop") {
        return Ok(());
    }
    let mut spec = held("do=spin")?;
    spec.vcpus = 4;
    let vm = MicroVm::start(&spec)?;
    let client = vm.connect()?;
    let memory = client.memory()?;
    let counts = || -> Result<Vec<u64>> {
        (0..4)
            .map(|cpu| memory.word(COUNTERS + cpu * PAGE))
            .collect()
    };
    let before = wait_for("all vCPUs to count", LIMIT, || {
        counts().ok().filter(|counts| !counts.contains(&0))
    })?;
    wait_for("all vCPUs to go on", LIMIT, || {
        let now = counts().ok()?;
        now.iter()
            .zip(&before)
            .all(|(now, then)| now > then)
            .then_some(())
    })?;
    let watcher = vm.connect()?;
    assert_eq!(client.ask("stop")?.json["answer"], "stopping");
    let ended = json!({"event":"ended","vcpu":null,"reason":"ordered"});
    assert_eq!(watcher.receive()?.json, ended);
    // From here on nothing runs.
    let last = counts()?;
    assert_eq!(vm.ended()?.status.code(), Some(0));
    assert_eq!(counts()?, last);
    Ok(())
}

#[test]
fn a_paused_guest_stands_still_and_goes_on() -> Result<()> {
    if !is_possible("a_paused_guest_stands_still_and_goes_on") {
        return Ok(());
    }
    let mut spec = held("do=spin")?;
    spec.vcpus = 2;
    let mut vm = MicroVm::start(&spec)?;
    let client = vm.connect()?;
    let memory = client.memory()?;
    let counts = || {
        memory
            .words(COUNTERS, 1024)
            .map(|words| [words[0], words[512]])
    };
    let mut last = [0, 0];
    for _ in 0..50 {
        wait_for("both vCPUs to go on", LIMIT, || {
            counts()
                .ok()
                .filter(|now| now[0] > last[0] && now[1] > last[1])
        })?;
        assert_eq!(client.ask("pause")?.json["answer"], "paused");
        let still = counts()?;
        for _ in 0..20 {
            assert_eq!(client.ask("status")?.json["state"], "paused");
            assert_eq!(counts()?, still);
        }
        assert_eq!(client.ask("resume")?.json, json!({"answer":"resumed"}));
        last = still;
    }
    for event in ["started", "paused", "resumed", "paused"] {
        assert_eq!(vm.event()?["event"], event);
    }
    // A paused guest can be stopped, and one that has ended cannot be paused.
    client.ask("pause")?;
    client.ask("stop")?;
    assert_eq!(vm.ended()?.status.code(), Some(0));
    let mut reset = MicroVm::start(&held("do=reset")?)?;
    while reset.event()?["event"] != "ended" {}
    for command in ["pause", "resume"] {
        let answer = reset.connect()?.ask(command)?.json;
        assert_eq!(
            answer,
            json!({"answer":"refused","why":"the guest has ended"})
        );
    }
    Ok(())
}

#[test]
fn a_signal_ends_the_guest_in_order() -> Result<()> {
    if !is_possible("a_signal_ends_the_guest_in_order") {
        return Ok(());
    }
    let mut vm = MicroVm::start(&held("do=spin")?)?;
    assert_eq!(vm.event()?["event"], "started");
    vm.signal(Signal::SIGTERM)?;
    let ended = vm.ended()?;
    assert_eq!(ended.events[0]["reason"], "ordered");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.left, left_of_a_run());
    Ok(())
}

#[test]
fn accesses_to_nothing_read_ones_and_are_counted() -> Result<()> {
    if !is_possible("accesses_to_nothing_read_ones_and_are_counted") {
        return Ok(());
    }
    let mut vm = MicroVm::start(&held("do=strays")?)?;
    while vm.event()?["event"] != "ended" {}
    assert!(vm.console().contains("strays ffffffff ffffffffffffffff"));
    let status = vm.connect()?.ask("status")?.json;
    let one_each = json!({"port_reads":1,"port_writes":1,"memory_reads":1,"memory_writes":1});
    assert_eq!(status["strays"], one_each);
    Ok(())
}

#[test]
fn nonsense_on_the_control_socket_is_refused_and_the_guest_runs_on() -> Result<()> {
    if !is_possible("nonsense_on_the_control_socket_is_refused_and_the_guest_runs_on") {
        return Ok(());
    }
    let vm = MicroVm::start(&held("do=spin")?)?;
    let client = vm.connect()?;
    let long = vec![b'x'; 8192];
    let nonsense: [&[u8]; 5] = [
        b"{",
        br#"{"command":"dance"}"#,
        br#"{"command":"status","more":1}"#,
        b"\xff\xfe",
        &long,
    ];
    for packet in nonsense {
        client.send(packet)?;
        let answer = client.receive()?.json;
        assert_eq!(answer["answer"], "refused");
        assert!(answer["why"].as_str().is_some_and(|why| !why.is_empty()));
    }
    assert_eq!(client.ask("status")?.json["state"], "running");
    Ok(())
}
