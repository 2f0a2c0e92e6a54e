//! What may be asked of the instances that ghostd runs itself, and by which
//! way it reaches them.
//!
//! Owns: the desk, where each instance has a place: what it is like, and the
//! line to the thread that controls it. The ghost manager sets the places up;
//! the API looks and asks.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_common::abi::Side;
use tokio::sync::oneshot;

use super::command::Caller;
use crate::model::{GhostState, InstanceName, NotInForce, PrimaryState};

/// Orders that wait for one instance; more are refused as busy.
pub const ORDER_QUEUE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmOrder {
    Create,
    Pause,
    Resume,
    Reset,
    Destroy,
    /// Make a ghost, or bring it up to date.
    Prepare,
    Activate,
    /// Bring a ghost's work back, and suspend it.
    Suspend,
    DestroyGhost,
    Drill,
}

/// What was done, and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmDone {
    pub took: Duration,
    /// How long the copy that worked stood still.
    pub pause: Option<Duration>,
    /// From the order to run until all vCPUs were let in.
    pub activate: Option<Duration>,
    /// Pages that went over, and those of them during the pause.
    pub pages: Option<u64>,
    pub pages_paused: Option<u64>,
    pub verdict: Option<Verdict>,
}

/// What a drill found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub is_healthy: bool,
    /// In words.
    pub what: String,
    /// From the activation until the answer.
    pub answered: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum VmRefusal {
    #[error("there is no instance `{0}`")]
    Unknown(InstanceName),
    #[error("ghostd does not run instance `{0}`: it has no [instance.vm]")]
    Foreign(InstanceName),
    #[error("{what}")]
    NotNow { what: String, hint: String },
    /// The text is the error chain.
    #[error("{0}")]
    Failed(String),
    #[error("{0} is busy: {ORDER_QUEUE} orders wait already; try again")]
    Busy(InstanceName),
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// An order on its way to an instance's thread.
#[derive(Debug)]
pub struct VmRequest {
    pub order: VmOrder,
    pub by: Caller,
    pub reply: oneshot::Sender<Result<VmDone, VmRefusal>>,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmView {
    pub primary: PrimaryState,
    pub ghost: GhostState,
    pub primary_pid: Option<u32>,
    pub ghost_pid: Option<u32>,
    pub memory_mib: u64,
    pub vcpus: u8,
    pub image: String,
    /// Limits of each copy that the host does not enforce.
    pub primary_not_in_force: Vec<NotInForce>,
    pub ghost_not_in_force: Vec<NotInForce>,
}

/// The line to an instance's thread.
pub type Line = Box<dyn Fn(VmRequest) -> Result<(), VmRefusal> + Send + Sync>;

struct Place {
    view: VmView,
    line: Line,
    /// The log of a copy's console.
    console: Box<dyn Fn(Side) -> std::path::PathBuf + Send + Sync>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct VmDesk {
    places: Arc<Mutex<BTreeMap<InstanceName, Place>>>,
}

impl fmt::Debug for VmDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmDesk").finish_non_exhaustive()
    }
}

impl VmDesk {
    /// No code panics while it holds the lock, so a poisoned one is as good.
    fn places(&self) -> MutexGuard<'_, BTreeMap<InstanceName, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(
        &self,
        name: &InstanceName,
        view: VmView,
        line: Line,
        console: impl Fn(Side) -> std::path::PathBuf + Send + Sync + 'static,
    ) {
        let console = Box::new(console);
        let place = Place {
            view,
            line,
            console,
        };
        self.places().insert(name.clone(), place);
    }

    pub fn close(&self, name: &InstanceName) {
        self.places().remove(name);
    }

    pub fn publish(&self, name: &InstanceName, view: VmView) {
        if let Some(place) = self.places().get_mut(name) {
            place.view = view;
        }
    }

    /// By name.
    pub fn list(&self) -> Vec<(InstanceName, VmView)> {
        let places = self.places();
        let all = places.iter();
        all.map(|(name, place)| (name.clone(), place.view.clone()))
            .collect()
    }

    pub fn show(&self, name: &InstanceName) -> Option<VmView> {
        self.places().get(name).map(|place| place.view.clone())
    }

    pub fn console(&self, name: &InstanceName, side: Side) -> Option<std::path::PathBuf> {
        self.places().get(name).map(|place| (place.console)(side))
    }

    /// Never waits.
    pub fn order(&self, name: &InstanceName, request: VmRequest) -> Result<(), VmRefusal> {
        let places = self.places();
        let place = places.get(name);
        let place = place.ok_or_else(|| VmRefusal::Unknown(name.clone()))?;
        (place.line)(request)
    }
}
