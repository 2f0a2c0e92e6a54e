//! No file is opened, no port bound or reached, no process outside signalled.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetError, Scope,
};

use super::{Refusal, cannot};

/// The newest that was tried. Newer kernels give this much, older ones less.
const NEWEST: ABI = ABI::V6;

/// The version that this kernel gives.
pub(super) fn restrict() -> Result<Option<u32>, Refusal> {
    let failed =
        |error: RulesetError| cannot("set up landlock")(std::io::Error::other(error.to_string()));
    // Nothing is allowed, so there is no rule.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let RestrictionStatus { landlock, .. } = ruleset.restrict_self().map_err(failed)?;
    match landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => Ok(Some(kernel_abi.map_or(effective_abi as u32, |abi| {
            u32::try_from(abi).unwrap_or_default()
        }))),
        LandlockStatus::NotEnabled => Err(cannot("use landlock, which is switched off")(
            nix::Error::EOPNOTSUPP,
        )),
        LandlockStatus::NotImplemented => Err(cannot("use landlock, which this kernel lacks")(
            nix::Error::ENOSYS,
        )),
    }
}
