//! What the kernel side reports.
//!
//! Owns: the ring buffer's reading end. The kernel keeps the place, so what
//! was reported while no daemon ran is read by the next one.

use std::{io, path::Path, time::Duration};

use agent_common::abi::{Event, EventKind, names};
use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::{
    decode,
    error::SteerError,
    sys::{self, Watched},
};
use crate::model::{EventView, SlotIndex};

/// Records read in one go, so that a flood does not starve the driver.
const BATCH: usize = 256;

/// The reading end of `gd_events`.
#[derive(Debug)]
pub struct Events {
    ring: AsyncFd<Watched<RingBuf<MapData>>>,
}

/// What one reading gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub events: Vec<EventView>,
    /// Records that are not of this version.
    pub unreadable: u64,
}

impl Events {
    pub(super) fn open(root: &Path) -> Result<Self, SteerError> {
        let path = root.join(names::EVENTS);
        let fail = |e: io::Error| SteerError::OpenPin(path.clone(), e);
        let data = MapData::from_pin(&path).map_err(|e| fail(io::Error::other(e)))?;
        let ring = RingBuf::try_from(aya::maps::Map::RingBuf(data))
            .map_err(|e| fail(io::Error::other(e)))?;
        Ok(Self {
            ring: sys::readable(ring).map_err(fail)?,
        })
    }

    /// Resolves when there is something to read. Cancel safe: nothing is
    /// taken from the ring before this returns it.
    pub async fn next(&mut self) -> io::Result<Read> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = &mut ready.get_inner_mut().0;
            let mut read = Read::default();
            let mut taken = 0;
            while taken < BATCH {
                let Some(record) = ring.next() else {
                    ready.clear_ready();
                    break;
                };
                taken += 1;
                match decode(&record) {
                    Some(event) => read.events.push(event),
                    None => read.unreadable += 1,
                }
            }
            if taken > 0 {
                return Ok(read);
            }
        }
    }
}

/// `None` for a record that is too short or of an unknown kind. A longer one
/// is of a newer version, and its head still means the same.
pub(super) fn decode(record: &[u8]) -> Option<EventView> {
    let event: Event = sys::from_bytes(record)?;
    let Event {
        kind,
        pad: _,
        switch,
        pid,
        tid,
        uid,
        gid,
        command,
        result,
        cgroup_id,
        entered_ns,
        thrown_ns,
        host_generation,
        comm,
    } = event;
    let kind = EventKind::from_tag(kind)?;
    let took = thrown_ns.saturating_sub(entered_ns);
    Some(EventView {
        kind,
        slot: (switch != u32::MAX).then_some(SlotIndex(switch)),
        pid,
        tid,
        uid,
        gid,
        comm: decode::text(&comm).unwrap_or_default(),
        command,
        errno: (result != 0).then(|| result.saturating_neg()),
        cgroup_id,
        entered: Duration::from_nanos(entered_ns),
        throw_took: (thrown_ns != 0).then(|| Duration::from_nanos(took)),
        host_generation,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Event>()];
        bytes[0] = EventKind::HostReboot as u8;
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        bytes[8..12].copy_from_slice(&77u32.to_ne_bytes());
        bytes[40..48].copy_from_slice(&1_000u64.to_ne_bytes());
        bytes[48..56].copy_from_slice(&3_500u64.to_ne_bytes());
        bytes[64..68].copy_from_slice(b"init");
        bytes
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let event = decode(&record()).unwrap();
        assert_eq!(event.kind, EventKind::HostReboot);
        assert_eq!((event.slot, event.pid), (None, 77));
        assert_eq!(event.comm, "init");
        assert_eq!(event.throw_took, Some(Duration::from_nanos(2_500)));
        assert_eq!(event.errno, None);
    }

    #[test]
    fn short_and_unknown_records_are_refused() {
        let whole = record();
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None);
        }
        let mut unknown = whole.clone();
        unknown[0] = 0;
        assert_eq!(decode(&unknown), None);
        let mut longer = whole;
        longer.extend([9; 8]);
        assert!(decode(&longer).is_some());
    }

    proptest! {
        #[test]
        fn hostile_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
