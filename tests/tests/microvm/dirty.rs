//! Stories of what a microVM has written, told by itself and found out naively.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::{COUNTERS, PATTERN};
use ghostd_tests::{
    clock::wait_for,
    microvm::{Client, LIMIT, Memory, MicroVm, is_possible},
};
use serde_json::{Value, json};

use super::{PAGE, held};

const BYTES: u64 = 1 << 20;

/// What was written, by pages, and the answer that told it.
fn dirty(client: &Client, release: u64) -> Result<(BTreeSet<u64>, Value)> {
    let command = json!({"command":"dirty","release":release});
    let answer = client.ask_with(&command, None)?;
    ensure!(answer.json["answer"] == "dirty", "{}", answer.json);
    let map = Memory(answer.file.context("no map came with the answer")?);
    ensure!(map.0.set_len(0).is_err(), "the map is not sealed");
    let bytes = map.bytes()?;
    assert_eq!(answer.json["page_map_bytes"], bytes.len());
    assert_eq!(answer.json["block_map_bytes"], 0, "there is no disk");
    let pages: BTreeSet<u64> = (0..bytes.len() as u64 * 8)
        .filter(|page| bytes[(page / 8) as usize] & (1 << (page % 8)) != 0)
        .collect();
    assert_eq!(answer.json["pages"], pages.len());
    Ok((pages, answer.json))
}

fn differing(before: &[u8], after: &[u8]) -> BTreeSet<u64> {
    let pages = before.chunks(4096).zip(after.chunks(4096));
    (0..)
        .zip(pages)
        .filter_map(|(page, (before, after))| (before != after).then_some(page))
        .collect()
}

#[test]
fn what_was_written_is_told_until_it_has_arrived() -> Result<()> {
    if !is_possible("what_was_written_is_told_until_it_has_arrived") {
        return Ok(());
    }
    let mut spec = held(&format!("seed=7 bytes={BYTES} do=spin"))?;
    spec.vcpus = 2;
    spec.more.push("--suspended".to_owned());
    let vm = MicroVm::start(&spec)?;
    let client = vm.connect()?;
    let memory = client.memory()?;
    let early = json!({"command":"dirty","release":0});
    let refused = json!({"answer":"refused","why":"nothing is tracked yet"});
    assert_eq!(client.ask_with(&early, None)?.json, refused);
    for _ in 0..2 {
        assert_eq!(client.ask("track")?.json, json!({"answer":"tracking"}));
    }
    let mut before = memory.bytes()?;
    assert_eq!(dirty(&client, 0)?.0, BTreeSet::new(), "it has not run");

    // The VMM's own write, then the guest's.
    let generation = "00112233445566778899aabbccddeeff";
    client.ask_with(&json!({"command":"activate","generation":generation}), None)?;
    let pattern = PATTERN / PAGE..(PATTERN + BYTES) / PAGE;
    let counters = [COUNTERS / PAGE, COUNTERS / PAGE + 1];
    let mut latest = 1;
    let mut last = [0; 2];
    for round in 0..10 {
        wait_for("both vCPUs to go on", LIMIT, || {
            let now = [memory.word(COUNTERS), memory.word(COUNTERS + PAGE)];
            let [Ok(first), Ok(second)] = now else {
                return None;
            };
            (first > last[0] && second > last[1]).then(|| last = [first, second])
        })?;
        client.ask("pause")?;
        let after = memory.bytes()?;
        let (told, answer) = dirty(&client, latest)?;
        latest = answer["sequence"].as_u64().context("no sequence")?;
        let differs = differing(&before, &after);
        let missed: Vec<_> = differs.difference(&told).collect();
        ensure!(missed.is_empty(), "round {round}: not told of {missed:?}");
        ensure!(counters.iter().all(|page| told.contains(page)));
        if round == 0 {
            ensure!(told.contains(&7), "the VMM's own write");
            ensure!(pattern.clone().all(|page| told.contains(&page)));
        } else {
            ensure!(told.len() < 10, "round {round}: {told:?}");
        }
        // It has not arrived, so it is told again; nothing new is written.
        let (again, answer) = dirty(&client, latest - 1)?;
        assert_eq!(again, told);
        latest = answer["sequence"].as_u64().context("no sequence")?;
        before = after;
        client.ask("resume")?;
    }
    let future = json!({"command":"dirty","release":latest + 1});
    let answer = client.ask_with(&future, None)?.json;
    let why = format!(
        "there was no harvest {} yet, the latest is {latest}",
        latest + 1
    );
    assert_eq!(answer, json!({"answer":"refused","why":why}));
    Ok(())
}
