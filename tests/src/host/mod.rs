//! The hypervisor host, ghostd on it, and how to talk to both.

mod api;
pub mod bpf;
mod cgroup;
mod config;
mod daemon;
pub mod http;
mod microvms;
pub mod nft;
mod rigged;
mod stage;
mod world;

pub use api::{Api, EventStream};
pub use cgroup::Cgroup;
pub use config::{CONFIG_PATH, Config, INSTANCE, PortLine, RouteLine, SOCKET_PATH};
pub use daemon::{Daemon, Exit, binary, ghostctl, ghostctl_binary, ghostd_binary};
pub use microvms::{Hosted, Traces, VM};
pub use rigged::Rigged;
pub use stage::{LIMIT, Stage};
pub use world::World;
