//! The jail: what a microVM's process can still do after it has opened its
//! files, should its guest take it over.
//!
//! Owns: the order in which rights go, and what is told of it. Whoever breaks
//! out of the guest finds a user without rights or identity, an empty
//! read-only file system, no network, no capability, and for each thread only
//! the system calls that it needs; any other ends the process, by name.
//! Refuses: to be weaker than it says. A part that cannot be had ends the
//! process, or is named as missing where the caller has allowed that.

mod capabilities;
mod codes;
mod filter;
mod janitor;
mod landlock;
mod limits;
mod namespaces;
mod root;
mod table;
mod trap;
mod user;

#[cfg(test)]
mod tests;

use std::io;

use clap::ValueEnum;

pub(super) use filter::{Kind, confine};
pub(super) use janitor::Janitor;
pub(super) use user::User;

use super::message::{JailView, MissingView};

/// How much of the jail is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Strictness {
    /// All of it, or no guest.
    On,
    /// As much as this system gives; what is missing is told.
    Auto,
    /// None of it.
    Off,
}

/// What the process is to become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jail {
    pub(super) strictness: Strictness,
    pub(super) user: Option<User>,
    /// The longest file it may write.
    pub(super) file_bytes_max: u64,
}

/// In the order in which they are entered, because each takes the rights away
/// that those before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    User,
    Namespaces,
    Root,
    Limits,
    Capabilities,
    Landlock,
    SystemCalls,
}

const PARTS: [Part; 7] = [
    Part::User,
    Part::Namespaces,
    Part::Root,
    Part::Limits,
    Part::Capabilities,
    Part::Landlock,
    Part::SystemCalls,
];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::SystemCalls => "system-calls",
        }
    }
}

/// A part of the jail that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub(super) struct Refusal {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// For `map_err`: what we tried.
fn cannot<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Refusal {
    move |source| Refusal {
        what,
        source: source.into(),
    }
}

/// The part's name, and why it is missing.
pub(super) type Missing = (&'static str, Refusal);

impl Jail {
    /// For one that writes to a file as long as this.
    pub(super) fn for_files_of(self, bytes: u64) -> Self {
        Self {
            file_bytes_max: self.file_bytes_max.max(bytes),
            ..self
        }
    }

    /// There must be one thread only. What is in force afterwards; nothing if
    /// no jail is wanted. Fails with the first part that is missing, if all of
    /// it is asked for.
    pub(super) fn enter(self) -> Result<Option<JailView>, Missing> {
        if self.strictness == Strictness::Off {
            return Ok(None);
        }
        let own = nix::unistd::geteuid().as_raw();
        let mut view = JailView {
            uid: own,
            ..JailView::default()
        };
        let mut has_namespaces = false;
        for part in PARTS {
            match self.enter_part(part, has_namespaces, &mut view) {
                Ok(()) => {
                    has_namespaces |= part == Part::Namespaces;
                    view.in_force.push(part.name().to_owned());
                }
                Err(refusal) if self.strictness == Strictness::On => {
                    return Err((part.name(), refusal));
                }
                Err(refusal) => {
                    let why = format!("{:#}", anyhow::Error::new(refusal));
                    eprintln!("warning: the jail has no {}: {why}", part.name());
                    let part = part.name().to_owned();
                    view.missing.push(MissingView { part, why });
                }
            }
        }
        Ok(Some(view))
    }

    fn enter_part(
        self,
        part: Part,
        has_namespaces: bool,
        view: &mut JailView,
    ) -> Result<(), Refusal> {
        match part {
            Part::User => view.uid = user::become_user(self.user)?,
            Part::Namespaces => namespaces::enter()?,
            Part::Root => root::empty(has_namespaces)?,
            Part::Limits => limits::set(self.file_bytes_max)?,
            Part::Capabilities => capabilities::drop_all()?,
            Part::Landlock => view.landlock_abi = landlock::restrict()?,
            Part::SystemCalls => filter::begin()?,
        }
        Ok(())
    }
}
