//! The frame around a saved state: 32 bytes that can be read without the rest.
//!
//! Little-endian: magic (8), version (4), zero (4), bytes of the body (8),
//! CRC-32C of the body (4), CRC-32C of the 28 bytes before (4).

use super::error::StateError;

const MAGIC: [u8; 8] = *b"GDSTATE\0";

/// Grows with each change of what follows; there is no other sign of one.
pub(in crate::vmm) const VERSION: u32 = 1;

pub(super) const HEADER_BYTES: usize = 32;

/// Eight vCPUs with all that KVM knows of them take about 64 KiB.
pub(super) const BODY_BYTES_MAX: u64 = 4 << 20;

/// A body with its header before it.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The body, if it is whole and of a version we know.
pub(super) fn body(bytes: &[u8]) -> Result<&[u8], StateError> {
    let (header, body) =
        bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(StateError::Truncated {
                have: bytes.len() as u64,
                need: HEADER_BYTES as u64,
            })?;
    let [summed @ .., a, b, c, d] = header;
    let header_crc = u32::from_le_bytes([*a, *b, *c, *d]);
    let word = |at: usize| {
        let mut word = [0; 4];
        let from = summed.iter().skip(at);
        word.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        u32::from_le_bytes(word)
    };
    if !summed.starts_with(&MAGIC) {
        return Err(StateError::Foreign);
    }
    // Before anything of which another version may have its own idea.
    if word(8) != VERSION {
        return Err(StateError::Version(word(8)));
    }
    if crc32c::crc32c(summed) != header_crc || word(12) != 0 {
        return Err(StateError::Header);
    }
    let said = u64::from(word(16)) | (u64::from(word(20)) << 32);
    bounded(said)?;
    let have = body.len() as u64;
    match have.cmp(&said) {
        std::cmp::Ordering::Less => Err(StateError::Truncated { have, need: said }),
        std::cmp::Ordering::Greater => Err(StateError::Trailing { have, said }),
        std::cmp::Ordering::Equal if crc32c::crc32c(body) != word(24) => Err(StateError::Body),
        std::cmp::Ordering::Equal => Ok(body),
    }
}

/// Asked before memory is taken for it.
pub(super) fn bounded(bytes: u64) -> Result<(), StateError> {
    if bytes > BODY_BYTES_MAX {
        return Err(StateError::TooLarge {
            bytes,
            bytes_max: BODY_BYTES_MAX,
        });
    }
    Ok(())
}
