//! `/v1/plan`: who gets what of the reserve.

use axum::{
    Json,
    extract::{Extension, State},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    access::Peer,
    api::{Context, QueryOf, confused, instance_name, query},
    dto::{Kind, PlanDto, Problem},
    openapi::{Common, FromDriver, Missing, NoMicrovm},
};
use crate::{
    model::{InstanceName, Risk, RiskError},
    orchestrate::command::{Answer, Command},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PlanQuery {
    /// Also answer what would change under these risks: `NAME=RISK`, with
    /// commas between several. Nothing changes by it.
    risk: Option<String>,
}

/// Which ghosts get what of the reserve, and what was refused and why.
#[utoipa::path(get, path = "/v1/plan", params(PlanQuery), responses(
    (status = 200, description = "The plan as it would be made now", body = PlanDto),
    Common, FromDriver, Missing, NoMicrovm,
))]
pub(super) async fn plan(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: QueryOf<PlanQuery>,
) -> Result<Json<PlanDto>, Problem> {
    let PlanQuery { risk } = query(asked)?;
    let risks = risk.as_deref().map(risks).transpose()?;
    let command = Command::Plan(risks.unwrap_or_default());
    match context.ask(command, &peer).await? {
        Answer::Planned(planned) => Ok(Json((&*planned).into())),
        Answer::Done | Answer::Unchanged | Answer::Snapshot(_) | Answer::Armed(_) => {
            Err(confused())
        }
    }
}

fn risks(text: &str) -> Result<Vec<(InstanceName, Risk)>, Problem> {
    let one = |part: &str| {
        let Some((name, risk)) = part.split_once('=') else {
            let detail = format!("`risk`: `{}` is not NAME=RISK", part.escape_debug());
            return Err(Problem::new(
                Kind::BadRequest,
                detail,
                Some("for example risk=web1=0.4"),
            ));
        };
        let risk = risk.parse().map_err(|e: RiskError| {
            Problem::new(
                Kind::BadRequest,
                e.to_string(),
                Some("for example risk=web1=0.4"),
            )
        })?;
        Ok((instance_name(name)?, risk))
    };
    text.split(',').map(one).collect()
}
