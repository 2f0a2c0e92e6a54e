use std::{fs::File, sync::Arc};

use proptest::prelude::*;

use super::{Bus, End, Strays};
use crate::vmm::{
    serial::{Log, Port},
    virtio::tests::rig::Rig,
};

fn port() -> Port {
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    Port::new(Log::start(null).unwrap(), None)
}

fn bus() -> Bus {
    Bus::new(port(), Vec::new())
}

#[test]
fn each_way_to_end_is_told_apart() {
    let reset = |port, value| Some(End::Reset { port, value });
    assert_eq!(bus().port_write(0x64, &[0xfe]), reset(0x64, 0xfe));
    assert_eq!(bus().port_write(0xcf9, &[0x06]), reset(0xcf9, 0x06));
    assert_eq!(bus().port_write(0xcf9, &[0x0e]), reset(0xcf9, 0x0e));
    assert_eq!(
        bus().port_write(0x604, &0x2000_u16.to_le_bytes()),
        Some(End::PowerOff)
    );
    assert_eq!(bus().port_write(0x604, &[0x34]), Some(End::PowerOff));
}

#[test]
fn what_only_looks_like_an_end_is_none() {
    for (port, data) in [
        (0x64, &[0xd1][..]),
        (0xcf9, &[0x02]),
        (0x604, &[0x20]),
        (0x604, &[0, 0x20, 0, 0]),
        (0x64, &[]),
    ] {
        assert_eq!(bus().port_write(port, data), None, "{port:#x} {data:?}");
    }
}

#[test]
fn strays_are_counted_and_read_as_ones() {
    let mut bus = bus();
    let mut data = [0; 4];
    bus.port_read(0x70, &mut data);
    assert_eq!(data, [0xff; 4]);
    bus.memory_read(0xd000_0000, &mut data);
    assert_eq!(bus.port_write(0x70, &[1]), None);
    bus.memory_write(0xd000_0000, &[1]);
    let one_each = Strays {
        port_reads: 1,
        port_writes: 1,
        memory_reads: 1,
        memory_writes: 1,
    };
    assert_eq!(bus.strays(), one_each);
}

#[test]
fn serial_says_that_it_can_be_written() {
    let mut bus = bus();
    let mut status = [0];
    bus.port_read(0x3fd, &mut status);
    assert_eq!(status[0] & 0x20, 0x20);
}

#[test]
fn all_devices_are_saved_and_restored_or_none_is() {
    let make = || {
        let (net, wire) = Rig::net();
        let bus = Bus::new(port(), vec![Arc::clone(&net.slot)]);
        (bus, net, wire)
    };
    let (mut first, mut net, _wire) = make();
    net.start(1 << 5);
    // The scratch register, and loop-back mode with a byte in it.
    first.port_write(0x3ff, &[0x5a]);
    first.port_write(0x3fc, &[0x10]);
    first.port_write(0x3f8, b"x");
    let state = first.save();
    let (mut other, rig, _other_wire) = make();
    other.restore(&state).unwrap();
    assert_eq!(other.save(), state);
    let mut scratch = [0];
    other.port_read(0x3ff, &mut scratch);
    assert_eq!(scratch, [0x5a]);
    assert_eq!(rig.get(0x70), 15);
    let (mut third, _rig, _third_wire) = make();
    let fresh = third.save();
    let mut bad = state.clone();
    bad.serial.input.resize(1000, 0);
    let why = third.restore(&bad).unwrap_err().to_string();
    assert!(why.contains("1000 bytes of input"), "{why}");
    let why = bus().restore(&state).unwrap_err().to_string();
    assert_eq!(why, "the state has 1 devices, this microVM has 0");
    assert_eq!(third.save(), fresh);
}

proptest! {
    #[test]
    fn no_access_panics(
        accesses in prop::collection::vec(
            (any::<bool>(), 0_u16..0x1000, prop::collection::vec(any::<u8>(), 0..64)), 1..200
        )
    ) {
        let mut bus = bus();
        for (is_write, port, mut data) in accesses {
            if is_write {
                bus.port_write(port, &data);
            } else {
                bus.port_read(port, &mut data);
            }
        }
    }
}
