//! Ports and memory: every instruction that has no safe form.
#![allow(unsafe_code)]

use core::{arch::asm, fmt};

use agent_common::guest::{
    BOOT, Boot, COMMAND_LINE_BYTES_MAX, INCARNATION, Incarnation, MAGIC, PORT_KEYBOARD, PORT_POWER,
    PORT_RESET, PORT_SERIAL, PORT_WAIT, POWER_OFF, RESET_CONTROL, RESET_KEYBOARD, VERSION,
    WAIT_TIME_ONLY,
};

/// Request a reset, and do it.
const RESET_NOW: u8 = RESET_CONTROL | 2;

pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: the entry state allows all ports, and the VMM answers each.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem)) };
}

pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, nomem)) };
}

pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, nomem)) };
}

pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, nomem)) };
    value
}

/// A number.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// A place in memory that others look at, or that is no memory at all.
pub(crate) fn store<T: Plain>(address: u64, value: T) {
    // SAFETY: callers stay in RAM above the payload, or among the devices, or
    // mean to fault.
    unsafe { core::ptr::write_volatile(address as *mut T, value) };
}

pub(crate) fn load<T: Plain>(address: u64) -> T {
    // SAFETY: as for `store`.
    unsafe { core::ptr::read_volatile(address as *const T) }
}

/// Copies from memory that a device has written and now leaves alone.
pub(crate) fn copy_from(address: u64, to: &mut [u8]) {
    // SAFETY: callers name a whole buffer of the area that is kept for devices.
    let from = unsafe { core::slice::from_raw_parts(address as *const u8, to.len()) };
    to.copy_from_slice(from);
}

/// Copies to memory that a device does not look at yet.
pub(crate) fn copy_to(address: u64, from: &[u8]) {
    // SAFETY: as for `copy_from`.
    let to = unsafe { core::slice::from_raw_parts_mut(address as *mut u8, from.len()) };
    to.copy_from_slice(from);
}

/// The time stamp counter, and how fast it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    ticks_in_ms: u64,
}

impl Clock {
    pub(crate) fn new(boot: &Boot) -> Self {
        /// Where the rate is not known; timers are then a little off.
        const LIKELY: u64 = 2_000_000;
        let ticks_in_ms = match boot.tsc_khz {
            0 => LIKELY,
            khz => u64::from(khz),
        };
        Self { ticks_in_ms }
    }

    /// Ticks since some time.
    pub(crate) fn ticks(&self) -> u64 {
        // SAFETY: reading the counter changes nothing, and CPL 3 may.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    pub(crate) fn ticks_in_second(&self) -> u64 {
        self.ticks_in_ms * 1000
    }

    pub(crate) fn us(&self) -> u64 {
        // The counter would take centuries to get near the end.
        self.ticks() / self.ticks_in_ms * 1000
            + self.ticks() % self.ticks_in_ms * 1000 / self.ticks_in_ms
    }

    /// Rounded up, so that whoever waits for it does not come early.
    pub(crate) fn us_of(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000).div_ceil(self.ticks_in_ms)
    }
}

/// Lets others have the processor until a device has used a buffer, or that
/// much time has passed.
pub(crate) fn wait(us: u64) {
    let us = u32::try_from(us).unwrap_or(u32::MAX);
    out32(PORT_WAIT, us & !WAIT_TIME_ONLY);
}

/// As [`wait`], whatever devices do.
pub(crate) fn wait_for_time(us: u64) {
    let us = u32::try_from(us).unwrap_or(u32::MAX);
    out32(PORT_WAIT, us | WAIT_TIME_ONLY);
}

/// Data for which all zeros is a value.
pub(crate) trait Zero {}

/// RAM that nobody has touched yet, as one value.
///
/// # Panics
///
/// If there is not enough RAM, or it was taken before.
pub(crate) fn take<T: Zero>(boot: &Boot, address: u64) -> &'static mut T {
    use core::sync::atomic::{AtomicBool, Ordering};
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!IS_TAKEN.swap(true, Ordering::Relaxed), "taken twice");
    let end = address + size_of::<T>() as u64;
    assert!(end <= boot.low_bytes && address.is_multiple_of(align_of::<T>() as u64));
    // SAFETY: it is RAM, zero since the VMM made it, and used for nothing else:
    // patterns and writers end below, and this is done once.
    unsafe { &mut *(address as *mut T) }
}

/// The boot page, if it is one we understand.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: the VMM put it there, readable for ever, before we were entered.
    let boot = unsafe { &*(BOOT as *const Boot) };
    (boot.magic == MAGIC && boot.version == VERSION).then_some(boot)
}

/// Who we are now, all of it from the same incarnation.
pub(crate) fn incarnation() -> Incarnation {
    let read = |at: u64| load::<u64>(INCARNATION + at);
    loop {
        let count = read(0);
        let mut generation = [0; 16];
        for (at, byte) in (16..).zip(&mut generation) {
            *byte = load(INCARNATION + at);
        }
        let wall_clock_ns = read(8);
        // Only a copy of us that goes on elsewhere changes it, and at most once a moment.
        if read(0) == count {
            return Incarnation {
                count,
                wall_clock_ns,
                generation,
            };
        }
    }
}

pub(crate) fn command_line(boot: &Boot) -> &'static str {
    let length = (boot.command_line_bytes as usize).min(COMMAND_LINE_BYTES_MAX);
    // SAFETY: one readable page, of which this is a part.
    let bytes = unsafe { core::slice::from_raw_parts(boot.command_line as *const u8, length) };
    core::str::from_utf8(bytes).unwrap_or("say=not-text")
}

/// The console.
pub(crate) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out8(PORT_SERIAL, byte));
        Ok(())
    }
}

/// Prints a line on the console.
macro_rules! say {
    ($($part:tt)*) => {{
        use core::fmt::Write as _;
        // The console cannot fail.
        let _ = writeln!($crate::machine::Serial, $($part)*);
    }};
}
pub(crate) use say;

pub(crate) fn reset() -> ! {
    out8(PORT_KEYBOARD, RESET_KEYBOARD);
    die()
}

pub(crate) fn reset_by_control() -> ! {
    out8(PORT_RESET, RESET_NOW);
    die()
}

pub(crate) fn power_off() -> ! {
    out16(PORT_POWER, POWER_OFF);
    die()
}

/// An exception that nobody handles.
pub(crate) fn die() -> ! {
    // SAFETY: it does not return.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}
