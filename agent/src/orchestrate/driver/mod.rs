//! The driver: the one task that owns the data plane and carries things out.
//!
//! Owns: the plane, the wanted configuration, the event log. Requests, kernel
//! events, news of interfaces and dates of the agenda come in; everything is
//! done one at a time, so no two of them ever meet in the kernel.
//!
//! Refuses: choices. Those are in the pure files beside this folder.
//!
//! How it fails: what cannot be done is an event and is tried again; what was
//! there stays in force. Only the loss of the kernel's event streams ends it.

mod allocation;
mod interfaces;
mod reconcile;
mod requests;
mod warm;

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    time::{Duration, Instant, SystemTime},
};

use agent_common::abi::Position;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use self::warm::Warmer;
use super::{
    agenda::{Agenda, Job, Pace},
    command::{Refusal, Request},
    complaints::Complaints,
    drain::{DRAIN_LOOK, drain_end},
    event::{EventKind, EventLog},
    motion::Motion,
    plan::Facts,
    wanted::{Wanted, drain_max},
};
use crate::{
    model::{EventView, Ifindex, InstanceName, Plan as GhostsPlan, SlotIndex},
    steer::{
        CgroupNews, Events, News, Plane, Read, Started, SteerError, Swapped, chain, monotonic_ns,
    },
};

/// News of interfaces or cgroups are answered at once, a flood of them this
/// often.
const NEWS_GAP: Duration = Duration::from_millis(100);
/// Cgroups are watched; this is for what a watch can miss, such as a folder
/// that came between two looks.
const CGROUPS_LOOK: Duration = Duration::from_secs(30);
/// Whatever failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Which devices take redirects is news on kernels that tell, and looked up
/// this often for those that do not.
const EGRESS_LOOK: Duration = Duration::from_secs(60);

/// Where a new configuration comes from; the error is the full diagnostic.
pub type Source = Box<dyn FnMut() -> Result<Wanted, String> + Send>;

/// What the service manager is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Alive,
    Reloading,
    Ready,
}

/// The line to the service manager.
pub struct Service {
    /// How often it wants to hear that we live.
    pub beat: Option<Duration>,
    pub tell: Box<dyn FnMut(Sign) + Send>,
}

/// What a signal asks of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Run,
    /// Read the configuration again. The number makes two in a row differ.
    Reload(u64),
    Stop,
}

/// A draining switch.
#[derive(Debug)]
struct Drain {
    instance: InstanceName,
    /// CLOCK_MONOTONIC in ns.
    began_ns: u64,
    max: Duration,
}

pub struct Driver {
    plane: Plane,
    events: Events,
    links: News,
    abilities: Option<News>,
    cgroups: CgroupNews,
    log: EventLog,
    requests: mpsc::Receiver<Request>,
    orders: watch::Receiver<Order>,
    source: Source,
    service: Service,
    wanted: Wanted,
    /// Facts of the last plan: what interfaces and cgroups were then.
    facts: Facts,
    /// Interfaces that carry our program, by name.
    attached: BTreeMap<String, Ifindex>,
    slots: BTreeMap<InstanceName, SlotIndex>,
    /// Who gets what of the reserve, as last planned.
    ghosts_plan: Option<GhostsPlan>,
    draining: BTreeMap<SlotIndex, Drain>,
    warmer: Warmer,
    agenda: Agenda,
    interfaces_pace: Pace,
    cgroups_pace: Pace,
    /// What was reported and has not been mended: reported once.
    complaints: Complaints,
    /// What the last try to bring the kernel to `wanted` could not do.
    failures: Vec<String>,
}

/// What the daemon gives to the driver beside the plane.
pub struct Channels {
    pub requests: mpsc::Receiver<Request>,
    pub orders: watch::Receiver<Order>,
    pub source: Source,
    pub service: Service,
}

