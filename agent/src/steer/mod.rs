//! (room to be filled)

pub mod object;
