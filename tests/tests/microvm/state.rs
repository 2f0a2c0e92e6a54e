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

use super::{PAGE, held};

const GENERATION: &str = "00112233445566778899aabbccddeeff";

/// Where `docs/guest-abi.md` puts it.
const INCARNATION: u64 = 0x7000;

/// Two vCPUs that count in memory, from a register.
fn counting() -> Result<Spec> {
    let mut spec = held("seed=7 bytes=1048576 do=spin")?;
    spec.vcpus = 2;
    Ok(spec)
}

fn suspended(mut spec: Spec) -> Spec {
    spec.more.push("--suspended".to_owned());
    spec
}

fn counters(memory: &Memory) -> Result<[u64; 2]> {
    Ok([memory.word(COUNTERS)?, memory.word(COUNTERS + PAGE)?])
}

fn wait_for_more(memory: &Memory, than: [u64; 2]) -> Result<()> {
    wait_for("both vCPUs to go on", LIMIT, || {
        let now = counters(memory).ok()?;
        (now[0] > than[0] && now[1] > than[1]).then_some(())
    })?;
    Ok(())
}

/// Paused, its state, and the client that did it.
fn saved(vm: &MicroVm) -> Result<(Client, File)> {
    let client = vm.connect()?;
    assert_eq!(client.ask("pause")?.json["answer"], "paused");
    let answer = client.ask("save")?;
    assert_eq!(answer.json["answer"], "saved");
    let file = answer.file.context("no state came with the answer")?;
    assert_eq!(answer.json["bytes"], file.metadata()?.len());
    Ok((client, file))
}

fn load(client: &Client, state: &File) -> Result<Value> {
    Ok(client
        .ask_with(&json!({"command":"load"}), Some(state))?
        .json)
}

fn activate(client: &Client) -> Result<Value> {
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
