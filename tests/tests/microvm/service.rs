//! The key-value service and the writers of the payload, over real sockets.

use std::{
    fs,
    io::Read as _,
    net::Shutdown,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::{
    journal::Journal,
    pattern::PATTERN,
    request::{Key, Value},
    write::Order,
};
use ghostd_tests::{
    clock::wait_for,
    microvm::{Kv, LIMIT, MicroVm, Spec, is_possible},
    netns::NetNs,
};

use nix::sys::signal::Signal;

use crate::{PAGE, held};

const V4: &str = "10.77.0.2:7000";
const V6: &str = "[fd77::2]:7000";
/// As many as the payload takes at the same time.
const CONNECTIONS: usize = 32;

fn spec() -> Result<Spec> {
    let mut spec = held("do=serve addr=10.77.0.2/24 addr=fd77::2/64 gw=10.77.0.1 gw=fd77::1")?;
    spec.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:77"]
        .map(str::to_owned)
        .to_vec();
    Ok(spec)
}

fn namespace() -> Result<NetNs> {
    let ns = NetNs::new("service")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("addr add 10.77.0.1/24 dev tap0")?;
    ns.ip("addr add fd77::1/64 dev tap0 nodad")?;
    ns.ip("link set tap0 up")?;
    Ok(ns)
}

fn start(ns: &NetNs, spec: &Spec) -> Result<MicroVm> {
    let vm = ns.run(|| MicroVm::start(spec))??;
    wait_for("the payload to serve", LIMIT, || {
        vm.console().contains("serving").then_some(())
    })
    .with_context(|| vm.console())?;
    Ok(vm)
}

/// What `SUM` has to say after these mutations.
fn sum(mutations: &[(String, String)]) -> Result<String> {
    let mut journal = Journal::NEW;
    let mut keys = std::collections::BTreeSet::new();
    for (key, value) in mutations {
        keys.insert(key);
        let (key, value) = Key::new(key).zip(Value::new(value)).context("a word")?;
        journal = journal.with(key, value);
    }
    let (count, hash) = (journal.count, journal.hash());
    Ok(format!("SUM {count} {hash:016x} {}", keys.len()))
}

#[test]
fn both_families_see_one_store_and_its_sum_can_be_recomputed() -> Result<()> {
    if !is_possible("both_families_see_one_store_and_its_sum_can_be_recomputed") {
        return Ok(());
    }
    let ns = namespace()?;
    let _vm = start(&ns, &spec()?)?;
    ns.run(|| -> Result<()> {
        let (mut four, mut six) = (Kv::connect(V4)?, Kv::connect(V6)?);
        let mut mutations = Vec::new();
        assert_eq!(four.ask("PING")?, "PONG");
        assert_eq!(six.ask("SUM")?, sum(&mutations)?);
        for number in 1..=50_u64 {
            let (key, value) = (format!("k{}", number % 7), format!("v{number}"));
            let answer = four.ask(&format!("PUT {key} {value}"))?;
            assert_eq!(answer, format!("OK {}", 2 * number - 1));
            assert_eq!(six.ask(&format!("GET {key}"))?, format!("VALUE {value}"));
            mutations.push((key, value));
            let answer = six.ask("INCR n")?;
            assert_eq!(answer, format!("OK {} {number}", 2 * number));
            mutations.push(("n".to_owned(), number.to_string()));
        }
        assert_eq!(four.ask("SUM")?, sum(&mutations)?);
        assert_eq!(four.ask("GET absent")?, "NONE");
        assert_eq!(four.ask("INCR k1")?, "ERR the value is no decimal number");
        assert_eq!(six.ask("SUM")?, sum(&mutations)?);
        Ok(())
    })?
}

#[test]
fn bad_lines_are_answered_and_the_connection_goes_on() -> Result<()> {
    if !is_possible("bad_lines_are_answered_and_the_connection_goes_on") {
        return Ok(());
    }
    let ns = namespace()?;
    let _vm = start(&ns, &spec()?)?;
    ns.run(|| -> Result<()> {
        let mut kv = Kv::connect(V4)?;
        for (line, answer) in [
            ("FROB", "ERR no such command: FROB"),
            ("PUT k", "ERR usage: PUT key value"),
            ("GET \u{e4}", "ERR a line is ASCII"),
            (&"x".repeat(5000), "ERR a line has at most 320 bytes"),
            ("WRITE pages=99999", "ERR there are 3072 pages to write to"),
            ("WRITE cpu=3", "ERR there is no such vCPU"),
            ("PING\r", "PONG"),
        ] {
            assert_eq!(kv.ask(line)?, answer, "{line:.40}");
        }
        // All bytes there are, and then an end of line.
        let noise: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
        kv.send(&noise)?;
        assert_eq!(kv.ask("")?, "ERR a line is ASCII");
        // Many lines in one piece, and one line in many pieces.
        kv.send("INCR n\n".repeat(500).as_bytes())?;
        for number in 1..=500 {
            assert_eq!(kv.answer()?, format!("OK {number} {number}"));
        }
        for byte in b"PUT slow motion" {
            kv.send(&[*byte])?;
        }
        assert_eq!(kv.ask("")?, "OK 501");
        Ok(())
    })?
}

#[test]
fn connections_are_bounded_and_each_end_makes_room() -> Result<()> {
    if !is_possible("connections_are_bounded_and_each_end_makes_room") {
        return Ok(());
    }
    let ns = namespace()?;
    let _vm = start(&ns, &spec()?)?;
    ns.run(|| -> Result<()> {
        for round in 1..=3_usize {
            let mut all = Vec::new();
            for at in 0..CONNECTIONS {
                let server = if at % 2 == 0 { V4 } else { V6 };
                // The last round's ends may not all have arrived yet.
                let mut kv = wait_for("a place", LIMIT, || Kv::connect(server).ok())?;
                assert_eq!(kv.ask("PING")?, "PONG");
                all.push(kv);
            }
            let more = Kv::connect(V4)
                .err()
                .context("one more than there is room for")?;
            ensure!(format!("{more:#}").contains("refused"), "{more:#}");
            for kv in &mut all {
                kv.send(b"INCR n\n")?;
            }
            let mut counted: Vec<u64> = Vec::new();
            for kv in &mut all {
                let answer = kv.answer()?;
                counted.push(answer.rsplit(' ').next().context("a count")?.parse()?);
            }
            counted.sort_unstable();
            let before = ((round - 1) * CONNECTIONS) as u64;
            let expected: Vec<u64> = (before + 1..=before + CONNECTIONS as u64).collect();
            assert_eq!(counted, expected);
            for (at, mut kv) in all.into_iter().enumerate() {
                match at % 3 {
                    // Unread bytes make the kernel reset it.
                    0 => kv.send(b"PING\n")?,
                    // Half an end first: what was asked is still answered.
                    1 => {
                        kv.send(b"PING\n")?;
                        kv.stream().shutdown(Shutdown::Write)?;
                        assert_eq!(kv.answer()?, "PONG");
                        assert_eq!(kv.stream().read(&mut [0])?, 0);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })?
}

#[test]
fn writers_keep_their_rate_and_leave_what_can_be_recomputed() -> Result<()> {
    if !is_possible("writers_keep_their_rate_and_leave_what_can_be_recomputed") {
        return Ok(());
    }
    let ns = namespace()?;
    let spec = Spec {
        vcpus: 2,
        ..spec()?
    };
    let vm = start(&ns, &spec)?;
    let client = vm.connect()?;
    ns.run(|| -> Result<()> {
        let mut kv = Kv::connect(V4)?;
        for words in [
            "cpu=0 rate=3000 pages=300 pattern=random seed=7 count=600",
            "cpu=1 rate=0 pages=100 first=1000 pattern=sequential content=text count=1234 seed=1",
            "cpu=1 rate=20000 pages=50 first=500 pattern=random content=word count=700",
            "cpu=0 rate=500 pages=9 first=2000 pattern=same count=20 seed=3",
        ] {
            let cpu = words.get(..5).context("a vCPU")?;
            let stat = format!("STAT {}", cpu.trim_start_matches("cpu="));
            assert_eq!(kv.ask(&format!("WRITE {words}"))?, "OK");
            let done = wait_for("the writer to be done", LIMIT, || {
                kv.ask(&stat)
                    .ok()
                    .filter(|stat| stat.starts_with("STAT idle"))
            })?;
            let mut order = Order::NEW;
            for word in words.split(' ') {
                let (key, value) = word.split_once('=').context("a word")?;
                order.set(key, value).context("one of ours")?;
            }
            assert_eq!(done, format!("STAT idle written={} {order}", order.count));
            // The last write of each page is what is in it.
            let memory = client.memory()?;
            let last: std::collections::BTreeMap<u64, u64> = (0..order.count)
                .map(|write| (order.page(write), write))
                .collect();
            for page in order.first..order.first + order.pages {
                let address = PATTERN + page * PAGE;
                let words = memory.words(address, 512)?;
                for (index, word) in words.into_iter().enumerate() {
                    let expected = match last.get(&page) {
                        Some(&write) if index < order.words() => order.word(write, index),
                        _ => 0,
                    };
                    ensure!(word == expected, "page {page} word {index} of `{order}`");
                }
            }
        }
        assert_eq!(kv.ask("WRITE rate=1000000 pages=10 cpu=1")?, "OK");
        assert_eq!(kv.ask("STOP 1")?, "OK");
        wait_for("the writer to stop", LIMIT, || {
            kv.ask("STAT 1")
                .ok()
                .filter(|stat| stat.starts_with("STAT idle"))
        })?;
        Ok(())
    })?
}

#[test]
fn what_was_answered_is_there_after_a_kill() -> Result<()> {
    if !is_possible("what_was_answered_is_there_after_a_kill") {
        return Ok(());
    }
    let ns = namespace()?;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service-disk");
    fs::write(&path, [])?;
    fs::File::options()
        .write(true)
        .open(&path)?
        .set_len(1 << 20)?;
    let mut spec = spec()?;
    spec.more
        .extend(["--disk".to_owned(), path.display().to_string()]);
    let mut mutations = Vec::new();
    for run in 0..3_u64 {
        let vm = start(&ns, &spec)?;
        ns.ip("neigh flush dev tap0")?;
        ns.run(|| -> Result<()> {
            let mut kv = Kv::connect(V4)?;
            assert_eq!(kv.ask("SUM")?, sum(&mutations)?, "run {run}");
            for number in 0..200 {
                let (key, value) = (format!("k{}", number % 31), format!("r{run}-{number}"));
                let answer = kv.ask(&format!("PUT {key} {value}"))?;
                mutations.push((key, value));
                assert_eq!(answer, format!("OK {}", mutations.len()));
            }
            assert_eq!(kv.ask("SUM")?, sum(&mutations)?);
            Ok(())
        })??;
        vm.signal(Signal::SIGKILL)?;
        vm.ended()?;
        // As the page about the payload says, read without the payload.
        let disk = fs::read(&path)?;
        let end = disk.iter().position(|&byte| byte == 0).context("an end")?;
        let text = std::str::from_utf8(&disk[..end])?;
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("ghost-guest journal"));
        let found: Vec<(String, String)> = lines
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                words.next().zip(words.next()).context("a record")
            })
            .collect::<Result<_>>()?;
        assert_eq!(found, mutations);
    }
    Ok(())
}

#[test]
fn a_disk_that_holds_something_else_is_left_alone() -> Result<()> {
    if !is_possible("a_disk_that_holds_something_else_is_left_alone") {
        return Ok(());
    }
    let ns = namespace()?;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service-foreign");
    fs::write(&path, [0x42; 8192])?;
    let mut spec = spec()?;
    spec.has_control = false;
    spec.more
        .extend(["--disk".to_owned(), path.display().to_string()]);
    let ended = ns.run(|| MicroVm::run(&spec))??;
    let said = "the disk holds something that is no journal";
    assert!(ended.console.contains(said), "{}", ended.console);
    assert_eq!(fs::read(&path)?, [0x42; 8192]);
    Ok(())
}

/// Ticks of 10 ms that a process has had of processors.
fn processor_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a name")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a field")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

#[test]
fn an_idle_guest_leaves_the_processor_alone_and_obeys_at_once() -> Result<()> {
    if !is_possible("an_idle_guest_leaves_the_processor_alone_and_obeys_at_once") {
        return Ok(());
    }
    let ns = namespace()?;
    let spec = Spec {
        vcpus: 2,
        ..spec()?
    };
    let mut vm = start(&ns, &spec)?;
    let pid = u32::try_from(vm.event()?["pid"].as_u64().context("a pid")?)?;
    let client = vm.connect()?;
    let begin = Instant::now();
    let before = processor_ticks(pid)?;
    for _ in 0..10 {
        // What it waits for is a second away.
        let paused = client.ask("pause")?.json;
        let us = paused["pause_us"].as_u64().context("a duration")?;
        ensure!(us < 500_000, "a pause took {us} us");
        client.ask("resume")?;
        ns.run(|| -> Result<()> {
            let mut kv = Kv::connect(V4)?;
            assert_eq!(kv.ask("PING")?, "PONG");
            Ok(())
        })??;
    }
    // A quiet second.
    wait_for("a second to pass", LIMIT, || {
        (begin.elapsed() > Duration::from_secs(2)).then_some(())
    })?;
    let ticks = processor_ticks(pid)? - before;
    ensure!(
        ticks < 40,
        "{ticks} ticks of 10 ms in two seconds, most of them idle"
    );
    let strays = client.ask("status")?.json["strays"]["port_writes"].clone();
    assert_eq!(strays, 0);
    Ok(())
}

#[test]
fn who_it_is_and_what_time_it_is() -> Result<()> {
    if !is_possible("who_it_is_and_what_time_it_is") {
        return Ok(());
    }
    let ns = namespace()?;
    let vm = start(&ns, &spec()?)?;
    let client = vm.connect()?;
    client.ask("pause")?;
    let generation = "00112233445566778899aabbccddeeff";
    let command = format!(r#"{{"command":"activate","generation":"{generation}"}}"#);
    client.send(command.as_bytes())?;
    let mut answer = client.receive()?.json;
    while answer["answer"].is_null() {
        // An event of the pause.
        answer = client.receive()?.json;
    }
    assert_eq!(answer["answer"], "activated", "{answer}");
    ns.run(|| -> Result<()> {
        let mut kv = Kv::connect(V6)?;
        assert_eq!(kv.ask("GEN")?, format!("GEN {generation} 2"));
        let now = || -> Result<u128> {
            Ok(SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)?
                .as_nanos())
        };
        let before = now()?;
        let answer = kv.ask("TIME")?;
        let after = now()?;
        let time: u128 = answer.strip_prefix("TIME ").context("a time")?.parse()?;
        // The guest has seen its incarnation a little after it began.
        let slack = Duration::from_millis(500).as_nanos();
        ensure!(
            time + slack >= before && time <= after + slack,
            "{before} {time} {after}"
        );
        Ok(())
    })?
}
