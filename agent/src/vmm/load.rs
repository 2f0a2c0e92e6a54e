//! The files that a guest begins with, from open files to its memory.

use std::io::{self, Read as _};

use super::{
    clock::{self, Generation},
    error::VmmError,
    layout::Ram,
    linux::Initrd,
    memory::Memory,
    open::Source,
    system::{System, Told},
};

/// The file's bytes, unless it is larger than the memory it is for.
pub(super) fn image(source: &Source, ram: Ram) -> Result<Vec<u8>, VmmError> {
    let Source { name, file } = source;
    let memory = ram.bytes();
    let mut bytes = Vec::new();
    // One more tells that there is more; a device or a pipe has no length.
    file.take(memory + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| VmmError::ReadImage(name.clone(), e))?;
    if bytes.len() as u64 > memory {
        let known = file.metadata().map_or(0, |meta| meta.len());
        return Err(VmmError::ImageSize {
            path: name.clone(),
            bytes: known.max(bytes.len() as u64),
            memory,
        });
    }
    Ok(bytes)
}

/// A copy of another's memory, or new memory with the image in it.
pub(super) fn memory(
    copy: Option<Source>,
    system: &System<'_>,
    ram: Ram,
) -> Result<Memory, VmmError> {
    let memory = match copy {
        Some(source) => Memory::copy_of(source, ram)?,
        None => Memory::new(ram)?,
    };
    for segment in system.segments() {
        memory.begin_with(segment.address, segment.bytes)?;
    }
    Ok(memory)
}

/// What the guest finds beside its image, and who it is.
pub(super) fn pages(memory: &Memory, system: &System<'_>, told: &Told<'_>) -> Result<(), VmmError> {
    for (address, bytes) in system.pages(told).map_err(VmmError::KernelLine)? {
        memory.begin_with(address, &bytes)?;
    }
    if memory.is_copy() {
        return Ok(());
    }
    clock::tell(memory, Generation::fresh()?)
}

/// Straight from the file to where the kernel will look for it.
pub(super) fn initrd(
    source: Source,
    system: &System<'_>,
    ram: Ram,
    memory: &Memory,
) -> Result<Initrd, VmmError> {
    let Source { name, mut file } = source;
    let System::Linux(kernel) = system else {
        return Err(VmmError::NoInitrd(name));
    };
    let bytes = match file.metadata() {
        Ok(meta) if meta.is_file() => meta.len(),
        Ok(_) => {
            return Err(VmmError::ReadInitrd(
                name,
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        Err(error) => return Err(VmmError::ReadInitrd(name, error)),
    };
    let place = match Initrd::place(bytes, kernel, ram) {
        Ok(place) => place,
        Err(error) => return Err(VmmError::Initrd(name, error)),
    };
    if memory.is_copy() {
        return Ok(place);
    }
    match memory.fill(place.address, &mut file, bytes) {
        Ok(()) => Ok(place),
        Err(error) => Err(VmmError::ReadInitrd(name, error)),
    }
}
