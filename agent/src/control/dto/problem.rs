//! Errors: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::orchestrate::{command::Refusal, vms::VmRefusal};

/// An error body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Stable: `urn:ghostd:problem:` and a name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for each occurrence of a type.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every type of problem the API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BadRequest,
    Forbidden,
    NotFound,
    UnknownInstance,
    NoMicrovm,
    MethodNotAllowed,
    BodyTimeout,
    NotTracked,
    NotNow,
    NoCopy,
    BodyTooLarge,
    ConfigRefused,
    Kernel,
    MicroVm,
    Internal,
    Busy,
    ShuttingDown,
    DriverTimeout,
}

impl Kind {
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// Status code, last part of the type, title.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "Bad request"),
            Self::Forbidden => (403, "forbidden", "Not allowed"),
            Self::NotFound => (404, "not-found", "No such page"),
            Self::UnknownInstance => (404, "unknown-instance", "Unknown instance"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "Method not allowed"),
            Self::BodyTimeout => (408, "body-timeout", "The request body did not arrive"),
            Self::NoMicrovm => (409, "no-microvm", "Not a microVM of ghostd's"),
            Self::NotTracked => (409, "not-tracked", "The switch cannot drain"),
            Self::NotNow => (409, "not-now", "Not as things are"),
            Self::NoCopy => (404, "no-copy", "No such copy"),
            Self::BodyTooLarge => (413, "body-too-large", "The request body is too large"),
            Self::ConfigRefused => (422, "config-refused", "Configuration refused"),
            Self::Kernel => (500, "kernel", "The kernel refused"),
            Self::MicroVm => (500, "microvm", "The microVM could not be brought to it"),
            Self::Internal => (500, "internal", "Internal error"),
            Self::Busy => (503, "busy", "The daemon is busy"),
            Self::ShuttingDown => (503, "shutting-down", "The daemon is shutting down"),
            Self::DriverTimeout => (504, "driver-timeout", "The driver did not answer in time"),
        }
    }
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>, hint: Option<&str>) -> Self {
        let (status, name, title) = kind.row();
        Self {
            kind: format!("urn:ghostd:problem:{name}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            hint: hint.map(str::to_owned),
        }
    }
}

impl From<VmRefusal> for Problem {
    fn from(refusal: VmRefusal) -> Self {
        let text = refusal.to_string();
        let (kind, hint) = match &refusal {
            VmRefusal::Unknown(_) => (
                Kind::UnknownInstance,
                "`ghostctl instance list` lists those that this host runs; \
                 [instance.vm] in the configuration makes one",
            ),
            VmRefusal::Foreign(_) => (
                Kind::UnknownInstance,
                "what is left of it can only be destroyed: `ghostctl instance destroy`",
            ),
            VmRefusal::NotNow { hint, .. } => (Kind::NotNow, hint.as_str()),
            VmRefusal::Failed(_) => (
                Kind::MicroVm,
                "`ghostctl instance show` says how it is now; `ghostctl events` how it came to it",
            ),
            VmRefusal::Busy(_) => (Kind::Busy, "try again in a moment"),
            VmRefusal::ShuttingDown => (
                Kind::ShuttingDown,
                "microVMs go on without the daemon; `systemctl start ghostd` starts it again",
            ),
        };
        Self::new(kind, text, Some(hint))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (kind, hint) = match &refusal {
            Refusal::UnknownInstance(_) => (
                Kind::UnknownInstance,
                "`ghostctl switch show` lists the instances",
            ),
            Refusal::NoMicrovm(_) => (
                Kind::NoMicrovm,
                "give it an [instance.vm] and run `ghostctl reload`",
            ),
            Refusal::NotTracked(_) => (
                Kind::NotTracked,
                "use `restore`, or give the instance the affinity `connections` and reload",
            ),
            Refusal::Config(_) => (
                Kind::ConfigRefused,
                "mend the file and run `ghostctl reload` again",
            ),
            Refusal::Busy => (Kind::Busy, "try again in a moment"),
            Refusal::ShuttingDown => (
                Kind::ShuttingDown,
                "steering stays in force without the daemon; `systemctl start ghostd` starts it again",
            ),
            Refusal::Kernel(_) => (Kind::Kernel, "`ghostctl doctor` looks for the cause"),
        };
        Self::new(kind, refusal.to_string(), Some(hint))
    }
}
