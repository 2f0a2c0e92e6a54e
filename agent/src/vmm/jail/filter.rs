//! Filters of system calls: one for all threads to come, and one more for
//! each kind of thread.
//!
//! A call that a filter does not allow ends the process, after `trap` has
//! said which it was.

use std::{cell::Cell, collections::BTreeMap, io, process, sync::OnceLock};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::{
    Refusal, cannot,
    table::{When, calls},
    trap,
};

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) enum Kind {
    /// All of them, until they say what they are.
    Build,
    Main,
    Vcpu,
    Net,
    Block,
}

pub(super) const LATER: [Kind; 4] = [Kind::Main, Kind::Vcpu, Kind::Net, Kind::Block];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Net => "net",
            Self::Block => "block",
        }
    }
}

thread_local! {
    pub(super) static KIND: Cell<Kind> = const { Cell::new(Kind::Build) };
}

/// Filters in the order of `LATER`; empty if there is no jail. Process-wide,
/// as the first filter is, and never changed.
static FILTERS: OnceLock<Vec<(Kind, BpfProgram)>> = OnceLock::new();

/// For a handler of signals: what this thread is.
pub(super) fn kind() -> Kind {
    KIND.try_with(Cell::get).unwrap_or(Kind::Build)
}

/// From here on threads may do what building a microVM takes.
pub(super) fn begin() -> Result<(), Refusal> {
    let later = LATER.into_iter().map(|kind| Ok((kind, compile(kind)?)));
    let later = later.collect::<Result<Vec<_>, Refusal>>()?;
    let build = compile(Kind::Build)?;
    trap::install().map_err(cannot("name system calls that are not allowed"))?;
    apply_filter(&build).map_err(failed)?;
    // Nobody else sets it: there is one jail in a process.
    let _ = FILTERS.set(later);
    Ok(())
}

/// From here on this thread may do what its kind does, if there is a jail.
/// Ends the process if it cannot be held to that.
pub(in crate::vmm) fn confine(kind: Kind) {
    KIND.set(kind);
    let Some(filters) = FILTERS.get() else {
        return;
    };
    let own = filters.iter().find(|(of, _)| *of == kind);
    let result = own.map(|(_, filter)| apply_filter(filter));
    if !matches!(result, Some(Ok(()))) {
        eprintln!("error: cannot filter the system calls of a thread: {result:?}");
        process::exit(1);
    }
}

pub(super) fn compile(kind: Kind) -> Result<BpfProgram, Refusal> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut whole = Vec::new();
    for call in calls(kind) {
        let number = i64::from(call.number.id());
        let more = rules.entry(number).or_default();
        match call.when {
            When::Always => whole.push(number),
            when => more.extend(conditions(when).map_err(failed)?),
        }
    }
    // No condition at all is what allows a call always.
    for number in whole {
        rules.insert(number, Vec::new());
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    );
    filter.and_then(BpfProgram::try_from).map_err(failed)
}

/// Rules of which one must hold.
fn conditions(when: When) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    match when {
        When::Always => Ok(Vec::new()),
        When::OneOf(argument, values) => values
            .iter()
            .map(|&value| rule(argument, SeccompCmpOp::Eq, value))
            .collect(),
        When::Without(argument, bits) => Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bits), 0)?]),
        When::With(argument, bits) => Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bits), bits)?]),
        When::Ourselves(argument) => Ok(vec![rule(
            argument,
            SeccompCmpOp::Eq,
            u64::from(process::id()),
        )?]),
    }
}

fn failed(error: impl Into<seccompiler::Error>) -> Refusal {
    cannot("filter system calls")(io::Error::other(error.into().to_string()))
}
