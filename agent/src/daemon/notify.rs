//! What the service manager is told (sd_notify(3)). Without one, nothing.

use sd_notify::NotifyState;

use crate::orchestrate::driver::{Service, Sign};

/// What the driver tells by itself.
pub(super) fn service() -> Service {
    Service {
        // Twice within the limit, as sd_watchdog_enabled(3) advises.
        beat: sd_notify::watchdog_enabled().map(|limit| limit / 2),
        tell: Box::new(|sign| match sign {
            Sign::Alive => tell(&[NotifyState::Watchdog]),
            Sign::Ready => ready(),
            Sign::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now]),
                Err(_) => tell(&[NotifyState::Reloading]),
            },
        }),
    }
}

pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
