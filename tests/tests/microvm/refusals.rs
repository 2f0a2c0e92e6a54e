//! What ghost-vmm refuses, and how it says so.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use anyhow::Result;
use ghostd_tests::microvm::{Ended, MicroVm, Spec, is_possible, payload};
use serde_json::Value;

use crate::held;

/// Exit code 2, these words, and nothing left behind.
pub(crate) fn refused(change: impl FnOnce(&mut Spec), words: &[&str]) -> Result<Ended> {
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

#[test]
fn what_cannot_be_a_linux_guest_is_refused_by_name_and_reason() -> Result<()> {
    if !is_possible("what_cannot_be_a_linux_guest_is_refused_by_name_and_reason") {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bzimage");
    let shown = path.display().to_string();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut kernel = vec![0; 4096];
    kernel[0x1fe..0x206].copy_from_slice(b"\x55\xaa\xeb\x6aHdrS");
    fs::write(&path, &kernel)?;
    refused(
        |spec| spec.image = path.clone(),
        &[&shown, "boot protocol 0.00"],
    )?;
    fs::write(&path, &kernel[..0x210])?;
    refused(|spec| spec.image = path.clone(), &[&shown, "truncated"])?;
    fs::write(&path, [0xa5; 4096])?;
    refused(
        |spec| {
            spec.image = path.clone();
            spec.more = words(&["--kind", "linux"]);
        },
        &[&shown, "neither an ELF file nor a Linux kernel"],
    )?;
    refused(
        |spec| spec.more = words(&["--initrd", &shown]),
        &[&shown, "the image is a payload"],
    )?;
    Ok(())
}
