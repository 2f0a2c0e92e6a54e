//! What an operator wants a microVM to be.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_common::abi::Side;

use super::{InstanceName, Protocol};

/// An Ethernet address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address and how many leading bits its network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub addr: IpAddr,
    pub prefix: u8,
}

/// Where what belongs to another copy is: beside the primary's, as in
/// `db1.img.ghost`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// One of the two copies of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyId {
    pub instance: InstanceName,
    pub side: Side,
}

impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Primary => "primary",
            Side::Ghost => "ghost",
        };
        write!(f, "the {side} of {}", self.instance)
    }
}

/// A microVM: both copies of an instance are made by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// An ELF64 payload, or a Linux kernel.
    pub image: PathBuf,
    /// For a Linux kernel.
    pub initrd: Option<PathBuf>,
    pub command_line: String,
    pub memory_mib: u64,
    /// 1 to 8.
    pub vcpus: u8,
    /// The primary's disk, a raw file. A ghost has its own copy beside it.
    pub disk: Option<PathBuf>,
    /// Of both copies.
    pub mac: Option<MacAddress>,
    /// The host's own addresses on the primary's interface, such as the
    /// guest's gateway.
    pub host_addresses: Vec<Network>,
    /// What a drill asks.
    pub health: Option<Health>,
}

/// A question whose answer shows that a guest does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// One of the guest's own addresses.
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    /// What is sent; may be empty for TCP, where the connection is the answer.
    pub send: Vec<u8>,
    /// What the answer begins with.
    pub expect: Vec<u8>,
    pub limit: Duration,
}
