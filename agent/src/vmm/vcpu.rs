//! The thread of a vCPU: in the guest, out for a device, in again.

use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agent_common::guest::PORT_WAIT;
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::sys::eventfd::EventFd;

use super::{
    bus::Bus,
    end::End,
    eventfd, jail,
    kick::{Kickable, kick},
    memory::Memory,
    state::{Facts, StateError, VcpuState},
    wait::Waiting,
};

/// What the thread is told; one at a time. All but a pause and a stop are for
/// one that is paused.
enum Order {
    /// Out of the guest, say so, and wait for the next order.
    Pause(SyncSender<()>),
    Save(SyncSender<Result<VcpuState, StateError>>),
    Load(Box<Loading>),
    /// Into the guest. Says when.
    Run(SyncSender<Instant>),
    Stop,
}

struct Loading {
    state: VcpuState,
    tsc_khz: u32,
    done: SyncSender<Result<(), StateError>>,
}

/// An order that was answered, or the stop that may follow it unanswered.
const ORDERS_MAX: usize = 2;

/// Far longer than any way out of the guest takes, or any order.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether a vCPU waits before its first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Running,
    Paused,
}

/// The last thing a vCPU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) cpu: u8,
    pub(super) end: End,
}

/// What all vCPUs share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) bus: Arc<Mutex<Bus>>,
    /// Kept until the vCPU is gone, because the guest uses it till then.
    pub(super) memory: Arc<Memory>,
    pub(super) ends: SyncSender<Ended>,
    /// Told of each end, for those who poll.
    pub(super) wake: Arc<EventFd>,
    /// Told of each buffer that a device has used, for vCPUs that wait.
    pub(super) news: Arc<EventFd>,
}

/// A running vCPU.
pub(super) struct Thread {
    cpu: u8,
    orders: SyncSender<Order>,
    /// Ends its wait, if it waits.
    call: Arc<EventFd>,
    handle: JoinHandle<()>,
}

impl Thread {
    pub(super) fn start(
        vcpu: VcpuFd,
        mut facts: Facts,
        shared: Shared,
        start: Start,
    ) -> io::Result<Self> {
        let cpu = facts.cpu;
        let (orders, queue) = std::sync::mpsc::sync_channel(ORDERS_MAX);
        if start == Start::Paused {
            // Found before the first entry; nobody needs to be told.
            let (done, _) = std::sync::mpsc::sync_channel(1);
            let _ = orders.try_send(Order::Pause(done));
        }
        let call = Arc::new(eventfd::new()?);
        let waiting = Waiting::new(Arc::clone(&shared.news), Arc::clone(&call));
        let handle = thread::Builder::new()
            .name(format!("vcpu{cpu}"))
            .spawn(move || {
                jail::confine(jail::Kind::Vcpu);
                let vcpu = &mut Kickable::new(vcpu);
                let end = run(vcpu, &mut facts, &queue, &shared.bus, &waiting);
                // Only fails if nobody wants to know any more.
                let _ = shared.ends.send(Ended { cpu, end });
                let _ = shared.wake.write(1);
                drop(shared.memory);
            })?;
        Ok(Self {
            cpu,
            orders,
            call,
            handle,
        })
    }

    /// Out of the guest until told to run.
    pub(super) fn pause(&self) -> Pending<()> {
        let pending = self.order(Order::Pause);
        self.call();
        pending
    }

    /// Of one that is paused.
    pub(super) fn save(&self) -> Pending<Result<VcpuState, StateError>> {
        self.order(Order::Save)
    }

    /// Into one that is paused.
    pub(super) fn load(&self, state: VcpuState, tsc_khz: u32) -> Pending<Result<(), StateError>> {
        self.order(|done| {
            Order::Load(Box::new(Loading {
                state,
                tsc_khz,
                done,
            }))
        })
    }

    /// Into the guest again; tells when it went in.
    pub(super) fn resume(&self) -> Pending<Instant> {
        self.order(Order::Run)
    }

