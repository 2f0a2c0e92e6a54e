//! Instances that this host runs itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    model::{GhostState, InstanceName, NotInForce, PrimaryState},
    orchestrate::vms::{Verdict, VmDone, VmView},
};

/// One of an instance's two copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyDto {
    /// Primary: absent, running, paused, standby, ended, failed. Ghost: absent, preparing,
    /// suspended, activating, active, returning, destroyed, failed.
    pub state: String,
    /// The cut of the primary that a ghost holds, or began with; 0 is its image.
    pub epoch: Option<u64>,
    /// Why it ended or failed.
    pub reason: Option<String>,
    /// Process that runs it.
    pub pid: Option<u32>,
    /// Limits that this host does not enforce.
    pub not_in_force: Vec<NotInForceDto>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotInForceDto {
    /// File of cgroup v2.
    pub limit: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDto {
    pub name: String,
    pub primary: CopyDto,
    pub ghost: CopyDto,
    pub memory_mib: u64,
    pub vcpus: u8,
    /// Empty for one that is not configured any more.
    pub image: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmsDto {
    /// Sorted by name.
    pub instances: Vec<VmDto>,
}

/// What a drill found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictDto {
    pub is_healthy: bool,
    pub what: String,
    /// From the activation until the answer.
    pub answered_us: Option<u64>,
}

/// What an order did. Times are in microseconds; null is what did not occur.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDoneDto {
    pub took_us: u64,
    /// How long the copy that worked stood still.
    pub pause_us: Option<u64>,
    /// From the order to run until all vCPUs were let in.
    pub activate_us: Option<u64>,
    /// Pages that went over while the copy ran.
    pub pages: Option<u64>,
    /// Pages that went over while it stood still.
    pub pages_paused: Option<u64>,
    pub verdict: Option<VerdictDto>,
    /// How the instance is now.
    pub instance: VmDto,
}

fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl VmDto {
    pub fn of(name: &InstanceName, view: &VmView) -> Self {
        let VmView {
            primary,
            ghost,
            primary_pid,
            ghost_pid,
            memory_mib,
            vcpus,
            image,
            primary_not_in_force,
            ghost_not_in_force,
        } = view;
        Self {
            name: name.to_string(),
            primary: CopyDto::of_primary(primary, *primary_pid, primary_not_in_force),
            ghost: CopyDto::of_ghost(ghost, *ghost_pid, ghost_not_in_force),
            memory_mib: *memory_mib,
            vcpus: *vcpus,
            image: image.clone(),
        }
    }
}

impl CopyDto {
    fn of_primary(state: &PrimaryState, pid: Option<u32>, lacking: &[NotInForce]) -> Self {
        Self {
            state: state.name().to_owned(),
            epoch: None,
            reason: state.reason(),
            pid,
            not_in_force: lacking.iter().map(NotInForceDto::from).collect(),
        }
    }

    fn of_ghost(state: &GhostState, pid: Option<u32>, lacking: &[NotInForce]) -> Self {
        Self {
            state: state.name().to_owned(),
            epoch: state.epoch(),
            reason: state.reason(),
            pid,
            not_in_force: lacking.iter().map(NotInForceDto::from).collect(),
        }
    }
}

impl From<&NotInForce> for NotInForceDto {
    fn from(lacking: &NotInForce) -> Self {
        Self {
            limit: lacking.file.to_owned(),
            why: lacking.why.clone(),
        }
    }
}

impl VmsDto {
    pub fn of(all: &[(InstanceName, VmView)]) -> Self {
        let instances = all.iter().map(|(name, view)| VmDto::of(name, view));
        Self {
            instances: instances.collect(),
        }
    }
}

impl VmDoneDto {
    pub fn of(done: VmDone, instance: VmDto) -> Self {
        let VmDone {
            took,
            pause,
            activate,
            pages,
            pages_paused,
            verdict,
        } = done;
        Self {
            took_us: whole_us(took),
            pause_us: pause.map(whole_us),
            activate_us: activate.map(whole_us),
            pages,
            pages_paused,
            verdict: verdict.map(VerdictDto::from),
            instance,
        }
    }
}

impl From<Verdict> for VerdictDto {
    fn from(verdict: Verdict) -> Self {
        let Verdict {
            is_healthy,
            what,
            answered,
        } = verdict;
        Self {
            is_healthy,
            what,
            answered_us: answered.map(whole_us),
        }
    }
}
