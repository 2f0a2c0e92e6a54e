//! What the document says is what the server does, and the other way round.

use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{super::dto::*, document::Contract, *};
use crate::control::openapi;

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
#[derive(Clone, Copy, PartialEq, Eq)]
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
    const ALL: [Self; 5] = [
        Self::Answers,
        Self::Fails,
        Self::Silent,
        Self::Full,
        Self::Gone,
    ];

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

fn text(body: &str) -> Result<(), serde_json::Error> {
    assert_eq!(body, sample::CONSOLE);
    Ok(())
}

const INSTANCE: &str = "/v1/instances/{instance}";
const CONSOLE: &str = "/v1/instances/{instance}/console";
const ORDER: &str = "/v1/instances/{instance}/{action}";
const GHOST_ORDER: &str = "/v1/instances/{instance}/ghost/{action}";

/// What the sample's instance does about each order.
const ORDERED: [(&str, &str, u16); 10] = [
    (ORDER, "pause", 409),
    (ORDER, "resume", 500),
    (ORDER, "reset", 503),
    (ORDER, "destroy", 504),
    (ORDER, "explode", 404),
    (GHOST_ORDER, "ghost/activate", 409),
    (GHOST_ORDER, "ghost/suspend", 500),
    (GHOST_ORDER, "ghost/destroy", 503),
    (GHOST_ORDER, "ghost/drill", 504),
    (GHOST_ORDER, "ghost/explode", 404),
];

type Check = fn(&str) -> Result<(), serde_json::Error>;

/// A good request to each operation, one the driver would refuse, and how to
/// read the good answer.
const OPERATIONS: [(&str, &str, &str, Check); 16] = [
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
    ("get", "/v1/instances", "/v1/instances", strict::<VmsDto>),
    ("get", INSTANCE, "/v1/instances/web", strict::<VmDto>),
    ("get", CONSOLE, "/v1/instances/web/console", text),
    (
        "post",
        ORDER,
        "/v1/instances/web/create",
        strict::<VmDoneDto>,
    ),
    (
        "post",
        GHOST_ORDER,
        "/v1/instances/web/ghost/prepare",
        strict::<VmDoneDto>,
    ),
    (
        "get",
        "/v1/plan",
        "/v1/plan?risk=web=0.4",
        strict::<PlanDto>,
    ),
];

/// A driver, a request, and the status that it must get.
type Case = (Driver, &'static str, &'static str, String, u16);

fn cases(contract: &Contract) -> Vec<Case> {
    let mut cases = Vec::new();
    for (method, path, uri, _) in OPERATIONS {
        let mut add = |driver, uri: &str, status| {
            cases.push((driver, method, path, uri.to_owned(), status));
        };
        if path != "/v1/reload" {
            add(Driver::Answers, uri, 200);
        }
        if contract.documents(method, path, 504) && !path.starts_with("/v1/instances") {
            add(Driver::Fails, uri, 500);
            add(Driver::Full, uri, 503);
            add(Driver::Silent, uri, 504);
            add(Driver::Gone, uri, 503);
        }
        match path {
            "/v1/health" => add(Driver::Gone, uri, 503),
            "/v1/routes" => add(Driver::Answers, "/v1/routes?instance=nobody", 404),
            "/v1/switches/{instance}" => add(Driver::Answers, "/v1/switches/nobody", 404),
            "/v1/switches/{instance}/{action}" => {
                add(Driver::Answers, "/v1/switches/nobody/arm", 404);
                add(Driver::Answers, "/v1/switches/web/explode", 404);
                add(Driver::Answers, "/v1/switches/UPPER/arm", 400);
                add(Driver::Answers, "/v1/switches/db/drain", 409);
            }
            "/v1/host-switch/{action}" => add(Driver::Answers, "/v1/host-switch/arm", 404),
            "/v1/reload" => add(Driver::Answers, uri, 422),
            "/v1/plan" => {
                add(Driver::Answers, "/v1/plan", 200);
                add(Driver::Answers, "/v1/plan?risk=nobody=0.4", 404);
                add(Driver::Answers, "/v1/plan?risk=db=0.4", 409);
                add(Driver::Answers, "/v1/plan?risk=web=1.4", 400);
                add(Driver::Answers, "/v1/plan?risk=web", 400);
            }
            INSTANCE => add(Driver::Answers, "/v1/instances/nobody", 404),
            CONSOLE => add(Driver::Answers, "/v1/instances/web/console?copy=ghost", 404),
            ORDER | GHOST_ORDER => {
                for (_, action, status) in ORDERED.into_iter().filter(|o| o.0 == path) {
                    add(
                        Driver::Answers,
                        &format!("/v1/instances/web/{action}"),
                        status,
                    );
                }
            }
            "/v1/events" => add(Driver::Answers, "/v1/events?unknown=1", 400),
            _ => {}
        }
    }
    cases
}

/// Each documented answer of each operation is provoked, and nothing else comes.
#[tokio::test]
async fn every_route_answers_as_documented() {
    let mut contract = Contract::new();
    let cases = cases(&contract);
    for driver in Driver::ALL {
        let (requests, _held) = driver.start();
        let mut server = Server::start(Access::private(0), requests);
        for kind in sample::event_kinds() {
            server.events.push(SystemTime::now(), kind);
        }
        for (_, method, path, uri, status) in cases.iter().filter(|c| c.0 == driver) {
            let reply = send(&server.socket(), &method.to_uppercase(), uri, "").await;
            contract.judge(method, path, *status, &reply);
            if *status == 200 {
                read_strictly(path, &reply.body);
            } else {
                read_problem(&reply);
            }
        }
        server.stop().await.unwrap();
    }
    common(&mut contract).await;
    reload_that_works(&mut contract).await;
    contract.fulfilled();
}

fn read_strictly(path: &str, body: &str) {
    let operation = OPERATIONS.iter().find(|o| o.1 == path).unwrap();
    (operation.3)(body).unwrap_or_else(|e| panic!("{e}: {body}"));
}

fn read_problem(reply: &Reply) {
    let problem: Problem = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(reply.content_type, "application/problem+json");
    assert_eq!(problem.status, reply.status.as_u16());
}

/// Statuses that any operation may answer with.
async fn common(contract: &mut Contract) {
    let server = Server::with_driver();
    let strangers = Server::start(Access::private(0), driver());
    for (method, path, uri, _) in OPERATIONS {
        let shout = method.to_uppercase();
        let with_body = send(&server.socket(), &shout, uri, "x").await;
        contract.judge(method, path, 400, &with_body);
        let too_large = send(&server.socket(), &shout, uri, vec![b'x'; 70_000]).await;
        contract.judge(method, path, 413, &too_large);
        let too_late = limits::with_stuck_body(&server.socket(), &shout, uri).await;
        contract.judge(method, path, 408, &too_late);
        let stranger = rights::as_nobody(&strangers.socket(), &shout, uri).await;
        contract.judge(method, path, 403, &stranger);
    }
}

async fn reload_that_works(contract: &mut Contract) {
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
    contract.judge("post", "/v1/reload", 200, &reply);
    driver.await.unwrap();
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
        read_problem(&reply);
    }
}
