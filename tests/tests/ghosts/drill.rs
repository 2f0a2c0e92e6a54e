//! Drills: ghosts that are tried out, and do not notice.

use std::{
    collections::hash_map::DefaultHasher,
    fs::File,
    hash::{Hash as _, Hasher as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    host::{Hosted, LIMIT, VM},
    microvm,
};
use serde_json::Value;

const SERVES: &str = "do=serve addr=10.77.0.2/24 gw=10.77.0.1 addr=fd77::2/64 gw=fd77::1";
const PORTS: &str = "[[instance.port]]\ninterface = \"vp0\"\nside = \"primary\"\n\
                     [[instance.port]]\ninterface = \"vg0\"\nside = \"ghost\"\n[instance.vm]\n";

/// With these lines in `[instance.vm.health]`; `more` in `[instance.vm]`.
fn hosted(line: &str, more: &str, health: &str) -> Result<Hosted> {
    let more = format!(
        "mac = \"02:00:00:00:00:99\"\nhost_addresses = [\"10.77.0.1/24\", \"fd77::1/64\"]\n\
         {more}\n[instance.vm.health]\n{health}"
    );
    Hosted::with(line, &more, |config| {
        config.extra = config.extra.replace("[instance.vm]\n", PORTS);
    })
}

fn tcp(expect: &str) -> String {
    format!(
        "addr = \"10.77.0.2\"\nport = 7000\nsend = \"PING\\n\"\nexpect = {expect:?}\nlimit_ms = 5000\n"
    )
}

/// Ready to be drilled, with what its primary serves.
fn armed(hosted: &Hosted) -> Result<()> {
    hosted.order("instance", "create")?;
    wait_for("the primary to serve", LIMIT, || {
        let text = hosted.console("primary").ok()?;
        text.contains("serving").then_some(())
    })?;
    hosted.order("ghost", "prepare")?;
    wait_programs(hosted, &["vp0", "vg0"])
}

/// Programs come onto new interfaces a little later, with pins of theirs.
fn wait_programs(hosted: &Hosted, taps: &[&str]) -> Result<()> {
    wait_for("programs on the taps", LIMIT, || {
        let status = hosted.stage.daemon().ok()?.api().get("/v1/status").ok()?;
        let uplinks = status["uplinks"].as_array()?;
        let carries = |name: &&str| uplinks.iter().any(|one| one["interface"] == *name);
        taps.iter().all(carries).then_some(())
    })?;
    Ok(())
}

/// The verdict, and whether ghostctl called it good.
fn drill(hosted: &Hosted) -> Result<(Value, bool)> {
    let output = hosted.ghostctl(&["-o", "json", "ghost", "drill", VM])?;
    let done: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((done["verdict"].clone(), output.status.success()))
}

/// The guest memory of the suspended ghost, as the host sees it.
struct Looked {
    memory: File,
    bytes: u64,
    start: u64,
}

fn look(pid: u64) -> Result<Looked> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains("ghost-memory"));
    let range = line.and_then(|line| line.split(' ').next());
    let (start, end) = range.and_then(|r| r.split_once('-')).context("a mapping")?;
    let (start, end) = (
        u64::from_str_radix(start, 16)?,
        u64::from_str_radix(end, 16)?,
    );
    Ok(Looked {
        memory: File::open(format!("/proc/{pid}/mem"))?,
        bytes: end - start,
        start,
    })
}

