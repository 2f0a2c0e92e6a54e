//! One word of a map in memory, swapped as ghostd swaps it.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use aya::maps::MapData;

use crate::bench::mapping::Mapping;

/// The kernel maps whole pages; the word is at the start of the first.
const BYTES: usize = 8;

/// Its first word is that of the first element.
pub(super) fn mapped(map: &MapData) -> Result<Mapping> {
    // Elements of a map are never freed while it is open.
    Mapping::new(map.fd(), BYTES).context("map the switches into memory")
}

/// Compares and swaps the word for what it is: the store of a throw, and
/// nothing moves.
pub(super) fn swap_for_itself(word: &AtomicU64) -> bool {
    let old = word.load(Ordering::SeqCst);
    word.compare_exchange(old, old, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
}
