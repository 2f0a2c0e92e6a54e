//! A microVM's disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use ghostd_tests::microvm::{MicroVm, Spec, is_possible};

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
