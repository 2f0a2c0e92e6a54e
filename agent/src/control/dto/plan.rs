//! The plan of ghosts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Amounts, Grade, Grant, Plan, Planned, Reason, Refusal, Resource, Risk, Shortage,
};

/// `GET /v1/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanDto {
    /// What the host has.
    pub capacity: AmountsDto,
    /// What ghosts may take of it.
    pub reserve: AmountsDto,
    pub used: AmountsDto,
    /// By name.
    pub grants: Vec<GrantDto>,
    pub refusals: Vec<RefusalDto>,
    /// Null unless risks were supposed.
    pub supposed: Option<SupposedDto>,
}

/// The plan under the supposed risks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SupposedDto {
    pub used: AmountsDto,
    pub changes: Vec<ChangeDto>,
    pub refusals: Vec<RefusalDto>,
}

/// What an instance has, and would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDto {
    pub from: GrantDto,
    pub to: GrantDto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AmountsDto {
    /// That in huge pages included.
    pub memory_bytes: u64,
    /// Of 2 MiB each.
    pub huge_pages: u64,
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Of sync.
    pub bandwidth_bytes_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GradeDto {
    /// No ghost.
    None,
    /// Its memory is read when it is touched.
    Lazy,
    /// All of its memory is resident.
    Resident,
    /// All of its memory is resident, in huge pages.
    Huge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantDto {
    pub instance: String,
    pub grade: GradeDto,
    /// The risk that the plan goes by, 0 to 1. Small changes do not move it.
    pub risk: f64,
    pub amounts: AmountsDto,
    /// 1 to 100; a primary has 100. 0 without a ghost.
    pub cpu_weight: u16,
    /// Between two cuts; 0 without a ghost.
    pub epoch_ms: u32,
}

/// A grade that is not had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusalDto {
    pub instance: String,
    pub wanted: GradeDto,
    pub reason: ReasonDto,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReasonDto {
    /// Risks below the threshold are not worth a ghost.
    SmallRisk { threshold: f64 },
    /// The reserve has too little left.
    Reserve { shortages: Vec<ShortageDto> },
    /// The owner's share of the reserve has too little left.
    OwnersShare { shortages: Vec<ShortageDto> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResourceDto {
    /// In bytes.
    Memory,
    /// In pages of 2 MiB.
    HugePages,
    /// In thousandths of a CPU.
    Cpu,
    /// In bytes a second.
    Bandwidth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShortageDto {
    pub resource: ResourceDto,
    /// What the grade takes beyond what the instance has.
    pub wanted: u64,
    /// What those who come first leave.
    pub left: u64,
    /// The reserve, or the share, that would do for all who miss this grade.
    pub enough_for_all: u64,
}

impl From<&Planned> for PlanDto {
    fn from(planned: &Planned) -> Self {
        let Planned {
            plan,
            capacity,
            supposed,
        } = planned;
        let Plan {
            grants,
            refusals,
            reserve,
            used,
        } = plan;
        Self {
            capacity: capacity.into(),
            reserve: reserve.into(),
            used: used.into(),
            grants: grants.iter().map(Into::into).collect(),
            refusals: refusals.iter().map(Into::into).collect(),
            supposed: supposed.as_ref().map(|supposed| SupposedDto {
                used: (&supposed.used).into(),
                changes: changes(plan, supposed),
                refusals: supposed.refusals.iter().map(Into::into).collect(),
            }),
        }
    }
}

fn changes(from: &Plan, to: &Plan) -> Vec<ChangeDto> {
    let pairs = from.grants.iter().zip(&to.grants);
    let changed = pairs.filter(|(from, to)| from != to);
    changed
        .map(|(from, to)| ChangeDto {
            from: from.into(),
            to: to.into(),
        })
        .collect()
}

impl From<&Amounts> for AmountsDto {
    fn from(amounts: &Amounts) -> Self {
        let Amounts {
            memory_bytes,
            huge_pages,
            cpu_milli,
            bandwidth,
        } = *amounts;
        Self {
            memory_bytes,
            huge_pages,
            cpu_milli,
            bandwidth_bytes_per_second: bandwidth,
        }
    }
}

impl From<Grade> for GradeDto {
    fn from(grade: Grade) -> Self {
        match grade {
            Grade::None => Self::None,
            Grade::Lazy => Self::Lazy,
            Grade::Resident => Self::Resident,
            Grade::Huge => Self::Huge,
        }
    }
}

fn fraction(risk: Risk) -> f64 {
    f64::from(risk.ppm()) / f64::from(Risk::CERTAIN.ppm())
}

impl From<&Grant> for GrantDto {
    fn from(grant: &Grant) -> Self {
        let Grant {
            name,
            grade,
            risk,
            amounts,
            cpu_weight,
            epoch_ms,
        } = grant;
        Self {
            instance: name.to_string(),
            grade: (*grade).into(),
            risk: fraction(*risk),
            amounts: amounts.into(),
            cpu_weight: *cpu_weight,
            epoch_ms: *epoch_ms,
        }
    }
}

impl From<&Refusal> for RefusalDto {
    fn from(refusal: &Refusal) -> Self {
        let Refusal {
            name,
            wanted,
            reason,
        } = refusal;
        let all = |shortages: &[Shortage]| shortages.iter().map(Into::into).collect();
        Self {
            instance: name.to_string(),
            wanted: (*wanted).into(),
            reason: match reason {
                Reason::SmallRisk { threshold } => ReasonDto::SmallRisk {
                    threshold: fraction(*threshold),
                },
                Reason::Short(shortages) => ReasonDto::Reserve {
                    shortages: all(shortages),
                },
                Reason::OwnersShare(shortages) => ReasonDto::OwnersShare {
                    shortages: all(shortages),
                },
            },
        }
    }
}

impl From<&Shortage> for ShortageDto {
    fn from(shortage: &Shortage) -> Self {
        let Shortage {
            resource,
            wanted,
            left,
            enough_for_all,
        } = *shortage;
        Self {
            resource: match resource {
                Resource::Memory => ResourceDto::Memory,
                Resource::HugePages => ResourceDto::HugePages,
                Resource::Cpu => ResourceDto::Cpu,
                Resource::Bandwidth => ResourceDto::Bandwidth,
            },
            wanted,
            left,
            enough_for_all,
        }
    }
}
