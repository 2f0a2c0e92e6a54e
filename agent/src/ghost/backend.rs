//! What the ghost manager asks of a hypervisor.
//!
//! One implementation ships: `embedded`, which runs `ghost-vmm`. What others
//! would need here, none of which is written:
//!
//! - **Firecracker**: `create` by its API socket; `cut` by a diff snapshot,
//!   whose memory file is sparse; `apply` has no equal in a running process,
//!   so it would keep the files and `activate` would load them, in 3-4 ms.
//!   Its own device writes are in its log.
//! - **Cloud Hypervisor**: snapshots to a folder and restores into a new
//!   process, the same way; `wake` is its event monitor's pipe.
//! - **QEMU**: `migrate` into `-incoming` with `x-ignore-shared` on a shared
//!   memory file gives the state alone; dirty pages by `calc-dirty-rate` are
//!   only counted, so `cut` needs a migration stream that is read here.

use std::{
    fmt,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_common::abi::Side;

use super::{
    error::GhostError,
    life::{Extent, FoundVm, Mark},
};
use crate::{
    model::{CopyId, GuestEnd, VmSpec},
    orchestrate::vms::Verdict,
};

/// How a new copy begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It runs its image.
    Running,
    /// Its image is loaded, and no vCPU runs.
    Suspended,
    /// As suspended; a whole cut of the other copy will follow.
    Blank,
}

/// A copy that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct CopyPlan {
    pub(crate) id: CopyId,
    pub(crate) vm: VmSpec,
    /// The host's end of its interface; it comes and goes with the copy.
    pub(crate) interface: Option<String>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) begin: Begin,
}

/// How much of a cut went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    pub(crate) pages: u64,
    pub(crate) blocks: u64,
}

/// A copy of an earlier daemon. What is left of a dead one is a copy too, so
/// that it can be destroyed.
pub(crate) struct Adopted<C> {
    pub(crate) id: CopyId,
    pub(crate) copy: C,
    pub(crate) vm: FoundVm,
    pub(crate) mark: Mark,
    /// That it has ended, and how.
    pub(crate) end: Option<GuestEnd>,
}

/// A hypervisor. Calls block; they are made on a thread of the instance's own.
///
/// A copy is whatever the backend needs to find it again. Dropping it leaves
/// the microVM alone: copies outlive the daemon.
pub(crate) trait GhostBackend: Send + Sync + 'static {
    type Copy: Send + fmt::Debug;
    /// Where a cut is gathered before it is applied.
    type Stage: Send;

    /// Makes a copy, or leaves nothing behind.
    fn create(&self, plan: &CopyPlan) -> Result<Self::Copy, GhostError>;
    /// Copies of an earlier daemon.
    fn adopt(&self) -> Vec<Adopted<Self::Copy>>;
    /// Notes something beside the copy, for a daemon that comes after.
    fn note(&self, copy: &mut Self::Copy, mark: Mark) -> Result<(), GhostError>;
    fn mark(&self, copy: &Self::Copy) -> Mark;
    /// Where its console's output is.
    fn console(&self, id: &CopyId) -> PathBuf;
    fn pid(&self, copy: &Self::Copy) -> Option<u32>;
    /// Its cgroup v2 folder, if it has one.
    fn cgroup<'c>(&self, copy: &'c Self::Copy) -> Option<&'c Path>;
    /// Readable when there may be news.
    fn wake<'c>(&self, copy: &'c Self::Copy) -> Option<BorrowedFd<'c>>;
    /// What it did by itself, if anything; never waits.
    fn news(&self, copy: &mut Self::Copy) -> Option<GuestEnd>;
    /// Gives how long it took until the last vCPU stood still.
    fn pause(&self, copy: &mut Self::Copy) -> Result<Duration, GhostError>;
    fn resume(&self, copy: &mut Self::Copy) -> Result<(), GhostError>;
    /// Begins a cut that is meant for `to`. A whole one goes there at once.
    fn begin(&self, to: &mut Self::Copy, extent: Extent) -> Result<Self::Stage, GhostError>;
    /// Takes what there is, of a copy that may run.
    fn gather(&self, from: &mut Self::Copy, stage: &mut Self::Stage) -> Result<Taken, GhostError>;
    /// Takes the rest, and the state, of a copy that is paused.
    fn cut(&self, from: &mut Self::Copy, stage: &mut Self::Stage) -> Result<Taken, GhostError>;
    /// Brings a copy that does not run to the cut. If it fails, the copy must
    /// not be activated.
    fn apply(&self, to: &mut Self::Copy, stage: &Self::Stage) -> Result<(), GhostError>;
    /// The cut has arrived: what was written before it is forgotten.
    fn release(&self, from: &mut Self::Copy, stage: &Self::Stage) -> Result<(), GhostError>;
    /// Lets a copy run as a new incarnation. What it writes is recorded.
    fn activate(&self, copy: &mut Self::Copy) -> Result<Duration, GhostError>;
    /// Hands frames that wait for a paused copy to the paused one that goes on
    /// in its place, which gets them first.
    fn forward(&self, from: &mut Self::Copy, to: &mut Self::Copy) -> Result<(), GhostError>;
    /// Tries a suspended copy out: runs another one on its memory and state,
    /// cut off from any network, and asks it the health question. The copy
    /// stays as it is, and of the other one nothing is left. Given up once
    /// `primary` has ended. `plan`: as the copy was made.
    fn drill(
        &self,
        plan: &CopyPlan,
        copy: &mut Self::Copy,
        primary: Option<&mut Self::Copy>,
    ) -> Result<Verdict, GhostError>;
    /// Ends it. Afterwards nothing of it is left: process, interface, cgroup,
    /// memory, files. If it fails it can be tried again.
    fn destroy(&self, copy: &mut Self::Copy) -> Result<(), GhostError>;
}

/// In words.
pub(crate) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Primary => "primary",
        Side::Ghost => "ghost",
    }
}
