//! The guest payload of tests and demos: CPL 3, no interrupts, no `std`.
//!
//! Owns: what it prints and writes, as its command line says (`line.rs`).
//! Fails by a panic that is printed and ends in a triple fault.
#![no_std]
#![no_main]

mod disk;
mod driver;
mod garbage;
mod machine;
mod network;
mod service;
mod virtio;
mod wall;
mod writing;

use core::panic::PanicInfo;

use agent_common::guest::{Boot, DEVICES, HIGH, PAGE_BYTES};
use ghost_guest::{
    line::{Action, Line},
    pattern::{self, COUNTERS, Hash, PATTERN, SERVICE_BYTES},
};

use driver::Driver;
use machine::{Clock, die, in32, load, out32, power_off, reset, reset_by_control, say, store};
use virtio::AREA;

/// In page 0.
const NEAR_NULL: u64 = 16;

/// A port that no machine has.
const PORT_NOWHERE: u16 = 0x0e80;

/// Entered by each vCPU, with the boot page's address and the vCPU's number.
#[allow(unsafe_code)]
// SAFETY: the name is the linker's; nothing else here has it.
#[unsafe(no_mangle)]
extern "C" fn _start(_boot: u64, cpu: u64) -> ! {
    let Some(boot) = machine::boot() else {
        say!("no boot page of a version we know");
        die();
    };
    match Line::parse(machine::command_line(boot)) {
        Ok(line) if cpu == 0 => act(boot, line),
        Ok(line) if line.action == Action::Serve => writing::serve(cpu, &Clock::new(boot)),
        Ok(_) => spin(cpu),
        Err(_) if cpu != 0 => spin(cpu),
        Err(unknown) => {
            say!("unknown word: {}", unknown.0);
            die()
        }
    }
}

fn act(boot: &Boot, line: Line<'_>) -> ! {
    say!("{}", line.say);
    say!(
        "cpus {} low {} high {}",
        boot.cpus,
        boot.low_bytes,
        boot.high_bytes
    );
    if line.bytes > 0 {
        fill(boot, line);
    }
    if boot.high_bytes > 0 {
        store(HIGH + boot.high_bytes - 8, pattern::word(line.seed, 0));
    }
    match line.action {
        Action::Reset => reset(),
        Action::ResetControl => reset_by_control(),
        Action::PowerOff => power_off(),
        Action::TripleFault => die(),
        Action::Null => {
            store(NEAR_NULL, 1_u64);
            // Not reached where page 0 is not mapped.
            reset()
        }
        Action::Serve => network::serve(boot, line),
        Action::Nonsense => {
            nonsense(boot, line.seed);
            reset()
        }
        Action::Garbage => {
            garbage::write(boot, line.seed, line.steps);
            reset()
        }
        Action::Spin => spin(0),
        Action::Strays => {
            stray();
            reset()
        }
    }
}

/// Writes the pattern, reads it back, and says its hash.
fn fill(boot: &Boot, line: Line<'_>) {
    let end = match line.action {
        Action::Serve => SERVICE_BYTES,
        _ => 0,
    };
    let room = boot.low_bytes.saturating_sub(PATTERN + end);
    let words = line.bytes.min(room) / 8;
    for index in 0..words {
        store(PATTERN + index * 8, pattern::word(line.seed, index));
    }
    let read = (0..words).map(|index| load::<u64>(PATTERN + index * 8));
    let hash = read.fold(Hash::NEW, Hash::with);
    say!("pattern {words} words hash {:016x}", hash.value());
}

fn stray() {
    out32(PORT_NOWHERE, 1);
    let port = in32(PORT_NOWHERE);
    store(DEVICES, 1_u64);
    say!("strays {port:x} {:x}", load::<u64>(DEVICES));
}

/// In turns: nonsense in the registers, and nonsense in the rings of a device
/// that was started as it should be, and is told that there is news.
fn nonsense(boot: &Boot, seed: u64) {
    const ROUNDS: u64 = 20_000;
    const TURN: u64 = 100;
    for round in 0..ROUNDS {
        let dice = pattern::word(seed, round);
        if round % TURN == 0 {
            // Whether it starts again is all the same here.
            let _ = Driver::start(boot, 1500);
        }
        match (round / TURN) & 1 {
            0 => nonsense_in_rings(dice),
            _ => nonsense_in_registers(dice),
        }
    }
    say!("nonsense {seed} written");
}

fn nonsense_in_rings(dice: u64) {
    const NOTIFY: u64 = 0x50;
    // Small numbers pass for indices and lengths, larger ones for addresses.
    let value = match dice & 3 {
        0 => dice >> 8,
        1 => (dice >> 8) & 0x1f,
        _ => AREA + ((dice >> 8) & 0x1_ffff),
    };
    store(AREA + ((dice >> 32) & 0x1_3fff), value);
    if dice & 0x30 == 0 {
        store(DEVICES + NOTIFY, (dice >> 6) as u32 & 1);
    }
}

fn nonsense_in_registers(dice: u64) {
    const REGISTERS: u64 = 0x120;
    let value = match dice & 3 {
        0 => (dice >> 32) as u32,
        1 => (dice >> 32) as u32 & 0x1f,
        2 => (AREA + ((dice >> 32) & 0x1_ffff)) as u32,
        // What a driver says at the end of its start.
        _ => 15,
    };
    store(DEVICES + (dice >> 8) % REGISTERS, value);
}

fn spin(cpu: u64) -> ! {
    let counter = COUNTERS + cpu * PAGE_BYTES;
    let mut count = 0_u64;
    loop {
        count = count.wrapping_add(1);
        store(counter, count);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    die()
}
