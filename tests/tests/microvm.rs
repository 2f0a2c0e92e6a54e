//! Stories of one microVM: what it prints, how it ends, what is in its memory,
//! and what ghost-vmm refuses.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use ghost_guest::pattern::{COUNTERS, Hash, PATTERN, word};
use ghostd_tests::{
    clock::wait_for,
    microvm::{Ended, LIMIT, Memory, MicroVm, Spec, is_possible, payload},
    netns::NetNs,
};
use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use serde_json::{Value, json};

const PAGE: u64 = 4096;

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
    assert_eq!(ended.left, ["console"], "the control socket is gone");
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
fn frames_for_a_paused_guest_wait_and_are_not_lost() -> Result<()> {
    if !is_possible("frames_for_a_paused_guest_wait_and_are_not_lost") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    let client = vm.connect()?;
    // Each knows the other's address from here on.
    ping(&ns, "10.77.0.2")?;
    client.ask("pause")?;
    let received =
        || -> Result<Value> { Ok(client.ask("status")?.json["net"]["received"].clone()) };
    let before = received()?;
    ns.run(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect("10.77.0.2:7")?;
        for number in 0..20_u8 {
            socket.send(&[number; 32])?;
        }
        for _ in 0..50 {
            assert_eq!(received()?, before, "a paused guest got a frame");
        }
        client.ask("resume")?;
        for number in 0..20_u8 {
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            assert_eq!(answer[..length], [number; 32]);
        }
        Ok(())
    })?
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
    assert_eq!(ended.left, ["console"]);
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

/// A namespace with a tap, and the payload behind it, serving.
fn serving() -> Result<(NetNs, MicroVm)> {
    let ns = NetNs::new("microvm")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("addr add 10.77.0.1/24 dev tap0")?;
    ns.ip("addr add fd77::1/64 dev tap0 nodad")?;
    ns.ip("link set tap0 up")?;
    let mut spec = held("do=serve v4=10.77.0.2/24 v6=fd77::2/64")?;
    spec.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:77"]
        .map(str::to_owned)
        .to_vec();
    let vm = ns.run(|| MicroVm::start(&spec))??;
    wait_for("the payload to serve", LIMIT, || {
        vm.console().contains("serving").then_some(())
    })
    .with_context(|| vm.console())?;
    Ok((ns, vm))
}

/// One echo request, and its reply with the same content. The kernel fills in
/// identifier and checksum, and checks those of the reply.
fn ping(ns: &NetNs, address: &str) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    ns.sysctl("ipv4/ping_group_range", "0 0")?;
    ns.run(|| -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = UdpSocket::from(socket(family, SockType::Datagram, flags, protocol)?);
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect((address, 0))?;
        let mut sent = vec![request, 0, 0, 0, 0, 0, 0, 1];
        sent.extend(0..=255);
        socket.send(&sent)?;
        let mut answer = [0; 1024];
        let length = socket.recv(&mut answer)?;
        assert_eq!(answer[0], reply, "an echo reply of {address}");
        assert_eq!(answer[6..length], sent[6..]);
        Ok(())
    })?
}

#[test]
fn a_payload_on_a_tap_answers_pings_and_echoes() -> Result<()> {
    if !is_possible("a_payload_on_a_tap_answers_pings_and_echoes") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    ping(&ns, "10.77.0.2")?;
    ping(&ns, "fd77::2")?;
    for server in ["10.77.0.2:7", "[fd77::2]:7"] {
        let server: SocketAddr = server.parse()?;
        let mine: SocketAddr = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        }
        .parse()?;
        ns.run(|| -> Result<()> {
            let socket = UdpSocket::bind(mine)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.connect(server)?;
            // Up to the largest that is not cut into fragments.
            for length in (0..500).chain([1400, 1452]) {
                let sent: Vec<u8> = (0..length).map(|at: usize| (at ^ length) as u8).collect();
                socket.send(&sent)?;
                let mut answer = [0; 2048];
                let length = socket.recv(&mut answer)?;
                ensure!(
                    answer[..length] == sent,
                    "{} bytes came back wrong",
                    sent.len()
                );
            }
            Ok(())
        })??;
    }
    let net = vm.connect()?.ask("status")?.json["net"].clone();
    assert!(net["sent"].as_u64() >= Some(1000), "{net}");
    assert_eq!(
        (&net["send_dropped"], &net["broken"]),
        (&json!(0), &json!(0))
    );
    let neighbours = ns.ip("neigh show dev tap0")?;
    assert!(neighbours.contains("02:00:00:00:00:77"), "{neighbours}");
    Ok(())
}

#[test]
fn a_tap_outlives_a_killed_vmm_and_serves_the_next() -> Result<()> {
    if !is_possible("a_tap_outlives_a_killed_vmm_and_serves_the_next") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    let mut second = held("do=serve v4=10.77.0.2/24")?;
    second.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:78"]
        .map(str::to_owned)
        .to_vec();
    let busy = ns.run(|| MicroVm::run(&second))??;
    assert_eq!(busy.status.code(), Some(2), "{}", busy.said);
    assert!(
        busy.said.contains("tap0") && busy.said.contains("busy"),
        "{}",
        busy.said
    );
    assert_eq!(busy.left, [] as [&str; 0]);
    vm.signal(Signal::SIGKILL)?;
    vm.ended()?;
    let next = ns.run(|| MicroVm::start(&second))??;
    wait_for("the payload to serve", LIMIT, || {
        next.console().contains("serving").then_some(())
    })?;
    ns.ip("neigh flush dev tap0")?;
    ping(&ns, "10.77.0.2")?;
    Ok(())
}

