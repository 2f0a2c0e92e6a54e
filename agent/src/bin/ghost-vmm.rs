//! ghost-vmm: see `ghostd::vmm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostd::vmm::main()
}
