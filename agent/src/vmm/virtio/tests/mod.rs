mod block;
mod hostile;
mod registers;
pub(in crate::vmm) mod rig;
mod state;
