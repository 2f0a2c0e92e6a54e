//! The API's words: what travels as JSON, and how it is made of model types.
//!
//! Owns: every body of the API. `ghostctl -o json` prints the same types, and
//! makes them itself from the pins when no daemon answers.
//!
//! Refuses: I/O, clocks, decisions. Field names are stable; units come last.

mod answer;
mod event;
mod plan;
mod problem;
mod route;
mod state;
mod vm;

pub use answer::{FindingDto, HealthDto, OutcomeDto, Severity};
pub use event::{CallerDto, DrainEndDto, EventLine, RebootDto, TriggerDto, WhatDto};
pub use plan::{
    AmountsDto, ChangeDto, GradeDto, GrantDto, PlanDto, ReasonDto, RefusalDto, ResourceDto,
    ShortageDto, SupposedDto,
};
pub use problem::{Kind, Problem};
pub use route::{CountersDto, ProtocolDto, RouteDto, RoutesDto, ServiceDto, TargetDto, TrafficDto};
pub use state::{
    CauseDto, FenceDto, HostDto, HostSwitchDto, InstanceDto, PortDto, PositionDto, SideDto, Source,
    StatusDto, SwitchDto, SwitchesDto, UplinkDto, XdpModeDto, switches, whole_ms,
};
pub use vm::{CopyDto, NotInForceDto, VerdictDto, VmDoneDto, VmDto, VmsDto};
