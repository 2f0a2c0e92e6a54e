//! What the document says is what the server does, and the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{super::dto::*, *};
use crate::{control::openapi, orchestrate::event::EventKind};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = openapi::document().unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        committed == generated,
        "agent/openapi.json is not what the code generates; run this test with BLESS=1"
    );
}

/// Which driver a request meets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Driver {
    Answers,
    /// Refuses everything as the kernel would.
    Fails,
    /// Takes requests and never answers.
    Silent,
    /// Never takes a request; the queue is full.
    Full,
    /// Is gone.
    Gone,
}

impl Driver {
    fn start(self) -> (mpsc::Sender<command::Request>, Box<dyn Send>) {
        let (requests, mut queue) = mpsc::channel::<command::Request>(1);
        match self {
            Self::Answers => (driver(), Box::new(())),
            Self::Gone => (requests, Box::new(())),
            Self::Full => {
                let (reply, answer) = oneshot::channel();
                let by = command::Caller {
                    pid: 1,
                    uid: 0,
                    gid: 0,
                };
                let command = Command::Snapshot;
                requests
                    .try_send(command::Request { command, by, reply })
                    .unwrap();
                (requests, Box::new((queue, answer)))
            }
            Self::Silent => {
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    while let Some(request) = queue.recv().await {
                        held.push(request);
                    }
                });
                (requests, Box::new(()))
            }
            Self::Fails => {
                tokio::spawn(async move {
                    while let Some(request) = queue.recv().await {
                        let refusal = Refusal::Kernel("cannot read gd_switches".to_owned());
                        let _ = request.reply.send(Err(refusal));
                    }
                });
                (requests, Box::new(()))
            }
        }
    }
}

fn strict<T: DeserializeOwned>(body: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<T>(body).map(drop)
}

fn lines(body: &str) -> Result<(), serde_json::Error> {
    assert!(!body.is_empty());
    body.lines().try_for_each(strict::<EventLine>)
}

type Check = fn(&str) -> Result<(), serde_json::Error>;

/// A good request to each operation, one the driver would refuse, and how to
/// read the good answer.
const OPERATIONS: [(&str, &str, &str, Check); 10] = [
    ("get", "/openapi.json", "/openapi.json", strict::<Value>),
    ("get", "/v1/health", "/v1/health", strict::<HealthDto>),
    ("get", "/v1/status", "/v1/status", strict::<StatusDto>),
    (
        "get",
        "/v1/routes",
        "/v1/routes?instance=web",
        strict::<RoutesDto>,
    ),
    ("get", "/v1/switches", "/v1/switches", strict::<SwitchesDto>),
    (
        "get",
        "/v1/switches/{instance}",
        "/v1/switches/web",
        strict::<SwitchDto>,
    ),
    (
        "post",
        "/v1/switches/{instance}/{action}",
        "/v1/switches/web/throw",
        strict::<OutcomeDto>,
    ),
    (
        "post",
        "/v1/host-switch/{action}",
        "/v1/host-switch/restore",
        strict::<OutcomeDto>,
    ),
    ("post", "/v1/reload", "/v1/reload", strict::<OutcomeDto>),
    ("get", "/v1/events", "/v1/events?since=0", lines),
];

fn documented() -> BTreeMap<(String, String), BTreeSet<String>> {
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let key = (method.clone(), path.clone());
            operations.insert(key, responses.keys().cloned().collect());
        }
    }
    operations
}

/// Each documented status of each operation is provoked, and nothing else comes.
#[tokio::test]
async fn every_route_answers_as_documented() {
    let mut left = documented();
    let mut good = Vec::new();
    for (method, path, uri, check) in OPERATIONS {
        let driver = Driver::Answers;
        if path != "/v1/reload" {
            good.push((driver, method, path, uri.to_owned(), 200, Some(check)));
        }
        let sep = if uri.contains('?') { "&" } else { "?" };
        let mut bad = |driver, uri: String, status| {
            good.push((driver, method, path, uri, status, None));
        };
        let of_driver = left[&(method.to_owned(), path.to_owned())].contains("504");
        if of_driver {
            bad(Driver::Fails, uri.to_owned(), 500);
            bad(Driver::Full, uri.to_owned(), 503);
            bad(Driver::Silent, uri.to_owned(), 504);
            bad(Driver::Gone, uri.to_owned(), 503);
        }
        match path {
            "/v1/health" => bad(Driver::Gone, uri.to_owned(), 503),
            "/v1/routes" => bad(driver, "/v1/routes?instance=nobody".to_owned(), 404),
            "/v1/switches/{instance}" => bad(driver, "/v1/switches/nobody".to_owned(), 404),
            "/v1/switches/{instance}/{action}" => {
                bad(driver, "/v1/switches/nobody/arm".to_owned(), 404);
                bad(driver, "/v1/switches/web/explode".to_owned(), 404);
                bad(driver, "/v1/switches/UPPER/arm".to_owned(), 400);
                bad(driver, "/v1/switches/db/drain".to_owned(), 409);
            }
            "/v1/host-switch/{action}" => bad(driver, "/v1/host-switch/arm".to_owned(), 404),
            "/v1/reload" => bad(driver, uri.to_owned(), 422),
            "/v1/events" => bad(driver, format!("{uri}{sep}unknown=1"), 400),
            _ => {}
        }
    }
    for driver in [
        Driver::Answers,
        Driver::Fails,
        Driver::Silent,
        Driver::Full,
        Driver::Gone,
    ] {
        let (requests, _held) = driver.start();
        let mut server = Server::start(Access::private(0), requests);
        server.events.push(SystemTime::now(), EventKind::Stopping);
        for (_, method, path, uri, status, check) in good.iter().filter(|c| c.0 == driver) {
            let reply = send(&server.socket(), &method.to_uppercase(), uri, "").await;
            assert_eq!(
                reply.status.as_u16(),
                *status,
                "{method} {uri}: {}",
                reply.body
            );
            judge(&reply, *check);
            let statuses = left.get_mut(&((*method).to_owned(), (*path).to_owned()));
            statuses.unwrap().remove(&status.to_string());
        }
        server.stop().await.unwrap();
    }
    common(&mut left).await;
    reload_that_works(&mut left).await;
    left.retain(|_, statuses| !statuses.is_empty());
    assert!(left.is_empty(), "documented but never seen: {left:?}");
}

