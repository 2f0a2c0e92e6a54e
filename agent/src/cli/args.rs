//! The command line.

use std::{path::PathBuf, str::FromStr};

use agent_common::abi::names::PIN_ROOT;
use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    control::SOCKET_PATH,
    model::{IdError, InstanceName, Risk, RiskError},
};

/// Look at and drive ghostd on this host.
///
/// Exit status: 0 healthy or done, 1 degraded or refused, 2 wrong usage,
/// 3 no daemon answers (what is shown was then read from the pinned maps).
#[derive(Debug, Parser)]
#[command(name = "ghostctl", version, propagate_version = true)]
pub struct Args {
    /// Socket of the daemon
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,

    /// Where ghostd's maps and links are pinned
    #[arg(long, global = true, value_name = "DIR", default_value = PIN_ROOT)]
    pub pins: PathBuf,

    /// How to print what a person would read as a table
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: Output,

    /// Colour: `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Host, uplinks, instances and findings on one screen
    Status {
        /// One line
        #[arg(long)]
        brief: bool,
    },
    /// Routes with their counters
    Routes {
        /// Only routes of this instance
        instance: Option<InstanceName>,
    },
    /// Show or move switches
    #[command(subcommand)]
    Switch(Switch),
    /// Instances that this host runs itself
    #[command(subcommand)]
    Instance(Instance),
    /// Ghosts of instances that this host runs itself
    #[command(subcommand)]
    Ghost(Ghost),
    /// What happened, one line an event
    Events {
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
        /// Only events with a greater sequence number
        #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
        since: u64,
    },
    /// Look for trouble, and say what mends it
    Doctor,
    /// Remove pins and links without the daemon: ends all steering
    Clean {
        /// Also while a daemon runs
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Which ghosts get what of the reserve, and what was refused and why
    Plan {
        /// Also show what would change if an instance had this risk; nothing changes by it
        #[arg(long, value_name = "NAME=RISK")]
        risk: Vec<SupposedRisk>,
    },
    /// Have the daemon read its configuration again
    Reload,
    /// Write completions for a shell to standard output
    Completions { shell: Shell },
    /// Write man pages: all of them to a folder, or the first to standard output
    Man { folder: Option<PathBuf> },
}

#[derive(Debug, Subcommand)]
pub enum Instance {
    /// Start the primary from its image
    Create { instance: InstanceName },
    /// How the copies of all instances are
    List,
    /// How the copies of one instance are, and why
    Show { instance: InstanceName },
    /// Let no processor of the primary run
    Pause { instance: InstanceName },
    /// Let a paused primary go on
    Resume { instance: InstanceName },
    /// End the primary and start it from its image; its ghost goes
    Reset { instance: InstanceName },
    /// End both copies; nothing of them is left
    Destroy { instance: InstanceName },
    /// What the guest wrote to its console
    Console {
        instance: InstanceName,
        /// The ghost's console
        #[arg(long)]
        ghost: bool,
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Ghost {
    /// Make a suspended ghost of the primary, or bring it up to date
    Prepare { instance: InstanceName },
    /// Let the ghost take over, with the traffic
    Activate { instance: InstanceName },
    /// Bring the ghost's work back to the primary, and suspend it
    Suspend { instance: InstanceName },
    /// End the ghost; nothing of it is left
    Destroy { instance: InstanceName },
    /// Try the ghost out, cut off from the network; it stays as it is
    Drill { instance: InstanceName },
}

#[derive(Debug, Subcommand)]
pub enum Switch {
    /// Where switches point, and why
    Show {
        /// Only the switch of this instance
        #[arg(conflicts_with = "host")]
        instance: Option<InstanceName>,
        /// Only the host switch
        #[arg(long)]
        host: bool,
    },
    /// Point at the ghost
    Throw(Whose),
    /// Point at the primary at once
    Restore(Whose),
    /// Point at the primary; connections of the ghost stay until they end
    Drain(One),
    /// Let the kernel throw the switch by itself
    Arm(One),
    /// Do not let the kernel throw the switch by itself
    Disarm(One),
}

#[derive(Debug, Group)]
pub struct Whose {
    #[command(flatten)]
    pub subject: Subject,
    #[command(flatten)]
    pub way: Way,
}

#[derive(Debug, Group)]
#[group(required = true, multiple = false)]
pub struct Subject {
    pub instance: Option<InstanceName>,
    /// The host switch: all armed instances
    #[arg(long)]
    pub host: bool,
}

#[derive(Debug, Group)]
pub struct One {
    pub instance: InstanceName,
    #[command(flatten)]
    pub way: Way,
}

#[derive(Debug, Group)]
pub struct Way {
    /// Store to the pinned switch without the daemon; refused while one answers within 3 seconds
    #[arg(long)]
    pub offline: bool,
}

/// A risk that an instance is supposed to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupposedRisk {
    pub instance: InstanceName,
    pub risk: Risk,
}

impl FromStr for SupposedRisk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((instance, risk)) = text.split_once('=') else {
            return Err("write it as NAME=RISK, such as web1=0.4".to_owned());
        };
        Ok(Self {
            instance: instance.parse().map_err(|e: IdError| e.to_string())?,
            risk: risk.parse().map_err(|e: RiskError| e.to_string())?,
        })
    }
}
