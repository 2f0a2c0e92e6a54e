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
}
