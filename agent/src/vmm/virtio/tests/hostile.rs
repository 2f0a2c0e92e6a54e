//! Drivers that write whatever they like, wherever they like.
//!
//! `PROPTEST_CASES=100000 cargo test -p ghostd --lib hostile` looks longer; a
//! failure prints the case that it was cut down to.

use std::{os::fd::AsRawFd as _, os::unix::fs::FileExt as _};

use nix::sys::socket::{MsgFlags, send};
use proptest::prelude::*;

use super::rig::{ADDRESS, BUFFERS, RAM_BYTES, Rig, base};
use crate::vmm::virtio::{Access, Device, slot::Wants};

/// Far more than a driver can make a device do without doing something itself.
const ROUNDS_MAX: usize = 10_000;

#[derive(Debug, Clone)]
enum Act {
    /// Start it over, as a good driver does.
    Start,
    Register {
        offset: u64,
        data: Vec<u8>,
    },
    Read {
        offset: u64,
        bytes: usize,
    },
    /// Into rings and buffers.
    Memory {
        address: u64,
        data: Vec<u8>,
    },
    /// A chain whose parts may be anything.
    Offer {
        queue: u64,
        parts: Vec<(u64, u32, u16)>,
    },
    Frame {
        bytes: usize,
    },
    Work,
    /// Pause, save, and restore what was saved.
    Move,
}

/// Numbers that mean something, more often than not.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0_u64..0x120,
        base(0)..BUFFERS + 0x2_0000,
        RAM_BYTES - 0x1000..RAM_BYTES + 0x1000,
        Just(u64::from(u32::MAX)),
        (0_u32..64).prop_map(|bit| 1 << bit),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        number().prop_map(|n| n.to_le_bytes().to_vec()),
        number().prop_map(|n| (n as u32).to_le_bytes().to_vec()),
        number().prop_map(|n| (n as u16).to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..16),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let address = prop_oneof![base(0)..base(2), BUFFERS..BUFFERS + 0x100];
    let part = (number(), number(), any::<u16>());
    let part = part.prop_map(|(address, length, flags)| (address, length as u32, flags));
    // A request as it should be: header, data, status.
    let good =
        (0..RAM_BYTES - 0x1000, 0_u32..0x1000, any::<bool>()).prop_map(|(at, length, writes)| {
            let flags = if writes { 2 } else { 0 };
            vec![(BUFFERS, 16, 0), (at, length, flags), (BUFFERS + 64, 1, 2)]
        });
    let parts = prop_oneof![good, prop::collection::vec(part, 1..8)];
    prop_oneof![
        2 => Just(Act::Start),
        4 => (0_u64..0x120, bytes()).prop_map(|(offset, data)| Act::Register { offset, data }),
        1 => (0_u64..0x1200, 0_usize..16).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        6 => (address, bytes()).prop_map(|(address, data)| Act::Memory { address, data }),
        6 => (0_u64..2, parts).prop_map(|(queue, parts)| Act::Offer { queue, parts }),
        2 => (1_usize..3000).prop_map(|bytes| Act::Frame { bytes }),
        6 => Just(Act::Work),
        1 => Just(Act::Move),
    ]
}

fn play(
    rig: &mut Rig,
    acts: Vec<Act>,
    wire: Option<i32>,
    features: u32,
) -> Result<(), TestCaseError> {
    for act in acts {
        match act {
            Act::Start => rig.start(features),
            Act::Register { offset, data } => rig.slot.write(offset, &data),
            Act::Read { offset, bytes } => rig.slot.read(offset, &mut vec![0; bytes]),
            Act::Memory { address, data } => rig.write(address, &data),
            Act::Offer { queue, parts } => {
                rig.offer(queue, &parts);
            }
            Act::Frame { bytes } => {
                if let Some(wire) = wire {
                    // A full wire loses it.
                    let _ = send(wire, &vec![0x5a; bytes], MsgFlags::MSG_DONTWAIT);
                }
            }
            Act::Work => {
                let mut device = rig.slot.lock();
                let rounds = (0..ROUNDS_MAX).find(|_| device.work() != Wants::Nothing);
                prop_assert!(rounds.is_some(), "the device never comes to rest");
            }
            Act::Move => {
                rig.slot.pause();
                let state = rig.slot.save();
                rig.slot
                    .restore(0, &state)
                    .map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
                prop_assert_eq!(rig.slot.save(), state);
                rig.slot.resume();
            }
        }
        prop_assert_eq!(rig.slot.offset(ADDRESS), Some(0));
    }
    Ok(())
}

/// Each case takes milliseconds, so there are fewer than elsewhere.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(32),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_disk_keeps_its_size_and_its_tracking_whatever_its_driver_does(
        acts in prop::collection::vec(act(), 1..200),
    ) {
        let content: Vec<u8> = (0..0x8000_u32).map(|at| (at % 253) as u8).collect();
        let (mut rig, file) = Rig::block(&content, Access::ReadWrite);
        if let Device::Block(block) = &mut *rig.slot.lock() {
            block.start_tracking();
        }
        play(&mut rig, acts, None, 1 << 9)?;
        let mut after = vec![0; content.len()];
        file.read_exact_at(&mut after, 0).unwrap();
        prop_assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
        let map = match &mut *rig.slot.lock() {
            Device::Block(block) => block.harvest().unwrap(),
            Device::Net(_) => unreachable!(),
        };
        for (block, (a, b)) in content.chunks(4096).zip(after.chunks(4096)).enumerate() {
            let is_marked = map.words()[0] & (1 << block) != 0;
            prop_assert!(a == b || is_marked, "block {block} changed unseen");
        }
    }

    #[test]
    fn a_disk_that_is_only_read_stays_as_it_is(
        acts in prop::collection::vec(act(), 1..100),
    ) {
        let (mut rig, file) = Rig::block(&[3; 0x4000], Access::ReadOnly);
        play(&mut rig, acts, None, 1 << 9)?;
        let mut after = [0; 0x4000];
        file.read_exact_at(&mut after, 0).unwrap();
        prop_assert!(after == [3; 0x4000]);
    }

    #[test]
    fn a_network_device_comes_to_rest_whatever_its_driver_does(
        acts in prop::collection::vec(act(), 1..200),
    ) {
        let (mut rig, wire) = Rig::net();
        play(&mut rig, acts, Some(wire.as_raw_fd()), 1 << 5)?;
    }
}