#[test]
fn a_tap_that_is_none_is_refused_and_none_is_made() -> Result<()> {
    if !is_possible("a_tap_that_is_none_is_refused_and_none_is_made") {
        return Ok(());
    }
    let ns = NetNs::new("microvm")?;
    let net = |spec: &mut Spec, tap: &str| {
        spec.more = ["--tap", tap, "--mac", "02:00:00:00:00:77"]
            .map(str::to_owned)
            .to_vec();
    };
    ns.run(|| -> Result<()> {
        refused(|spec| net(spec, "tap9"), &["tap9", "No such device"])?;
        refused(|spec| net(spec, "lo"), &["the tap lo", "Invalid argument"])?;
        Ok(())
    })??;
    let names: Vec<String> = ns.interfaces()?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["lo"]);
    Ok(())
}

/// Exit code 2, these words, and nothing left behind.
fn refused(change: impl FnOnce(&mut Spec), words: &[&str]) -> Result<Ended> {
    let mut spec = held("do=reset")?;
    change(&mut spec);
    let ended = MicroVm::run(&spec)?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    for word in words {
        assert!(ended.said.contains(word), "no `{word}` in: {}", ended.said);
    }
    assert_eq!(ended.said.trim_end().lines().count(), 1, "{}", ended.said);
    assert_eq!(ended.events, [] as [Value; 0]);
    assert_eq!(ended.left, [] as [&str; 0]);
    Ok(ended)
}

#[test]
fn images_that_are_no_payload_are_refused_by_name_and_reason() -> Result<()> {
    if !is_possible("images_that_are_no_payload_are_refused_by_name_and_reason") {
        return Ok(());
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let good = fs::read(payload()?)?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = dir.join(name);
        fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    };
    let mut arm = good.clone();
    arm[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let own = std::env::current_exe()?;
    let own = own.display().to_string();
    let cases = [
        (file("garbage", &[0xa5; 4096])?, "no ELF file"),
        (file("empty", b"")?, "no ELF file"),
        (file("header", &good[..40])?, "incomplete"),
        (file("truncated", &good[..1000])?, "truncated or damaged"),
        (file("arm", &arm)?, "machine 183, not for x86-64"),
        (own.clone(), "type is 3, not an executable at fixed"),
        (dir.join("absent").display().to_string(), "No such file"),
        (dir.display().to_string(), "directory"),
    ];
    for (path, reason) in cases {
        // A program of this system is larger than a payload.
        let memory_mib = if path == own { 1024 } else { 16 };
        refused(
            |spec| {
                spec.image = path.clone().into();
                spec.memory_mib = memory_mib;
            },
            &[path.as_str(), reason],
        )?;
    }
    Ok(())
}

#[test]
fn an_image_larger_than_memory_is_refused() -> Result<()> {
    if !is_possible("an_image_larger_than_memory_is_refused") {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    let file = fs::File::create(&path)?;
    file.write_all_at(&fs::read(payload()?)?, 0)?;
    file.set_len(64 << 20)?;
    let shown = path.display().to_string();
    refused(
        |spec| spec.image = path,
        &[&shown, "67108864 bytes", "16777216"],
    )?;
    Ok(())
}

#[test]
fn a_host_without_kvm_is_told_so() -> Result<()> {
    let kvm = |spec: &mut Spec, path: &str| spec.more = vec!["--kvm".to_owned(), path.to_owned()];
    refused(
        |spec| kvm(spec, "/dev/absent"),
        &["/dev/absent", "No such file"],
    )?;
    refused(
        |spec| kvm(spec, "/dev/null"),
        &["/dev/null", "no KVM device"],
    )?;
    Ok(())
}

#[test]
fn sizes_and_places_that_cannot_be_are_refused() -> Result<()> {
    if !is_possible("sizes_and_places_that_cannot_be_are_refused") {
        return Ok(());
    }
    refused(|spec| spec.memory_mib = 5, &["5 MiB", "must be even"])?;
    refused(|spec| spec.memory_mib = 2, &["2 MiB", "from 4"])?;
    refused(
        |spec| spec.command_line = "x".repeat(5000),
        &["5000 bytes", "4096"],
    )?;
    let vm = MicroVm::start(&held("do=spin")?)?;
    let first = vm.connect()?;
    let taken = vm.control().display().to_string();
    let more = ["--control".to_owned(), taken.clone()];
    refused(
        |spec| {
            spec.has_control = false;
            spec.more = more.to_vec();
        },
        &[&taken, "left alone"],
    )?;
    assert_eq!(first.ask("status")?.json["state"], "running");
    vm.connect()?;
    Ok(())
}
