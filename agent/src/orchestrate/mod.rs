//! Decides and drives: what operators and the kernel say becomes effects.
//!
//! Owns: the command vocabulary ([`command`]), the event log ([`event`]), the
//! pure plan from wanted to real, and the one driver that carries plans out.

pub mod agenda;
pub mod command;
pub mod complaints;
pub mod drain;
pub mod driver;
pub mod event;
pub mod limits;
pub mod motion;
pub mod plan;
pub mod vms;
pub mod wanted;
