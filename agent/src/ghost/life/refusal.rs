//! Orders that cannot be carried out as things are.

/// Why not. The texts go after the name of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    Busy,
    HasPrimary,
    HasEnded,
    NotRunning,
    IsRunning,
    IsPaused,
    Standby,
    NoGhost,
    GhostServes,
    IsSuspended,
    NothingThere,
}

impl Unfit {
    /// After the name of the instance, and what helps.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Busy => (
                "is busy with an earlier order",
                "try again when `ghostctl instance show NAME` says that it is done",
            ),
            Self::HasPrimary => (
                "has a primary already",
                "`ghostctl instance reset NAME` starts it anew",
            ),
            Self::HasEnded => (
                "has a primary that does not run any more",
                "`ghostctl instance show NAME` says why; `ghostctl instance reset NAME` starts it anew",
            ),
            Self::NotRunning => (
                "has no primary that runs",
                "`ghostctl instance create NAME` makes one",
            ),
            Self::IsRunning => ("runs already", "`ghostctl instance pause NAME` pauses it"),
            Self::IsPaused => (
                "is paused already",
                "`ghostctl instance resume NAME` lets it go on",
            ),
            Self::Standby => (
                "has a primary that waits, because its ghost took its work over",
                "`ghostctl ghost suspend NAME` brings the work back; if the ghost is gone, \
                 `ghostctl instance resume NAME` goes on from the hand-over",
            ),
            Self::NoGhost => ("has no ghost", "`ghostctl ghost prepare NAME` makes one"),
            Self::GhostServes => (
                "is served by its ghost",
                "`ghostctl ghost suspend NAME` brings the work back to the primary",
            ),
            Self::IsSuspended => (
                "has a ghost that is suspended already",
                "`ghostctl ghost activate NAME` lets it take over",
            ),
            Self::NothingThere => ("has no copy", "`ghostctl instance create NAME` makes one"),
        }
    }
}
