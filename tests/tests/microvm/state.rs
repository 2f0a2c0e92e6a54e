//! Stories of a microVM that another goes on for: what is saved, loaded,
//! activated, and what is refused.

use std::{fs::File, os::unix::fs::FileExt as _};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::COUNTERS;
use ghostd_tests::{
    clock::wait_for,
    microvm::{Client, LIMIT, Memory, MicroVm, Spec, is_possible},
};
use serde_json::{Value, json};

use super::{
    PAGE, held,
    net::{ping, serving, wired},
};

const GENERATION: &str = "00112233445566778899aabbccddeeff";

/// Where `docs/guest-abi.md` puts it.
const INCARNATION: u64 = 0x7000;

/// Two vCPUs that count in memory, from a register.
pub(crate) fn counting() -> Result<Spec> {
    let mut spec = held("seed=7 bytes=1048576 do=spin")?;
    spec.vcpus = 2;
    Ok(spec)
}

pub(crate) fn suspended(mut spec: Spec) -> Spec {
    spec.more.push("--suspended".to_owned());
    spec
}

pub(crate) fn counters(memory: &Memory) -> Result<[u64; 2]> {
    Ok([memory.word(COUNTERS)?, memory.word(COUNTERS + PAGE)?])
}

pub(crate) fn wait_for_more(memory: &Memory, than: [u64; 2]) -> Result<()> {
    wait_for("both vCPUs to go on", LIMIT, || {
        let now = counters(memory).ok()?;
        (now[0] > than[0] && now[1] > than[1]).then_some(())
    })?;
    Ok(())
}

/// Paused, its state, and the client that did it.
pub(crate) fn saved(vm: &MicroVm) -> Result<(Client, File)> {
    let client = vm.connect()?;
    assert_eq!(client.ask("pause")?.json["answer"], "paused");
    let answer = client.ask("save")?;
    assert_eq!(answer.json["answer"], "saved");
    let file = answer.file.context("no state came with the answer")?;
    assert_eq!(answer.json["bytes"], file.metadata()?.len());
    Ok((client, file))
}

pub(crate) fn load(client: &Client, state: &File) -> Result<Value> {
    Ok(client
        .ask_with(&json!({"command":"load"}), Some(state))?
        .json)
}

pub(crate) fn activate(client: &Client) -> Result<Value> {
    let command = json!({"command":"activate","generation":GENERATION});
    Ok(client.ask_with(&command, None)?.json)
}

#[test]
fn a_copy_goes_on_exactly_where_the_guest_was_saved() -> Result<()> {
    if !is_possible("a_copy_goes_on_exactly_where_the_guest_was_saved") {
        return Ok(());
    }
    let primary = MicroVm::start(&counting()?)?;
    let memory = primary.connect()?.memory()?;
    wait_for_more(&memory, [0, 0])?;
    let (client, state) = saved(&primary)?;
    let last = counters(&memory)?;
    let all = memory.bytes()?;

    let mut ghost = MicroVm::start(&suspended(counting()?))?;
    for event in ["started", "paused"] {
        assert_eq!(ghost.event()?["event"], event);
    }
    let ghost_client = ghost.connect()?;
    assert_eq!(ghost_client.ask("status")?.json["state"], "paused");
    let copy = ghost_client.memory()?;
    assert_eq!(counters(&copy)?, [0, 0], "it has not run");
    copy.0.write_all_at(&all, 0)?;
    assert_eq!(load(&ghost_client, &state)?, json!({"answer":"loaded"}));
    ensure!(copy.bytes()? == all, "loading changed memory");

    let answer = activate(&ghost_client)?;
    assert_eq!(answer["answer"], "activated");
    assert!(
        answer["activate_us"]
            .as_u64()
            .is_some_and(|us| us < 1_000_000)
    );
    // It counts on from a register, so this is no other count.
    let first = counters(&copy)?;
    ensure!(
        first[0] >= last[0] && first[1] >= last[1],
        "{first:?} after {last:?}"
    );
    wait_for_more(&copy, last)?;
    // All but the counters and the page that says who it is.
    ghost_client.ask("pause")?;
    let mut changed: Vec<u64> = (0..all.len() as u64 / PAGE)
        .map(|page| page * PAGE)
        .filter(|&at| {
            let mut page = vec![0; PAGE as usize];
            let before = &all[at as usize..at as usize + PAGE as usize];
            copy.0.read_exact_at(&mut page, at).is_err() || page != before
        })
        .collect();
    changed.retain(|&at| at >= 0x10_0000 || at == INCARNATION);
    assert_eq!(changed, [INCARNATION, COUNTERS, COUNTERS + PAGE]);

    // The one it was copied from has lost nothing.
    assert_eq!(counters(&memory)?, last);
    assert_eq!(client.ask("resume")?.json["answer"], "resumed");
    wait_for_more(&memory, last)
}

