//! The kernel as reference.
