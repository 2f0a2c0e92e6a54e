//! Which user the process is.

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::{Refusal, cannot};

/// Numbers that no user or service has, by systemd's division of them; the
/// process number on top keeps two microVMs apart.
const UNUSED: u32 = 0x7000_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) struct User {
    pub(in crate::vmm) uid: u32,
    pub(in crate::vmm) gid: u32,
}

impl User {
    /// A user that nobody else is as long as this process lives.
    pub(in crate::vmm) fn of_process() -> Self {
        let id = UNUSED + std::process::id();
        Self { uid: id, gid: id }
    }
}

/// Without any group besides. `None` is to stay who we are, which is not
/// enough for root. Who we are then.
pub(super) fn become_user(user: Option<User>) -> Result<u32, Refusal> {
    let Some(User { uid, gid }) = user else {
        return match geteuid() {
            root if root.is_root() => Err(cannot("stay root")(nix::Error::EPERM)),
            own => Ok(own.as_raw()),
        };
    };
    setgroups(&[]).map_err(cannot("leave all groups"))?;
    let gid = Gid::from_raw(gid);
    setresgid(gid, gid, gid).map_err(cannot("take a group of its own"))?;
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid).map_err(cannot("become a user of its own"))?;
    Ok(uid.as_raw())
}
