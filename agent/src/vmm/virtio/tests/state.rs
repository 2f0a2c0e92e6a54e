use super::rig::{self, BUFFERS, DEVICE_WRITES, Rig};
use crate::vmm::virtio::{Access, Slot, state::DeviceState};

const DISK: [u8; 8192] = [7; 8192];

fn restore(slot: &Slot, state: &DeviceState) -> Result<(), String> {
    slot.pause();
    let restored = slot.restore(0, state);
    slot.resume();
    restored.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// A request to read a sector, in these buffers.
fn read(rig: &mut Rig, number: u64) {
    rig.write(BUFFERS, &[0; 16]);
    let data = BUFFERS + 0x1000 * (number + 1);
    let parts = [
        (BUFFERS, 16, 0),
        (data, 512, DEVICE_WRITES),
        (BUFFERS + 64 + number, 1, DEVICE_WRITES),
    ];
    rig.offer(0, &parts);
}

#[test]
fn a_device_goes_on_where_another_was_left() {
    let (mut rig, _file) = Rig::block(&DISK, Access::ReadWrite);
    rig.start(0);
    read(&mut rig, 0);
    rig.work();
    // The second one is in the queue, and not looked at.
    read(&mut rig, 1);
    rig.slot.pause();
    let state = rig.slot.save();
    let (other, _other_file) = Rig::block(&DISK, Access::ReadWrite);
    let ram = rig.read(0, rig::RAM_BYTES as usize);
    other.write(0, &ram);
    restore(&other.slot, &state).unwrap();
    assert_eq!(other.slot.save(), state);
    assert_eq!(other.get(0x70), 15);
    assert_eq!(other.get(0x60), 1);
    other.work();
    assert_eq!(other.used(0).len(), 2);
    assert_eq!(other.read(BUFFERS + 0x2000, 512), [7; 512]);
}

#[test]
fn what_no_driver_can_bring_about_is_refused_and_changes_nothing() {
    let (mut rig, _file) = Rig::block(&DISK, Access::ReadWrite);
    rig.start(1 << 9);
    let good = rig.slot.save();
    let with = |change: &dyn Fn(&mut DeviceState)| {
        let mut state = good.clone();
        change(&mut state);
        state
    };
    let cases = [
        (with(&|s| s.kind = 1), "type 1, here it is of type 2"),
        (with(&|s| s.config[0] = 0), "its configuration is [00"),
        (with(&|s| s.config.push(0)), "its configuration"),
        (
            with(&|s| s.accepted |= 1 << 33),
            "took features 0x300000200",
        ),
        (with(&|s| s.accepted = 1 << 9), "took features 0x200"),
        (with(&|s| s.status = 0x100), "its status is 0x100"),
        (with(&|s| s.status = 4), "its status is 0x4"),
        (with(&|s| s.interrupts = 4), "its interrupt status is 0x4"),
        (
            with(&|s| s.queues.clear()),
            "it has 0 queues, here there are 1",
        ),
        (
            with(&|s| s.queues[0].size_max = 512),
            "up to 512 entries, here of up to 256",
        ),
        (
            with(&|s| s.queues[0].size = 512),
            "queue 0 has a size or place",
        ),
        (
            with(&|s| s.queues[0].size = 0),
            "queue 0 has a size or place",
        ),
        (
            with(&|s| s.queues[0].used = 0x1001),
            "queue 0 has a size or place",
        ),
        (
            with(&|s| s.queues[0].descriptors = 1 << 40),
            "not ready or not in memory",
        ),
        (
            with(&|s| s.queues[0].used = u64::MAX - 3),
            "not ready or not in memory",
        ),
        (
            with(&|s| s.queues[0].is_ready = false),
            "not ready or not in memory",
        ),
    ];
    let (other, _other_file) = Rig::block(&DISK, Access::ReadWrite);
    let fresh = other.slot.save();
    for (state, reason) in cases {
        let why = restore(&other.slot, &state).unwrap_err();
        assert!(why.contains(reason), "{why}");
        assert_eq!(other.slot.save(), fresh);
    }
    // A driver whose rings are nonsense is stopped as ever.
    let odd = with(&|s| {
        s.queues[0].next_available = 0x8000;
        s.queues[0].next_used = 0xffff;
    });
    restore(&other.slot, &odd).unwrap();
    other.work();
    assert_eq!(other.get(0x70), 15 | 64);
}

#[test]
fn a_disk_of_another_size_does_not_take_over() {
    let (mut rig, _file) = Rig::block(&DISK, Access::ReadWrite);
    rig.start(0);
    let state = rig.slot.save();
    let (other, _other_file) = Rig::block(&DISK[..4096], Access::ReadWrite);
    restore(&other.slot, &state).unwrap_err();
}
