//! Namespaces of its own: users, mounts, network, IPC, host name, cgroups.
//!
//! One call, because each would wait for the ones before it. In the new user
//! namespace no user is mapped: nobody there can become anybody. There is no
//! process namespace: it would take a second process for each microVM, and
//! what it would hide is out of reach by user, landlock and filter.

use nix::sched::{CloneFlags, unshare};

use super::{Refusal, cannot};

pub(super) fn enter() -> Result<(), Refusal> {
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all).map_err(cannot(
        "make namespaces; may users make user namespaces here?",
    ))
}
