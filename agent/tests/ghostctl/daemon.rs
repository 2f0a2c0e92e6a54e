//! A server with a driver that answers by rule, and a folder for it.

use std::{
    fs,
    net::IpAddr,
    num::NonZeroU32,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
};

use agent_common::abi::{ABI_VERSION, Position, RouteCounters};
use ghostd::{
    allocate::{Policy, plan, supposing},
    control::{ApiState, access::Access, bind, serve},
    model::{
        Amounts, CounterIndex, Demand, HostView, Ifindex, InstanceName, InstanceView, Need,
        Planned, Priority, Risk, RouteSpec, RouteView, Service, SlotIndex, Snapshot, SwitchView,
        Target, UplinkView, XdpMode,
    },
    orchestrate::{
        command::{self, Answer, Command as Wish, Refusal, Subject},
        event::EventLog,
        vms::VmDesk,
    },
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

/// A folder of its own, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ghostctl-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.0.join("pins")
    }

    /// ghostctl on this folder's socket and pins.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostctl"));
        command.arg("--socket").arg(self.socket());
        command.arg("--pins").arg(self.pins());
        command.args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn ghostctl(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
pub(crate) struct Daemon {
    pub(crate) folder: Folder,
    pub(crate) events: EventLog,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Listens once this returns.
    pub(crate) fn start(uplink: Option<XdpMode>) -> Self {
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
                    desk: VmDesk::default(),
                    host: "hv1".to_owned(),
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

    pub(crate) fn healthy() -> Self {
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

/// `web` is a microVM that a small host has room for, if only lazily.
fn planned(risks: &[(InstanceName, Risk)]) -> Result<Answer, Refusal> {
    let web = Demand {
        name: "web".parse().unwrap(),
        owner: None,
        priority: Priority::ORDINARY,
        risk: "0.02".parse().unwrap(),
        need: Need {
            memory_bytes: 64 << 20,
            working_set_bytes: 8 << 20,
            vcpus: 1,
            dirty_rate: 8 << 20,
        },
    };
    let capacity = Amounts {
        memory_bytes: 256 << 20,
        huge_pages: 128,
        cpu_milli: 2000,
        bandwidth: 125_000_000,
    };
    let (supposed, unknown) = supposing(vec![web.clone()], risks);
    if let Some(name) = unknown.into_iter().next() {
        return Err(Refusal::UnknownInstance(name));
    }
    let made = plan(None, &[web], &capacity, &Policy::default());
    let supposed = plan(Some(&made), &supposed, &capacity, &Policy::default());
    Ok(Answer::Planned(Box::new(Planned {
        plan: made,
        capacity,
        supposed: (!risks.is_empty()).then_some(supposed),
    })))
}

fn answer(wish: &Wish, uplink: Option<XdpMode>) -> Result<Answer, Refusal> {
    let name = match wish {
        Wish::Snapshot => return Ok(Answer::Snapshot(Box::new(snapshot(uplink)))),
        Wish::Plan(risks) => return planned(risks),
        Wish::Reload => return Err(Refusal::Config("line 3: unknown key `adr`".to_owned())),
        Wish::Throw(Subject::Host) | Wish::Restore(Subject::Host) => return Ok(Answer::Done),
        Wish::Throw(Subject::Instance(name)) | Wish::Restore(Subject::Instance(name)) => name,
        Wish::Drain(name) | Wish::Arm(name) | Wish::Disarm(name) => name,
        Wish::IsArmed(_) => return Ok(Answer::Armed(true)),
    };
    match wish {
        _ if name.as_str() != "web" => Err(Refusal::UnknownInstance(name.clone())),
        Wish::Drain(_) => Err(Refusal::NotTracked(name.clone())),
        Wish::Arm(_) => Ok(Answer::Unchanged),
        _ => Ok(Answer::Done),
    }
}
