//! Ports and device memory: which access belongs to which device.
//!
//! Whatever a guest writes where nothing is, is dropped and counted; what it
//! reads there is all ones, as on real machines. No access fails.

use std::sync::Arc;

use agent_common::guest::{
    PORT_KEYBOARD, PORT_POWER, PORT_RESET, PORT_SERIAL, PORT_SERIAL_COUNT, PORT_SLEEP_STATUS,
    PORT_WAIT, POWER_OFF, RESET_CONTROL, RESET_KEYBOARD, SLEEP_OFF,
};
use serde::{Deserialize, Serialize};

use super::{
    end::End,
    serial::{Port, SerialState},
    virtio::{DeviceState, Slot, StateError},
};

/// What reads give where nothing is.
const NOTHING: u8 = 0xff;

/// Accesses that no device answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Strays {
    pub(super) port_reads: u64,
    pub(super) port_writes: u64,
    pub(super) memory_reads: u64,
    pub(super) memory_writes: u64,
}

/// The state of all devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusState {
    serial: SerialState,
    devices: Vec<DeviceState>,
}

pub(super) struct Bus {
    serial: Port,
    devices: Vec<Arc<Slot>>,
    strays: Strays,
}

impl Bus {
    pub(super) fn new(serial: Port, devices: Vec<Arc<Slot>>) -> Self {
        Self {
            serial,
            devices,
            strays: Strays::default(),
        }
    }

    /// All devices, as their drivers see them. Only while they are paused.
    pub(super) fn save(&self) -> BusState {
        BusState {
            serial: self.serial.save(),
            devices: self.devices.iter().map(|device| device.save()).collect(),
        }
    }

    /// Takes over what another bus of the same devices has saved: all of it,
    /// or nothing. Only while they are paused.
    pub(super) fn restore(&mut self, state: &BusState) -> Result<(), StateError> {
        let BusState { serial, devices } = state;
        if devices.len() != self.devices.len() {
            return Err(StateError::Devices {
                theirs: devices.len(),
                ours: self.devices.len(),
            });
        }
        let pairs = || self.devices.iter().zip(devices).enumerate();
        for (number, (device, state)) in pairs() {
            device.check(number, state)?;
        }
        self.serial.restore(serial)?;
        for (number, (device, state)) in pairs() {
            device.restore(number, state)?;
        }
        Ok(())
    }

    pub(super) fn strays(&self) -> Strays {
        self.strays
    }

    pub(super) fn serial_lost_bytes(&self) -> u64 {
        self.serial.lost_bytes()
    }

    /// A string instruction gives several units at once; each goes to the
    /// same port, and the units of our devices but one are single bytes.
    pub(super) fn port_write(&mut self, port: u16, data: &[u8]) -> Option<End> {
        if let Some(register) = serial_register(port) {
            for &byte in data {
                self.serial.write(register, byte);
            }
            return None;
        }
        let &first = data.first()?;
        match port {
            PORT_KEYBOARD if data.contains(&RESET_KEYBOARD) => {
                return Some(End::Reset {
                    port,
                    value: RESET_KEYBOARD,
                });
            }
            PORT_RESET if first & RESET_CONTROL != 0 => {
                return Some(End::Reset { port, value: first });
            }
            PORT_POWER if data == POWER_OFF.to_le_bytes() => return Some(End::PowerOff),
            PORT_POWER if data == [SLEEP_OFF] => return Some(End::PowerOff),
            PORT_KEYBOARD | PORT_RESET | PORT_POWER | PORT_SLEEP_STATUS | PORT_WAIT => {}
            _ => self.strays.port_writes += 1,
        }
        None
    }

    pub(super) fn port_read(&mut self, port: u16, data: &mut [u8]) {
        if let Some(register) = serial_register(port) {
            for byte in data {
                *byte = self.serial.read(register);
            }
            return;
        }
        match port {
            // Idle: nothing to read, ready to be written.
            PORT_KEYBOARD | PORT_RESET | PORT_POWER | PORT_SLEEP_STATUS | PORT_WAIT => {
                data.fill(0);
            }
            _ => {
                self.strays.port_reads += 1;
                data.fill(NOTHING);
            }
        }
    }

    pub(super) fn memory_write(&mut self, address: u64, data: &[u8]) {
        match self.device_at(address) {
            Some((device, offset)) => device.write(offset, data),
            None => self.strays.memory_writes += 1,
        }
    }

    pub(super) fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        match self.device_at(address) {
            Some((device, offset)) => device.read(offset, data),
            None => {
                self.strays.memory_reads += 1;
                data.fill(NOTHING);
            }
        }
    }

    /// The device whose registers are there, and the offset in them.
    fn device_at(&self, address: u64) -> Option<(&Slot, u64)> {
        self.devices
            .iter()
            .find_map(|device| Some((&**device, device.offset(address)?)))
    }
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port.checked_sub(PORT_SERIAL)?;
    (register < PORT_SERIAL_COUNT)
        .then(|| u8::try_from(register).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
