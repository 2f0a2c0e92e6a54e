//! The files that a guest begins with, from open files to its memory.

use std::io::{self, Read as _};

use super::{
    error::VmmError, layout::Ram, linux::Initrd, memory::Memory, open::Source, system::System,
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
    match memory.fill(place.address, &mut file, bytes) {
        Ok(()) => Ok(place),
        Err(error) => Err(VmmError::ReadInitrd(name, error)),
    }
}
