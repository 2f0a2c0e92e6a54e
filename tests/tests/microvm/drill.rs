//! Stories of a drill: a microVM on a private copy of a suspended ghost's
//! memory, and of the ghost, which must not notice.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::FileExt as _, net::UnixDatagram},
    },
};

use anyhow::{Context as _, Result, ensure};
use ghost_guest::pattern::COUNTERS;
use ghostd_tests::{
    clock::wait_for,
    microvm::{LIMIT, Memory, MicroVm, Spec, is_possible},
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use serde_json::json;

use crate::{
    PAGE, held,
    inherited::inherit,
    net::{ping, serving, wired},
    refusals::refused,
    state::{activate, counters, counting, load, saved, suspended, wait_for_more, why},
};

/// On a copy of this memory, but otherwise as the guest that it is of.
fn drill(mut spec: Spec, memory: &File) -> Result<Spec> {
    spec.more
        .extend(["--memory-copy".to_owned(), inherit(memory)?]);
    Ok(spec)
}

/// The memory that a process has for itself, as one sees it who may see all.
struct Private {
    memory: File,
    start: u64,
}

impl Private {
    fn of(pid: u64) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut guest = maps.lines().filter(|line| line.contains("ghost-memory"));
        let line = guest.next().context("no guest memory is mapped")?;
        ensure!(line.contains(" rw-p "), "it is not private: {line}");
        ensure!(guest.next().is_none(), "it is mapped more than once");
        let (start, _) = line.split_once('-').context("a mapping")?;
        Ok(Self {
            memory: File::open(format!("/proc/{pid}/mem"))?,
            start: u64::from_str_radix(start, 16)?,
        })
    }

    fn bytes(&self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.memory.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }

    fn counters(&self) -> Result<[u64; 2]> {
        let word = |address: u64| -> Result<u64> {
            let mut bytes = [0; 8];
            self.memory
                .read_exact_at(&mut bytes, self.start + address)?;
            Ok(u64::from_le_bytes(bytes))
        };
        Ok([word(COUNTERS)?, word(COUNTERS + PAGE)?])
    }
}

#[test]
fn a_drill_runs_on_a_ghosts_memory_and_changes_none_of_it() -> Result<()> {
    if !is_possible("a_drill_runs_on_a_ghosts_memory_and_changes_none_of_it") {
        return Ok(());
    }
    let primary = MicroVm::start(&counting()?)?;
    let memory = primary.connect()?.memory()?;
    wait_for_more(&memory, [0, 0])?;
    let (_client, state) = saved(&primary)?;
    let last = counters(&memory)?;
    let ghost = MicroVm::start(&suspended(counting()?))?;
    let ghost_client = ghost.connect()?;
    let copy = ghost_client.memory()?;
    copy.0.write_all_at(&memory.bytes()?, 0)?;
    assert_eq!(load(&ghost_client, &state)?, json!({"answer":"loaded"}));
    let before = copy.bytes()?;

    // Given no more than the right to read.
    let readable = File::open(format!("/proc/self/fd/{}", copy.0.as_raw_fd()))?;
    let mut drilled = MicroVm::start(&drill(counting()?, &readable)?)?;
    let pid = drilled.event()?["pid"].as_u64().context("a pid")?;
    let client = drilled.connect()?;
    assert_eq!(client.ask("status")?.json["state"], "blank");
    let blank = "no state has been loaded yet";
    assert_eq!(why(&client.ask("resume")?.json)?, blank);
    assert_eq!(why(&client.ask("save")?.json)?, blank);
    assert_eq!(why(&activate(&client)?)?, blank);
    let private = Private::of(pid)?;
    ensure!(private.bytes(before.len())? == before, "no whole copy");

    assert_eq!(load(&client, &state)?, json!({"answer":"loaded"}));
    assert_eq!(client.ask("status")?.json["state"], "paused");
    assert_eq!(activate(&client)?["answer"], "activated");
    wait_for("the drill to count on", LIMIT, || {
        let now = private.counters().ok()?;
        (now[0] > last[0] && now[1] > last[1]).then_some(())
    })?;
    assert_eq!(
        why(&client.ask("memory")?.json)?,
        "the guest's memory is a copy that only its process has"
    );
    assert_eq!(
        why(&client.ask("track")?.json)?,
        "what is written to a copy of another's memory is not tracked"
    );
    ensure!(copy.bytes()? == before, "the drill changed the ghost");
    assert_eq!(client.ask("stop")?.json["answer"], "stopping");
    assert_eq!(drilled.ended()?.status.code(), Some(0));
    ensure!(copy.bytes()? == before, "the drill's end changed the ghost");

    assert_eq!(ghost_client.ask("status")?.json["state"], "paused");
    assert_eq!(counters(&copy)?, last);
    assert_eq!(activate(&ghost_client)?["answer"], "activated");
    wait_for_more(&copy, last)
}

/// Who has 10.77.0.2? Asked by 10.77.0.1, after an empty header.
fn question() -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([0xff; 6]);
    packet.extend(ASKER);
    packet.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    packet.extend(ASKER);
    packet.extend([10, 77, 0, 1, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2]);
    packet
}

const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Frames of a guest that nothing else is connected to.
fn cord() -> Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, its) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?;
    let limit = TimeVal::new(i64::try_from(LIMIT.as_secs())?, 0);
    setsockopt(&ours, ReceiveTimeout, &limit)?;
    Ok((ours, its))
}