    /// If it has ended, nobody will answer.
    fn order<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> Pending<T> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        let _ = self.orders.try_send(order(done));
        Pending {
            cpu: self.cpu,
            answer,
        }
    }

    /// Out of the guest, or out of its wait.
    fn call(&self) {
        // Fails only if it was told 2^64 times and never waited.
        let _ = self.call.write(1);
        kick(&self.handle);
    }

    /// Out of the guest, whatever it does, and no more into it.
    pub(super) fn stop(self) -> Result<(), u8> {
        // If the queue is closed, it has ended. It is never full: each order was waited for.
        let _ = self.orders.try_send(Order::Stop);
        self.call();
        self.handle.join().map_err(|_| self.cpu)
    }
}

fn run(
    vcpu: &mut Kickable,
    facts: &mut Facts,
    orders: &Receiver<Order>,
    bus: &Mutex<Bus>,
    waiting: &Waiting,
) -> End {
    // A kick from before the vCPU could be kicked has had no effect.
    if obey(vcpu, facts, orders).is_break() {
        return End::Ordered;
    }
    loop {
        match vcpu.run() {
            Ok(VcpuExit::InternalError) => return vcpu.internal_error(),
            Ok(exit) => {
                if let Some(end) = handle(exit, bus, waiting) {
                    return end;
                }
            }
            Err(error) => match io::Error::from_raw_os_error(error.errno()).kind() {
                io::ErrorKind::Interrupted => {
                    vcpu.take_kick();
                    if obey(vcpu, facts, orders).is_break() {
                        return End::Ordered;
                    }
                }
                io::ErrorKind::WouldBlock => {}
                _ => {
                    return End::RunFailed {
                        errno: error.errno(),
                    };
                }
            },
        }
    }
}

/// Carries out what was ordered, if anything. `Break` ends the vCPU.
///
/// Only between two entries, so an access that was under way is complete. An
/// answer that nobody waits for any more is dropped.
fn obey(vcpu: &Kickable, facts: &mut Facts, orders: &Receiver<Order>) -> ControlFlow<()> {
    let mut order = match orders.try_recv() {
        Ok(order) => order,
        Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
        Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
    };
    loop {
        match order {
            Order::Stop => return ControlFlow::Break(()),
            Order::Run(done) => {
                vcpu.tell_of_pause();
                let _ = done.send(Instant::now());
                return ControlFlow::Continue(());
            }
            Order::Pause(done) => drop(done.send(())),
            Order::Save(done) => drop(done.send(facts.save(vcpu.vcpu()))),
            Order::Load(loading) => {
                let Loading {
                    state,
                    tsc_khz,
                    done,
                } = *loading;
                drop(done.send(facts.load(vcpu.vcpu(), &state, tsc_khz)));
            }
        }
        order = match orders.recv() {
            Ok(order) => order,
            Err(_) => return ControlFlow::Break(()),
        };
    }
}

/// A vCPU that was ordered something.
#[derive(Debug)]
pub(super) struct Pending<T> {
    cpu: u8,
    answer: Receiver<T>,
}

impl<T> Pending<T> {
    /// Until it has obeyed; `None` if it has ended instead. Fails with its
    /// number if it does neither.
    pub(super) fn wait(self) -> Result<Option<T>, u8> {
        match self.answer.recv_timeout(LIMIT) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.cpu),
        }
    }
}

fn handle(exit: VcpuExit<'_>, bus: &Mutex<Bus>, waiting: &Waiting) -> Option<End> {
    // A device keeps no promise across its calls that a panic could break.
    let bus = || bus.lock().unwrap_or_else(PoisonError::into_inner);
    match exit {
        // The others go on meanwhile. An order ends it, and finds the write complete.
        VcpuExit::IoOut(PORT_WAIT, &[a, b, c, d]) => waiting.park(u32::from_le_bytes([a, b, c, d])),
        VcpuExit::IoOut(port, data) => return bus().port_write(port, data),
        VcpuExit::IoIn(port, data) => bus().port_read(port, data),
        VcpuExit::MmioWrite(address, data) => bus().memory_write(address, data),
        VcpuExit::MmioRead(address, data) => bus().memory_read(address, data),
        VcpuExit::Intr => {}
        VcpuExit::Hlt => return Some(End::Halted),
        VcpuExit::Shutdown => return Some(End::TripleFault),
        VcpuExit::SystemEvent(kind, _) => return Some(End::SystemEvent { kind }),
        VcpuExit::FailEntry(reason, _) => return Some(End::EntryFailed { reason }),
        other => {
            return Some(End::Unexpected {
                exit: format!("{other:?}"),
            });
        }
    }
    None
}
