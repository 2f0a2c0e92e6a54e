//! `gdt-machine`: keeper or init of a test machine; started by the harness.

fn main() -> anyhow::Result<()> {
    ghostd_tests::machine::run_binary()
}
