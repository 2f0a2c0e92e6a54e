//! Frames on their way from one copy of a guest to another, in a file.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::OwnedFd,
};

use super::virtio::{FRAMES_MAX, PACKET_BYTES_MAX};

/// A bound on what is read: that many frames of the Ethernet's usual size and
/// their lengths, and room for a few that are larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum FramesError {
    #[error("cannot read the file of frames")]
    Read(#[source] io::Error),
    #[error("the file of frames has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("frame {0} is cut off")]
    CutOff(usize),
    #[error("frame {0} has {1} bytes, more than any can have")]
    TooLong(usize, usize),
    #[error("there are more than {FRAMES_MAX} frames")]
    TooMany,
}

/// What fits; the last ones are lost, as they are from a full queue.
pub(super) fn write(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        let Ok(length) = u32::try_from(frame.len()) else {
            continue;
        };
        if bytes.len() + frame.len() + 4 > FILE_BYTES_MAX as usize {
            break;
        }
        bytes.extend(length.to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// All of them, or none.
pub(super) fn read(file: OwnedFd) -> Result<Vec<Vec<u8>>, FramesError> {
    let mut bytes = Vec::new();
    let mut file = File::from(file);
    // Whoever wrote it left it at its end.
    file.rewind().map_err(FramesError::Read)?;
    let mut file = file.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).map_err(FramesError::Read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FramesError::TooLarge);
    }
    parse(&bytes)
}

fn parse(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, FramesError> {
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let at = frames.len();
        if at == FRAMES_MAX {
            return Err(FramesError::TooMany);
        }
        let (length, more) = rest.split_first_chunk().ok_or(FramesError::CutOff(at))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > PACKET_BYTES_MAX {
            return Err(FramesError::TooLong(at, length));
        }
        let (frame, more) = more
            .split_at_checked(length)
            .ok_or(FramesError::CutOff(at))?;
        frames.push(frame.to_vec());
        rest = more;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FramesError, parse, write};

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            prop_assert_eq!(parse(&write(&frames)).unwrap(), frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let bytes = write(&[vec![1, 2, 3]]);
        for length in 1..bytes.len() {
            let result = parse(&bytes[..length]);
            assert!(matches!(result, Err(FramesError::CutOff(0))), "{length}");
        }
        let long = [0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(
            parse(&long),
            Err(FramesError::TooLong(0, 0x7fff_ffff))
        ));
    }
}