impl Driver {
    /// Brings the kernel to `wanted`. Afterwards steering is in force.
    pub fn start(
        started: Started,
        wanted: Wanted,
        log: EventLog,
        channels: Channels,
    ) -> Result<Self, SteerError> {
        let Started {
            plane,
            events,
            links,
            abilities,
            cgroups,
            adopted,
            degraded,
        } = started;
        let Channels {
            requests,
            orders,
            source,
            service,
        } = channels;
        let mut driver = Self {
            plane,
            events,
            links,
            abilities,
            cgroups,
            log,
            requests,
            orders,
            source,
            service,
            wanted: Wanted::default(),
            facts: Facts::default(),
            attached: BTreeMap::new(),
            slots: BTreeMap::new(),
            ghosts_plan: None,
            draining: BTreeMap::new(),
            warmer: Warmer::default(),
            agenda: Agenda::default(),
            interfaces_pace: Pace::new(NEWS_GAP),
            cgroups_pace: Pace::new(NEWS_GAP),
            complaints: Complaints::default(),
            failures: Vec::new(),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        driver.record(EventKind::Started { version, adopted });
        for error in degraded {
            driver.complain(&error);
        }
        driver.begin(wanted)?;
        Ok(driver)
    }

    /// Runs until told to stop. Steering stays in force.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let next = self.agenda.next();
            let date = async {
                match next {
                    Some(at) => time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let abilities = async {
                match &mut self.abilities {
                    Some(news) => news.wait().await,
                    None => pending().await,
                }
            };
            // Each arm is cancel safe: streams and channels keep what was not
            // taken, and a date is only a date.
            tokio::select! {
                read = self.events.next() => self.on_events(read?),
                request = self.requests.recv() => match request {
                    Some(request) => self.on_request(request).await,
                    // Nobody can ask any more: the daemon is going.
                    None => break,
                },
                news = self.links.wait() => {
                    news?;
                    let date = self.interfaces_pace.date(Instant::now());
                    self.agenda.no_later_than(Job::Interfaces, date);
                }
                news = self.cgroups.wait() => {
                    news?;
                    let date = self.cgroups_pace.date(Instant::now());
                    self.agenda.no_later_than(Job::Cgroups, date);
                }
                news = abilities => {
                    news?;
                    self.agenda.no_later_than(Job::Egress, Instant::now());
                }
                () = date => {}
                order = self.orders.changed() => {
                    let order = order.map_or(Order::Stop, |()| *self.orders.borrow_and_update());
                    match order {
                        Order::Run => {}
                        // An error is an event; nobody waits for an answer.
                        Order::Reload(_) => drop(self.reload()),
                        Order::Stop => break,
                    }
                }
            }
            while let Some(job) = self.agenda.take_due(Instant::now()) {
                self.work(job);
            }
        }
        self.stop();
        Ok(())
    }

    fn stop(mut self) {
        self.requests.close();
        let mut refused = 0;
        while let Ok(request) = self.requests.try_recv() {
            refused += 1;
            let _ = request.reply.send(Err(Refusal::ShuttingDown));
        }
        self.record(EventKind::Stopping);
        tracing::info!(
            refused_requests = refused,
            draining = self.draining.len(),
            "stopping; steering stays in force"
        );
    }

    fn work(&mut self, job: Job) {
        let now = Instant::now();
        match job {
            Job::Interfaces => self.look_at_interfaces(),
            Job::Cgroups => self.look_at_cgroups(),
            Job::Reconcile => self.reconcile(),
            Job::Drain => self.look_at_drains(),
            Job::Warm => {
                let result = self.warmer.step(&mut self.plane);
                self.note(result);
                self.agenda.set(Job::Warm, now + self.warmer.pause());
            }
            Job::Egress => {
                let result = self.plane.refresh_egress();
                if self.note(result) == Some(true) {
                    self.agenda.set(Job::Egress, now + EGRESS_LOOK);
                }
            }
            Job::Guests => {
                let result = self.plane.watch_guests();
                if self.note(result) != Some(true) {
                    self.agenda.set(Job::Guests, now + RETRY);
                }
            }
            Job::Heartbeat => {
                if let Some(every) = self.service.beat {
                    (self.service.tell)(Sign::Alive);
                    self.agenda.set(Job::Heartbeat, now + every);
                }
            }
        }
    }

    fn on_events(&mut self, read: Read) {
        for seen in read.events {
            self.on_event(seen);
        }
        if read.unreadable > 0 {
            self.record(EventKind::Degraded {
                what: format!(
                    "{} kernel events are of another version and were skipped",
                    read.unreadable
                ),
            });
        }
    }

    fn on_event(&mut self, seen: EventView) {
        let instance = seen.slot.and_then(|slot| {
            let name = self.plane.pins().name(slot);
            self.note(name).flatten()
        });
        self.record(EventKind::Reboot { instance, seen });
    }

    /// Draining switches that nobody looks after yet: all of them after a
    /// start, for the drain was begun by an earlier run.
    fn find_drains(&mut self) {
        for (instance, &slot) in &self.slots {
            let Some(switch) = self.plane.pins().board().read(slot) else {
                continue;
            };
            if switch.control.position == Position::Draining as u8 {
                let max = drain_max(self.wanted.instance(instance));
                self.draining.entry(slot).or_insert_with(|| Drain {
                    instance: instance.clone(),
                    began_ns: switch.moved_ns,
                    max,
                });
            }
        }
        if !self.draining.is_empty() {
            let soon = Instant::now() + DRAIN_LOOK;
            self.agenda.no_later_than(Job::Drain, soon);
        }
    }

    fn look_at_drains(&mut self) {
        let slots: Vec<SlotIndex> = self.draining.keys().copied().collect();
        let now_ns = monotonic_ns();
        for slot in slots {
            let live = self.plane.pins().live_flows(slot);
            let Some(live) = self.note(live) else {
                continue;
            };
            let Some(drain) = self.draining.get(&slot) else {
                continue;
            };
            let since = Duration::from_nanos(now_ns.saturating_sub(drain.began_ns));
            let generation =
                agent_common::abi::HostSwitch::short(self.plane.pins().board().host_generation());
            let control = self.plane.pins().board().control(slot);
            let position = control.and_then(|c| c.effective(generation));
            if position != Some(Position::Draining) {
                // Moved since, by a command or by the kernel.
                self.draining.remove(&slot);
                continue;
            }
            let Some(reason) = drain_end(live, since, drain.max) else {
                continue;
            };
            let swapped = self
                .plane
                .pins()
                .apply(slot, Motion::FinishDrain, std::process::id());
            match self.note(swapped) {
                Some(Swapped::Stored) => {
                    if let Some(drain) = self.draining.remove(&slot) {
                        self.record(EventKind::Drained {
                            instance: drain.instance.to_string(),
                            flows_left: live,
                            reason,
                        });
                    }
                }
                Some(Swapped::Unchanged) => drop(self.draining.remove(&slot)),
                Some(Swapped::Raced) | None => {}
            }
        }
        if !self.draining.is_empty() {
            self.agenda.set(Job::Drain, Instant::now() + DRAIN_LOOK);
        }
    }

    /// Logs and records an event.
    fn record(&mut self, kind: EventKind) {
        tracing::info!(event = ?kind, "event");
        self.log.push(SystemTime::now(), kind);
    }

    /// Reports an error, once until it is mended.
    fn complain(&mut self, error: &SteerError) {
        let what = chain(error);
        if self.complaints.add(&what) {
            tracing::warn!(error = %what, class = ?error.class(), "degraded");
            self.log
                .push(SystemTime::now(), EventKind::Degraded { what });
        }
    }

    /// The value, or a complaint.
    fn note<T>(&mut self, result: Result<T, SteerError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }
}
