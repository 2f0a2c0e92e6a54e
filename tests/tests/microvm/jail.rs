//! What a microVM's process can still do, seen from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use ghostd_tests::{
    clock::wait_for,
    microvm::{LIMIT, MicroVm, Spec, is_possible},
    netns::NetNs,
    skip,
};
use nix::sys::signal::Signal;

use crate::{held, refusals::refused};

/// Whether root's jail can be looked into here.
fn is_jailable(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(test, "needs root");
    }
    is_root && is_possible(test)
}

/// One with everything, running, and the folder that tells of its process.
fn jailed(more: &[&str]) -> Result<(MicroVm, PathBuf, serde_json::Value)> {
    let mut spec = held("do=spin")?;
    spec.vcpus = 8;
    spec.more = more.iter().copied().map(str::to_owned).collect();
    let mut vm = MicroVm::start(&spec)?;
    let started = vm.event()?;
    assert_eq!(started["event"], "started");
    let proc = PathBuf::from(format!("/proc/{}", started["pid"]));
    Ok((vm, proc, started))
}

fn status(file: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(file)?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

#[test]
fn the_process_has_no_rights_left() -> Result<()> {
    if !is_jailable("the_process_has_no_rights_left") {
        return Ok(());
    }
    let (_vm, proc, started) = jailed(&[])?;
    let jail = &started["jail"];
    let uid = jail["uid"].to_string();
    assert!(uid.parse::<u32>()? >= 0x7000_0000, "{uid}");
    assert_eq!(jail["missing"], serde_json::json!([]));
    // The filter for all, and its own, which each thread puts on when it starts.
    wait_for("all threads to have their filters", LIMIT, || {
        let tasks = fs::read_dir(proc.join("task")).ok()?;
        let mut own = 0;
        for task in tasks {
            let status = status(&task.ok()?.path().join("status")).ok()?;
            // The kernel's own worker in the process never runs code of it.
            if status.get("Name")?.starts_with("kvm-") {
                continue;
            }
            if status.get("Seccomp_filters")? != "2" {
                return None;
            }
            own += 1;
        }
        (own == 9).then_some(())
    })?;
    let mut threads = BTreeSet::new();
    for task in fs::read_dir(proc.join("task"))? {
        let task = task?.path();
        let status = status(&task.join("status"))?;
        for ids in ["Uid", "Gid"] {
            assert!(status[ids].split_whitespace().all(|id| id == uid));
        }
        assert_eq!(status["Groups"], "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["Seccomp"], "2");
        threads.insert(status["Name"].clone());
    }
    assert!(threads.contains("vcpu7"), "{threads:?}");
    Ok(())
}

#[test]
fn the_process_is_alone_in_an_empty_world() -> Result<()> {
    if !is_jailable("the_process_is_alone_in_an_empty_world") {
        return Ok(());
    }
    let (_vm, proc, _) = jailed(&[])?;
    for space in ["user", "mnt", "net", "ipc", "uts", "cgroup"] {
        let of = |proc: &Path| fs::read_link(proc.join("ns").join(space));
        assert_ne!(of(&proc)?, of(Path::new("/proc/self"))?, "{space}");
    }
    for place in ["root", "cwd"] {
        assert_eq!(fs::read_dir(proc.join(place))?.count(), 0, "{place}");
    }
    let mounts = fs::read_to_string(proc.join("mountinfo"))?;
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
    assert_eq!(fs::read_to_string(proc.join("uid_map"))?, "");
    let interfaces = fs::read_to_string(proc.join("net/dev"))?;
    let names: Vec<_> = interfaces.lines().skip(2).collect();
    assert!(
        names.iter().all(|line| line.trim().starts_with("lo:")),
        "{interfaces}"
    );
    let limits = fs::read_to_string(proc.join("limits"))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .context("a limit of core files")?;
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    Ok(())
}

#[test]
fn only_what_the_guest_needs_is_open() -> Result<()> {
    if !is_jailable("only_what_the_guest_needs_is_open") {
        return Ok(());
    }
    let (vm, proc, _) = jailed(&[])?;
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for fd in fs::read_dir(proc.join("fd"))? {
        let fd = fd?.path();
        if ["0", "1", "2"].iter().any(|name| fd.ends_with(name)) {
            continue;
        }
        let target = fs::read_link(&fd)?.display().to_string();
        let kind = target.split(['[', ':']).take(2).collect::<Vec<_>>();
        let kind = match kind.as_slice() {
            ["socket", _] => "socket".to_owned(),
            _ => target.split(':').take(2).collect::<Vec<_>>().join(":"),
        };
        *open.entry(kind).or_default() += 1;
    }
    let console = vm.control().with_file_name("console").display().to_string();
    assert_eq!(open.remove(&console), Some(1));
    assert_eq!(open.remove("socket"), Some(1));
    assert_eq!(open.remove("anon_inode:kvm-vcpu"), Some(8));
    let rest: BTreeSet<&str> = open.keys().map(String::as_str).collect();
    let known = BTreeSet::from([
        "/memfd:ghost-memory (deleted)",
        "anon_inode:[eventfd]",
        "anon_inode:[signalfd]",
        "anon_inode:kvm-vm",
    ]);
    assert_eq!(rest, known, "{open:?}");
    Ok(())
}

#[test]
fn the_owner_says_which_user_it_is() -> Result<()> {
    if !is_jailable("the_owner_says_which_user_it_is") {
        return Ok(());
    }
    let (vm, proc, started) = jailed(&["--uid", "1900000001", "--gid", "1900000002"])?;
    assert_eq!(started["jail"]["uid"], 1_900_000_001);
    let status = status(&proc.join("status"))?;
    assert!(status["Uid"].starts_with("1900000001\t"));
    assert!(status["Gid"].starts_with("1900000002\t"));
    assert_eq!(vm.connect()?.ask("status")?.json["jail"], started["jail"]);
    Ok(())
}

#[test]
fn without_a_jail_it_says_so_and_removes_its_socket() -> Result<()> {
    if !is_possible("without_a_jail_it_says_so_and_removes_its_socket") {
        return Ok(());
    }
    let (vm, _, started) = jailed(&["--jail", "off"])?;
    assert_eq!(started["jail"], serde_json::Value::Null);
    vm.signal(Signal::SIGTERM)?;
    assert_eq!(vm.ended()?.left, ["console"]);
    Ok(())
}

/// In another user namespace no further ones can be had, once their number
/// there is bounded by none.
#[test]
fn a_jail_that_cannot_be_whole_is_refused_or_told() -> Result<()> {
    if !is_jailable("a_jail_that_cannot_be_whole_is_refused_or_told") {
        return Ok(());
    }
    let run = |strictness: &str| -> Result<_> {
        let mut spec: Spec = held("do=reset")?;
        spec.has_control = false;
        spec.wrapper = [
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"",
            "sh",
        ]
        .map(str::to_owned)
        .to_vec();
        spec.more = vec!["--jail".to_owned(), strictness.to_owned()];
        MicroVm::run(&spec)
    };
    let ended = run("on")?;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains("no jail without its part `user`"));
    assert_eq!(ended.left, [] as [&str; 0]);
    let ended = run("auto")?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    let jail = &ended.events[0]["jail"];
    let missing = jail["missing"].as_array().context("missing parts")?;
    let missing: Vec<_> = missing.iter().map(|part| &part["part"]).collect();
    assert_eq!(missing, ["user", "namespaces", "root"]);
    for part in missing {
        let part = part.as_str().context("a name")?;
        assert!(ended.said.contains(&format!("the jail has no {part}:")));
    }
    assert_eq!(
        jail["in_force"],
        serde_json::json!(["limits", "capabilities", "landlock", "system-calls"])
    );
    Ok(())
}

#[test]
fn a_user_of_its_own_takes_two_numbers() -> Result<()> {
    for more in [["--uid", "0"], ["--uid", "5"], ["--gid", "5"]] {
        refused_by_arguments(&more)?;
    }
    Ok(())
}

fn refused_by_arguments(more: &[&str]) -> Result<()> {
    let mut spec = Spec::new("")?;
    spec.more = more.iter().copied().map(str::to_owned).collect();
    let ended = MicroVm::run(&spec)?;
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    assert_eq!(ended.left, [] as [&str; 0]);
    Ok(())
}

#[test]
fn nothing_is_left_of_a_start_that_fails_inside() -> Result<()> {
    if !is_jailable("nothing_is_left_of_a_start_that_fails_inside") {
        return Ok(());
    }
    // Found out in the jail, when log and socket are made already.
    let own = std::env::current_exe()?;
    let ended = refused(
        |spec| {
            spec.image = own;
            spec.memory_mib = 1024;
        },
        &["type is 3"],
    )?;
    assert_eq!(ended.left, [] as [&str; 0]);
    Ok(())
}

#[test]
fn a_tap_of_its_own_goes_with_the_process() -> Result<()> {
    if !is_jailable("a_tap_of_its_own_goes_with_the_process") {
        return Ok(());
    }
    let ns = NetNs::new("jailtap")?;
    let more = [
        ["--new-tap", "ghost0"],
        ["--tap-mac", "02:00:00:00:00:a1"],
        ["--mac", "02:00:00:00:00:a2"],
    ];
    let mut spec = held("do=spin")?;
    spec.more = more.concat().into_iter().map(str::to_owned).collect();
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut vm = ns.run(|| MicroVm::start(&spec))??;
        assert_eq!(vm.event()?["event"], "started");
        let shown = ns.ip("link show dev ghost0")?;
        assert!(shown.contains("02:00:00:00:00:a1"), "{shown}");
        assert!(shown.contains(",UP"), "{shown}");
        vm.signal(end)?;
        vm.ended()?;
        let names = ns.interfaces()?;
        assert!(names.iter().all(|(name, _)| name != "ghost0"), "{names:?}");
    }
    // One that is somebody's stays somebody's, whatever it is.
    ns.ip("tuntap add dev ghost0 mode tap vnet_hdr")?;
    ns.ip("link add ghost1 type veth peer name ghost2")?;
    for name in ["ghost0", "ghost1"] {
        spec.more = ["--new-tap", name, "--mac", "02:00:00:00:00:a2"]
            .map(str::to_owned)
            .to_vec();
        let ended = ns.run(|| MicroVm::run(&spec))??;
        assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
        let words = format!("the tap {name}: there is an interface of this name");
        assert!(ended.said.contains(&words), "{}", ended.said);
        assert_eq!(ended.left, [] as [&str; 0]);
        ns.ifindex(name)?;
    }
    Ok(())
}