fn judge(reply: &Reply, check: Option<Check>) {
    if let Some(check) = check {
        check(&reply.body).unwrap_or_else(|e| panic!("{e}: {}", reply.body));
        let json = ["application/json", "application/x-ndjson"];
        assert!(
            json.contains(&reply.content_type.as_str()),
            "{}",
            reply.content_type
        );
    } else {
        let problem: Problem = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(reply.content_type, "application/problem+json");
        assert_eq!(problem.status, reply.status.as_u16());
    }
}

/// Statuses that any operation may answer with.
async fn common(left: &mut BTreeMap<(String, String), BTreeSet<String>>) {
    let server = Server::with_driver();
    let strangers = Server::start(Access::private(0), driver());
    for (method, path, uri, _) in OPERATIONS {
        let shout = method.to_uppercase();
        let with_body = send(&server.socket(), &shout, uri, "x").await;
        let too_large = send(&server.socket(), &shout, uri, vec![b'x'; 70_000]).await;
        let too_late = limits::with_stuck_body(&server.socket(), &shout, uri).await;
        let stranger = rights::as_nobody(&strangers.socket(), &shout, uri).await;
        let seen = [with_body, too_large, too_late, stranger];
        let statuses = left.get_mut(&(method.to_owned(), path.to_owned())).unwrap();
        for (reply, expected) in seen.iter().zip([400, 413, 408, 403]) {
            assert_eq!(
                reply.status.as_u16(),
                expected,
                "{method} {uri}: {}",
                reply.body
            );
            judge(reply, None);
            statuses.remove(&expected.to_string());
        }
    }
}

async fn reload_that_works(left: &mut BTreeMap<(String, String), BTreeSet<String>>) {
    let (requests, mut queue) = mpsc::channel::<command::Request>(1);
    let driver = tokio::spawn(async move {
        let request = queue.recv().await.unwrap();
        assert_eq!(request.command, Command::Reload);
        assert_eq!(request.by.pid, std::process::id());
        request.reply.send(Ok(Answer::Done)).unwrap();
    });
    let server = Server::start(Access::private(0), requests);
    let reply = send(&server.socket(), "POST", "/v1/reload", "").await;
    assert_eq!(reply.body, r#"{"outcome":"done"}"#);
    driver.await.unwrap();
    let statuses = left.get_mut(&("post".to_owned(), "/v1/reload".to_owned()));
    statuses.unwrap().remove("200");
}

#[tokio::test]
async fn commands_reach_the_driver_as_they_were_meant() {
    let (requests, mut queue) = mpsc::channel::<command::Request>(8);
    let server = Server::start(Access::private(0), requests);
    let name = || "web".parse().unwrap();
    let cases = [
        (
            "switches/web/throw",
            Command::Throw(Subject::Instance(name())),
        ),
        (
            "switches/web/restore",
            Command::Restore(Subject::Instance(name())),
        ),
        ("switches/web/drain", Command::Drain(name())),
        ("switches/web/arm", Command::Arm(name())),
        ("switches/web/disarm", Command::Disarm(name())),
        ("host-switch/throw", Command::Throw(Subject::Host)),
        ("host-switch/restore", Command::Restore(Subject::Host)),
    ];
    for (path, expected) in cases {
        let socket = server.socket();
        let uri = format!("/v1/{path}");
        let sent = tokio::spawn(async move { send(&socket, "POST", &uri, "").await });
        let request = queue.recv().await.unwrap();
        assert_eq!(request.command, expected);
        assert_eq!(request.by.uid, nix::unistd::getuid().as_raw());
        request.reply.send(Ok(Answer::Unchanged)).unwrap();
        assert_eq!(sent.await.unwrap().body, r#"{"outcome":"unchanged"}"#);
    }
}

#[tokio::test]
async fn pages_and_methods_that_do_not_exist_are_problems() {
    let server = Server::with_driver();
    let cases = [
        ("GET", "/", 404),
        ("GET", "/v1/nonsense", 404),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/reload", 405),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/routes?instance=%ff", 400),
        ("GET", "/v1/events?since=-1", 400),
        ("GET", "/v1/events?follow=maybe", 400),
    ];
    for (method, uri, status) in cases {
        let reply = send(&server.socket(), method, uri, "").await;
        assert_eq!(
            reply.status.as_u16(),
            status,
            "{method} {uri}: {}",
            reply.body
        );
        judge(&reply, None);
    }
}
