//! Why a guest does not run any more.

/// Words of an internal error that are kept; KVM gives at most sixteen.
pub(super) const DETAILS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The guest reset itself through this port.
    Reset { port: u16, value: u8 },
    /// The guest switched itself off.
    PowerOff,
    /// The guest faulted and had no handler that could take it.
    TripleFault,
    /// The guest stopped its processor, and nothing can wake it.
    Halted,
    /// KVM told of a system event that no device of ours makes.
    SystemEvent { kind: u32 },
    /// KVM cannot go on with this guest, for example with an instruction it cannot emulate.
    InternalError { suberror: u32, details: Vec<u64> },
    /// The processor refused the guest's state.
    EntryFailed { reason: u64 },
    /// KVM gave the guest back for a reason that nothing here asked for.
    Unexpected { exit: String },
    /// The system call that runs the guest failed.
    RunFailed { errno: i32 },
    /// Whoever owns the guest said so.
    Ordered,
}

impl End {
    /// Whether the guest, or its owner, wanted it.
    pub(super) fn is_orderly(&self) -> bool {
        matches!(self, Self::Reset { .. } | Self::PowerOff | Self::Ordered)
    }
}
