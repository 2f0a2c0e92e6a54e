//! What can only be shown on another kernel than the host's, in a VM.

mod enforce;
mod linux;
mod smoke;
