//! Files that whoever starts ghost-vmm has opened.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::net::{UnixDatagram, UnixListener},
    },
    path::PathBuf,
};

use anyhow::Result;
use ghostd_tests::microvm::{Client, MicroVm, Spec, is_possible, payload};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket, socketpair},
    },
};
use serde_json::json;

use crate::{held, refusals::refused};

/// What a child finds at the same number.
pub(crate) fn inherit(fd: impl AsFd) -> Result<String> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(format!("fd:{}", fd.as_fd().as_raw_fd()))
}

fn packet_socket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

fn options(pairs: &[(&str, &str)]) -> Vec<String> {
    let words = pairs.iter().flat_map(|&(name, value)| [name, value]);
    words.map(str::to_owned).collect()
}

#[test]
fn a_microvm_runs_on_descriptors_alone() -> Result<()> {
    if !is_possible("a_microvm_runs_on_descriptors_alone") {
        return Ok(());
    }
    let dir = folder()?;
    let path = dir.join("control");
    let control = packet_socket()?;
    bind(control.as_raw_fd(), &UnixAddr::new(&path)?)?;
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let image = File::open(payload()?)?;
    let (tap, _peer) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let mut spec = Spec::new("do=spin")?;
    spec.image = inherit(&image)?.into();
    spec.more = options(&[
        ("--kvm", &inherit(&kvm)?),
        ("--control", &inherit(&control)?),
        ("--tap", &inherit(&tap)?),
        ("--mac", "02:00:00:00:00:01"),
    ]);
    let vm = MicroVm::start(&spec)?;
    let client = Client::connect(&path)?;
    assert_eq!(client.ask("status")?.json["state"], "running");
    client.ask("stop")?;
    let ended = vm.ended()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    // It is not the one who made it.
    assert!(path.exists());
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn descriptors_that_are_not_what_they_are_given_for_are_refused() -> Result<()> {
    if !is_possible("descriptors_that_are_not_what_they_are_given_for_are_refused") {
        return Ok(());
    }
    let dir = folder()?;
    let file = File::create(dir.join("file"))?;
    let stream = UnixListener::bind(dir.join("stream"))?;
    let datagram = UnixDatagram::unbound()?;
    let unbound = packet_socket()?;
    let file = inherit(&file)?;
    let mac = ("--mac", "02:00:00:00:00:01");
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("--kvm", &file)], "no KVM device"),
        (&[("--kvm", "fd:987")], "Bad file descriptor"),
        (&[("--kvm", "fd:2")], "standard input, output or error"),
        (
            &[("--control", &inherit(&stream)?)],
            "no local packet socket",
        ),
        (
            &[("--control", &inherit(&unbound)?)],
            "no local packet socket",
        ),
        (&[("--tap", &file), mac], "no tap"),
        (&[("--tap", &inherit(&datagram)?), mac], "no tap"),
    ];
    for (more, reason) in cases {
        let change = |spec: &mut Spec| {
            spec.has_control = false;
            spec.more = options(more);
        };
        refused(change, &[more[0].1, reason])?;
    }
    let twice = |spec: &mut Spec| {
        spec.image = PathBuf::from(&file);
        spec.more = options(&[("--kvm", &file)]);
    };
    refused(twice, &[&file, "given twice"])?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn a_control_socket_that_a_killed_vmm_left_is_replaced() -> Result<()> {
    if !is_possible("a_control_socket_that_a_killed_vmm_left_is_replaced") {
        return Ok(());
    }
    let mut vm = MicroVm::start(&held("do=spin")?)?;
    assert_eq!(vm.event()?["event"], "started");
    vm.signal(Signal::SIGKILL)?;
    let dir = folder()?;
    let kept = dir.join("control");
    std::fs::rename(vm.control(), &kept)?;
    assert_eq!(vm.ended()?.left, ["console"]);
    let mut spec = Spec::new("do=spin")?;
    spec.more = options(&[("--control", &kept.display().to_string())]);
    let vm = MicroVm::start(&spec)?;
    // The old one refuses connections until the new one is there.
    let client = Client::connect(&kept)?;
    assert_eq!(client.ask("stop")?.json, json!({"answer":"stopping"}));
    assert_eq!(vm.ended()?.status.code(), Some(0));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let name = std::thread::current()
        .name()
        .unwrap_or("test")
        .replace(':', "-");
    let path = std::env::temp_dir().join(format!("ghost-vmm-{}-{name}", std::process::id()));
    std::fs::create_dir(&path)?;
    Ok(path)
}
