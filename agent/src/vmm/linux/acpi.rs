//! The machine's description for the kernel: ACPI 6.5, hardware-reduced.
//!
//! It says which processors, interrupt controllers and devices there are, how
//! to reset and to power off, and where a generation id is that changes when
//! the guest becomes another one.

use std::mem::offset_of;

use acpi_tables::{
    Aml,
    aml::{
        Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package,
        Path, ResourceTemplate, Scope,
    },
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};
use agent_common::guest::{
    self, INCARNATION, Incarnation, PORT_KEYBOARD, PORT_POWER, PORT_SERIAL, PORT_SERIAL_COUNT,
    PORT_SLEEP_STATUS, RESET_KEYBOARD, SLEEP_TYPE_OFF,
};

/// Where the kernel is told to begin, and where others look for it.
pub(super) const ROOT: u64 = 0xe_0000;
const XSDT_ADDRESS: u64 = ROOT + 0x100;
const FADT_ADDRESS: u64 = ROOT + 0x200;
const MADT_ADDRESS: u64 = ROOT + 0x400;
const DSDT_ADDRESS: u64 = ROOT + 0x1000;

/// Interrupt lines of the one I/O APIC, which has 24.
pub(in crate::vmm) const SERIAL_LINE: u32 = 4;
/// That the generation id has changed.
pub(in crate::vmm) const NEWS_LINE: u32 = 5;
/// Of the first device; the others follow.
pub(in crate::vmm) const DEVICE_LINE: u32 = 16;

const _: () = assert!(DEVICE_LINE as usize + guest::DEVICES_MAX <= 24);

const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

const MAKER: [u8; 6] = *b"GHOSTD";
const MODEL: [u8; 8] = *b"GHOSTVMM";
const REVISION: u32 = 1;

/// No VGA, no real-time clock; and, as what is not set says, no keyboard controller.
const BOOT_ARCHITECTURE: u16 = (1 << 2) | (1 << 5);

/// All tables, and where they belong.
pub(super) fn tables(cpus: u8, devices: &[guest::Device]) -> Vec<(u64, Vec<u8>)> {
    let mut xsdt = XSDT::new(MAKER, MODEL, REVISION);
    xsdt.add_entry(FADT_ADDRESS);
    xsdt.add_entry(MADT_ADDRESS);
    vec![
        (ROOT, bytes(&Rsdp::new(MAKER, XSDT_ADDRESS))),
        (XSDT_ADDRESS, bytes(&xsdt)),
        (FADT_ADDRESS, fixed()),
        (MADT_ADDRESS, controllers(cpus)),
        (DSDT_ADDRESS, definitions(devices)),
    ]
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

fn fixed() -> Vec<u8> {
    let port = |port: u16| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            port.into(),
        )
    };
    let mut table = FADTBuilder::new(MAKER, MODEL, REVISION)
        .dsdt_64(DSDT_ADDRESS)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    table.reset_reg = port(PORT_KEYBOARD);
    table.reset_value = RESET_KEYBOARD;
    table.sleep_control_reg = port(PORT_POWER);
    table.sleep_status_reg = port(PORT_SLEEP_STATUS);
    bytes(&table.finalize())
}

fn controllers(cpus: u8) -> Vec<u8> {
    let local = LocalInterruptController::Address(LOCAL_APIC);
    let mut table = MADT::new(MAKER, MODEL, REVISION, local);
    for cpu in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, IO_APIC, 0));
    bytes(&table)
}

fn definitions(devices: &[guest::Device]) -> Vec<u8> {
    let mut code = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_OFF])).to_aml_bytes(&mut code);
    let mut inner = serial();
    inner.extend(generation());
    for (number, device) in (0..).zip(devices) {
        inner.extend(virtio(number, device));
    }
    code.extend(Scope::raw("_SB_".into(), inner));
    let mut table = Sdt::new(*b"DSDT", 36, 2, MAKER, MODEL, REVISION);
    table.append_slice(&code);
    bytes(&table)
}

/// Pulsed, so that nobody has to take it back.
fn line(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

fn serial() -> Vec<u8> {
    let count = u8::try_from(PORT_SERIAL_COUNT).unwrap_or_default();
    bytes(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(PORT_SERIAL, PORT_SERIAL, 1, count),
                    &line(SERIAL_LINE),
                ]),
            ),
        ],
    ))
}

/// A generation id (Virtual Machine Generation ID, Microsoft 2012), and the
/// event device that tells of its change.
fn generation() -> Vec<u8> {
    const KIND: &str = "VM_Gen_Counter";
    let address = INCARNATION + offset_of!(Incarnation, generation) as u64;
    let low = u32::try_from(address).unwrap_or_default();
    let mut code = bytes(&Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"VMGENCTR"),
            &Name::new("_CID".into(), &KIND),
            &Name::new("_DDN".into(), &KIND),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &0_u32])),
        ],
    ));
    let changed = Path::new("\\_SB_.VGEN");
    Device::new(
        "NEWS".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &0_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&line(NEWS_LINE)]),
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![&If::new(
                    &Equal::new(&acpi_tables::aml::Arg(0), &NEWS_LINE),
                    vec![&Notify::new(&changed, &0x80_u8)],
                )],
            ),
        ],
    )
    .to_aml_bytes(&mut code);
    code
}

fn virtio(number: u8, device: &guest::Device) -> Vec<u8> {
    // Devices lie below 4 GiB.
    let address = u32::try_from(device.address).unwrap_or_default();
    let name = format!("VIO{number}");
    bytes(&Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, address, device.bytes),
                    &line(DEVICE_LINE + u32::from(number)),
                ]),
            ),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use agent_common::guest::{CPUS_MAX, DEVICES, DEVICES_MAX, Device, PAYLOAD};

    use super::{DSDT_ADDRESS, tables};

    #[test]
    fn tables_are_whole_and_do_not_overlap() {
        let device = Device {
            address: DEVICES,
            bytes: 4096,
            kind: 1,
        };
        let mut tables = tables(u8::try_from(CPUS_MAX).unwrap(), &[device; DEVICES_MAX]);
        for (_, bytes) in &tables {
            let sum = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
            assert_eq!(sum, 0, "{:?}", String::from_utf8_lossy(&bytes[..8]));
        }
        assert!(tables[0].1.starts_with(b"RSD PTR "));
        tables.push((PAYLOAD, Vec::new()));
        for pair in tables.windows(2) {
            assert!(pair[0].0 + pair[0].1.len() as u64 <= pair[1].0);
        }
        let definitions = &tables.iter().find(|(at, _)| *at == DSDT_ADDRESS).unwrap().1;
        let length = u32::from_le_bytes(definitions[4..8].try_into().unwrap());
        assert_eq!(length as usize, definitions.len());
        let devices = definitions.windows(8).filter(|w| w == b"LNRO0005");
        assert_eq!(devices.count(), DEVICES_MAX);
    }
}
