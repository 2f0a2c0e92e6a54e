//! Ports and memory: every instruction that has no safe form.
#![allow(unsafe_code)]

use core::{arch::asm, fmt};

use agent_common::guest::{
    BOOT, Boot, COMMAND_LINE_BYTES_MAX, MAGIC, PORT_KEYBOARD, PORT_POWER, PORT_RESET, PORT_SERIAL,
    POWER_OFF, RESET_CONTROL, RESET_KEYBOARD, VERSION,
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

/// Ticks since some time.
pub(crate) fn ticks() -> u64 {
    // SAFETY: reading the counter changes nothing, and CPL 3 may.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The boot page, if it is one we understand.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: the VMM put it there, readable for ever, before we were entered.
    let boot = unsafe { &*(BOOT as *const Boot) };
    (boot.magic == MAGIC && boot.version == VERSION).then_some(boot)
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
