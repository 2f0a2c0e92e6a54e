//! The machine against its table, and against a world that keeps count.

mod matrix;
mod world;
