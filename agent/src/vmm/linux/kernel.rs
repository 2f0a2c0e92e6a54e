//! Kernels, as bytes that nobody vouches for: bzImages and ELF files.
//!
//! Numbers are those of the setup header, Documentation/arch/x86/boot.rst.

use super::error::KernelError;
use crate::vmm::{
    image::{self, Segment},
    layout::Ram,
};

/// Where the setup header is, in a bzImage and in the zero page.
pub(super) const HEADER: usize = 0x1f1;
const SECTORS: usize = 0x1f1;
const PARAGRAPHS: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const JUMP: usize = 0x201;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const LOAD_FLAGS: usize = 0x211;
const INITRD_END_MAX: usize = 0x22c;
const FLAGS_64: usize = 0x236;
const LINE_BYTES_MAX: usize = 0x238;
const PREFERRED: usize = 0x258;
const INIT_BYTES: usize = 0x260;

const BOOT_MAGIC: u16 = 0xaa55;
const HEADER_MAGIC: &[u8] = b"HdrS";
/// The first with a 64-bit entry point.
const PROTOCOL_MIN: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const HAS_ENTRY_64: u16 = 1;
/// From the beginning of what is loaded.
const ENTRY_64: u64 = 0x200;

const SECTOR_BYTES: usize = 512;
const PARAGRAPH_BYTES: u64 = 16;

/// What a kernel without a header of its own is told with.
const LINE_BYTES_DEFAULT: usize = 2047;
const INITRD_LAST_DEFAULT: u64 = 0x7fff_ffff;

/// A kernel that fits.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::vmm) struct Kernel<'a> {
    pub(in crate::vmm) entry: u64,
    pub(in crate::vmm) segments: Vec<Segment<'a>>,
    /// Where what it uses before it knows its memory ends.
    pub(super) end: u64,
    /// Its own setup header, or one made for it, to be put at [`HEADER`].
    pub(super) header: Vec<u8>,
    /// Without the zero at its end.
    pub(super) line_bytes_max: usize,
    /// The last byte that an initrd may have.
    pub(super) initrd_last: u64,
}

/// Whether it says that it is a bzImage.
pub(in crate::vmm) fn is_bzimage(file: &[u8]) -> bool {
    u16_at(file, BOOT_FLAG) == Some(BOOT_MAGIC) && file.get(MAGIC..MAGIC + 4) == Some(HEADER_MAGIC)
}

/// Whether it is a bzImage, or an ELF file that says it is a kernel.
pub(in crate::vmm) fn is_kernel(file: &[u8]) -> bool {
    is_bzimage(file) || image::is_kernel(file)
}

pub(in crate::vmm) fn parse(file: &[u8], ram: Ram) -> Result<Kernel<'_>, KernelError> {
    if is_bzimage(file) {
        bzimage(file, ram)
    } else if file.starts_with(image::MAGIC) {
        vmlinux(file, ram)
    } else {
        Err(KernelError::Unknown)
    }
}

fn bzimage(file: &[u8], ram: Ram) -> Result<Kernel<'_>, KernelError> {
    let header = Header::of(file)?;
    let sectors = match header.byte(SECTORS)? {
        // So old that it is not said.
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR_BYTES;
    let code = file.get(start..).unwrap_or_default();
    let wants = u64::from(header.double(PARAGRAPHS)?) * PARAGRAPH_BYTES;
    // Rounded up to a paragraph.
    if code.is_empty() || (code.len() as u64) + PARAGRAPH_BYTES <= wants {
        return Err(KernelError::Truncated {
            has: file.len() as u64,
            wants: wants + start as u64,
        });
    }
    let address = header.quad(PREFERRED)?;
    let bytes = u64::from(header.double(INIT_BYTES)?).max(code.len() as u64);
    let end = fits(address, bytes, ram)?;
    Ok(Kernel {
        // It fits, so it is far from the largest number.
        entry: address + ENTRY_64,
        segments: vec![Segment {
            address,
            bytes: code,
        }],
        end,
        header: header.bytes.to_vec(),
        line_bytes_max: usize::try_from(header.double(LINE_BYTES_MAX)?).unwrap_or(usize::MAX),
        initrd_last: u64::from(header.double(INITRD_END_MAX)?),
    })
}

/// All that a kernel needs before it knows its memory lies in low RAM.
fn fits(address: u64, bytes: u64, ram: Ram) -> Result<u64, KernelError> {
    let outside = KernelError::Outside {
        address,
        bytes,
        memory: ram.low_bytes().saturating_sub(address),
    };
    match address.checked_add(bytes) {
        Some(end) if end <= ram.low_bytes() && ram.is_for_payload(address, bytes) => Ok(end),
        _ => Err(outside),
    }
}

fn vmlinux(file: &[u8], ram: Ram) -> Result<Kernel<'_>, KernelError> {
    let image = image::parse(file, ram).map_err(KernelError::Elf)?;
    if image.end > ram.low_bytes() {
        return Err(KernelError::Outside {
            address: 0,
            bytes: image.end,
            memory: ram.low_bytes(),
        });
    }
    let mut header = vec![0; MAGIC + 6 - HEADER];
    let mut put = |at: usize, bytes: &[u8]| {
        let place = header.iter_mut().skip(at - HEADER);
        place.zip(bytes).for_each(|(to, byte)| *to = *byte);
    };
    put(BOOT_FLAG, &BOOT_MAGIC.to_le_bytes());
    put(MAGIC, HEADER_MAGIC);
    put(PROTOCOL, &PROTOCOL_MIN.to_le_bytes());
    Ok(Kernel {
        entry: image.entry,
        segments: image.segments,
        end: image.end,
        header,
        line_bytes_max: LINE_BYTES_DEFAULT,
        initrd_last: INITRD_LAST_DEFAULT,
    })
}