/// Whether each descriptor that it has of guest memory is for reading.
fn keeps_only_reading(pid: u64) -> Result<bool> {
    let mut modes = Vec::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?;
        if !std::fs::read_link(fd.path())?.starts_with("/memfd:ghost-memory (deleted)") {
            continue;
        }
        let number = fd.file_name();
        let info = format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy());
        let info = std::fs::read_to_string(info)?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.context("flags")?.trim(), 8)?;
        modes.push(flags & 3);
    }
    ensure!(!modes.is_empty(), "it has none");
    Ok(modes.iter().all(|&mode| mode == 0))
}

#[test]
fn a_drill_answers_whoever_holds_its_cord_while_the_ghosts_tap_waits() -> Result<()> {
    if !is_possible("a_drill_answers_whoever_holds_its_cord_while_the_ghosts_tap_waits") {
        return Ok(());
    }
    let (first, primary) = serving()?;
    ping(&first, "10.77.0.2")?;
    let (primary_client, state) = saved(&primary)?;
    let memory = primary_client.memory()?.bytes()?;
    let (second, spec) = wired()?;
    let mut corded = spec.clone();
    let ghost = second.run(|| MicroVm::start(&suspended(spec)))??;
    let ghost_client = ghost.connect()?;
    let copy = ghost_client.memory()?;
    copy.0.write_all_at(&memory, 0)?;
    assert_eq!(load(&ghost_client, &state)?, json!({"answer":"loaded"}));

    let (ours, its) = cord()?;
    corded.more[1] = inherit(&its)?;
    let mut drilled = MicroVm::start(&drill(corded, &copy.0)?)?;
    drop(its);
    let pid = drilled.event()?["pid"].as_u64().context("a pid")?;
    ensure!(
        keeps_only_reading(pid)?,
        "the drill could write to the ghost"
    );
    let client = drilled.connect()?;
    assert_eq!(load(&client, &state)?, json!({"answer":"loaded"}));
    assert_eq!(activate(&client)?["answer"], "activated");
    send(ours.as_raw_fd(), &question(), MsgFlags::empty())?;
    let mut packet = [0; 2048];
    let answer = loop {
        let length = match recv(ours.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            // The kernel does not go on with a wait that has a limit.
            Err(Errno::EINTR) => continue,
            length => length?,
        };
        let frame = packet[..length].get(12..).context("a header")?;
        // It may have had more to say when it was saved.
        if frame[12..14] == [0x08, 0x06] {
            break frame;
        }
    };
    assert_eq!(answer[..12], [ASKER, GUEST].concat());
    assert_eq!(answer[20..22], [0, 2], "a reply");
    assert_eq!(answer[22..32], [&GUEST[..], &[10, 77, 0, 2]].concat());
    ensure!(copy.bytes()? == memory, "the drill changed the ghost");

    assert_eq!(activate(&ghost_client)?["answer"], "activated");
    ping(&second, "10.77.0.2")
}

fn memfd(bytes: u64, seals: SealFlag) -> Result<File> {
    let fd = memfd_create(
        c"memory",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let file = File::from(fd);
    file.set_len(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[test]
fn memory_that_is_none_or_does_not_fit_is_refused() -> Result<()> {
    if !is_possible("memory_that_is_none_or_does_not_fit_is_refused") {
        return Ok(());
    }
    let whole = 16 << 20;
    let (shrink, grow) = (SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW);
    let loose = "is no memory of a guest: no file that is sealed";
    let cases: [(OwnedFd, &[&str]); 7] = [
        (memfd(whole, SealFlag::empty())?.into(), &[loose]),
        (memfd(whole, shrink)?.into(), &[loose]),
        (memfd(whole, grow)?.into(), &[loose]),
        (
            memfd(8 << 20, shrink | grow)?.into(),
            &["has 8388608 bytes, not the 16777216 of --memory-mib"],
        ),
        (
            memfd(whole + PAGE, shrink | grow)?.into(),
            &["has 16781312 bytes, not the 16777216"],
        ),
        (File::open(std::env::current_exe()?)?.into(), &[loose]),
        (UnixDatagram::unbound()?.into(), &[loose]),
    ];
    for (file, words) in cases {
        let place = inherit(&file)?;
        let change = |spec: &mut Spec| {
            spec.more = vec!["--memory-copy".to_owned(), place.clone()];
        };
        refused(change, &[&[place.as_str()], words].concat())?;
    }
    let absent = |spec: &mut Spec| {
        spec.more = ["--memory-copy", "/absent"].map(str::to_owned).to_vec();
    };
    refused(absent, &["cannot open the memory /absent", "No such file"])?;
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_leaves_a_drill_blank() -> Result<()> {
    if !is_possible("a_state_that_does_not_fit_leaves_a_drill_blank") {
        return Ok(());
    }
    let primary = MicroVm::start(&counting()?)?;
    let (client, state) = saved(&primary)?;
    let Memory(memory) = client.memory()?;
    // Of the same memory, but with fewer processors.
    let drilled = MicroVm::start(&drill(held("do=spin")?, &memory)?)?;
    let client = drilled.connect()?;
    assert_eq!(
        why(&load(&client, &state)?)?,
        "cannot load the state: the saved state is of 2 vCPUs, this microVM has 1"
    );
    assert_eq!(client.ask("status")?.json["state"], "blank");
    assert_eq!(why(&activate(&client)?)?, "no state has been loaded yet");
    Ok(())
}
