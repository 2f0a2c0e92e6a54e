//! Findings, outcomes, health.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is degraded.
    Info,
    Warning,
    Error,
}

/// Something an operator should know, and the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingDto {
    pub severity: Severity,
    /// Stable name for scripts, such as `uplink_gone`.
    pub code: String,
    pub what: String,
    pub mend: Option<String>,
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutcomeDto {
    Done,
    /// It was so already; nothing was stored.
    Unchanged,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthDto {
    /// Version of the daemon that answers.
    pub version: String,
    /// Requests that wait for the driver, and how many may.
    pub requests_waiting: usize,
    pub requests_max: usize,
}