/// Where cgroups of version 2 are, on a system that has both.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|words| words.get(2) == Some(&"cgroup2"));
    Ok(mount.context("no cgroups of version 2")?[1].into())
}

#[test]
fn it_runs_in_the_cgroup_that_it_is_given() -> Result<()> {
    if !is_jailable("it_runs_in_the_cgroup_that_it_is_given") {
        return Ok(());
    }
    let folder = cgroups()?.join(format!("ghost-vmm-{}", std::process::id()));
    let shown = folder.display().to_string();
    let (vm, proc, _) = jailed(&["--cgroup", &shown])?;
    let of = fs::read_to_string(proc.join("cgroup"))?;
    let name = format!("/ghost-vmm-{}", std::process::id());
    assert!(
        of.lines()
            .any(|line| line.starts_with("0::") && line.ends_with(&name)),
        "{of}"
    );
    vm.signal(Signal::SIGKILL)?;
    vm.ended()?;
    // Empty, and its owner's to remove.
    fs::remove_dir(&folder)?;
    for wrong in [format!("{shown}/a/b"), "/tmp/ghost-vmm-cgroup".to_owned()] {
        let more = ["--cgroup".to_owned(), wrong.clone()];
        refused(|spec| spec.more = more.to_vec(), &[&wrong, "cgroup"])?;
        assert!(!Path::new(&wrong).exists());
    }
    Ok(())
}
