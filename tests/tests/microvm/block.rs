//! A microVM's disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use ghostd_tests::{
    microvm::{MicroVm, Spec, is_possible},
    netns::NetNs,
};

use crate::{held, refusals::refused};

fn file(name: &str, bytes: usize) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, vec![0; bytes])?;
    Ok(path)
}

fn with(spec: &mut Spec, disk: &Path, more: &[&str]) {
    spec.more = vec!["--disk".to_owned(), disk.display().to_string()];
    spec.more.extend(more.iter().map(|&word| word.to_owned()));
}

#[test]
fn a_file_that_cannot_be_a_disk_is_refused_by_name_and_reason() -> Result<()> {
    if !is_possible("a_file_that_cannot_be_a_disk_is_refused_by_name_and_reason") {
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cases = [
        (folder.join("disk-absent"), "No such file"),
        (folder.to_owned(), "Is a directory"),
        (file("disk-empty", 0)?, "it is empty"),
        (
            file("disk-odd", 4097)?,
            "it has 4097 bytes, no multiple of 512",
        ),
        (PathBuf::from("/dev/zero"), "it is no regular file"),
    ];
    for (path, reason) in cases {
        let shown = path.display().to_string();
        refused(|spec| with(spec, &path, &[]), &[&shown, reason])?;
    }
    let read_only = |spec: &mut Spec| with(spec, folder, &["--disk-read-only"]);
    refused(read_only, &["it is no regular file"])?;
    Ok(())
}

#[test]
fn a_disk_is_not_shared_but_by_readers() -> Result<()> {
    if !is_possible("a_disk_is_not_shared_but_by_readers") {
        return Ok(());
    }
    let path = file("disk-shared", 8192)?;
    let shown = path.display().to_string();
    let start = |more: &[&str]| -> Result<MicroVm> {
        let mut spec = held("do=spin")?;
        with(&mut spec, &path, more);
        let mut vm = MicroVm::start(&spec)?;
        assert_eq!(vm.event()?["event"], "started");
        Ok(vm)
    };
    let writer = start(&[])?;
    for more in [&[][..], &["--disk-read-only"]] {
        let taken = ["the disk", shown.as_str(), "another microVM has it"];
        refused(|spec| with(spec, &path, more), &taken)?;
    }
    drop(writer);
    let _readers = [start(&["--disk-read-only"])?, start(&["--disk-read-only"])?];
    refused(|spec| with(spec, &path, &[]), &["another microVM has it"])?;
    Ok(())
}

#[test]
fn a_guest_that_writes_garbage_everywhere_ends_by_a_named_reason() -> Result<()> {
    if !is_possible("a_guest_that_writes_garbage_everywhere_ends_by_a_named_reason") {
        return Ok(());
    }
    const DISK_BYTES: usize = 1 << 20;
    let ns = NetNs::new("microvm")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("link set tap0 up")?;
    let path = file("disk-garbage", DISK_BYTES)?;
    let mut finished = 0;
    for seed in 1..=20 {
        let mut spec = held(&format!("do=garbage seed={seed} steps=5000"))?;
        with(
            &mut spec,
            &path,
            &["--tap", "tap0", "--mac", "02:00:00:00:00:77"],
        );
        spec.more.extend(["--at-end", "exit"].map(str::to_owned));
        let ended = ns.run(|| MicroVm::run(&spec))??;
        let last = ended.events.last().cloned().unwrap_or_default();
        let reason = last["reason"].as_str().unwrap_or_default();
        let code = match reason {
            "reset" | "power-off" => 0,
            "triple-fault" | "internal-error" => 3,
            other => panic!("seed {seed} ended by `{other}`: {}", ended.said),
        };
        assert_eq!(
            ended.status.code(),
            Some(code),
            "seed {seed}: {}",
            ended.said
        );
        assert_eq!(ended.said, "", "seed {seed}");
        assert_eq!(fs::metadata(&path)?.len(), DISK_BYTES as u64);
        finished += u32::from(ended.console.contains(&format!("garbage {seed} written")));
    }
    println!("{finished} of 20 seeds came to their end");
    assert!(finished > 0, "no seed came to its end");
    Ok(())
}
