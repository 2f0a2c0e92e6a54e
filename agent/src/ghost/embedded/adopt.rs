//! What an earlier daemon left: found by its folder, asked by its socket.

use super::{
    Copy, Embedded,
    client::{self, Client},
    drill,
    folder::{Folder, Record},
    process::{self, Process},
};
use crate::{
    ghost::{backend::Adopted, life::FoundVm},
    model::{CopyId, GuestEnd},
    vmm::message::{Answer, Command, State},
};

/// What is in a folder, with its process if that is alive.
pub(super) fn found(backend: &Embedded, id: &CopyId, folder: Folder) -> Copy {
    let record = match folder.read_record() {
        Ok(record) => record,
        // It ended before it had written one: there is no more than a folder.
        Err(error) => {
            tracing::warn!(copy = %id, error = %error.chain(), "a copy without a record");
            torn(backend)
        }
    };
    let is_of_this_boot = record.boot_id == backend.boot_id;
    let mut copy = Copy {
        id: id.clone(),
        folder,
        record,
        client: None,
        process: None,
        memory: None,
    };
    if is_of_this_boot {
        reach(&mut copy);
    }
    copy
}

pub(super) fn adopt(backend: &Embedded, id: CopyId) -> Adopted<Copy> {
    let mut copy = found(backend, &id, Folder::of(&backend.run, &id));
    // Nobody waits for what it would have found out.
    if let Err(error) = drill::clear(backend, &copy) {
        tracing::warn!(copy = %id, error = %error.chain(), "something of a drill is left");
    }
    let (vm, end) = match status(&mut copy) {
        Some(State::Running) => (FoundVm::Running, None),
        Some(State::Ended(reason)) => {
            // One that was told to stop, and has not ended yet, is as good as gone.
            let end = client::end_of(&reason).unwrap_or(GuestEnd::Vanished);
            (FoundVm::Ended, Some(end))
        }
        Some(State::Paused | State::Blank) => (FoundVm::Paused, None),
        Some(State::Broken { why }) => (FoundVm::Ended, Some(GuestEnd::Crashed(why))),
        None => (FoundVm::Gone, Some(GuestEnd::Vanished)),
    };
    Adopted {
        id,
        mark: copy.record.mark(),
        copy,
        vm,
        end,
    }
}

fn torn(backend: &Embedded) -> Record {
    Record {
        boot_id: backend.boot_id.clone(),
        memory_bytes: 0,
        cgroup: None,
        owns_cgroup: false,
        disk: None,
        epoch: 0,
        is_torn: true,
        works: false,
    }
}

/// By its socket; or, if it does not listen, at least as a process that can be ended.
fn reach(copy: &mut Copy) {
    let control = copy.folder.control();
    let client = Client::connect(&copy.id, &control).ok();
    let listening = client.as_ref().and_then(Client::peer);
    let started = copy.folder.pid();
    let pids = [
        listening,
        started.filter(|pid| process::is_ours(*pid, &control)),
    ];
    copy.process = pids
        .into_iter()
        .flatten()
        .find_map(|pid| Process::adopt(pid).ok());
    copy.client = client;
}

/// `None` if nobody answers.
fn status(copy: &mut Copy) -> Option<State> {
    match copy.ask("ask", &Command::Status {}) {
        Ok(Answer::Status { state, .. }) => Some(state),
        Ok(_) => None,
        Err(error) => {
            tracing::info!(copy = %copy.id, error = %error.chain(), "a copy does not answer");
            None
        }
    }
}
