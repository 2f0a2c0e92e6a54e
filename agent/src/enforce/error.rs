//! What can go wrong between a limit and the kernel.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make sense of {}: {what}", path.display())]
    Parse { path: PathBuf, what: String },
    #[error("cannot write `{value}` to {}", path.display())]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("cannot keep the journal {}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("cannot pace a socket to {bandwidth} bytes a second")]
    Pace { bandwidth: u64, source: io::Error },
}
