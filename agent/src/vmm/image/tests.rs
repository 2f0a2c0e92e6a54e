use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, PF_R, PF_X, PT_INTERP, PT_LOAD};
use proptest::prelude::*;

use super::{ImageError, parse};
use crate::vmm::layout::Ram;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;

/// A payload of one segment, made byte by byte.
struct Elf {
    class: u8,
    data: u8,
    machine: u16,
    kind: u16,
    entry: u64,
    segment_type: u32,
    flags: u32,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    content: Vec<u8>,
}

fn good() -> Elf {
    Elf {
        class: 2,
        data: 1,
        machine: EM_X86_64,
        kind: ET_EXEC,
        entry: 0x10_0010,
        segment_type: PT_LOAD,
        flags: PF_R | PF_X,
        address: 0x10_0000,
        file_bytes: 32,
        memory_bytes: 64,
        content: (0..32).collect(),
    }
}

impl Elf {
    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, self.data, 1];
        file.resize(16, 0);
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend((HEADER_BYTES as u64).to_le_bytes());
        file.extend([0; 12]);
        for half in [HEADER_BYTES, SEGMENT_BYTES, 1, 0, 0, 0] {
            file.extend(u16::try_from(half).unwrap().to_le_bytes());
        }
        file.extend(self.segment_type.to_le_bytes());
        file.extend(self.flags.to_le_bytes());
        let offset = (HEADER_BYTES + SEGMENT_BYTES) as u64;
        let words = [
            offset,
            self.address,
            self.address,
            self.file_bytes,
            self.memory_bytes,
            4096,
        ];
        for word in words {
            file.extend(word.to_le_bytes());
        }
        file.extend(&self.content);
        file
    }

    fn refusal(&self) -> ImageError {
        parse(&self.bytes(), ram()).unwrap_err()
    }
}

fn ram() -> Ram {
    Ram::of_mib(4).unwrap()
}

#[test]
fn a_good_payload_is_taken_as_it_is() {
    let file = good().bytes();
    let image = parse(&file, ram()).unwrap();
    assert_eq!(image.entry, 0x10_0010);
    assert_eq!(image.segments[0].address, 0x10_0000);
    assert_eq!(image.segments[0].bytes, good().content);
}

#[test]
fn foreign_files_are_named_for_what_they_are() {
    assert_eq!(parse(b"#!/bin/sh\n", ram()), Err(ImageError::NotElf));
    assert_eq!(parse(b"", ram()), Err(ImageError::NotElf));
    let foreign: [(Elf, ImageError); 5] = [
        (Elf { class: 1, ..good() }, ImageError::NotElf64),
        (Elf { data: 2, ..good() }, ImageError::BigEndian),
        (
            Elf {
                machine: EM_AARCH64,
                ..good()
            },
            ImageError::Machine(EM_AARCH64),
        ),
        (
            Elf {
                kind: ET_DYN,
                ..good()
            },
            ImageError::Type(ET_DYN),
        ),
        (
            Elf {
                segment_type: PT_INTERP,
                ..good()
            },
            ImageError::Dynamic,
        ),
    ];
    for (elf, error) in foreign {
        assert_eq!(elf.refusal(), error);
    }
}

#[test]
fn segments_stay_inside_the_payloads_memory() {
    for (address, memory_bytes) in [
        (0, 64),
        (0xf_ffff, 64),
        ((4 << 20) - 63, 64),
        (0x10_0000, 4 << 20),
        (u64::MAX - 31, 64),
        (0x10_0000, u64::MAX),
    ] {
        let elf = Elf {
            address,
            memory_bytes,
            ..good()
        };
        let refusal = elf.refusal();
        assert!(
            matches!(refusal, ImageError::Outside { .. }),
            "{address:#x}: {refusal}"
        );
    }
}

#[test]
fn entries_need_code_and_files_need_their_segments() {
    for entry in [0, 0x10_0040, u64::MAX] {
        assert_eq!(Elf { entry, ..good() }.refusal(), ImageError::Entry(entry));
    }
    let data = Elf {
        flags: PF_R,
        ..good()
    };
    assert_eq!(data.refusal(), ImageError::Entry(0x10_0010));
    let empty = Elf {
        memory_bytes: 0,
        file_bytes: 0,
        ..good()
    };
    assert_eq!(empty.refusal(), ImageError::Empty);
    let inverse = Elf {
        memory_bytes: 31,
        ..good()
    };
    assert!(matches!(inverse.refusal(), ImageError::Damaged(_)));
}

#[test]
fn every_truncation_is_refused() {
    let file = good().bytes();
    for length in 0..file.len() {
        assert!(parse(&file[..length], ram()).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn damaged_headers_never_panic_nor_reach_outside(
        changes in prop::collection::vec((0..HEADER_BYTES + SEGMENT_BYTES, any::<u8>()), 1..12)
    ) {
        let mut file = good().bytes();
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(image) = parse(&file, ram()) {
            for segment in image.segments {
                prop_assert!(ram().is_for_payload(segment.address, segment.bytes.len() as u64));
            }
        }
    }
}
