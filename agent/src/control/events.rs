//! The event stream: kept events, then live ones, as NDJSON.
//!
//! Lines are made when the connection asks for more, so a reader that stops
//! reading holds its backlog and a bounded channel, and nothing grows.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::{dto::EventLine, server::stopped};
use crate::orchestrate::event::{Backlog, Event, EventFeed};

/// What is still to be sent, and where more comes from.
struct Reader {
    lost: u64,
    kept: VecDeque<Arc<Event>>,
    live: Option<Live>,
}

struct Live {
    events: broadcast::Receiver<Arc<Event>>,
    stopping: watch::Receiver<bool>,
}

pub(super) fn kept(feed: &EventFeed, since: u64) -> Response {
    respond(Reader::new(feed.since(since), None))
}

pub(super) fn follow(feed: &EventFeed, since: u64, stopping: watch::Receiver<bool>) -> Response {
    let (backlog, events) = feed.follow(since);
    respond(Reader::new(backlog, Some(Live { events, stopping })))
}

fn respond(reader: Reader) -> Response {
    let lines = stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(encode(&line)), reader))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

fn encode(line: &EventLine) -> Bytes {
    // Strings, numbers and string keys always encode; should that ever change,
    // a reader sees an empty line rather than a broken daemon.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

impl Reader {
    fn new(backlog: Backlog, live: Option<Live>) -> Self {
        let Backlog { lost, events } = backlog;
        Self {
            lost,
            kept: events.into(),
            live,
        }
    }

    async fn next(&mut self) -> Option<EventLine> {
        if self.lost > 0 {
            let events = std::mem::take(&mut self.lost);
            return Some(EventLine::Lost { events });
        }
        if let Some(event) = self.kept.pop_front() {
            return Some(EventLine::from(&*event));
        }
        self.live.as_mut()?.next().await
    }
}

impl Live {
    async fn next(&mut self) -> Option<EventLine> {
        let received = tokio::select! {
            // What was said before the stop is still sent: `Stopping` is one of them.
            biased;
            // Cancel safe: `recv` takes an event only when it returns it.
            received = self.events.recv() => received,
            // Cancel safe: it only looks.
            () = stopped(&mut self.stopping) => return None,
        };
        match received {
            Ok(event) => Some(EventLine::from(&*event)),
            Err(RecvError::Lagged(events)) => Some(EventLine::Lost { events }),
            Err(RecvError::Closed) => None,
        }
    }
}
