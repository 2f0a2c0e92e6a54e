//! Netlink messages as bytes. Pure.
//!
//! Owns: framing and attributes (include/uapi/linux/netlink.h). Only what is
//! asked for is decoded: the packet libraries refuse a whole message when one
//! attribute that nobody needs is new to them. Bad lengths end the walk,
//! nothing panics.

pub(super) const NLM_F_REQUEST: u16 = 0x01;
pub(super) const NLM_F_ACK: u16 = 0x04;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_DUMP: u16 = 0x300;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Flag bits of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// A request under construction.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// `fixed` is the header of the family, padded to four bytes.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    #[must_use]
    pub(super) fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        put(&mut self.bytes, kind, payload);
        self
    }

    #[must_use]
    pub(super) fn with_nested(self, kind: u16, attributes: &[(u16, &[u8])]) -> Self {
        let mut inner = Vec::new();
        for (kind, payload) in attributes {
            put(&mut inner, *kind, payload);
        }
        self.with(kind | NESTED, &inner)
    }

    /// Whether the answer is a list, up to [`Body::Done`]. The kernel does not
    /// mark its parts as such for all families.
    pub(super) fn is_dump(&self) -> bool {
        u16_at(&self.bytes, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) sequence: u32,
    pub(super) body: Body<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// The end of a dump.
    Done,
    /// An errno; zero acknowledges.
    Error(i32),
    Data(&'a [u8]),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(word))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word))
}

/// The messages in one datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let kind = u16_at(bytes, 4)?;
        let body = match kind {
            NLMSG_DONE => Body::Done,
            NLMSG_ERROR => Body::Error(u32_at(payload, 0)?.cast_signed().saturating_neg()),
            _ => Body::Data(payload),
        };
        let sequence = u32_at(bytes, 8)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { sequence, body })
    })
}

/// The attributes after a family's header, or within an attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let payload = bytes.get(ATTRIBUTE_HEADER..length)?;
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, payload)| (kind == wanted).then_some(payload))
}

pub(super) fn attribute_u32(bytes: &[u8], wanted: u16) -> Option<u32> {
    u32_at(attribute(bytes, wanted)?, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back() {
        let bytes = Request::new(18, NLM_F_ACK, &[7; 8])
            .with(1, b"odd")
            .with_nested(2, &[(3, &5u32.to_ne_bytes())])
            .finish(42);
        let message = messages(&bytes).next().unwrap();
        let Body::Data(payload) = message.body else {
            panic!("{message:?}");
        };
        assert_eq!((message.sequence, u16_at(&bytes, 4)), (42, Some(18)));
        let attributes = &payload[8..];
        assert_eq!(attribute(attributes, 1), Some(&b"odd"[..]));
        assert_eq!(attribute_u32(attribute(attributes, 2).unwrap(), 3), Some(5));
        assert_eq!(attribute(attributes, 4), None);
    }

    #[test]
    fn an_error_is_an_errno() {
        let mut bytes = Request::new(NLMSG_ERROR, 0, &(-19i32).to_ne_bytes()).finish(1);
        assert_eq!(messages(&bytes).next().unwrap().body, Body::Error(19));
        bytes[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(messages(&bytes).next().unwrap().body, Body::Error(i32::MAX));
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_the_walk(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }

        #[test]
        fn small_lengths_end_the_walk(words in prop::collection::vec(0u32..40, 0..64)) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
