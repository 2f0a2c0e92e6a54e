use proptest::prelude::*;
use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestAddress;

use crate::vmm::{
    memory::GuestRam,
    virtio::{
        interrupt::Interrupt,
        registers::{Effect, Registers},
    },
};

fn memory() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
}

fn device() -> Registers {
    let queues = vec![Queue::new(16).unwrap(), Queue::new(16).unwrap()];
    let config = vec![1, 2, 3, 4, 5, 6];
    Registers::new(1, 1 << 5, config, queues, Interrupt::new(None).into())
}

fn word(device: &Registers, offset: u64) -> u32 {
    let mut data = [0; 4];
    device.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// As a driver does it, up to and with the status that starts the device.
fn start(device: &mut Registers, features_high: u32, table: u32) -> Effect {
    let memory = memory();
    let mut write = |offset, value: u32| device.write(offset, &value.to_le_bytes(), &memory);
    for (offset, value) in [
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, features_high),
        (0x70, 11),
    ] {
        assert_eq!(write(offset, value), Effect::Nothing);
    }
    for queue in 0..2 {
        for (offset, value) in [
            (0x30, queue),
            (0x38, 16),
            (0x80, table),
            (0x90, 0x2000),
            (0xa0, 0x3000),
            (0x44, 1),
        ] {
            assert_eq!(write(offset, value), Effect::Nothing);
        }
    }
    write(0x70, 15)
}

#[test]
fn a_driver_that_does_it_right_starts_the_device() {
    let mut device = device();
    assert_eq!(word(&device, 0), u32::from_le_bytes(*b"virt"));
    assert_eq!(word(&device, 8), 1);
    assert!(device.running_queue(0).is_none());
    assert_eq!(start(&mut device, 1, 0x1000), Effect::Started);
    assert_eq!(word(&device, 0x70), 15);
    assert!(device.running_queue(1).is_some());
    device.write(0x70, &[0; 4], &memory());
    assert_eq!(word(&device, 0x70), 0);
    assert!(device.running_queue(0).is_none());
}

#[test]
fn a_driver_of_the_old_kind_is_not_started() {
    let mut device = device();
    assert_eq!(start(&mut device, 0, 0x1000), Effect::Nothing);
    assert_eq!(word(&device, 0x70), 7 | 64, "features refused, needs reset");
    assert!(device.running_queue(0).is_none());
}

#[test]
fn a_feature_that_was_not_offered_is_refused() {
    let mut device = device();
    assert_eq!(start(&mut device, 3, 0x1000), Effect::Nothing);
    assert_eq!(word(&device, 0x70) & 8, 0);
}

#[test]
fn a_queue_outside_of_memory_stops_the_device() {
    let mut device = device();
    assert_eq!(start(&mut device, 1, 0xffff_f000), Effect::Nothing);
    assert_eq!(word(&device, 0x70) & 64, 64);
    assert!(device.running_queue(0).is_none());
}

#[test]
fn configuration_is_read_in_any_width() {
    let device = device();
    let mut data = [9; 8];
    device.read(0x100, &mut data);
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 0, 0]);
    let mut data = [9; 2];
    device.read(0x104, &mut data);
    assert_eq!(data, [5, 6]);
    device.read(0xfff, &mut data);
    assert_eq!(data, [0, 0]);
}

proptest! {
    #[test]
    fn no_driver_makes_it_panic(
        accesses in prop::collection::vec(
            (any::<bool>(), 0_u64..0x120, prop::collection::vec(any::<u8>(), 0..9)), 1..300
        )
    ) {
        let memory = memory();
        let mut device = device();
        for (is_write, offset, mut data) in accesses {
            if is_write {
                device.write(offset, &data, &memory);
            } else {
                device.read(offset, &mut data);
            }
        }
        let status = word(&device, 0x70);
        if device.running_queue(0).is_some() {
            prop_assert_eq!(status & (4 | 8 | 64), 12);
        }
    }
}
