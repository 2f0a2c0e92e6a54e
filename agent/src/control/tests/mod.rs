//! The API as a client sees it: a real server on a real socket, with a driver
//! at the other end of the channel that answers by rule.

mod contract;
mod document;
mod limits;
mod rights;
mod stream;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    ApiState, ControlError,
    access::Access,
    bind, sample,
    server::{Limits, serve_with},
};
use crate::orchestrate::{
    command::{self, Answer, Command, Refusal, Subject},
    event::EventLog,
};

/// Nothing here takes long; a hang becomes a failure.
const DEADLINE: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    head: Duration::from_millis(300),
    body: Duration::from_millis(300),
    reply: Duration::from_millis(300),
    order: Duration::from_millis(300),
};

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostd-api-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/api.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server {
    folder: Folder,
    events: EventLog,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ControlError>>,
}

impl Server {
    fn socket(&self) -> PathBuf {
        self.folder.socket()
    }

    /// Serves for those whom `access` allows; requests go to `requests`.
    fn start(access: Access, requests: mpsc::Sender<command::Request>) -> Self {
        let folder = Folder::new();
        let listener = bind(&folder.socket(), &access).unwrap();
        let events = EventLog::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let state = ApiState {
            requests,
            events: events.feed(),
            access,
            desk: sample::desk(&folder.0.join("run/console")),
            host: "hv1".to_owned(),
        };
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve_with(listener, state, shutdown, LIMITS));
        Self {
            folder,
            events,
            stop: Some(stop),
            task,
        }
    }

    fn with_driver() -> Self {
        Self::start(Access::private(0), driver())
    }

    async fn stop(mut self) -> Result<(), ControlError> {
        self.stop.take();
        tokio::time::timeout(DEADLINE, &mut self.task)
            .await
            .expect("the server did not stop")
            .unwrap()
    }
}

/// Answers from the sample snapshot. `reload` is refused.
fn driver() -> mpsc::Sender<command::Request> {
    let (requests, mut queue) = mpsc::channel::<command::Request>(command::REQUEST_QUEUE);
    tokio::spawn(async move {
        while let Some(request) = queue.recv().await {
            let _ = request.reply.send(answer(&request.command));
        }
    });
    requests
}

fn answer(command: &Command) -> Result<Answer, Refusal> {
    let name = match command {
        Command::Snapshot => return Ok(Answer::Snapshot(Box::new(sample::snapshot()))),
        Command::Plan(risks) => return sample::planned(risks),
        Command::Reload => return Err(Refusal::Config("line 3: no such key".to_owned())),
        Command::Throw(Subject::Host) | Command::Restore(Subject::Host) => return Ok(Answer::Done),
        Command::Throw(Subject::Instance(name)) | Command::Restore(Subject::Instance(name)) => name,
        Command::Drain(name) | Command::Arm(name) | Command::Disarm(name) => name,
        Command::IsArmed(_) => return Ok(Answer::Armed(true)),
    };
    let seen = sample::snapshot();
    let Some(instance) = seen.instances.iter().find(|i| i.name == name.as_str()) else {
        return Err(Refusal::UnknownInstance(name.clone()));
    };
    match command {
        Command::Drain(_) if !instance.switch.tracked => Err(Refusal::NotTracked(name.clone())),
        Command::Arm(_) if instance.switch.armed => Ok(Answer::Unchanged),
        _ => Ok(Answer::Done),
    }
}

struct Reply {
    status: StatusCode,
    content_type: String,
    body: String,
}

async fn open(socket: &Path, request: Request<Body>) -> hyper::Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

async fn send(socket: &Path, method: &str, uri: &str, body: impl Into<Body>) -> Reply {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("host", "ghostd").body(body.into()).unwrap();
    let exchange = async {
        let response = open(socket, request).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let content_type = head.headers.get("content-type").unwrap();
        Reply {
            status: head.status,
            content_type: content_type.to_str().unwrap().to_owned(),
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .unwrap_or_else(|_| panic!("no answer to {method} {uri}"))
}
