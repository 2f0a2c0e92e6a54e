//! The pages of the instances that this host runs itself.

use agent_common::abi::Side;
use axum::{
    Json, Router,
    extract::{Extension, State},
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::{
    access::Peer,
    api::{Context, PathOf, QueryOf, instance_name, path, query},
    console,
    dto::{Kind, Problem, VmDoneDto, VmDto, VmsDto},
    openapi::{Common, MissingVm, VmOrdered},
};
use crate::{
    model::InstanceName,
    orchestrate::vms::{VmOrder, VmRefusal, VmRequest},
};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/v1/instances", get(all))
        .route("/v1/instances/{instance}", get(one))
        .route("/v1/instances/{instance}/console", get(console_of))
        .route("/v1/instances/{instance}/{action}", post(order))
        .route("/v1/instances/{instance}/ghost/{action}", post(order_ghost))
}

/// What may be done to an instance's primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum InstanceAction {
    /// Start it from its image.
    Create,
    /// Let no vCPU run.
    Pause,
    Resume,
    /// End it and start it from its image; its ghost goes.
    Reset,
    /// End both copies.
    Destroy,
}

/// What may be done to an instance's ghost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GhostAction {
    /// Make it, or bring it up to date.
    Prepare,
    /// Let it take over.
    Activate,
    /// Bring its work back to the primary, and suspend it.
    Suspend,
    Destroy,
    /// Try it out, cut off from the network, and keep it as it is.
    Drill,
}

/// One of the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CopyName {
    #[default]
    Primary,
    Ghost,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConsoleQuery {
    #[serde(default)]
    #[param(inline)]
    copy: CopyName,
    /// Keep the answer open and send output as it comes.
    #[serde(default)]
    follow: bool,
}

/// Instances that this host runs itself.
#[utoipa::path(get, path = "/v1/instances", responses(
    (status = 200, description = "All of them, and how their copies are", body = VmsDto),
    Common,
))]
pub(super) async fn all(State(context): State<Context>) -> Json<VmsDto> {
    Json(VmsDto::of(&context.desk.list()))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{instance}",
    params(("instance" = String, Path, description = "Name of the instance")),
    responses(
        (status = 200, description = "How its copies are", body = VmDto),
    Common, MissingVm,
))]
pub(super) async fn one(
    State(context): State<Context>,
    asked: PathOf<String>,
) -> Result<Json<VmDto>, Problem> {
    let name = instance_name(&path(asked)?)?;
    shown(&context, &name).map(Json)
}

fn shown(context: &Context, name: &InstanceName) -> Result<VmDto, Problem> {
    let view = context.desk.show(name);
    let view = view.ok_or_else(|| VmRefusal::Unknown(name.clone()))?;
    Ok(VmDto::of(name, &view))
}

/// Output of a copy's console, the latest MiB of it.
#[utoipa::path(get, path = "/v1/instances/{instance}/console",
    params(("instance" = String, Path, description = "Name of the instance"), ConsoleQuery),
    responses(
        (status = 200, description = "What the guest wrote", body = String, content_type = "text/plain; charset=utf-8"),
    Common, MissingVm,
))]
pub(super) async fn console_of(
    State(context): State<Context>,
    asked: PathOf<String>,
    how: QueryOf<ConsoleQuery>,
) -> Result<Response, Problem> {
    let name = instance_name(&path(asked)?)?;
    let ConsoleQuery { copy, follow } = query(how)?;
    let side = match copy {
        CopyName::Primary => Side::Primary,
        CopyName::Ghost => Side::Ghost,
    };
    let log = context.desk.console(&name, side);
    let log = log.ok_or_else(|| VmRefusal::Unknown(name.clone()))?;
    let stopping = follow.then_some(context.stopping);
    console::respond(&log, stopping).await.map_err(|_| {
        Problem::new(
            Kind::NoCopy,
            format!("{name} has no such copy, so there is no console"),
            Some("`ghostctl instance list` shows which copies there are"),
        )
    })
}

/// Start, pause, reset or end an instance.
#[utoipa::path(post, path = "/v1/instances/{instance}/{action}",
    params(
        ("instance" = String, Path, description = "Name of the instance"),
        ("action" = InstanceAction, Path),
    ),
    responses(
        (status = 200, description = "Carried out", body = VmDoneDto),
    Common, MissingVm, VmOrdered,
))]
pub(super) async fn order(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: PathOf<(String, InstanceAction)>,
) -> Result<Json<VmDoneDto>, Problem> {
    let (name, action) = path(asked)?;
    let order = match action {
        InstanceAction::Create => VmOrder::Create,
        InstanceAction::Pause => VmOrder::Pause,
        InstanceAction::Resume => VmOrder::Resume,
        InstanceAction::Reset => VmOrder::Reset,
        InstanceAction::Destroy => VmOrder::Destroy,
    };
    carry_out(&context, &peer, &name, order).await
}

/// Prepare, activate, suspend, try or end an instance's ghost.
#[utoipa::path(post, path = "/v1/instances/{instance}/ghost/{action}",
    params(
        ("instance" = String, Path, description = "Name of the instance"),
        ("action" = GhostAction, Path),
    ),
    responses(
        (status = 200, description = "Carried out", body = VmDoneDto),
    Common, MissingVm, VmOrdered,
))]
pub(super) async fn order_ghost(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: PathOf<(String, GhostAction)>,
) -> Result<Json<VmDoneDto>, Problem> {
    let (name, action) = path(asked)?;
    let order = match action {
        GhostAction::Prepare => VmOrder::Prepare,
        GhostAction::Activate => VmOrder::Activate,
        GhostAction::Suspend => VmOrder::Suspend,
        GhostAction::Destroy => VmOrder::DestroyGhost,
        GhostAction::Drill => VmOrder::Drill,
    };
    carry_out(&context, &peer, &name, order).await
}

async fn carry_out(
    context: &Context,
    peer: &Peer,
    name: &str,
    order: VmOrder,
) -> Result<Json<VmDoneDto>, Problem> {
    let name = instance_name(name)?;
    let (reply, answer) = oneshot::channel();
    let by = peer.caller;
    let limit = context.limits.order;
    context.desk.order(&name, VmRequest { order, by, reply })?;
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(done)) => Ok(Json(VmDoneDto::of(done?, shown(context, &name)?))),
        // The thread dropped the request: it is on its way out.
        Ok(Err(_)) => Err(VmRefusal::ShuttingDown.into()),
        Err(_) => Err(Problem::new(
            Kind::DriverTimeout,
            format!(
                "{name} is not done within {} s; it goes on",
                limit.as_secs()
            ),
            Some("`ghostctl instance show` and `ghostctl events` show what becomes of it"),
        )),
    }
}
