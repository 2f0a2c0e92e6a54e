//! A machine: a process that is PID 1 of its own PID, mount, host name and IPC
//! namespaces, and can therefore really call `reboot(2)`.
//!
//! Two processes of `gdt-machine` make one: the *keeper*, outside, makes the
//! namespaces and waits; *init*, inside, mounts what a system expects, serves,
//! and takes orders on its standard input. When that closes, for whatever
//! reason, init exits and the kernel ends everything inside.

mod handle;
mod init;
mod keeper;
mod protocol;
mod reboot;
mod serve;

pub use handle::{Ending, Machine, machine_binary};
pub use protocol::{HTTP_PORT, How, MachineSpec, Side, TCP_PORT, UDP_PORT, Who};
pub(crate) use serve::{DATAGRAM_BYTES, Datagram, hold_much};

/// The whole of `gdt-machine`.
pub fn run_binary() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["keeper", spec] => keeper::run(spec),
        ["init", spec] => init::run(spec),
        ["reboot", how, parent_pidns] => reboot::run(how, parent_pidns),
        _ => anyhow::bail!("started by the test harness only"),
    }
}
