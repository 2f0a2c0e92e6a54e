//! The ghostctl binary as an operator meets it: against a real API server
//! with a driver that answers by rule, and against none.

#![allow(clippy::unwrap_used)]

mod daemon;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    path::Path,
    process::{Output, Stdio},
    time::SystemTime,
};

use ghostd::orchestrate::event::EventKind;
use serde_json::Value;

use daemon::{Daemon, Folder};

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

#[test]
fn status_says_by_its_exit_how_the_host_is() {
    let healthy = Daemon::healthy();
    let status = healthy.folder.ghostctl(&["status"]);
    assert_eq!(code(&status), 0, "{}", err(&status));
    assert!(out(&status).starts_with("ghostd       0.1.0 on hv1, running: healthy\n"));
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
fn the_plan_is_shown_and_what_would_change() {
    let daemon = Daemon::healthy();
    let plan = daemon.folder.ghostctl(&["plan"]);
    assert_eq!(code(&plan), 0, "{}", err(&plan));
    assert!(
        out(&plan).contains("\nweb       0.02  lazy "),
        "{}",
        out(&plan)
    );
    assert!(!out(&plan).contains("supposed"));

    let plan = daemon.folder.ghostctl(&["plan", "--risk", "web=0.4"]);
    assert!(
        out(&plan).contains("\n    risk 0.02 -> 0.4\n"),
        "{}",
        out(&plan)
    );
    assert!(
        out(&plan).contains("web: its ghost's memory is not "),
        "{}",
        out(&plan)
    );
    let shown = json(
        &daemon
            .folder
            .ghostctl(&["-o", "json", "plan", "--risk", "web=0.4"]),
    );
    let change = &shown["supposed"]["changes"][0];
    assert_eq!(change["from"]["grade"], "lazy");
    assert_eq!(change["to"]["risk"], 0.4);

    let unknown = daemon.folder.ghostctl(&["plan", "--risk", "db=0.4"]);
    assert_eq!(code(&unknown), 1);
    assert!(
        err(&unknown).contains("there is no instance `db`"),
        "{}",
        err(&unknown)
    );
    for wrong in ["web", "web=1.5", "web=40%", "Web=0.4"] {
        let wrong = daemon.folder.ghostctl(&["plan", "--risk", wrong]);
        assert_eq!(code(&wrong), 2, "{}", err(&wrong));
    }
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
