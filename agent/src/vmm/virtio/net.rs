//! virtio-net (virtio 1.2, section 5.1) on a tap.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use nix::sys::eventfd::EventFd;

use super::{
    mac::Mac,
    slot::Wants,
    tap::{HEADER_BYTES, Tap},
    transport::{Chain, Kind, QUEUE_SIZE_MAX, Transport},
};
use crate::vmm::memory::GuestRam;

/// Device type.
pub(super) const KIND: u32 = 1;

const FEATURE_MAC: u64 = 1 << 5;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// The largest IP packet, its Ethernet header with a VLAN tag, and ours.
pub(in crate::vmm) const PACKET_BYTES_MAX: usize = 65_535 + 18 + HEADER_BYTES;

/// Frames that are handed from one copy to another: as many as a tap's queue
/// has by default.
pub(in crate::vmm) const FRAMES_MAX: usize = 1000;

/// Frames that went through, and those that did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::vmm) struct Counts {
    pub(in crate::vmm) received: u64,
    pub(in crate::vmm) sent: u64,
    pub(in crate::vmm) receive_dropped: u64,
    pub(in crate::vmm) send_dropped: u64,
    /// Times that the driver broke its queues.
    pub(in crate::vmm) broken: u64,
}

#[derive(Debug)]
pub(in crate::vmm) struct Net {
    transport: Transport,
    tap: Tap,
    packet: Vec<u8>,
    /// What came for the copy that this one goes on for; before what is in the tap.
    early: VecDeque<Vec<u8>>,
    counts: Counts,
}

impl Net {
    /// `line` is told of news, if the guest has an interrupt controller.
    pub(in crate::vmm) fn new(
        tap: Tap,
        mac: Mac,
        memory: Arc<GuestRam>,
        line: Option<EventFd>,
    ) -> io::Result<Self> {
        let kind = Kind {
            number: KIND,
            features: FEATURE_MAC,
            config: mac.0.to_vec(),
            queues: 2,
        };
        Ok(Self {
            transport: Transport::new(kind, memory, line)?,
            tap,
            packet: vec![0; PACKET_BYTES_MAX],
            early: VecDeque::new(),
            counts: Counts::default(),
        })
    }

    pub(in crate::vmm) fn counts(&self) -> Counts {
        Counts {
            broken: self.transport.broken(),
            ..self.counts
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Both queues, once.
    pub(super) fn work(&mut self) -> Wants {
        let has_more = self.transmit();
        let wants = self.receive();
        self.transport.tell();
        if has_more { Wants::Nothing } else { wants }
    }

    /// All that is in the queue, but no more than fits there at once. `true`
    /// if there is more.
    fn transmit(&mut self) -> bool {
        for _ in 0..QUEUE_SIZE_MAX {
            let Some(chain) = self.transport.next(TRANSMIT) else {
                if self.transport.listen(TRANSMIT) {
                    continue;
                }
                return false;
            };
            // More is seen without being told.
            self.transport.ignore(TRANSMIT);
            let head = chain.head_index();
            match self.send(chain) {
                Ok(()) => self.counts.sent += 1,
                Err(_) => self.counts.send_dropped += 1,
            }
            self.transport.give_back(TRANSMIT, head, 0);
        }
        true
    }

    /// The header is ours: no offload was negotiated, so the guest's says nothing.
    fn send(&mut self, chain: Chain) -> io::Result<()> {
        let memory = self.transport.memory();
        let mut reader = chain.reader(memory).map_err(io::Error::other)?;
        let length = reader.available_bytes();
        let packet = self
            .packet
            .get_mut(..length)
            .filter(|packet| packet.len() > HEADER_BYTES)
            .ok_or(io::ErrorKind::InvalidInput)?;
        reader.read_exact(packet)?;
        packet
            .iter_mut()
            .take(HEADER_BYTES)
            .for_each(|byte| *byte = 0);
        self.tap.write(packet)
    }

    /// Fills buffers until there is no frame or no buffer; while frames are
    /// what is missing, the driver is told to be quiet about new buffers.
    fn receive(&mut self) -> Wants {
        for _ in 0..=QUEUE_SIZE_MAX {
            let Some(chain) = self.transport.next(RECEIVE) else {
                if self.transport.listen(RECEIVE) {
                    continue;
                }
                return Wants::Waking;
            };
            let head = chain.head_index();
            let length = match self.next_frame() {
                Ok(length) => length,
                // The buffer is for later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.transport.leave(RECEIVE);
                    self.transport.ignore(RECEIVE);
                    return Wants::Frames;
                }
                // Somebody took the tap away, or the socket's other end.
                Err(_) => {
                    self.transport.break_off();
                    return Wants::Waking;
                }
            };
            let written = self.deliver(chain, length);
            match written {
                Ok(_) => self.counts.received += 1,
                Err(_) => self.counts.receive_dropped += 1,
            }
            let written = written.unwrap_or_default();
            self.transport.give_back(RECEIVE, head, written);
        }
        // Others want the device too. Nothing tells of frames that came early.
        if self.early.is_empty() {
            Wants::Frames
        } else {
            Wants::Nothing
        }
    }

    fn next_frame(&mut self) -> io::Result<usize> {
        let Some(frame) = self.early.pop_front() else {
            return self.tap.read(&mut self.packet);
        };
        let packet = self.packet.get_mut(..frame.len());
        packet
            .ok_or(io::ErrorKind::InvalidData)?
            .copy_from_slice(&frame);
        Ok(frame.len())
    }

    /// Takes what waits for a paused guest out of the tap, for another copy.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames: Vec<Vec<u8>> = self.early.drain(..).collect();
        while frames.len() < FRAMES_MAX {
            match self.tap.read(&mut self.packet) {
                Ok(length) => frames.extend(self.packet.get(..length).map(<[u8]>::to_vec)),
                // Also a tap that is gone has none.
                Err(_) => break,
            }
        }
        frames
    }

    /// Frames that this guest gets before all others.
    pub(super) fn give_frames(&mut self, frames: Vec<Vec<u8>>) {
        self.early.extend(frames);
        self.early.truncate(FRAMES_MAX);
    }

    fn deliver(&mut self, chain: Chain, length: usize) -> io::Result<u32> {
        /// The last field of the header: how many buffers the frame is in.
        const BUFFERS_AT: usize = 10;
        let memory = self.transport.memory();
        let mut writer = chain.writer(memory).map_err(io::Error::other)?;
        let packet = self.packet.get_mut(..length).unwrap_or_default();
        if writer.available_bytes() < length || length <= HEADER_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let buffers = packet.iter_mut().skip(BUFFERS_AT).zip([1, 0]);
        buffers.for_each(|(to, byte)| *to = byte);
        writer.write_all(packet)?;
        u32::try_from(length).map_err(io::Error::other)
    }
}
