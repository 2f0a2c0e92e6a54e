//! The command line of ghostd.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Steers the traffic of microVMs to their ghosts when they reboot.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load, attach and steer until told to stop. Steering outlives the daemon.
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
        /// Where maps, programs and links are pinned, instead of what the configuration says.
        #[arg(long, value_name = "DIR")]
        pins: Option<PathBuf>,
    },
    /// Say whether a configuration is good, and open nothing.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
        config: PathBuf,
    },
}

/// Where the configuration is unless told otherwise.
const CONFIG_PATH: &str = "/etc/ghostd/ghostd.toml";
