//! The thread of a vCPU: in the guest, out for a device, in again.

use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::sys::eventfd::EventFd;

use super::{
    bus::Bus,
    end::End,
    kick::{Kickable, kick},
    memory::Memory,
};

/// What the thread is told; one at a time.
#[derive(Debug)]
enum Order {
    /// Out of the guest, say so, and wait for the next order.
    Pause(SyncSender<()>),
    Run,
    Stop,
}

/// A pause that was answered, or the stop that may follow it unanswered.
const ORDERS_MAX: usize = 2;

/// Far longer than any way out of the guest takes.
const PAUSE_LIMIT: Duration = Duration::from_secs(2);

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
}

/// A running vCPU.
#[derive(Debug)]
pub(super) struct Thread {
    cpu: u8,
    orders: SyncSender<Order>,
    handle: JoinHandle<()>,
}

impl Thread {
    pub(super) fn start(cpu: u8, vcpu: VcpuFd, shared: Shared) -> io::Result<Self> {
        let (orders, queue) = std::sync::mpsc::sync_channel(ORDERS_MAX);
        let handle = thread::Builder::new()
            .name(format!("vcpu{cpu}"))
            .spawn(move || {
                let end = run(&mut Kickable::new(vcpu), &queue, &shared.bus);
                // Only fails if nobody wants to know any more.
                let _ = shared.ends.send(Ended { cpu, end });
                let _ = shared.wake.write(1);
                drop(shared.memory);
            })?;
        Ok(Self {
            cpu,
            orders,
            handle,
        })
    }

    /// Out of the guest until told to run. Wait for it with [`Pausing::wait`].
    pub(super) fn pause(&self) -> Pausing {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        // If the queue is closed, it has ended, and nobody will answer.
        let _ = self.orders.try_send(Order::Pause(done));
        kick(&self.handle);
        Pausing {
            cpu: self.cpu,
            answer,
        }
    }

    /// Into the guest again. Does nothing to one that has ended.
    pub(super) fn resume(&self) {
        let _ = self.orders.try_send(Order::Run);
    }

    /// Out of the guest, whatever it does, and no more into it.
    pub(super) fn stop(self) -> Result<(), u8> {
        // If the queue is closed, it has ended. It is never full: a pause was waited for.
        let _ = self.orders.try_send(Order::Stop);
        kick(&self.handle);
        self.handle.join().map_err(|_| self.cpu)
    }
}

fn run(vcpu: &mut Kickable, orders: &Receiver<Order>, bus: &Mutex<Bus>) -> End {
    // A kick from before the vCPU could be kicked has had no effect.
    if obey(vcpu, orders).is_break() {
        return End::Ordered;
    }
    loop {
        match vcpu.run() {
            Ok(VcpuExit::InternalError) => return vcpu.internal_error(),
            Ok(exit) => {
                if let Some(end) = handle(exit, bus) {
                    return end;
                }
            }
            Err(error) => match io::Error::from_raw_os_error(error.errno()).kind() {
                io::ErrorKind::Interrupted => {
                    vcpu.take_kick();
                    if obey(vcpu, orders).is_break() {
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
/// Only between two entries, so an access that was under way is complete.
fn obey(vcpu: &Kickable, orders: &Receiver<Order>) -> ControlFlow<()> {
    let mut order = match orders.try_recv() {
        Ok(order) => order,
        Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
        Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
    };
    loop {
        match order {
            Order::Stop => return ControlFlow::Break(()),
            Order::Run => {
                vcpu.tell_of_pause();
                return ControlFlow::Continue(());
            }
            // Only fails if nobody waits any more.
            Order::Pause(done) => drop(done.send(())),
        }
        order = match orders.recv() {
            Ok(order) => order,
            Err(_) => return ControlFlow::Break(()),
        };
    }
}

/// A vCPU on its way out of the guest.
#[derive(Debug)]
pub(super) struct Pausing {
    cpu: u8,
    answer: Receiver<()>,
}

impl Pausing {
    /// Until it is out of the guest, or has ended. Fails with its number if it
    /// does not come out.
    pub(super) fn wait(self) -> Result<(), u8> {
        match self.answer.recv_timeout(PAUSE_LIMIT) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(self.cpu),
        }
    }
}

fn handle(exit: VcpuExit<'_>, bus: &Mutex<Bus>) -> Option<End> {
    // A device keeps no promise across its calls that a panic could break.
    let bus = || bus.lock().unwrap_or_else(PoisonError::into_inner);
    match exit {
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
