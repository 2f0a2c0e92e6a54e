//! The ghostctl binary as an operator meets it: against a real API server
//! with a driver that answers by rule, and against none.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    num::NonZeroU32,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
    time::SystemTime,
};

use agent_common::abi::{ABI_VERSION, Position, RouteCounters};
use ghostd::{
    control::{ApiState, access::Access, bind, serve},
    model::{
        CounterIndex, HostView, Ifindex, InstanceView, RouteSpec, RouteView, Service, SlotIndex,
        Snapshot, SwitchView, Target, UplinkView, XdpMode,
    },
    orchestrate::{
        command::{self, Answer, Command as Wish, Refusal, Subject},
        event::{EventKind, EventLog},
    },
};
use serde_json::Value;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostctl-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    fn pins(&self) -> PathBuf {
        self.0.join("pins")
    }

    /// ghostctl on this folder's socket and pins.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostctl"));
        command.arg("--socket").arg(self.socket());
        command.arg("--pins").arg(self.pins());
        command.args(args).stdin(Stdio::null());
        command
    }

    fn ghostctl(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn snapshot(uplink: Option<XdpMode>) -> Snapshot {
    let switch = SwitchView {
        position: Position::Primary,
        own_position: Position::Primary,
        by_host: false,
        armed: true,
        tracked: false,
        term: 1,
        cause: None,
        cause_pid: 0,
        moved_ago: None,
        draining_flows: None,
    };
    let target: IpAddr = "198.51.100.20".parse().unwrap();
    let spec = RouteSpec {
        service: Service {
            addr: "192.0.2.10".parse().unwrap(),
            l4: None,
        },
        primary: Target::Native,
        ghost: Target::Translate {
            addr: target,
            port: None,
        },
    };
    let route = RouteView {
        spec,
        counter: CounterIndex(0),
        counters: RouteCounters::default(),
    };
    Snapshot {
        host: HostView {
            generation: 0,
            thrown_ago: None,
            cause_pid: 0,
            abi_version: ABI_VERSION,
            ghostd_version: "0.1.0".to_owned(),
        },
        instances: vec![InstanceView {
            name: "web".to_owned(),
            slot: SlotIndex(0),
            switch,
            routes: vec![route],
            ports: vec![],
        }],
        uplinks: vec![UplinkView {
            interface: "lo".to_owned(),
            ifindex: Ifindex(NonZeroU32::MIN),
            mode: uplink,
            program_id: 4,
            program: "gd_steer".to_owned(),
        }],
        troubles: Vec::new(),
    }
}

/// A server, and a driver that knows the instance `web`, which cannot drain.
struct Daemon {
    folder: Folder,
    events: EventLog,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Listens once this returns.
    fn start(uplink: Option<XdpMode>) -> Self {
        let folder = Folder::new();
        let events = EventLog::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let (listens, listening) = oneshot::channel::<()>();
        let (socket, feed) = (folder.socket(), events.feed());
        let thread = std::thread::spawn(move || {
            let mut runtime = runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let access = Access::private(0);
                let listener = bind(&socket, &access).unwrap();
                listens.send(()).unwrap();
                let state = ApiState {
                    requests: driver(uplink),
                    events: feed,
                    access,
                };
                let shutdown = async {
                    let _ = stopped.await;
                };
                serve(listener, state, shutdown).await.unwrap();
            });
        });
        listening.blocking_recv().unwrap();
        Self {
            folder,
            events,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn healthy() -> Self {
        Self::start(Some(XdpMode::Native))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn driver(uplink: Option<XdpMode>) -> mpsc::Sender<command::Request> {
    let (requests, mut queue) = mpsc::channel::<command::Request>(command::REQUEST_QUEUE);
    tokio::spawn(async move {
        while let Some(request) = queue.recv().await {
            let _ = request.reply.send(answer(&request.command, uplink));
        }
    });
    requests
}

fn answer(wish: &Wish, uplink: Option<XdpMode>) -> Result<Answer, Refusal> {
    let name = match wish {
        Wish::Snapshot => return Ok(Answer::Snapshot(Box::new(snapshot(uplink)))),
        Wish::Reload => return Err(Refusal::Config("line 3: unknown key `adr`".to_owned())),
        Wish::Throw(Subject::Host) | Wish::Restore(Subject::Host) => return Ok(Answer::Done),
        Wish::Throw(Subject::Instance(name)) | Wish::Restore(Subject::Instance(name)) => name,
        Wish::Drain(name) | Wish::Arm(name) | Wish::Disarm(name) => name,
    };
    match wish {
        _ if name.as_str() != "web" => Err(Refusal::UnknownInstance(name.clone())),
        Wish::Drain(_) => Err(Refusal::NotTracked(name.clone())),
        Wish::Arm(_) => Ok(Answer::Unchanged),
        _ => Ok(Answer::Done),
    }
}

#[test]
fn status_says_by_its_exit_how_the_host_is() {
    let healthy = Daemon::healthy();
    let status = healthy.folder.ghostctl(&["status"]);
    assert_eq!(code(&status), 0, "{}", err(&status));
    assert!(out(&status).starts_with("ghostd       0.1.0, running: healthy\n"));
    assert!(
        out(&status).contains("\nweb       primary  "),
        "{}",
        out(&status)
    );
    assert!(!out(&status).contains('\x1b'), "no colour in a pipe");
    let brief = healthy.folder.ghostctl(&["status", "--brief"]);
    assert!(
        out(&brief).starts_with("OK instances=1 primary=1 "),
        "{}",
        out(&brief)
    );

    let degraded = Daemon::start(None);
    let status = degraded.folder.ghostctl(&["status", "-o", "json"]);
    assert_eq!(code(&status), 1);
    assert_eq!(json(&status)["findings"][0]["code"], "uplink_gone");
    assert_eq!(json(&status)["source"], "daemon");
}

#[test]
fn colour_is_there_when_it_is_asked_for() {
    let daemon = Daemon::healthy();
    let status = daemon.folder.ghostctl(&["--color", "always", "status"]);
    assert!(out(&status).contains('\x1b'));
}

#[test]
fn json_is_what_the_api_says() {
    let daemon = Daemon::healthy();
    let routes = json(&daemon.folder.ghostctl(&["-o", "json", "routes", "web"]));
    assert_eq!(routes["routes"][0]["service"]["addr"], "192.0.2.10");
    let shown = json(
        &daemon
            .folder
            .ghostctl(&["-o", "json", "switch", "show", "web"]),
    );
    assert_eq!(shown["switches"][0]["position"], "primary");
    let host = json(
        &daemon
            .folder
            .ghostctl(&["-o", "json", "switch", "show", "--host"]),
    );
    assert_eq!(host["generation"], 0);
}

#[test]
fn commands_are_carried_out_or_refused_with_a_hint() {
    let daemon = Daemon::healthy();
    let run = |args: &[&str]| daemon.folder.ghostctl(args);
    let done = run(&["switch", "throw", "web"]);
    assert_eq!((code(&done), out(&done)), (0, "throw web: done\n"));
    let done = run(&["switch", "restore", "--host"]);
    assert_eq!(
        (code(&done), out(&done)),
        (0, "restore the host switch: done\n")
    );
    let same = run(&["switch", "arm", "web"]);
    assert_eq!(
        (code(&same), out(&same)),
        (0, "arm web: it was so already\n")
    );

    let refused = run(&["switch", "drain", "web"]);
    assert_eq!((code(&refused), out(&refused)), (1, ""));
    assert!(err(&refused).contains("cannot drain"), "{}", err(&refused));
    assert!(
        err(&refused).contains("hint: use `restore`"),
        "{}",
        err(&refused)
    );
    let unknown = run(&["switch", "throw", "nobody"]);
    assert_eq!(code(&unknown), 1);
    assert!(err(&unknown).contains("there is no instance `nobody`"));
    let reload = run(&["reload"]);
    assert_eq!(code(&reload), 1);
    assert!(
        err(&reload).contains("unknown key `adr`"),
        "{}",
        err(&reload)
    );
    let routes = run(&["routes", "nobody"]);
    assert_eq!(code(&routes), 1);
}

#[test]
fn offline_is_refused_while_a_daemon_answers() {
    let daemon = Daemon::healthy();
    let cases: [&[&str]; 2] = [
        &["switch", "throw", "web", "--offline"],
        &["switch", "restore", "--host", "--offline"],
    ];
    for args in cases {
        let refused = daemon.folder.ghostctl(args);
        assert_eq!(code(&refused), 2, "{args:?}: {refused:?}");
        assert!(err(&refused).contains("leave out `--offline`"));
    }
}

/// As a daemon that is stopped, or waits for a lock for ever.
#[test]
fn offline_is_for_a_daemon_that_hangs_too() {
    let folder = Folder::new();
    let _silent = UnixListener::bind(folder.socket()).unwrap();
    let tried = folder.ghostctl(&["switch", "throw", "web", "--offline"]);
    // It got as far as the pins, of which there are none.
    assert!(err(&tried).contains("nothing is pinned"), "{tried:?}");
}

#[test]
fn wrong_usage_is_told_apart() {
    let folder = Folder::new();
    let cases: [&[&str]; 6] = [
        &[],
        &["switch", "throw"],
        &["switch", "throw", "web", "--host"],
        &["switch", "throw", "UPPER CASE"],
        &["events", "--since", "yesterday"],
        &["status", "-o", "xml"],
    ];
    for args in cases {
        assert_eq!(code(&folder.ghostctl(args)), 2, "{args:?}");
    }
}

#[test]
fn without_a_daemon_the_exit_is_three() {
    let folder = Folder::new();
    let cases: [&[&str]; 6] = [
        &["status"],
        &["routes"],
        &["switch", "show"],
        &["switch", "throw", "web"],
        &["events"],
        &["reload"],
    ];
    for args in cases {
        let output = folder.ghostctl(args);
        assert_eq!(code(&output), 3, "{args:?}: {output:?}");
        assert!(err(&output).contains("no daemon answers on"), "{output:?}");
    }
}

#[test]
fn events_are_lines() {
    let mut daemon = Daemon::healthy();
    let attached = EventKind::Attached {
        interface: "eth1".to_owned(),
        mode: "native",
    };
    daemon.events.push(SystemTime::now(), attached);
    daemon.events.push(SystemTime::now(), EventKind::Stopping);
    let events = daemon.folder.ghostctl(&["events", "--since", "1"]);
    assert_eq!(code(&events), 0);
    assert_eq!(out(&events).lines().count(), 1);
    assert!(out(&events).ends_with("2  ghostd stops; steering stays in force\n"));
    let lines = daemon.folder.ghostctl(&["-o", "json", "events"]);
    for line in out(&lines).lines() {
        serde_json::from_str::<ghostd::control::dto::EventLine>(line).unwrap();
    }
}

#[test]
fn a_follower_hears_what_comes_and_ends_with_the_daemon() {
    let mut daemon = Daemon::healthy();
    daemon.events.push(SystemTime::now(), EventKind::Stopping);
    let mut follower = daemon.folder.command(&["events", "--follow"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .contains("    1  ghostd stops")
    );
    let interface = "eth1".to_owned();
    daemon
        .events
        .push(SystemTime::now(), EventKind::InterfaceGone { interface });
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .ends_with("2  interface eth1 is gone")
    );
    daemon.stop.take();
    assert!(lines.next().is_none());
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn doctor_finds_what_the_daemon_finds() {
    let daemon = Daemon::start(None);
    let doctor = daemon.folder.ghostctl(&["-o", "json", "doctor"]);
    assert_eq!(code(&doctor), 1);
    let found = json(&doctor);
    let codes: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&"uplink_gone"), "{codes:?}");
    assert!(!codes.contains(&"daemon_not_running"), "{codes:?}");
}

#[test]
fn doctor_asks_the_daemon_where_the_pins_are_not_to_be_seen() {
    let daemon = Daemon::start(None);
    // Unreadable for root, too.
    fs::write(daemon.folder.pins(), "").unwrap();
    let doctor = daemon.folder.ghostctl(&["-o", "json", "doctor"]);
    assert_eq!(code(&doctor), 1, "{}", err(&doctor));
    assert!(out(&doctor).contains("uplink_gone"), "{}", out(&doctor));
}

fn make_pins(folder: &Folder) {
    fs::create_dir_all(folder.pins()).unwrap();
    for name in ["gd_switches", "gd_link_3"] {
        fs::write(folder.pins().join(name), "").unwrap();
    }
}

fn exists(path: &Path) -> bool {
    path.exists()
}

#[test]
fn clean_removes_pins_only_when_it_is_meant() {
    let folder = Folder::new();
    make_pins(&folder);
    let asked = folder.ghostctl(&["clean"]);
    assert_eq!(code(&asked), 2, "nobody to ask: {asked:?}");
    assert!(exists(&folder.pins().join("gd_switches")));
    let cleaned = folder.ghostctl(&["clean", "--yes"]);
    assert_eq!(code(&cleaned), 0, "{cleaned:?}");
    assert_eq!(out(&cleaned).lines().count(), 2, "{cleaned:?}");
    assert!(!exists(&folder.pins()));
    let again = folder.ghostctl(&["clean", "--yes"]);
    assert_eq!((code(&again), out(&again)), (0, "nothing is pinned\n"));
}

#[test]
fn clean_spares_a_running_daemon_unless_forced() {
    let daemon = Daemon::healthy();
    make_pins(&daemon.folder);
    let refused = daemon.folder.ghostctl(&["clean", "--yes"]);
    assert_eq!(code(&refused), 2, "{refused:?}");
    assert!(err(&refused).contains("a daemon runs"), "{refused:?}");
    assert!(exists(&daemon.folder.pins().join("gd_switches")));
    let forced = daemon.folder.ghostctl(&["clean", "--yes", "--force"]);
    assert_eq!(code(&forced), 0, "{forced:?}");
    assert!(!exists(&daemon.folder.pins()));
}

#[test]
fn completions_and_man_pages_are_written() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let completions = folder.ghostctl(&["completions", shell]);
        assert!(out(&completions).contains("doctor"), "{shell}");
    }
    let page = folder.ghostctl(&["man"]);
    assert!(out(&page).contains(".TH ghostctl 1"));
    let pages = folder.0.join("man");
    assert_eq!(code(&folder.ghostctl(&["man", pages.to_str().unwrap()])), 0);
    for page in ["ghostctl.1", "ghostctl-switch-drain.1", "ghostctl-clean.1"] {
        assert!(exists(&pages.join(page)), "{page}");
    }
}
