//! The driver, as the manager sees it: it moves switches, and plans.

use agent_common::abi::Side;
use tokio::sync::{mpsc, oneshot};

use crate::{
    ghost::error::GhostError,
    model::{InstanceName, Plan},
    orchestrate::command::{Answer, Caller, Command, Refusal, Request, Subject},
};

#[derive(Debug, Clone)]
pub(super) struct Switch {
    requests: mpsc::Sender<Request>,
    /// In events, the daemon itself.
    by: Caller,
}

impl Switch {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        let by = Caller {
            pid: std::process::id(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        };
        Self { requests, by }
    }

    /// Points the instance's switch at a side.
    pub(super) fn point(&self, name: &InstanceName, side: Side) -> Result<(), GhostError> {
        let subject = Subject::Instance(name.clone());
        let command = match side {
            Side::Ghost => Command::Throw(subject),
            Side::Primary => Command::Restore(subject),
        };
        match self.ask(command) {
            // Not configured any more: nothing is steered.
            Ok(_) | Err(Refusal::UnknownInstance(_)) => Ok(()),
            Err(refusal) => Err(GhostError::Switch(format!(
                "cannot point the switch of {name} at its {}: {refusal}",
                crate::ghost::backend::side_name(side)
            ))),
        }
    }

    /// Whether its switch may be thrown without being told to.
    pub(super) fn is_armed(&self, name: &InstanceName) -> bool {
        match self.ask(Command::IsArmed(name.clone())) {
            Ok(Answer::Armed(is)) => is,
            Ok(_) => false,
            Err(refusal) => {
                tracing::warn!(instance = %name, error = %refusal, "cannot see whether it is armed");
                false
            }
        }
    }

    /// Who gets what of the reserve, as things are.
    pub(super) fn plan(&self) -> Result<Plan, GhostError> {
        match self.ask(Command::Plan(Vec::new())) {
            Ok(Answer::Planned(planned)) => Ok(planned.plan),
            Ok(_) => Err(GhostError::Plan("the driver answers otherwise".to_owned())),
            Err(refusal) => Err(GhostError::Plan(refusal.to_string())),
        }
    }

    fn ask(&self, command: Command) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        let by = self.by;
        let request = Request { command, by, reply };
        let closed = |_| Refusal::ShuttingDown;
        self.requests.blocking_send(request).map_err(closed)?;
        answer.blocking_recv().map_err(|_| Refusal::ShuttingDown)?
    }
}
