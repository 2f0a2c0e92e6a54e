//! ghostd as a process: starts, dies, comes back, is told things.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command as Process, ExitStatus, Stdio},
    time::Duration,
};

use agent_common::abi::Position;
use ghostd::{
    orchestrate::command::{Answer, Command, Subject},
    steer::{Pins, cgroup_id, ifindex},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::Value;

use support::{Cgroup, PinRoot, eventually, isolated, name, run, veth};

/// Long enough for a debug build on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

/// A folder for configuration, socket and log; gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ghostd-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn configure(&self, instances: &str) {
        let text = format!(
            "[steering]\nuplinks = [\"up0\"]\n\n[limits]\nroutes = 64\ninstances = 8\n\n\
             [api]\nsocket = \"{}\"\n{instances}",
            self.file("api.sock").display()
        );
        fs::write(self.file("ghostd.toml"), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WEB: &str = r#"
[[instance]]
name = "web"
armed = true
affinity = "connections"

[[instance.route]]
service = "192.0.2.1"
ghost = "198.51.100.1"

[[instance.port]]
interface = "tap0"
side = "primary"
fence = "quiet"
"#;

struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    fn spawn(folder: &Folder, root: &PinRoot, environment: &[(&str, &str)]) -> Self {
        Self::spawn_by(&[], folder, root, environment)
    }

    /// By a program that runs another one in some way.
    fn spawn_by(
        by: &[&str],
        folder: &Folder,
        root: &PinRoot,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut line = by.iter().copied().chain([env!("CARGO_BIN_EXE_ghostd")]);
        let log = folder.file("log");
        let file = fs::File::create(&log).unwrap();
        let child = Process::new(line.next().unwrap())
            .args(line)
            .args(["run", "--config"])
            .arg(folder.file("ghostd.toml"))
            .arg("--pins")
            .arg(root.path())
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            socket: folder.file("api.sock"),
        }
    }

    /// Spawns and waits until it steers.
    fn start(folder: &Folder, root: &PinRoot) -> Self {
        let mut daemon = Self::spawn(folder, root, &[]);
        daemon.wait_for_log(" steering ");
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for_log(&mut self, text: &str) {
        let seen = eventually(SOON, || {
            let log = self.log();
            let ended = self.child.try_wait().unwrap();
            (log.contains(text) || ended.is_some()).then_some(log)
        });
        let log = seen.unwrap_or_else(|| self.log());
        assert!(log.contains(text), "no `{text}` in:\n{log}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        eventually(SOON, || self.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("ghostd does not end:\n{}", self.log()))
    }

    fn get(&self, path: &str) -> String {
        let socket = self.socket.display();
        run(&format!(
            "curl -sf --unix-socket {socket} http://ghostd{path}"
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn position(root: &PinRoot) -> Position {
    let snapshot = Pins::open(root.path()).unwrap().snapshot().unwrap();
    snapshot.instances[0].switch.position
}

fn uplinks(root: &Path) -> Vec<String> {
    let snapshot = Pins::open(root).unwrap().snapshot().unwrap();
    let attached = snapshot.uplinks.into_iter().filter(|u| u.mode.is_some());
    attached.map(|u| u.interface).collect()
}

#[test]
fn steering_outlives_the_daemon_however_it_ends() {
    isolated("steering_outlives_the_daemon", || {
        let (root, folder) = (PinRoot::new(), Folder::new("outlives"));
        veth("up0", "peer0");
        veth("tap0", "vm0");
        folder.configure(WEB);
        let mut first = Daemon::start(&folder, &root);
        assert_eq!(uplinks(root.path()), ["tap0", "up0"]);
        let web = Command::Throw(Subject::Instance(name("web")));
        let pins = Pins::open(root.path()).unwrap();
        assert_eq!(pins.command(&web, 1).unwrap(), Answer::Done);

        first.child.kill().unwrap();
        first.end();
        assert_eq!(uplinks(root.path()), ["tap0", "up0"]);
        assert_eq!(position(&root), Position::Ghost);

        let mut second = Daemon::start(&folder, &root);
        assert!(second.log().contains("adopted: true"), "{}", second.log());
        assert_eq!(position(&root), Position::Ghost);
        second.signal(Signal::SIGTERM);
        assert_eq!(second.end().code(), Some(0), "{}", second.log());
        assert!(!second.socket.exists());
        assert_eq!(uplinks(root.path()), ["tap0", "up0"]);
        assert_eq!(position(&root), Position::Ghost);
    });
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_opened() {
    isolated("a_wrong_configuration", || {
        let (root, folder) = (PinRoot::new(), Folder::new("wrong"));
        folder.configure("\n[[instance]]\nname = \"Not A Name\"\n");
        let mut daemon = Daemon::spawn(&folder, &root, &[]);
        assert_eq!(daemon.end().code(), Some(2));
        assert!(daemon.log().contains("Not A Name"), "{}", daemon.log());
        assert!(!root.path().exists() && !daemon.socket.exists());
        let check = Process::new(env!("CARGO_BIN_EXE_ghostd"))
            .args(["check", "--config"])
            .arg(folder.file("ghostd.toml"))
            .output()
            .unwrap();
        assert_eq!(check.status.code(), Some(2));
    });
}

#[test]
fn a_wrong_configuration_on_reload_leaves_the_old_one() {
    isolated("a_wrong_configuration_on_reload", || {
        let (root, folder) = (PinRoot::new(), Folder::new("reload"));
        veth("up0", "peer0");
        veth("tap0", "vm0");
        folder.configure(WEB);
        let mut daemon = Daemon::start(&folder, &root);
        folder.configure("\n[[instance]]\nname = \"Not A Name\"\n");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("the old one stays");
        assert_eq!(position(&root), Position::Primary);
        assert!(daemon.get("/v1/events").contains("Not A Name"));

        let throw = Command::Throw(Subject::Instance(name("web")));
        let pins = Pins::open(root.path()).unwrap();
        assert_eq!(pins.command(&throw, 1).unwrap(), Answer::Done);
        folder.configure(&WEB.replace("\"web\"", "\"api\"").replace("tap0", "tap1"));
        veth("tap1", "vm1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("ConfigReloaded");
        assert!(daemon.get("/v1/events").contains("web was taken out"));
        let snapshot = Pins::open(root.path()).unwrap().snapshot().unwrap();
        assert_eq!(snapshot.instances.len(), 1);
        assert_eq!(snapshot.instances[0].name, "api");
        assert_eq!(uplinks(root.path()), ["tap1", "up0"]);
    });
}

#[test]
fn two_daemons_never_share_pins() {
    isolated("two_daemons", || {
        let (root, folder, other) = (PinRoot::new(), Folder::new("two-a"), Folder::new("two-b"));
        veth("up0", "peer0");
        folder.configure("");
        other.configure("");
        let first = Daemon::start(&folder, &root);
        let mut second = Daemon::spawn(&other, &root, &[]);
        assert_eq!(second.end().code(), Some(1));
        let expected = format!("another ghostd (pid {})", first.child.id());
        assert!(second.log().contains(&expected), "{}", second.log());
        // Whoever can read the lock's file can take the lock.
        let lock = second.log();
        let lock = lock.split("it holds ").nth(1).unwrap().trim();
        assert_eq!(fs::metadata(lock).unwrap().mode() & 0o777, 0o600);
    });
}

#[test]
fn an_interface_that_comes_back_is_steered_again() {
    isolated("an_interface_that_comes_back", || {
        let (root, folder) = (PinRoot::new(), Folder::new("back"));
        veth("up0", "peer0");
        folder.configure(WEB);
        // The port is not there yet.
        let mut daemon = Daemon::start(&folder, &root);
        assert_eq!(uplinks(root.path()), ["up0"]);
        veth("tap0", "vm0");
        let attached = |expected: &[&str]| {
            let met = eventually(SOON, || (uplinks(root.path()) == expected).then_some(()));
            assert!(met.is_some(), "{:?}", uplinks(root.path()));
        };
        attached(&["tap0", "up0"]);
        let first = ifindex("up0").unwrap();
        run("ip link del up0");
        daemon.wait_for_log("InterfaceGone");
        let findings = || {
            let status: Value = serde_json::from_str(&daemon.get("/v1/status")).unwrap();
            status["findings"].clone()
        };
        assert_eq!(findings()[0]["code"], "not_attached", "{}", findings());
        veth("up0", "peer0");
        attached(&["tap0", "up0"]);
        assert_eq!(findings(), Value::Array(Vec::new()));
        assert_ne!(ifindex("up0").unwrap(), first);
        let snapshot = Pins::open(root.path()).unwrap().snapshot().unwrap();
        assert_eq!(snapshot.uplinks.len(), 2, "{:?}", snapshot.uplinks);
    });
}

#[test]
fn a_pin_that_somebody_removed_is_missed() {
    isolated("a_pin_that_somebody_removed", || {
        let (root, folder) = (PinRoot::new(), Folder::new("missed"));
        veth("up0", "peer0");
        folder.configure("");
        let daemon = Daemon::start(&folder, &root);
        assert!(daemon.get("/v1/status").contains("\"findings\":[]"));
        fs::remove_file(root.path().join("gd_link_reboot")).unwrap();
        assert!(daemon.get("/v1/status").contains("reboot_unwatched"));
    });
}

#[test]
fn what_cannot_change_while_it_runs_is_refused() {
    isolated("what_cannot_change", || {
        let (root, folder) = (PinRoot::new(), Folder::new("fixed"));
        veth("up0", "peer0");
        folder.configure("");
        let mut daemon = Daemon::start(&folder, &root);
        let file = folder.file("ghostd.toml");
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replace("[api]", "[api]\nreaders = [4]")).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("[api] is fixed while ghostd runs");
        // A pipe that nobody writes to, and a file without an end, hang nobody.
        fs::remove_file(&file).unwrap();
        mkfifo(&file, Mode::S_IRWXU).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("it is not a regular file");
        fs::remove_file(&file).unwrap();
        fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("it is larger than");
        assert_eq!(uplinks(root.path()), ["up0"]);
    });
}

#[test]
fn the_capabilities_of_its_unit_are_enough() {
    isolated("the_capabilities_of_its_unit", || {
        let (root, folder) = (PinRoot::new(), Folder::new("rights"));
        veth("up0", "peer0");
        folder.configure(WEB);
        let by = [
            "setpriv",
            "--bounding-set=-all,+bpf,+net_admin,+perfmon",
            "--no-new-privs",
        ];
        for log in ["adopted: false", "adopted: true"] {
            let mut daemon = Daemon::spawn_by(&by, &folder, &root, &[]);
            daemon.wait_for_log(" steering ");
            assert!(daemon.log().contains(log), "{}", daemon.log());
            let status: Value = serde_json::from_str(&daemon.get("/v1/status")).unwrap();
            assert_eq!(status["uplinks"][0]["program"], "gd_steer");
        }
    });
}

#[test]
fn a_cgroup_that_comes_later_is_known_to_the_kernel() {
    isolated("a_cgroup_that_comes_later", || {
        let (root, folder) = (PinRoot::new(), Folder::new("cgroup"));
        veth("up0", "peer0");
        let slice = Cgroup::new();
        let (scope, own) = (slice.path().join("vms"), slice.path().join("vms/web"));
        let line = format!("armed = true\ncgroup = \"{}\"", own.display());
        folder.configure(&WEB.replace("armed = true", &line));
        let _daemon = Daemon::start(&folder, &root);
        let known = || {
            let actual = Pins::open(root.path()).unwrap().actual().unwrap();
            actual.cgroups.into_keys().next()
        };
        assert_eq!(known(), None);
        for _ in 0..2 {
            fs::create_dir(&scope).unwrap();
            fs::create_dir(&own).unwrap();
            let id = cgroup_id(&own).unwrap();
            let met = eventually(SOON, || (known() == id).then_some(()));
            assert!(met.is_some(), "{:?} is not {id:?}", known());
            fs::remove_dir(&own).unwrap();
            fs::remove_dir(&scope).unwrap();
            let met = eventually(SOON, || known().is_none().then_some(()));
            assert!(met.is_some());
        }
    });
}

#[test]
fn the_service_manager_is_told() {
    isolated("the_service_manager_is_told", || {
        let (root, folder) = (PinRoot::new(), Folder::new("notify"));
        veth("up0", "peer0");
        folder.configure("");
        let path = folder.file("notify.sock");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let told = |expected: &str| {
            let mut buffer = [0; 512];
            // Signs of life come in between.
            loop {
                let length = manager.recv(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.contains(expected) {
                    return text;
                }
                assert!(text.contains("WATCHDOG=1"), "{text} before {expected}");
            }
        };
        let environment = [
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "200000"),
        ];
        let mut daemon = Daemon::spawn(&folder, &root, &environment);
        told("READY=1");
        told("WATCHDOG=1");
        told("WATCHDOG=1");
        daemon.signal(Signal::SIGHUP);
        assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
        told("READY=1");
        daemon.signal(Signal::SIGTERM);
        told("STOPPING=1");
        assert_eq!(daemon.end().code(), Some(0));
    });
}

#[test]
fn it_is_small() {
    isolated("it_is_small", || {
        let (root, folder) = (PinRoot::new(), Folder::new("small"));
        veth("up0", "peer0");
        veth("tap0", "vm0");
        folder.configure(WEB);
        let daemon = Daemon::start(&folder, &root);
        let mut status = String::new();
        fs::File::open(format!("/proc/{}/status", daemon.child.id()))
            .unwrap()
            .read_to_string(&mut status)
            .unwrap();
        let kib: u64 = status
            .lines()
            // Not the program's own pages: a debug build has several times
            // those of a release, where the whole is below 20 MiB.
            .find_map(|l| l.strip_prefix("RssAnon:"))
            .and_then(|l| l.split_whitespace().next())
            .unwrap()
            .parse()
            .unwrap();
        assert!(kib <= 8 * 1024, "{kib} KiB");
    });
}
