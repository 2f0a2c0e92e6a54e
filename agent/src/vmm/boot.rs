//! The boot page and the command line, as bytes.

use agent_common::guest::{
    BOOT, Boot, COMMAND_LINE, COMMAND_LINE_BYTES_MAX, DEVICES_MAX, Device, MAGIC, VERSION,
};

use super::layout::Ram;

/// Text that fits its page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandLine(String);

impl CommandLine {
    /// `None` if it is too long.
    pub(super) fn new(text: String) -> Option<Self> {
        (text.len() <= COMMAND_LINE_BYTES_MAX).then_some(Self(text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is written before a payload starts, and where.
pub(super) fn pages(
    ram: Ram,
    cpus: u8,
    line: &CommandLine,
    tsc_khz: u32,
    devices: &[Device],
) -> [(u64, Vec<u8>); 2] {
    let mut slots = [Device::default(); DEVICES_MAX];
    let count = slots.iter_mut().zip(devices).map(|(slot, d)| *slot = *d);
    let device_count = u32::try_from(count.count()).unwrap_or_default();
    let boot = Boot {
        magic: MAGIC,
        version: VERSION,
        cpus: u32::from(cpus),
        low_bytes: ram.low_bytes(),
        high_bytes: ram.high_bytes(),
        command_line: COMMAND_LINE,
        command_line_bytes: u32::try_from(line.0.len()).unwrap_or_default(),
        device_count,
        tsc_khz,
        pad: 0,
        devices: slots,
    };
    [
        (BOOT, encode(&boot)),
        (COMMAND_LINE, line.0.clone().into_bytes()),
    ]
}

fn encode(boot: &Boot) -> Vec<u8> {
    let Boot {
        magic,
        version,
        cpus,
        low_bytes,
        high_bytes,
        command_line,
        command_line_bytes,
        device_count,
        tsc_khz,
        pad,
        devices,
    } = boot;
    let mut bytes = Vec::with_capacity(size_of::<Boot>());
    bytes.extend(magic.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend(cpus.to_le_bytes());
    bytes.extend(low_bytes.to_le_bytes());
    bytes.extend(high_bytes.to_le_bytes());
    bytes.extend(command_line.to_le_bytes());
    bytes.extend(command_line_bytes.to_le_bytes());
    bytes.extend(device_count.to_le_bytes());
    bytes.extend(tsc_khz.to_le_bytes());
    bytes.extend(pad.to_le_bytes());
    for Device {
        address,
        bytes: size,
        kind,
    } in devices
    {
        bytes.extend(address.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use agent_common::guest::{Boot, COMMAND_LINE_BYTES_MAX, Device, MAGIC};

    use super::{CommandLine, pages};
    use crate::vmm::layout::Ram;

    #[test]
    fn bytes_lie_where_a_payload_looks_for_them() {
        let line = CommandLine::new("do=reset".to_owned()).unwrap();
        let device = Device {
            address: 0xc000_0000,
            bytes: 4096,
            kind: 1,
        };
        let [(_, boot), (_, text)] =
            pages(Ram::of_mib(4096).unwrap(), 2, &line, 2_000_000, &[device]);
        let word = |at: usize| u64::from_le_bytes(boot[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(boot[at..at + 4].try_into().unwrap());
        assert_eq!(boot.len(), size_of::<Boot>());
        assert_eq!(word(offset_of!(Boot, magic)), MAGIC);
        assert_eq!(half(offset_of!(Boot, cpus)), 2);
        assert_eq!(word(offset_of!(Boot, low_bytes)), 3 << 30);
        assert_eq!(word(offset_of!(Boot, high_bytes)), 1 << 30);
        assert_eq!(half(offset_of!(Boot, command_line_bytes)), 8);
        assert_eq!(half(offset_of!(Boot, device_count)), 1);
        assert_eq!(half(offset_of!(Boot, tsc_khz)), 2_000_000);
        assert_eq!(word(offset_of!(Boot, devices)), 0xc000_0000);
        assert_eq!(text, b"do=reset");
    }

    #[test]
    fn a_line_fills_its_page_and_no_more() {
        assert!(CommandLine::new("x".repeat(COMMAND_LINE_BYTES_MAX)).is_some());
        assert!(CommandLine::new("x".repeat(COMMAND_LINE_BYTES_MAX + 1)).is_none());
    }
}
