mod block;
mod registers;
pub(in crate::vmm) mod rig;
mod state;