impl Looked {
    fn hash(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        let mut page = vec![0; 1 << 20];
        for place in (0..self.bytes).step_by(page.len()) {
            let part = page.len().min(usize::try_from(self.bytes - place)?);
            self.memory
                .read_exact_at(&mut page[..part], self.start + place)?;
            page[..part].hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

fn ghost_memory(hosted: &Hosted) -> Result<Looked> {
    let shown = hosted.show()?;
    let pid = shown["ghost"]["pid"].as_u64().context("a pid")?;
    // Of the host's namespace, as its /proc is.
    hosted.stage.world.host().run(|| look(pid))?
}

fn suspended(shown: &Value, epoch: u64) -> bool {
    shown["ghost"]["state"] == "suspended" && shown["ghost"]["epoch"] == epoch
}

#[test]
fn a_ghost_that_would_serve_is_healthy_and_does_not_notice() -> Result<()> {
    if !microvm::is_possible("a_ghost_that_would_serve_is_healthy_and_does_not_notice") {
        return Ok(());
    }
    let hosted = hosted(SERVES, "", &tcp("PONG"))?;
    let before_all = hosted.traces()?;
    armed(&hosted)?;
    let memory = ghost_memory(&hosted)?;
    let (shown, traces, hash) = (hosted.show()?, hosted.traces()?, memory.hash()?);
    for _ in 0..3 {
        let (verdict, is_good) = drill(&hosted)?;
        ensure!(is_good && verdict["is_healthy"] == true, "{verdict}");
        let us = verdict["answered_us"].as_u64().context("a time")?;
        ensure!((1..5_000_000).contains(&us), "{verdict}");
        ensure!(
            memory.hash()? == hash,
            "the drill changed the ghost's memory"
        );
        ensure!(
            hosted.traces()? == traces,
            "{:?}\nbefore: {traces:?}",
            hosted.traces()?
        );
        ensure!(
            hosted.show()? == shown,
            "{}\nbefore: {shown}",
            hosted.show()?
        );
    }
    let events = hosted.ghostctl(&["events"])?;
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    ensure!(events.contains("a drill of its ghost: healthy"), "{events}");
    let done = hosted.order("ghost", "activate")?;
    ensure!(done["instance"]["ghost"]["state"] == "active", "{done}");
    wait_for("the ghost to go on", LIMIT, || {
        (memory.hash().ok()? != hash).then_some(())
    })?;
    let said = hosted.refused("ghost", "drill")?;
    ensure!(said.contains("vm-1 is served by its ghost"), "{said}");
    hosted.order("ghost", "suspend")?;
    hosted.order("instance", "destroy")?;
    hosted.wait_traces(&before_all)
}

#[test]
fn questions_of_all_kinds_are_asked() -> Result<()> {
    if !microvm::is_possible("questions_of_all_kinds_are_asked") {
        return Ok(());
    }
    for health in [
        "addr = \"fd77::2\"\nport = 7000\nsend = \"PING\\n\"\nexpect = \"PONG\\n\"\nlimit_ms = 5000\n",
        "addr = \"10.77.0.2\"\nport = 7000\nlimit_ms = 5000\n",
        "addr = \"10.77.0.2\"\nport = 7\nprotocol = \"udp\"\nsend = \"hello\"\nexpect = \"hello\"\nlimit_ms = 5000\n",
        "addr = \"fd77::2\"\nport = 7\nprotocol = \"udp\"\nsend = \"hello\"\nlimit_ms = 5000\n",
    ] {
        let hosted = hosted(SERVES, "", health)?;
        // From its image: it has to start first.
        hosted.order("ghost", "prepare")?;
        let (verdict, is_good) = drill(&hosted)?;
        ensure!(
            is_good && verdict["is_healthy"] == true,
            "{health}: {verdict}"
        );
        ensure!(suspended(&hosted.show()?, 0), "{}", hosted.show()?);
    }
    Ok(())
}

#[test]
fn a_ghost_that_would_not_serve_is_found_out() -> Result<()> {
    if !microvm::is_possible("a_ghost_that_would_not_serve_is_found_out") {
        return Ok(());
    }
    let silent = "addr = \"10.77.0.2\"\nport = 7000\nsend = \"PING\\n\"\nlimit_ms = 300\n";
    let closed = "addr = \"10.77.0.2\"\nport = 7001\nsend = \"PING\\n\"\nlimit_ms = 300\n";
    for (line, health, what) in [
        (SERVES, tcp("OK"), "answered \"PONG\", expected \"OK\""),
        (
            "say=up do=spin",
            silent.to_owned(),
            "no answer within 300 ms",
        ),
        (
            SERVES,
            closed.to_owned(),
            "no answer within 300 ms: the connection was refused",
        ),
        ("do=reset", silent.to_owned(), "the guest reset itself"),
        (
            "do=triple-fault",
            silent.to_owned(),
            "the guest crashed: triple fault",
        ),
    ] {
        let hosted = hosted(line, "", &health)?;
        hosted.order("ghost", "prepare")?;
        wait_programs(&hosted, &["vg0"])?;
        let memory = ghost_memory(&hosted)?;
        let (shown, traces, hash) = (hosted.show()?, hosted.traces()?, memory.hash()?);
        let (verdict, is_good) = drill(&hosted)?;
        ensure!(
            !is_good && verdict["is_healthy"] == false,
            "{line}: {verdict}"
        );
        ensure!(verdict["what"] == what, "{line}: {verdict}");
        ensure!(verdict["answered_us"].is_null(), "{verdict}");
        ensure!(
            memory.hash()? == hash,
            "{line}: the drill changed the ghost"
        );
        ensure!(hosted.traces()? == traces, "{line}: {:?}", hosted.traces()?);
        ensure!(hosted.show()? == shown, "{line}: {}", hosted.show()?);
    }
    Ok(())
}

#[test]
fn a_drill_that_cannot_ask_says_which_key_is_missing() -> Result<()> {
    if !microvm::is_possible("a_drill_that_cannot_ask_says_which_key_is_missing") {
        return Ok(());
    }
    let hosted = Hosted::new(SERVES, "")?;
    hosted.order("ghost", "prepare")?;
    let before = hosted.traces()?;
    let said = hosted.refused("ghost", "drill")?;
    ensure!(said.contains("vm-1 has no [instance.vm.health]"), "{said}");
    ensure!(suspended(&hosted.show()?, 0), "{}", hosted.show()?);
    hosted.wait_traces(&before)?;
    drop(hosted);

    let more = format!("[instance.vm.health]\n{}", tcp("PONG"));
    let hosted = Hosted::new(SERVES, &more)?;
    hosted.order("ghost", "prepare")?;
    let before = hosted.traces()?;
    let said = hosted.refused("ghost", "drill")?;
    ensure!(
        said.contains("[[instance.port]]") && said.contains("`mac`"),
        "{said}"
    );
    ensure!(suspended(&hosted.show()?, 0), "{}", hosted.show()?);
    hosted.wait_traces(&before)
}

#[test]
fn a_drill_writes_to_a_disk_of_its_own() -> Result<()> {
    if !microvm::is_possible("a_drill_writes_to_a_disk_of_its_own") {
        return Ok(());
    }
    let folder = microvm::Folder::new()?;
    let disk = folder.path().join("disk");
    File::create(&disk)?.set_len(1 << 20)?;
    let health = tcp("OK 1").replace("PING", "PUT a 1");
    let hosted = hosted(SERVES, &format!("disk = {disk:?}"), &health)?;
    armed(&hosted)?;
    let copy = PathBuf::from(format!("{}.ghost", disk.display()));
    let (was, traces) = (std::fs::read(&copy)?, hosted.traces()?);
    for _ in 0..2 {
        let (verdict, is_good) = drill(&hosted)?;
        ensure!(is_good, "{verdict}");
        ensure!(
            std::fs::read(&copy)? == was,
            "the drill wrote to the ghost's disk"
        );
        let files = std::fs::read_dir(folder.path())?.count();
        ensure!(files == 2, "{files} files beside the disk");
        ensure!(hosted.traces()? == traces, "{:?}", hosted.traces()?);
    }
    Ok(())
}
