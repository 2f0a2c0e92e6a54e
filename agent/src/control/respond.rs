//! Bodies and problems as HTTP responses, and the checks each request passes.

use axum::{
    Json,
    body::{self, Body},
    extract::{Extension, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    access::{Access, Deed, Peer},
    dto::{Kind, Problem},
    server::Limits,
};

/// No request needs a body. This is what is read before a larger one is
/// refused, so that an honest mistake gets an answer and not a broken pipe.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// Rights first: a stranger learns nothing about bodies and pages.
pub(super) async fn check_rights(
    State(access): State<Access>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let deed = match *request.method() {
        Method::GET | Method::HEAD => Deed::Look,
        _ => Deed::Change,
    };
    match access.check(access.standing(&peer), peer.caller, deed) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            tracing::info!(
                pid = peer.caller.pid,
                uid = peer.caller.uid,
                "refused: {}",
                problem.detail
            );
            let mut response = problem.into_response();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
    }
}

/// Reads the body within limits and refuses one that is not empty.
pub(super) async fn check_body(
    State(limits): State<Limits>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, sent) = request.into_parts();
    let read = tokio::time::timeout(limits.body, body::to_bytes(sent, BODY_BYTES_MAX));
    let problem = match read.await {
        Ok(Ok(bytes)) if bytes.is_empty() => {
            return next.run(Request::from_parts(parts, Body::empty())).await;
        }
        Ok(Ok(_)) => Problem::new(
            Kind::BadRequest,
            "this API takes no request bodies; everything is in the path and the query",
            None,
        ),
        Ok(Err(_)) => Problem::new(
            Kind::BodyTooLarge,
            format!("the body broke off or is larger than {BODY_BYTES_MAX} bytes"),
            Some("send no body"),
        ),
        Err(_) => Problem::new(
            Kind::BodyTimeout,
            format!("no complete body within {} s", limits.body.as_secs()),
            Some("send no body"),
        ),
    };
    problem.into_response()
}
