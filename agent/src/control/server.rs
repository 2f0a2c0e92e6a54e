//! Connections: accepted within limits, served, and drained at the end.

use std::{io, path::Path, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time,
};

use super::{
    ControlError,
    access::{Access, Standing},
    api::{self, Context},
    peer,
};
use crate::orchestrate::{command::Request, event::EventFeed, vms::VmDesk};

/// Connections at a time; more wait in the kernel's backlog. A person and a
/// few scripts that follow events need far fewer.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Of these, what peers other than operators may hold together; more are
/// closed at once. Readers cannot lock operators out.
pub(super) const GUESTS_MAX: usize = 48;

/// How long a request may take, part by part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) reply: Duration,
    /// Of an order to a microVM.
    pub(super) order: Duration,
}

/// Any client on this machine sends head and body at once; a silent peer is
/// cut off. A reload of 10,000 instances takes the driver seconds, and a
/// person gives up after about ten. The first cut of a large guest takes seconds
/// for each 10 GiB, a large disk longer; beyond ten minutes nobody waits any more.
const LIMITS: Limits = Limits {
    head: Duration::from_secs(5),
    body: Duration::from_secs(5),
    reply: Duration::from_secs(10),
    order: Duration::from_secs(600),
};

/// Per connection, in each direction: a request line with a long name fits.
const BUFFER_BYTES: usize = 16 * 1024;

/// From shutdown to the end of the last connection.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failed accept (out of descriptors, out of memory): long enough not
/// to spin, short enough for a person.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the API serves.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// To the driver; of capacity [`crate::orchestrate::command::REQUEST_QUEUE`].
    pub requests: mpsc::Sender<Request>,
    pub events: EventFeed,
    /// Of the instances that this host runs itself.
    pub desk: VmDesk,
    pub access: Access,
    /// The host's name in what is answered.
    pub host: String,
}

/// Serves until `shutdown` resolves, then lets requests in flight end, within
/// a deadline, and removes the socket file.
pub async fn serve(
    listener: UnixListener,
    state: ApiState,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    serve_with(listener, state, shutdown, LIMITS).await
}

pub(super) async fn serve_with(
    listener: UnixListener,
    state: ApiState,
    shutdown: impl Future<Output = ()>,
    limits: Limits,
) -> Result<(), ControlError> {
    let ApiState {
        requests,
        events,
        desk,
        access,
        host,
    } = state;
    let (stop, stopping) = watch::channel(false);
    let context = Context {
        requests,
        events,
        desk,
        host,
        stopping: stopping.clone(),
        limits,
    };
    let server = Server {
        router: api::router(context, access.clone()),
        access,
        limits,
        guests: Arc::new(Semaphore::new(GUESTS_MAX)),
        stopping,
    };
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            // Cancel safe: polled by reference, nothing is lost.
            () = &mut shutdown => break,
            // Cancel safe: `join_next` takes a task only when it returns it.
            Some(_) = connections.join_next() => {}
            // Cancel safe: `accept` takes a connection only when it returns it.
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                server.admit(accepted.map(|(stream, _)| stream), &mut connections).await;
            }
        }
    }
    stop.send_replace(true);
    close(listener)?;
    drain(connections).await;
    Ok(())
}

/// The file goes first: whoever finds it can still connect.
fn close(listener: UnixListener) -> Result<(), ControlError> {
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|a| a.as_pathname());
    let removed = path.map(|p| (p, std::fs::remove_file(p)));
    drop(listener);
    match removed {
        Some((path, Err(e))) if e.kind() != io::ErrorKind::NotFound => {
            Err(ControlError::Stale(Path::to_owned(path), e))
        }
        _ => Ok(()),
    }
}

async fn drain(mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "API connections cut off at shutdown"
        );
        connections.shutdown().await;
    }
}

struct Server {
    router: Router,
    access: Access,
    limits: Limits,
    guests: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    async fn admit(&self, accepted: io::Result<UnixStream>, connections: &mut JoinSet<()>) {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API connection");
                time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let peer = match peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "cannot tell who connects to the API; connection closed");
                return;
            }
        };
        let permit = match self.access.standing(&peer) {
            Standing::Operator => None,
            Standing::Reader | Standing::Stranger => {
                let Ok(permit) = Arc::clone(&self.guests).try_acquire_owned() else {
                    tracing::warn!(
                        uid = peer.caller.uid,
                        "too many API connections of others than operators; connection closed"
                    );
                    return;
                };
                Some(permit)
            }
        };
        let router = self.router.clone().layer(Extension(peer));
        let stopping = self.stopping.clone();
        let head = self.limits.head;
        connections.spawn(async move {
            let _permit = permit;
            attend(stream, router, head, stopping).await;
        });
    }
}

async fn attend(
    stream: UnixStream,
    router: Router,
    head: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        // Cancel safe: polled by reference.
        ended = connection.as_mut() => ended,
        // Cancel safe: it only looks.
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "API connection ended");
    }
}

/// An error means that the server is gone, which is a stop as well.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
