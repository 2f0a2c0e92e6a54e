//! The routes of the API, each with its documentation.

use std::str::FromStr;

use axum::{
    Json, Router,
    extract::{
        Extension, Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{Method, Uri},
    middleware,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::{IntoParams, ToSchema};

use super::{
    access::{Access, Peer},
    dto::{
        EventLine, HealthDto, Kind, OutcomeDto, Problem, RoutesDto, Source, StatusDto, SwitchDto,
        SwitchesDto, VmsDto,
    },
    events, findings, instances,
    openapi::{self, Common, FromDriver, Missing, NotTracked, Refused, Stopping},
    plan, respond,
    server::Limits,
};
use crate::{
    model::{InstanceName, Snapshot},
    orchestrate::{
        command::{Answer, Command, Refusal, Request, Subject},
        event::EventFeed,
        vms::VmDesk,
    },
};

/// What a handler needs.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: EventFeed,
    pub(super) desk: VmDesk,
    pub(super) host: String,
    /// True once the server stops: followers end.
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) limits: Limits,
}

pub(super) fn router(context: Context, access: Access) -> Router {
    Router::new()
        .route("/openapi.json", get(openapi::page))
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/routes", get(routes))
        .route("/v1/switches", get(all_switches))
        .route("/v1/switches/{instance}", get(one_switch))
        .route("/v1/switches/{instance}/{action}", post(move_switch))
        .route("/v1/host-switch/{action}", post(move_host_switch))
        .route("/v1/reload", post(reload))
        .route("/v1/events", get(event_stream))
        .route("/v1/plan", get(plan::plan))
        .merge(instances::router())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            context.limits,
            respond::check_body,
        ))
        .layer(middleware::from_fn_with_state(
            access,
            respond::check_rights,
        ))
        .with_state(context)
}

/// What may be done to an instance's switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SwitchAction {
    /// Point at the ghost.
    Throw,
    /// Point at the primary at once.
    Restore,
    /// Point at the primary; flows of the ghost stay until they end.
    Drain,
    /// Let the kernel throw the switch by itself.
    Arm,
    Disarm,
}

/// What may be done to the host switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostAction {
    /// Point every armed instance at its ghost.
    Throw,
    /// Point every instance at its primary.
    Restore,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RoutesQuery {
    /// Only routes of this instance.
    instance: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only events with a greater sequence number; 0 asks for all that are
    /// kept. A number above the newest is from an earlier run and asks for all.
    #[serde(default)]
    since: u64,
    /// Keep the stream open and send events as they come.
    #[serde(default)]
    follow: bool,
}

pub(super) type PathOf<T> = Result<Path<T>, PathRejection>;
pub(super) type QueryOf<T> = Result<Query<T>, QueryRejection>;

pub(super) fn path<T>(path: PathOf<T>) -> Result<T, Problem> {
    path.map(|Path(value)| value).map_err(|e| {
        Problem::new(
            Kind::NotFound,
            e.body_text(),
            Some("GET /openapi.json lists the pages and actions"),
        )
    })
}

pub(super) fn query<T>(query: QueryOf<T>) -> Result<T, Problem> {
    query.map(|Query(value)| value).map_err(|e| {
        Problem::new(
            Kind::BadRequest,
            e.body_text(),
            Some("GET /openapi.json lists the parameters"),
        )
    })
}

pub(super) fn instance_name(name: &str) -> Result<InstanceName, Problem> {
    InstanceName::from_str(name).map_err(|e| {
        let hint = "`ghostctl switch show` lists the instances";
        Problem::new(Kind::BadRequest, e.to_string(), Some(hint))
    })
}

impl Context {
    pub(super) async fn ask(&self, command: Command, peer: &Peer) -> Result<Answer, Problem> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command,
            by: peer.caller,
            reply,
        };
        self.requests.try_send(request).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::Busy,
            mpsc::error::TrySendError::Closed(_) => Refusal::ShuttingDown,
        })?;
        match tokio::time::timeout(self.limits.reply, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            // The driver dropped the request: it is on its way out.
            Ok(Err(_)) => Err(Refusal::ShuttingDown.into()),
            Err(_) => Err(Problem::new(
                Kind::DriverTimeout,
                format!(
                    "no answer from the driver within {} s; the command may still be carried out",
                    self.limits.reply.as_secs()
                ),
                Some("look at `ghostctl status` before you repeat it"),
            )),
        }
    }

    async fn snapshot(&self, peer: &Peer) -> Result<Snapshot, Problem> {
        match self.ask(Command::Snapshot, peer).await? {
            Answer::Snapshot(seen) => Ok(*seen),
            Answer::Done | Answer::Unchanged | Answer::Planned(_) | Answer::Armed(_) => {
                Err(confused())
            }
        }
    }

    async fn act(&self, command: Command, peer: &Peer) -> Result<Json<OutcomeDto>, Problem> {
        match self.ask(command, peer).await? {
            Answer::Done => Ok(Json(OutcomeDto::Done)),
            Answer::Unchanged => Ok(Json(OutcomeDto::Unchanged)),
            Answer::Snapshot(_) | Answer::Planned(_) | Answer::Armed(_) => Err(confused()),
        }
    }
}

pub(super) fn confused() -> Problem {
    Problem::new(
        Kind::Internal,
        "the driver gave an answer of the wrong kind",
        None,
    )
}

/// Whether the daemon answers, and how busy it is.
#[utoipa::path(get, path = "/v1/health", responses(
    (status = 200, description = "The daemon answers", body = HealthDto),
    Common, Stopping,
))]
pub(super) async fn health(State(context): State<Context>) -> Result<Json<HealthDto>, Problem> {
    if context.requests.is_closed() {
        return Err(Refusal::ShuttingDown.into());
    }
    let requests_max = context.requests.max_capacity();
    Ok(Json(HealthDto {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        requests_waiting: requests_max - context.requests.capacity(),
        requests_max,
    }))
}

