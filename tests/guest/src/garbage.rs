//! Nonsense for every port, every device's registers, and every ring.
//!
//! In turns, and each turn from devices that were started as they should be,
//! so that nonsense also reaches what only a good driver reaches.

use agent_common::guest::{Boot, DEVICES, Device, HIGH, PORT_RESET, PORT_SERIAL};
use ghost_guest::pattern;

use crate::{
    machine::{in32, load, out8, out16, out32, say, store},
    virtio::AREA,
};

const TURN: u64 = 200;
const REGISTERS: u64 = 0x140;
/// Rings and buffers of a queue, within the area for devices.
const QUEUE_BYTES: u64 = 0x4000;
const QUEUES: u64 = 2;
const AREA_BYTES: u64 = QUEUE_BYTES * QUEUES;
const ENTRIES: u32 = 16;

/// Never comes to an end of its own but the last step's.
pub(crate) fn write(boot: &Boot, seed: u64, steps: u64) {
    let count = boot.devices.len().min(boot.device_count as usize);
    let devices = boot.devices.get(..count).unwrap_or_default();
    for step in 0..steps {
        let dice = pattern::word(seed, step);
        let device = pick(devices, dice);
        if step % TURN == 0 {
            device.into_iter().for_each(start);
        }
        match (dice >> 8) % 8 {
            0 => port(dice >> 16),
            1 => anywhere(dice >> 16),
            2 | 3 => device
                .into_iter()
                .for_each(|device| register(device, dice >> 16)),
            _ => ring(dice >> 16),
        }
        if dice & 0x30 == 0 {
            device
                .into_iter()
                .for_each(|device| notify(device, dice >> 40));
        }
    }
    say!("garbage {seed} written");
}

fn pick(devices: &[Device], dice: u64) -> Option<&Device> {
    let count = devices.len() as u64;
    devices.get(usize::try_from(dice.checked_rem(count)?).ok()?)
}

/// As a good driver does it, with whatever is in its rings by now.
fn start(device: &Device) {
    let set = |offset, value: u32| store(device.address + offset, value);
    for status in [0, 1, 3] {
        set(0x70, status);
    }
    set(0x24, 1);
    set(0x20, 1);
    set(0x70, 11);
    for queue in 0..QUEUES {
        let base = AREA + queue * QUEUE_BYTES;
        set(0x30, queue as u32);
        set(0x38, ENTRIES);
        for (offset, address) in [(0x80, base), (0x90, base + 0x1000), (0xa0, base + 0x2000)] {
            set(offset, address as u32);
        }
        // Nothing in it yet.
        store(base + 0x1002, 0_u16);
        set(0x44, 1);
    }
    set(0x70, 15);
}

/// Any port but the one of which half of all values are a reset.
fn port(dice: u64) {
    let port = match dice & 1 {
        0 => (dice >> 32) as u16,
        _ => PORT_SERIAL + ((dice >> 32) & 7) as u16,
    };
    if port.abs_diff(PORT_RESET) < 4 {
        return;
    }
    let value = (dice >> 8) as u32;
    match (dice >> 4) & 3 {
        0 => out8(port, value as u8),
        1 => out16(port, value as u16),
        2 => out32(port, value),
        _ => {
            in32(port);
        }
    }
}

/// Where devices may be.
fn anywhere(dice: u64) {
    let address = DEVICES + (dice >> 4) % (HIGH - DEVICES - 8);
    match dice & 1 {
        0 => store(address, dice),
        _ => {
            load::<u32>(address);
        }
    }
}

fn register(device: &Device, dice: u64) {
    let address = device.address + (dice >> 4) % REGISTERS;
    let value = some_number(dice);
    match dice & 0xc {
        0 => store(address, value as u8),
        4 => {
            load::<u64>(address);
        }
        _ => store(address & !3, value as u32),
    }
}

fn ring(dice: u64) {
    let at = AREA + (dice >> 24) % (AREA_BYTES - 8);
    store(at & !1, some_number(dice));
}

fn notify(device: &Device, dice: u64) {
    const NOTIFY: u64 = 0x50;
    store(device.address + NOTIFY, (dice & 1) as u32);
}

/// Small ones pass for indices and lengths, others for addresses and states.
fn some_number(dice: u64) -> u64 {
    match dice & 3 {
        0 => dice >> 8,
        1 => (dice >> 8) & 0x1f,
        2 => AREA + ((dice >> 8) & 0x7fff),
        _ => 15,
    }
}
