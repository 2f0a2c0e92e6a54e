//! Ports and device memory: which access belongs to which device.
//!
//! Whatever a guest writes where nothing is, is dropped and counted; what it
//! reads there is all ones, as on real machines. No access fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_common::guest::{
    DEVICES, PORT_KEYBOARD, PORT_POWER, PORT_RESET, PORT_SERIAL, PORT_SERIAL_COUNT, POWER_OFF,
    RESET_CONTROL, RESET_KEYBOARD,
};

use super::{
    end::End,
    serial::Port,
    virtio::{Net, REGISTER_BYTES},
};

/// Where the registers of the network device are, if there is one.
pub(super) const NET_ADDRESS: u64 = DEVICES;

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

pub(super) struct Bus {
    serial: Port,
    net: Option<Arc<Mutex<Net>>>,
    strays: Strays,
}

impl Bus {
    pub(super) fn new(serial: Port, net: Option<Arc<Mutex<Net>>>) -> Self {
        Self {
            serial,
            net,
            strays: Strays::default(),
        }
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
            PORT_KEYBOARD | PORT_RESET | PORT_POWER => {}
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
            PORT_KEYBOARD | PORT_RESET | PORT_POWER => data.fill(0),
            _ => {
                self.strays.port_reads += 1;
                data.fill(NOTHING);
            }
        }
    }

    pub(super) fn memory_write(&mut self, address: u64, data: &[u8]) {
        match net_at(self.net.as_deref(), address) {
            Some((mut net, offset)) => net.write(offset, data),
            None => self.strays.memory_writes += 1,
        }
    }

    pub(super) fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        match net_at(self.net.as_deref(), address) {
            Some((net, offset)) => net.read(offset, data),
            None => {
                self.strays.memory_reads += 1;
                data.fill(NOTHING);
            }
        }
    }
}

/// The device, if its registers are there.
fn net_at(net: Option<&Mutex<Net>>, address: u64) -> Option<(MutexGuard<'_, Net>, u64)> {
    let offset = address.checked_sub(NET_ADDRESS)?;
    if offset >= u64::from(REGISTER_BYTES) {
        return None;
    }
    Some((net?.lock().unwrap_or_else(PoisonError::into_inner), offset))
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port.checked_sub(PORT_SERIAL)?;
    (register < PORT_SERIAL_COUNT)
        .then(|| u8::try_from(register).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
