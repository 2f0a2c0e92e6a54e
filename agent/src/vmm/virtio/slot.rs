//! A device at its place, and the thread that works for it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_common::guest;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use super::{
    REGISTER_BYTES,
    block::{self, Block},
    interrupt::Interrupt,
    net::{self, Net},
    registers::{INTERRUPT_ACKNOWLEDGE, INTERRUPT_STATUS, NOTIFY},
    state::{DeviceState, StateError},
    transport::{Phase, Transport},
};

#[derive(Debug)]
pub(in crate::vmm) enum Device {
    Net(Net),
    Block(Block),
}

/// What a device waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// There is more to do, but others may want the device too.
    Nothing,
    /// Being woken.
    Waking,
    /// Being woken, or a frame.
    Frames,
}

impl Device {
    fn kind(&self) -> u32 {
        match self {
            Self::Net(_) => net::KIND,
            Self::Block(_) => block::KIND,
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        match self {
            Self::Net(net) => net.transport(),
            Self::Block(block) => block.transport(),
        }
    }

    pub(super) fn transport_mut(&mut self) -> &mut Transport {
        match self {
            Self::Net(net) => net.transport_mut(),
            Self::Block(block) => block.transport_mut(),
        }
    }

    pub(super) fn work(&mut self) -> Wants {
        match self {
            Self::Net(net) => net.work(),
            Self::Block(block) => block.work(),
        }
    }
}

#[derive(Debug)]
pub(in crate::vmm) struct Slot {
    address: u64,
    kind: u32,
    wake: Arc<EventFd>,
    interrupt: Arc<Interrupt>,
    /// Where frames come from.
    frames: Option<OwnedFd>,
    device: Mutex<Device>,
}

impl Slot {
    pub(in crate::vmm) fn new(address: u64, device: Device) -> io::Result<Self> {
        let frames = match &device {
            Device::Net(net) => Some(net.tap().as_fd().try_clone_to_owned()?),
            Device::Block(_) => None,
        };
        let transport = device.transport();
        Ok(Self {
            address,
            kind: device.kind(),
            wake: Arc::clone(transport.wake_event()),
            interrupt: Arc::clone(transport.interrupt()),
            frames,
            device: Mutex::new(device),
        })
    }

    /// As the boot page lists it.
    pub(in crate::vmm) fn view(&self) -> guest::Device {
        guest::Device {
            address: self.address,
            bytes: REGISTER_BYTES,
            kind: self.kind,
        }
    }

    /// For the name of its thread.
    pub(in crate::vmm) fn name(&self) -> &'static str {
        match self.frames {
            Some(_) => "net",
            None => "block",
        }
    }

    /// A write to this address is the same as telling this event.
    pub(in crate::vmm) fn doorbell(&self) -> (u64, &EventFd) {
        (self.address + NOTIFY, &self.wake)
    }

    /// The offset in its registers, if it has this address.
    pub(in crate::vmm) fn offset(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.address)?;
        (offset < u64::from(REGISTER_BYTES)).then_some(offset)
    }

    /// A device that is busy is waited for, but not in what a driver reads
    /// and writes while it is.
    pub(in crate::vmm) fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, <&mut [u8; 4]>::try_from(&mut *data)) {
            (INTERRUPT_STATUS, Ok(word)) => *word = self.interrupt.status().to_le_bytes(),
            _ => self.lock().transport().read(offset, data),
        }
    }

    /// As [`Self::read`].
    pub(in crate::vmm) fn write(&self, offset: u64, data: &[u8]) {
        match (offset, <[u8; 4]>::try_from(data)) {
            (NOTIFY, _) => {
                // Fails only if it was told 2^64 times and nobody listened.
                let _ = self.wake.write(1);
            }
            (INTERRUPT_ACKNOWLEDGE, Ok(word)) => {
                self.interrupt.acknowledge(u32::from_le_bytes(word));
            }
            _ => self.lock().transport_mut().write(offset, data),
        }
    }

    pub(in crate::vmm) fn save(&self) -> DeviceState {
        self.lock().transport().save()
    }

    /// Whether [`Self::restore`] would succeed.
    pub(in crate::vmm) fn check(
        &self,
        device: usize,
        state: &DeviceState,
    ) -> Result<(), StateError> {
        if state.kind != self.kind {
            return Err(StateError::Kind {
                device,
                theirs: state.kind,
                ours: self.kind,
            });
        }
        let checked = self.lock().transport().check(state);
        checked.map_err(|source| StateError::Device { device, source })
    }

    /// All of it, or nothing. Only for a device that is paused.
    pub(in crate::vmm) fn restore(
        &self,
        device: usize,
        state: &DeviceState,
    ) -> Result<(), StateError> {
        self.check(device, state)?;
        let restored = self.lock().transport_mut().restore(state);
        restored.map_err(|source| StateError::Device { device, source })
    }

    /// Frames that wait in its tap; none of a device that has no tap.
    pub(in crate::vmm) fn take_frames(&self) -> Vec<Vec<u8>> {
        match &mut *self.lock() {
            Device::Net(net) => net.take_frames(),
            Device::Block(_) => Vec::new(),
        }
    }

    pub(in crate::vmm) fn has_frames(&self) -> bool {
        self.frames.is_some()
    }

    /// `false` if it is no device for frames.
    pub(in crate::vmm) fn give_frames(&self, frames: Vec<Vec<u8>>) -> bool {
        match &mut *self.lock() {
            Device::Net(net) => {
                net.give_frames(frames);
                true
            }
            Device::Block(_) => false,
        }
    }

    /// From here on it touches neither guest memory nor its files.
    pub(in crate::vmm) fn pause(&self) {
        self.lock().transport_mut().pause();
    }

    pub(in crate::vmm) fn resume(&self) {
        self.lock().transport_mut().resume();
    }

    /// Ends its thread.
    pub(in crate::vmm) fn stop(&self) {
        self.lock().transport_mut().stop();
    }

    /// A device keeps no promise across its calls that a panic could break.
    pub(in crate::vmm) fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there is something to do.
    fn wait(&self, wants: Wants) -> nix::Result<()> {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(self.wake.as_fd())];
        if wants == Wants::Frames {
            fds.extend(self.frames.as_ref().map(|frames| watch(frames.as_fd())));
        }
        let limit = match wants {
            Wants::Nothing => PollTimeout::ZERO,
            Wants::Waking | Wants::Frames => PollTimeout::NONE,
        };
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        // Clears it; that it was set is all it says.
        let _ = self.wake.read();
        Ok(())
    }
}

/// The thread of a device: until it is told to stop.
pub(in crate::vmm) fn serve(slot: &Slot) {
    loop {
        let wants = {
            let mut device = slot.lock();
            match device.transport().phase() {
                Phase::Running => device.work(),
                // Being told to resume is all it waits for.
                Phase::Paused => Wants::Waking,
                Phase::Stopped => return,
            }
        };
        if slot.wait(wants).is_err() {
            return;
        }
    }
}
