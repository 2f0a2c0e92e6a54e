//! The OpenAPI document, generated from the routes and their types.
//!
//! `agent/openapi.json` is the committed copy; a test compares the two.

use std::collections::BTreeMap;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    IntoResponses, OpenApi, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response as Documented, ResponseBuilder},
};

use super::{
    api,
    dto::{Kind, Problem},
    instances, plan,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ghostd",
        description = "Local API of the ghostd daemon, on a unix socket. \
            Rights follow from who connects: root and the operators group may do all, \
            the readers group may GET. Errors are problems (RFC 9457)."
    ),
    servers((url = "http://localhost", description = "over the unix socket /run/ghostd/ghostd.sock")),
    paths(
        api::health,
        api::status,
        api::routes,
        api::all_switches,
        api::one_switch,
        api::move_switch,
        api::move_host_switch,
        api::reload,
        api::event_stream,
        plan::plan,
        instances::all,
        instances::one,
        instances::console_of,
        instances::order,
        instances::order_ghost,
        page
    ),
    components(schemas(Problem, api::SwitchAction, api::HostAction, instances::InstanceAction, instances::GhostAction))
)]
struct Document;

/// Sets of problems, to be named among an operation's responses.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident $text:literal),+;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Documented>> {
                BTreeMap::from([$((Kind::$kind.status().to_string(), problem($text))),+])
            }
        }
    )+};
}

problems! {
    /// Any request may meet these.
    Common:
        BadRequest "A parameter is wrong, or there was a body",
        Forbidden "The caller may not do this; `detail` says which group may",
        BodyTimeout "The body did not arrive",
        BodyTooLarge "The body is too large";
    /// Whatever the driver has to answer.
    FromDriver:
        Kernel "The kernel refused, or the daemon is at fault",
        Busy "The daemon is busy or shutting down",
        DriverTimeout "The driver did not answer in time; a command may still be carried out";
    MissingVm: UnknownInstance "This host runs no such instance, or there is no such action or copy";
    /// What may become of an order.
    VmOrdered:
        NotNow "Not as things are; `hint` says what helps",
        MicroVm "It was tried and undone; `detail` says why",
        Busy "The instance is busy, or the daemon is shutting down",
        DriverTimeout "It takes longer, and goes on";
    Missing: UnknownInstance "There is no such instance or action";
    NotTracked: NotTracked "Flows of the instance are not tracked, so it cannot drain";
    NoMicrovm: NoMicrovm "ghostd makes no ghost of the instance";
    Refused: ConfigRefused "The new configuration is wrong and the old one stays; `detail` is the full diagnostic";
    Stopping: ShuttingDown "The daemon is shutting down";
}

fn problem(text: &str) -> RefOr<Documented> {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new().description(text);
    response
        .content("application/problem+json", content)
        .build()
        .into()
}

/// The document as text.
pub fn document() -> Result<String, serde_json::Error> {
    let mut text = Document::openapi().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object),
    Common,
))]
pub(super) async fn page() -> Response {
    match document() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(e) => Problem::new(Kind::Internal, e.to_string(), None).into_response(),
    }
}
