//! Who may do what. Pure.
//!
//! Owns: the rule. root and the daemon's own user may do all, members of the
//! operators group too; members of the readers group may only look.

use super::dto::{Kind, Problem};
use crate::orchestrate::command::Caller;

/// A group of the system, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
}

/// Rights on the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The user the daemon runs as.
    pub daemon_uid: u32,
    pub operators: Vec<Group>,
    pub readers: Vec<Group>,
}

/// The process at the other end, with its supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub caller: Caller,
    pub groups: Vec<u32>,
}

/// How far a peer is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Operator,
    Reader,
    Stranger,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Look,
    Change,
}

impl Access {
    /// Nobody but root and the daemon's user.
    pub const fn private(daemon_uid: u32) -> Self {
        Self {
            daemon_uid,
            operators: Vec::new(),
            readers: Vec::new(),
        }
    }

    pub fn standing(&self, peer: &Peer) -> Standing {
        let in_group = |groups: &[Group]| {
            groups
                .iter()
                .any(|g| peer.caller.gid == g.gid || peer.groups.contains(&g.gid))
        };
        if peer.caller.uid == 0 || peer.caller.uid == self.daemon_uid || in_group(&self.operators) {
            Standing::Operator
        } else if in_group(&self.readers) {
            Standing::Reader
        } else {
            Standing::Stranger
        }
    }

    /// `Err` says which group is needed.
    pub fn check(&self, standing: Standing, caller: Caller, deed: Deed) -> Result<(), Problem> {
        match (standing, deed) {
            (Standing::Operator, _) | (Standing::Reader, Deed::Look) => Ok(()),
            (Standing::Reader, Deed::Change) | (Standing::Stranger, _) => {
                Err(self.refusal(caller, deed))
            }
        }
    }

    /// Whether others than root and the daemon's user may connect at all.
    pub const fn is_shared(&self) -> bool {
        !self.operators.is_empty() || !self.readers.is_empty()
    }

    fn refusal(&self, caller: Caller, deed: Deed) -> Problem {
        let (verb, readers) = match deed {
            Deed::Look => ("look at", self.readers.as_slice()),
            Deed::Change => ("change", &[][..]),
        };
        let groups: Vec<String> = self
            .operators
            .iter()
            .chain(readers)
            .map(|group| format!("`{}` (gid {})", group.name, group.gid))
            .collect();
        let needed = if groups.is_empty() {
            format!("root or uid {}", self.daemon_uid)
        } else {
            format!("root or a member of group {}", groups.join(" or "))
        };
        Problem::new(
            Kind::Forbidden,
            format!(
                "pid {} (uid {}, gid {}) may not {verb} steering: it takes {needed}",
                caller.pid, caller.uid, caller.gid
            ),
            Some(if groups.is_empty() {
                "use sudo, or name an operators or readers group in the configuration"
            } else {
                "use sudo, or have the user added to the group and log in again"
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let group = |name: &str, gid| {
            vec![Group {
                name: name.to_owned(),
                gid,
            }]
        };
        Access {
            daemon_uid: 990,
            operators: group("ops", 50),
            readers: group("adm", 60),
        }
    }

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            caller: Caller { pid: 7, uid, gid },
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn standing_follows_user_and_groups() {
        let cases = [
            (peer(0, 0, &[]), Standing::Operator),
            (peer(990, 990, &[]), Standing::Operator),
            (peer(1000, 50, &[]), Standing::Operator),
            (peer(1000, 1000, &[4, 50]), Standing::Operator),
            (peer(1000, 60, &[]), Standing::Reader),
            (peer(1000, 1000, &[60]), Standing::Reader),
            (peer(1000, 60, &[50]), Standing::Operator),
            (peer(1000, 1000, &[4]), Standing::Stranger),
            (peer(65534, 65534, &[]), Standing::Stranger),
        ];
        for (peer, standing) in cases {
            assert_eq!(access().standing(&peer), standing, "{peer:?}");
        }
        let private = Access::private(990);
        assert_eq!(private.standing(&peer(1000, 0, &[0])), Standing::Stranger);
    }

    #[test]
    fn a_refusal_names_the_group_that_is_needed() {
        let caller = peer(1000, 1000, &[]).caller;
        let check = |standing, deed| access().check(standing, caller, deed);
        assert_eq!(check(Standing::Operator, Deed::Change), Ok(()));
        assert_eq!(check(Standing::Reader, Deed::Look), Ok(()));
        let change = check(Standing::Reader, Deed::Change).unwrap_err();
        assert_eq!(change.status, 403);
        assert_eq!(
            change.detail,
            "pid 7 (uid 1000, gid 1000) may not change steering: \
             it takes root or a member of group `ops` (gid 50)"
        );
        let look = check(Standing::Stranger, Deed::Look).unwrap_err();
        assert!(
            look.detail
                .ends_with("group `ops` (gid 50) or `adm` (gid 60)")
        );
        let private = Access::private(990);
        let look = private.check(Standing::Stranger, caller, Deed::Look);
        assert!(look.unwrap_err().detail.ends_with("root or uid 990"));
    }
}