/// Host, uplinks, instances, and what is degraded.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, description = "What the kernel holds now", body = StatusDto),
    Common, FromDriver,
))]
pub(super) async fn status(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<StatusDto>, Problem> {
    let seen = context.snapshot(&peer).await?;
    let microvms = context.desk.list();
    let mut found = findings::of_snapshot(&seen);
    found.extend(findings::of_microvms(&microvms));
    let host = Some(context.host.clone());
    let mut status = StatusDto::of(Source::Daemon, host, &seen, found);
    status.microvms = VmsDto::of(&microvms).instances;
    Ok(Json(status))
}

/// Routes with their counters.
#[utoipa::path(get, path = "/v1/routes", params(RoutesQuery), responses(
    (status = 200, description = "Routes, by instance", body = RoutesDto),
    Common, FromDriver, Missing,
))]
pub(super) async fn routes(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: QueryOf<RoutesQuery>,
) -> Result<Json<RoutesDto>, Problem> {
    let RoutesQuery { instance } = query(asked)?;
    let instance = instance.as_deref().map(instance_name).transpose()?;
    let seen = context.snapshot(&peer).await?;
    if let Some(name) = &instance {
        find(&seen, name)?;
    }
    let name = instance.as_ref().map(InstanceName::as_str);
    Ok(Json(RoutesDto::of(&seen, name)))
}

/// All switches.
#[utoipa::path(get, path = "/v1/switches", responses(
    (status = 200, description = "All switches and the host switch", body = SwitchesDto),
    Common, FromDriver,
))]
pub(super) async fn all_switches(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<SwitchesDto>, Problem> {
    let seen = context.snapshot(&peer).await?;
    Ok(Json((&seen).into()))
}

/// The switch of one instance.
#[utoipa::path(get, path = "/v1/switches/{instance}",
    params(("instance" = String, Path, description = "Name of the instance")),
    responses(
        (status = 200, description = "The switch", body = SwitchDto),
    Common, FromDriver, Missing,
))]
pub(super) async fn one_switch(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: PathOf<String>,
) -> Result<Json<SwitchDto>, Problem> {
    let name = instance_name(&path(asked)?)?;
    let seen = context.snapshot(&peer).await?;
    find(&seen, &name).map(Json)
}

fn find(seen: &Snapshot, name: &InstanceName) -> Result<SwitchDto, Problem> {
    let mut instances = seen.instances.iter();
    let found = instances.find(|i| i.name == name.as_str());
    let found = found.ok_or_else(|| Refusal::UnknownInstance(name.clone()))?;
    Ok(found.into())
}

/// Move the switch of an instance, or arm or disarm it.
#[utoipa::path(post, path = "/v1/switches/{instance}/{action}",
    params(
        ("instance" = String, Path, description = "Name of the instance"),
        ("action" = SwitchAction, Path),
    ),
    responses(
        (status = 200, description = "Carried out, or so already", body = OutcomeDto),
    Common, FromDriver, Missing, NotTracked,
))]
pub(super) async fn move_switch(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: PathOf<(String, SwitchAction)>,
) -> Result<Json<OutcomeDto>, Problem> {
    let (name, action) = path(asked)?;
    let name = instance_name(&name)?;
    let command = match action {
        SwitchAction::Throw => Command::Throw(Subject::Instance(name)),
        SwitchAction::Restore => Command::Restore(Subject::Instance(name)),
        SwitchAction::Drain => Command::Drain(name),
        SwitchAction::Arm => Command::Arm(name),
        SwitchAction::Disarm => Command::Disarm(name),
    };
    context.act(command, &peer).await
}

/// Move all armed instances to their ghosts, or every instance back.
#[utoipa::path(post, path = "/v1/host-switch/{action}", params(("action" = HostAction, Path)),
    responses(
        (status = 200, description = "Carried out, or so already", body = OutcomeDto),
    Common, FromDriver, Missing,
))]
pub(super) async fn move_host_switch(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    asked: PathOf<HostAction>,
) -> Result<Json<OutcomeDto>, Problem> {
    let command = match path(asked)? {
        HostAction::Throw => Command::Throw(Subject::Host),
        HostAction::Restore => Command::Restore(Subject::Host),
    };
    context.act(command, &peer).await
}

/// Read the configuration file again. If it is wrong the old one stays.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, description = "Carried out, or so already", body = OutcomeDto),
    Common, FromDriver, Refused,
))]
pub(super) async fn reload(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<OutcomeDto>, Problem> {
    context.act(Command::Reload, &peer).await
}

/// Events, one JSON object a line.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses(
    (status = 200, description = "Kept events, oldest first, then new ones if followed", body = EventLine, content_type = "application/x-ndjson"),
    Common,
))]
pub(super) async fn event_stream(
    State(context): State<Context>,
    asked: QueryOf<EventsQuery>,
) -> Result<Response, Problem> {
    let EventsQuery { since, follow } = query(asked)?;
    Ok(if follow {
        events::follow(&context.events, since, context.stopping)
    } else {
        events::kept(&context.events, since)
    })
}

async fn not_found(uri: Uri) -> Problem {
    let hint = "GET /openapi.json lists the pages";
    Problem::new(
        Kind::NotFound,
        format!("there is no page {}", uri.path()),
        Some(hint),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer to {method}", uri.path());
    let hint = "GET looks, POST changes; GET /openapi.json lists the pages";
    Problem::new(Kind::MethodNotAllowed, detail, Some(hint))
}
