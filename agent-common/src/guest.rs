//! What a guest payload may rely on: addresses, ports and the boot page.
//!
//! Owns: numbers and layouts that the VMM and a payload share; described in
//! `docs/guest-abi.md`. Refuses: how either side does its part. [`VERSION`]
//! grows when a payload that relied on the old meaning would break.

/// First eight bytes of the boot page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"GDGUEST\0");
pub const VERSION: u32 = 1;

/// The smallest page, and the one that page tables consist of.
pub const PAGE_BYTES: u64 = 4096;
/// The page size of all mappings from [`PAYLOAD`] up, but for the first.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Global descriptor table; not accessible to the payload.
pub const GDT: u64 = 0x1000;
/// A [`Boot`], readable.
pub const BOOT: u64 = 0x2000;
/// The command line, readable; one page.
pub const COMMAND_LINE: u64 = 0x3000;
pub const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// Task segment with the map of allowed ports; not accessible to the payload.
pub const TASK: u64 = 0x4000;
/// The processor's own part, 65,536 bits, and the byte of ones that ends them.
pub const TASK_BYTES: usize = 104 + 8192 + 1;
/// An [`Incarnation`], readable.
pub const INCARNATION: u64 = 0x7000;
/// Page tables; not accessible to the payload.
pub const TABLES: u64 = 0x1_0000;
/// End of the page tables.
pub const TABLES_END: u64 = 0x7_0000;
/// Stacks, one below the other's end, that of vCPU 0 first.
pub const STACKS: u64 = 0x8_0000;
pub const STACK_BYTES: u64 = 0x1_0000;
/// Where a payload's own memory begins.
pub const PAYLOAD: u64 = 0x10_0000;

/// End of the RAM that lies below 4 GiB; what is more begins at [`HIGH`].
pub const LOW_END: u64 = 3 << 30;
/// Where devices are, up to [`HIGH`].
pub const DEVICES: u64 = LOW_END;
pub const HIGH: u64 = 4 << 30;

pub const CPUS_MAX: usize = 8;

/// Data register of a 16550 serial port.
pub const PORT_SERIAL: u16 = 0x3f8;
/// Registers from [`PORT_SERIAL`] on.
pub const PORT_SERIAL_COUNT: u16 = 8;
/// Command register of the keyboard controller; [`RESET_KEYBOARD`] resets.
pub const PORT_KEYBOARD: u16 = 0x64;
pub const RESET_KEYBOARD: u8 = 0xfe;
/// Reset control register; [`RESET_CONTROL`] and any more bits reset.
pub const PORT_RESET: u16 = 0xcf9;
/// The bit that makes a reset happen.
pub const RESET_CONTROL: u8 = 0x04;
/// ACPI control register; the 16-bit value [`POWER_OFF`] powers off.
pub const PORT_POWER: u16 = 0x604;
pub const POWER_OFF: u16 = 0x2000;
/// A vCPU that writes microseconds here, 32 bits wide, is parked until a
/// device has used a buffer since it was last parked, or the time has passed.
pub const PORT_WAIT: u16 = 0x608;
/// Set in what is written to [`PORT_WAIT`]: devices do not end it.
pub const WAIT_TIME_ONLY: u32 = 1 << 31;
/// The byte that powers off when written to [`PORT_POWER`], as hardware-reduced
/// ACPI has it: sleep type [`SLEEP_TYPE_OFF`], and the bit that goes there.
pub const SLEEP_OFF: u8 = (SLEEP_TYPE_OFF << 2) | (1 << 5);
pub const SLEEP_TYPE_OFF: u8 = 5;
/// ACPI sleep status register, always zero.
pub const PORT_SLEEP_STATUS: u16 = 0x605;

/// The boot page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Boot {
    pub magic: u64,
    pub version: u32,
    pub cpus: u32,
    /// Bytes of RAM from address 0 on, at most [`LOW_END`].
    pub low_bytes: u64,
    /// Bytes of RAM from [`HIGH`] on.
    pub high_bytes: u64,
    /// Address of the command line, without a zero at its end.
    pub command_line: u64,
    pub command_line_bytes: u32,
    /// Entries of `devices` that are in use.
    pub device_count: u32,
    /// Ticks of the time stamp counter in a millisecond; 0 if not known.
    pub tsc_khz: u32,
    pub pad: u32,
    pub devices: [Device; DEVICES_MAX],
}

pub const DEVICES_MAX: usize = 8;

/// A virtio-mmio device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Device {
    /// Address of its registers.
    pub address: u64,
    /// Bytes of its registers.
    pub bytes: u32,
    /// Device type as virtio numbers them: 1 is net, 2 is block.
    pub kind: u32,
}

/// Who the guest is now. Written only while no vCPU runs: before the first
/// entry, and whenever a copy of the guest goes on in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Incarnation {
    /// Grows with each incarnation, from 1. Who reads the rest reads it
    /// before and after.
    pub count: u64,
    /// Nanoseconds since 1970 (UTC) when this incarnation began.
    pub wall_clock_ns: u64,
    /// No other incarnation has the same.
    pub generation: [u8; 16],
}

const _: () = assert!(size_of::<Incarnation>() == 32);
const _: () = assert!(size_of::<Boot>() == 56 + DEVICES_MAX * size_of::<Device>());
const _: () = assert!(size_of::<Device>() == 16);
const _: () = assert!(size_of::<Boot>() as u64 <= PAGE_BYTES);
const _: () = assert!(COMMAND_LINE_BYTES_MAX as u64 <= PAGE_BYTES);
const _: () = assert!(TASK + TASK_BYTES as u64 <= INCARNATION);
const _: () = assert!(INCARNATION + PAGE_BYTES <= TABLES);
const _: () = assert!(TABLES_END <= STACKS);
const _: () = assert!(STACKS + STACK_BYTES * CPUS_MAX as u64 <= PAYLOAD);
const _: () = assert!(PAYLOAD < LARGE_PAGE_BYTES);
