//! The built BPF object under `BPF_PROG_TEST_RUN`: every verdict and every
//! give-up, byte for byte, and frames cut at every length.
//!
//! Expected frames are built from nothing, with checksums computed in full.

mod cut;
mod errors;
mod fence;
mod flows;
mod fragments;
mod hops;
mod jumbo;
mod lab;
mod malformed;
mod object;
mod options;
mod packet;
mod place;
mod rows;
mod samples;
mod switches;
mod toobig;
mod via;
mod ways;