/// What a guest says that is not loaded.
pub(crate) fn why(answer: &Value) -> Result<&str> {
    ensure!(answer["answer"] == "refused", "{answer}");
    answer["why"].as_str().context("no reason")
}

fn file(bytes: &[u8]) -> Result<File> {
    let file = File::from(nix::sys::memfd::memfd_create(
        c"state",
        nix::sys::memfd::MFdFlags::empty(),
    )?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

#[test]
fn a_state_that_cannot_be_is_refused_and_changes_nothing() -> Result<()> {
    if !is_possible("a_state_that_cannot_be_is_refused_and_changes_nothing") {
        return Ok(());
    }
    let primary = MicroVm::start(&counting()?)?;
    let memory = primary.connect()?.memory()?;
    wait_for_more(&memory, [0, 0])?;
    let (client, state) = saved(&primary)?;
    let good = Memory(state).bytes()?;
    let mut other_version = good.clone();
    other_version[8] = 7;
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    let cut = &good[..good.len() - 7];
    let missing = good.len() - 32;
    let cases: [(&[u8], String); 6] = [
        (
            &other_version,
            "saved state has version 7, this ghost-vmm knows 1".to_owned(),
        ),
        (
            &damaged,
            "the saved state is damaged: its checksum does not match".to_owned(),
        ),
        (
            cut,
            format!(
                "the saved state is cut off: {} bytes are there, {missing} are needed",
                missing - 7
            ),
        ),
        (
            b"",
            "the saved state is cut off: 0 bytes are there, 32 are needed".to_owned(),
        ),
        (
            &[0; 8192],
            "this is no saved state: it does not begin as one".to_owned(),
        ),
        (
            &vec![0; 5 << 20],
            "a saved state of 5242848 bytes is too large, 4194304 is the most".to_owned(),
        ),
    ];
    let before = memory.bytes()?;
    let last = counters(&memory)?;
    for (bytes, reason) in cases {
        let answer = load(&client, &file(bytes)?)?;
        assert_eq!(why(&answer)?, format!("cannot load the state: {reason}"));
        assert_eq!(client.ask("status")?.json["state"], "paused");
    }
    let answer = client.ask("load")?.json;
    assert_eq!(
        why(&answer)?,
        "cannot load the state: no file came with the command"
    );
    let pipe = File::from(nix::unistd::pipe()?.0);
    assert!(why(&load(&client, &pipe)?)?.starts_with("cannot load the state: cannot read"));
    ensure!(memory.bytes()? == before, "a refused state changed memory");
    client.ask("resume")?;
    wait_for_more(&memory, last)
}

#[test]
fn a_state_of_another_machine_is_refused_with_both_numbers() -> Result<()> {
    if !is_possible("a_state_of_another_machine_is_refused_with_both_numbers") {
        return Ok(());
    }
    let primary = MicroVm::start(&counting()?)?;
    let (_client, state) = saved(&primary)?;
    let fewer = MicroVm::start(&suspended(held("do=spin")?))?;
    let answer = load(&fewer.connect()?, &state)?;
    assert_eq!(
        why(&answer)?,
        "cannot load the state: the saved state is of 2 vCPUs, this microVM has 1"
    );
    let mut larger = suspended(counting()?);
    larger.memory_mib = 32;
    let larger = MicroVm::start(&larger)?;
    let answer = load(&larger.connect()?, &state)?;
    assert_eq!(
        why(&answer)?,
        "cannot load the state: the saved state is of 16777216 bytes of memory, this microVM has 33554432"
    );
    Ok(())
}

#[test]
fn what_cannot_be_asked_now_is_refused() -> Result<()> {
    if !is_possible("what_cannot_be_asked_now_is_refused") {
        return Ok(());
    }
    let vm = MicroVm::start(&counting()?)?;
    let (client, state) = saved(&vm)?;
    client.ask("resume")?;
    let running = "the guest is running; pause it first";
    assert_eq!(why(&client.ask("save")?.json)?, running);
    assert_eq!(why(&load(&client, &state)?)?, running);
    assert_eq!(why(&activate(&client)?)?, running);
    client.ask("pause")?;
    for generation in ["", "12", "+0112233445566778899aabbccddeeff"] {
        let command = json!({"command":"activate","generation":generation});
        let answer = client.ask_with(&command, None)?.json;
        assert_eq!(why(&answer)?, "a generation has 32 hexadecimal digits");
    }
    assert_eq!(client.ask("status")?.json["state"], "paused");
    // Its own state fits it, whatever it did meanwhile.
    assert_eq!(load(&client, &state)?, json!({"answer":"loaded"}));
    assert_eq!(activate(&client)?["answer"], "activated");
    Ok(())
}

#[test]
fn each_activation_is_another_incarnation() -> Result<()> {
    if !is_possible("each_activation_is_another_incarnation") {
        return Ok(());
    }
    let vm = MicroVm::start(&suspended(counting()?))?;
    let client = vm.connect()?;
    let memory = client.memory()?;
    let page = || memory.words(INCARNATION, 4);
    let first = page()?;
    assert_eq!(first[0], 1);
    ensure!(first[2..] != [0, 0], "a generation by chance");
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    for count in 2..4 {
        assert_eq!(activate(&client)?["answer"], "activated");
        let now = page()?;
        assert_eq!(now[0], count);
        ensure!(u128::from(now[1]) >= before.as_nanos(), "an old time");
        let generation: Vec<u8> = now[2..]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let expected: Vec<u8> = (0..16).map(|digit| digit * 0x11).collect();
        assert_eq!(generation, expected);
        client.ask("pause")?;
    }
    // Going on after a pause is no new incarnation.
    client.ask("resume")?;
    assert_eq!(page()?[0], 3);
    Ok(())
}

#[test]
fn a_copy_answers_on_its_own_tap_with_the_queues_of_the_first() -> Result<()> {
    if !is_possible("a_copy_answers_on_its_own_tap_with_the_queues_of_the_first") {
        return Ok(());
    }
    let (first, primary) = serving()?;
    for address in ["10.77.0.2", "fd77::2"] {
        ping(&first, address)?;
    }
    let (client, state) = saved(&primary)?;
    let memory = client.memory()?.bytes()?;

    let (second, spec) = wired()?;
    let ghost = second.run(|| MicroVm::start(&suspended(spec)))??;
    let ghost_client = ghost.connect()?;
    ghost_client.memory()?.0.write_all_at(&memory, 0)?;
    assert_eq!(load(&ghost_client, &state)?, json!({"answer":"loaded"}));
    assert_eq!(activate(&ghost_client)?["answer"], "activated");
    for address in ["10.77.0.2", "fd77::2"] {
        ping(&second, address)?;
    }
    // One without a network is another machine.
    let bare = MicroVm::start(&suspended(held("do=serve")?))?;
    let answer = load(&bare.connect()?, &state)?;
    assert_eq!(
        why(&answer)?,
        "cannot load the state: the devices of the saved state do not fit: the state has 1 devices, this microVM has 0"
    );
    // It was refused whole, so it can still be let go.
    assert_eq!(activate(&bare.connect()?)?["answer"], "activated");
    Ok(())
}
