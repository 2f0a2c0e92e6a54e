//! Saved state in a file: a sealed memfd on its way out, whatever comes in.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use super::{
    error::StateError,
    fit::{self, Here},
    header::{BODY_BYTES_MAX, HEADER_BYTES, bounded},
    wire::Saved,
};

/// A memfd that nobody can change any more, and its bytes.
pub(in crate::vmm) fn write(saved: &Saved) -> Result<(OwnedFd, u64), StateError> {
    let bytes = saved.encode()?;
    let failed = |source| StateError::File {
        what: "write",
        source,
    };
    let fd = sealed(c"ghost-state", &[&bytes]).map_err(failed)?;
    Ok((fd, bytes.len() as u64))
}

/// A memfd of these bytes, one part after the other.
pub(in crate::vmm) fn sealed(name: &std::ffi::CStr, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    for part in parts {
        file.write_all(part)?;
    }
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
}

/// A state that fits. Nothing has been changed by then.
pub(in crate::vmm) fn read(fd: OwnedFd, here: &Here) -> Result<Saved, StateError> {
    let failed = |source| StateError::File {
        what: "read",
        source,
    };
    let mut file = File::from(fd);
    let meta = file.metadata().map_err(failed)?;
    // Anything else could make us wait.
    if !meta.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    bounded(meta.len().saturating_sub(HEADER_BYTES as u64))?;
    io::Seek::rewind(&mut file).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(BODY_BYTES_MAX + HEADER_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let saved = Saved::decode(&bytes)?;
    fit::check(&saved, here)?;
    Ok(saved)
}