/// A setup header that is whole, and of a kernel that can be started.
struct Header<'a> {
    file: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    fn of(file: &'a [u8]) -> Result<Self, KernelError> {
        // The header ends where the jump over it leads to.
        let end = MAGIC + usize::from(file.get(JUMP).copied().unwrap_or_default());
        let has = file.len() as u64;
        let truncated = KernelError::Truncated {
            has,
            wants: end as u64,
        };
        let bytes = file.get(HEADER..end).ok_or(truncated)?;
        let header = Self { file, bytes };
        let protocol = header.word(PROTOCOL)?;
        if protocol < PROTOCOL_MIN {
            let [minor, major] = protocol.to_le_bytes();
            return Err(KernelError::Protocol { major, minor });
        }
        if header.byte(LOAD_FLAGS)? & LOADED_HIGH == 0 {
            return Err(KernelError::Low);
        }
        if header.word(FLAGS_64)? & HAS_ENTRY_64 == 0 {
            return Err(KernelError::Not64);
        }
        Ok(header)
    }

    fn field<const N: usize>(&self, at: usize) -> Result<[u8; N], KernelError> {
        let field = self.bytes.get(at - HEADER..at - HEADER + N);
        let field = field.and_then(|bytes| bytes.try_into().ok());
        field.ok_or(KernelError::Truncated {
            has: self.file.len() as u64,
            wants: (at + N) as u64,
        })
    }

    fn byte(&self, at: usize) -> Result<u8, KernelError> {
        self.field(at).map(u8::from_le_bytes)
    }

    fn word(&self, at: usize) -> Result<u16, KernelError> {
        self.field(at).map(u16::from_le_bytes)
    }

    fn double(&self, at: usize) -> Result<u32, KernelError> {
        self.field(at).map(u32::from_le_bytes)
    }

    fn quad(&self, at: usize) -> Result<u64, KernelError> {
        self.field(at).map(u64::from_le_bytes)
    }
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    let bytes = file.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{INIT_BYTES, Kernel, KernelError, PREFERRED, PROTOCOL, parse};
    use crate::vmm::layout::Ram;

    const MIB: u64 = 1 << 20;

    /// A kernel of 64 bytes that wants 1 MiB at 16 MiB.
    fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 1024 + 64];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x1f4, &4_u32.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(0x202, b"HdrS");
        put(PROTOCOL, &[0x0f, 0x02]);
        put(0x211, &[1]);
        put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
        put(0x236, &[1, 0]);
        put(0x238, &2047_u32.to_le_bytes());
        put(PREFERRED, &(16 * MIB).to_le_bytes());
        put(INIT_BYTES, &(1_u32 << 20).to_le_bytes());
        file[1024..].fill(0xcc);
        file
    }

    fn ram(mib: u64) -> Ram {
        Ram::of_mib(mib).unwrap()
    }

    #[test]
    fn a_kernel_lies_where_it_prefers_to() {
        let file = bzimage();
        let Kernel {
            entry,
            segments,
            end,
            header,
            line_bytes_max,
            initrd_last,
        } = parse(&file, ram(32)).unwrap();
        assert_eq!(entry, 16 * MIB + 0x200);
        assert_eq!(segments.len(), 1);
        assert_eq!(segments[0].address, 16 * MIB);
        assert_eq!(segments[0].bytes, [0xcc; 64]);
        assert_eq!(end, 17 * MIB);
        assert_eq!(header, &file[0x1f1..0x26c]);
        assert_eq!((line_bytes_max, initrd_last), (2047, 0x7fff_ffff));
    }

    #[test]
    fn foreign_and_unfit_kernels_are_named() {
        let with = |at: usize, bytes: &[u8]| {
            let mut file = bzimage();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            parse(&file, ram(32)).unwrap_err().to_string()
        };
        assert_eq!(
            with(PROTOCOL, &[0x0b, 0x02]),
            "it is a Linux kernel of boot protocol 2.11; 2.12 or later is needed"
        );
        assert!(with(0x236, &[0]).contains("64-bit"));
        assert!(with(0x211, &[0]).contains("low memory"));
        assert!(with(0x1f4, &[6]).contains("truncated"));
        assert!(with(PREFERRED, &[0xff; 8]).contains("needs 1048576 bytes"));
        assert!(with(PREFERRED, &[0; 8]).contains("at 0x0"));
        assert_eq!(parse(b"#!/bin/sh", ram(32)), Err(KernelError::Unknown));
        let small = parse(&bzimage(), ram(16)).unwrap_err().to_string();
        assert!(small.ends_with("guest memory has 0 bytes there"), "{small}");
    }

    #[test]
    fn a_kernel_is_refused_wherever_it_is_cut() {
        let file = bzimage();
        for length in 0x206..file.len() - 15 {
            let error = parse(&file[..length], ram(32)).unwrap_err();
            assert!(
                matches!(error, KernelError::Truncated { .. }),
                "{length}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(
            changes in prop::collection::vec((0x1f0_usize..0x270, any::<u8>()), 0..20),
            length in 0_usize..1100
        ) {
            let mut file = bzimage();
            for (at, byte) in changes {
                file[at] = byte;
            }
            file.truncate(length);
            if let Ok(kernel) = parse(&file, ram(64)) {
                prop_assert!(kernel.end <= 64 * MIB);
                prop_assert!(kernel.segments.iter().all(|s| s.address >= MIB));
            }
        }
    }
}
