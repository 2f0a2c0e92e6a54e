//! ELF64 payloads, as bytes that nobody vouches for.
//!
//! Owns: which files are accepted, and what goes where in guest memory.
//! Refuses: reading files. Every number in a header is checked against the
//! file and against guest memory before it is used.

use object::{
    Endianness,
    elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_X, PT_INTERP, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use super::layout::Ram;

/// First bytes of an ELF file.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Program headers a payload may have; linkers make four to ten.
const SEGMENTS_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ImageError {
    #[error("it is no ELF file")]
    NotElf,
    #[error("it is not a 64-bit ELF file")]
    NotElf64,
    #[error("it is made for a big-endian machine")]
    BigEndian,
    #[error("it is made for ELF machine {0}, not for x86-64 (62)")]
    Machine(u16),
    #[error("its ELF type is {0}, not an executable at fixed addresses (2)")]
    Type(u16),
    #[error("it wants a dynamic linker")]
    Dynamic,
    #[error("it is truncated or damaged: {0}")]
    Damaged(&'static str),
    #[error("it has {0} segments, at most {SEGMENTS_MAX} are accepted")]
    Segments(usize),
    #[error("it has nothing to load")]
    Empty,
    #[error(
        "its segment of {bytes} bytes at {address:#x} does not fit into guest memory of {memory} bytes; payloads begin at 0x100000"
    )]
    Outside {
        address: u64,
        bytes: u64,
        memory: u64,
    },
    #[error("its entry point {0:#x} is not in a segment with code")]
    Entry(u64),
}

/// A payload that fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image<'a> {
    pub(super) entry: u64,
    pub(super) segments: Vec<Segment<'a>>,
    /// Where the highest segment ends in memory.
    pub(super) end: u64,
}

/// What is copied to guest memory; what follows it there is zero.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) address: u64,
    pub(super) bytes: &'a [u8],
}

pub(super) fn parse(file: &[u8], ram: Ram) -> Result<Image<'_>, ImageError> {
    let header = header(file)?;
    let endian = Endianness::Little;
    let headers = header
        .program_headers(endian, file)
        .map_err(|_| ImageError::Damaged("its program headers are beyond its end"))?;
    if headers.len() > SEGMENTS_MAX {
        return Err(ImageError::Segments(headers.len()));
    }
    if headers.iter().any(|h| h.p_type(endian) == PT_INTERP) {
        return Err(ImageError::Dynamic);
    }
    let entry = header.e_entry(endian);
    let mut segments = Vec::new();
    let mut has_entry = false;
    let mut end = 0;
    for header in headers {
        let (address, bytes) = (header.p_paddr(endian), header.p_memsz(endian));
        if header.p_type(endian) != PT_LOAD || bytes == 0 {
            continue;
        }
        if header.p_filesz(endian) > bytes {
            return Err(ImageError::Damaged(
                "a segment is larger in the file than in memory",
            ));
        }
        if !ram.is_for_payload(address, bytes) {
            return Err(ImageError::Outside {
                address,
                bytes,
                memory: ram.bytes(),
            });
        }
        let content = header
            .data(endian, file)
            .map_err(|()| ImageError::Damaged("a segment is beyond its end"))?;
        // Inside RAM, so the sums do not overflow.
        end = end.max(address + bytes);
        let holds_entry = (address..address + bytes).contains(&entry);
        has_entry |= holds_entry && header.p_flags(endian) & PF_X != 0;
        segments.push(Segment {
            address,
            bytes: content,
        });
    }
    match (segments.is_empty(), has_entry) {
        (true, _) => Err(ImageError::Empty),
        (false, false) => Err(ImageError::Entry(entry)),
        (false, true) => Ok(Image {
            entry,
            segments,
            end,
        }),
    }
}

/// Whether it has the note with which kernels tell hypervisors where to enter
/// them (PVH: owner "Xen", type 18).
pub(super) fn is_kernel(file: &[u8]) -> bool {
    const OWNER: &[u8] = b"Xen";
    const PHYSICAL_ENTRY: u32 = 18;
    let endian = Endianness::Little;
    let headers = header(file).and_then(|header| {
        let headers = header.program_headers(endian, file);
        headers.map_err(|_| ImageError::Damaged("its program headers are beyond its end"))
    });
    let headers = headers.unwrap_or_default().iter().take(SEGMENTS_MAX);
    let mut notes = headers.filter_map(|header| header.notes(endian, file).ok().flatten());
    notes.any(|notes| {
        let mut notes = notes.map_while(Result::ok);
        notes.any(|note| note.name() == OWNER && note.n_type(endian) == PHYSICAL_ENTRY)
    })
}

fn header(file: &[u8]) -> Result<&FileHeader64<Endianness>, ImageError> {
    const CLASS: usize = 4;
    const DATA: usize = 5;
    const CLASS_64: u8 = 2;
    const DATA_BIG: u8 = 2;
    if !file.starts_with(MAGIC) {
        return Err(ImageError::NotElf);
    }
    match (file.get(CLASS), file.get(DATA)) {
        (Some(&class), _) if class != CLASS_64 => return Err(ImageError::NotElf64),
        (_, Some(&DATA_BIG)) => return Err(ImageError::BigEndian),
        _ => {}
    }
    let header = FileHeader64::<Endianness>::parse(file)
        .map_err(|_| ImageError::Damaged("its header is incomplete"))?;
    let endian = Endianness::Little;
    match (header.e_machine(endian), header.e_type(endian)) {
        (EM_X86_64, ET_EXEC) => Ok(header),
        (EM_X86_64, other) => Err(ImageError::Type(other)),
        (other, _) => Err(ImageError::Machine(other)),
    }
}

#[cfg(test)]
mod tests;
