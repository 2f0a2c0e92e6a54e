use std::{fs::File, os::unix::fs::FileExt as _};

use super::rig::{self, BUFFERS, DEVICE_WRITES, Rig};
use crate::vmm::virtio::{Access, BlockMap, Device, Disk, DiskError};

const FLUSH: u32 = 1 << 9;
const STATUS: u64 = BUFFERS + 0x8_0000;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 512 + at % 251) as u8).collect()
}

fn started(bytes: usize) -> (Rig, File) {
    let (mut rig, file) = Rig::block(&content(bytes), Access::ReadWrite);
    rig.start(FLUSH);
    (rig, file)
}

/// Asks for it in one chain; the status, and how many bytes were written.
fn ask(rig: &mut Rig, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    rig.write(BUFFERS, &header);
    rig.write(STATUS, &[0xaa]);
    let mut parts = vec![(BUFFERS, 16, 0)];
    parts.extend_from_slice(data);
    parts.push((STATUS, 1, DEVICE_WRITES));
    let head = rig.offer(0, &parts);
    rig.work();
    let (used, written) = *rig.used(0).last().unwrap();
    assert_eq!(used, u32::from(head));
    (rig.read(STATUS, 1)[0], written)
}

fn whole(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_is_read_and_written_is_what_is_on_the_disk() {
    let (mut rig, file) = started(1 << 20);
    let at = BUFFERS + 0x1000;
    // Larger than the device's own buffer, and in three parts.
    let parts = [
        (at, 512, 2),
        (at + 512, 200_000, 2),
        (at + 200_512, 1216, 2),
    ];
    assert_eq!(ask(&mut rig, 0, 3, &parts), (0, 201_729));
    assert_eq!(
        rig.read(at, 201_728),
        content(1 << 20)[1536..1536 + 201_728]
    );
    let new: Vec<u8> = (0..1024).map(|at| (at % 199) as u8).collect();
    rig.write(at, &new);
    assert_eq!(
        ask(&mut rig, 1, 2046, &[(at, 1000, 0), (at + 1000, 24, 0)]),
        (0, 1)
    );
    let mut expected = content(1 << 20);
    expected[2046 * 512..].copy_from_slice(&new);
    assert_eq!(whole(&file), expected);
    assert_eq!(ask(&mut rig, 4, 77, &[]), (0, 1));
    assert_eq!(ask(&mut rig, 8, 0, &[(at, 20, 2)]), (0, 21));
    assert!(rig.read(at, 20).starts_with(b"ghost-disk\0"));
}

#[test]
fn what_cannot_be_done_is_an_error_and_changes_nothing() {
    let (mut rig, file) = started(8192);
    let at = BUFFERS + 0x1000;
    for (kind, sector, bytes, flags, status) in [
        // Beyond the end, also by wrapping round.
        (0, 16, 512, 2, 1),
        (0, 15, 1024, 2, 1),
        (1, 15, 1024, 0, 1),
        (1, u64::MAX / 512 + 1, 512, 0, 1),
        (1, u64::MAX, 512, 0, 1),
        // No whole sectors.
        (0, 0, 511, 2, 1),
        (1, 0, 513, 0, 1),
        // Discard, write zeroes, secure erase, and nonsense.
        (11, 0, 16, 0, 2),
        (13, 0, 16, 0, 2),
        (14, 0, 16, 0, 2),
        (u32::MAX, 0, 512, 2, 2),
    ] {
        let (told, _) = ask(&mut rig, kind, sector, &[(at, bytes, flags)]);
        assert_eq!(told, status, "{kind} {sector} {bytes}");
    }
    // More than any request may have, out of the same memory again and again.
    let huge = [(0, rig::RAM_BYTES as u32, 0); 100];
    assert_eq!(ask(&mut rig, 1, 0, &huge).0, 1);
    assert_eq!(whole(&file), content(8192));
    assert_eq!(rig.get(0x70), 15, "the device goes on");
    // A header that is none, and then a good request.
    rig.offer(0, &[(BUFFERS, 15, 0), (STATUS, 1, DEVICE_WRITES)]);
    rig.work();
    assert_eq!(rig.read(STATUS, 1), [1]);
    assert_eq!(ask(&mut rig, 1, 0, &[]), (0, 1));
}

#[test]
fn a_request_without_a_place_for_its_status_stops_the_device() {
    for parts in [
        &[(BUFFERS, 16, 0)][..],
        &[(rig::RAM_BYTES - 1, 16, 2)],
        &[(1 << 40, 1, 2)],
    ] {
        let (mut rig, file) = started(8192);
        rig.offer(0, parts);
        rig.work();
        assert_eq!(rig.get(0x70), 15 | 64, "{parts:?}");
        assert_eq!(rig.get(0x60), 2, "configuration has changed");
        assert_eq!(whole(&file), content(8192));
        let Device::Block(block) = &*rig.slot.lock() else {
            unreachable!()
        };
        assert_eq!(block.counts().broken, 1);
    }
}

#[test]
fn a_disk_to_be_read_is_not_written() {
    let (mut rig, file) = Rig::block(&content(4096), Access::ReadOnly);
    rig.set(0x14, 0);
    assert_eq!(rig.get(0x10) & (1 << 5), 1 << 5, "it says so");
    rig.start(FLUSH | 1 << 5);
    assert_eq!(ask(&mut rig, 1, 0, &[(BUFFERS, 512, 0)]).0, 1);
    assert_eq!(whole(&file), content(4096));
    assert_eq!(ask(&mut rig, 0, 0, &[(BUFFERS + 0x1000, 512, 2)]), (0, 513));
}

#[test]
fn drivers_that_poll_are_not_interrupted() {
    let (mut rig, _file) = started(8192);
    ask(&mut rig, 4, 0, &[]);
    assert_eq!(rig.get(0x60), 1);
    rig.set(0x64, 1);
    assert_eq!(rig.get(0x60), 0);
    rig.write(rig::base(0) + 0x2000, &[1, 0]);
    ask(&mut rig, 4, 0, &[]);
    assert_eq!(rig.get(0x60), 0);
}

#[test]
fn blocks_and_pages_that_are_written_are_recorded() {
    let (mut rig, file) = started(1 << 20);
    let at = BUFFERS + 0x1000;
    let harvest = |rig: &Rig| -> Option<BlockMap> {
        match &mut *rig.slot.lock() {
            Device::Block(block) => block.harvest(),
            Device::Net(_) => None,
        }
    };
    ask(&mut rig, 1, 0, &[(at, 512, 0)]);
    assert_eq!(harvest(&rig), None, "not yet");
    if let Device::Block(block) = &mut *rig.slot.lock() {
        block.start_tracking();
    }
    let before = whole(&file);
    rig.write(at, &[0x5a; 8192]);
    for sector in [3, 7, 100, 2040] {
        assert_eq!(ask(&mut rig, 1, sector, &[(at, 4096, 0)]).0, 0);
    }
    let after = whole(&file);
    let blocks = before.chunks(4096).zip(after.chunks(4096));
    let expected: Vec<u64> = blocks.map(|(a, b)| u64::from(a != b)).collect();
    let map = harvest(&rig).unwrap();
    let bits = |map: &BlockMap| -> Vec<u64> {
        let bit = |at: usize| (map.words()[at / 64] >> (at % 64)) & 1;
        (0..256).map(bit).collect()
    };
    assert_eq!(bits(&map), expected);
    assert_eq!(harvest(&rig).unwrap().count(), 0, "and then from there on");
    // Reading writes to memory, and nowhere else than where it says.
    rig.write(BUFFERS, &[0; 16]);
    rig.write(STATUS, &[0xaa]);
    rig.offer(0, &[(BUFFERS, 16, 0), (at, 8192, 2), (STATUS, 1, 2)]);
    rig.dirty_pages();
    rig.work();
    let used = (rig::base(0) + 0x4000) / 4096;
    assert_eq!(
        rig.dirty_pages(),
        [used, at / 4096, at / 4096 + 1, STATUS / 4096]
    );
    assert_eq!(harvest(&rig).unwrap().count(), 0);
}

#[test]
fn a_disk_has_one_writer_or_many_readers() {
    let (_file, path) = rig::file(&content(4096));
    let first = Disk::open(&path, Access::ReadWrite).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        assert!(matches!(Disk::open(&path, access), Err(DiskError::Taken)));
    }
    drop(first);
    let readers = [Access::ReadOnly; 2].map(|access| Disk::open(&path, access).unwrap());
    assert!(matches!(
        Disk::open(&path, Access::ReadWrite),
        Err(DiskError::Taken)
    ));
    drop(readers);
    Disk::open(&path, Access::ReadWrite).unwrap();
}
