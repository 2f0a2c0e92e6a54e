//! The main thread while the guest runs: ends, signals, clients.

use std::{io::Write as _, os::fd::AsFd as _, time::Instant};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    args::AtEnd,
    control::{Control, Said},
    end::End,
    error::VmmError,
    machine::Running,
    message::{Answer, Command, Event, Reason, RegionView, State, encode},
    vcpu::Ended,
};

/// Signals that ask us to end.
const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// Blocks the signals that ask us to end, for all threads to come, and makes
/// them readable.
pub(super) fn signals() -> Result<SignalFd, VmmError> {
    let set: SigSet = ENDING.into_iter().collect();
    let failed = |e: Errno| VmmError::system("listen for signals", e);
    set.thread_block().map_err(failed)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).map_err(failed)
}

pub(super) struct Watch {
    machine: Running,
    control: Option<Control>,
    signals: SignalFd,
    at_end: AtEnd,
    life: Life,
}

/// How far the guest has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Running,
    Paused,
    Ended(End),
}

/// What became readable.
#[derive(Default)]
struct Ready {
    has_signal: bool,
    has_end: bool,
    has_caller: bool,
    /// The last first, so that letting one go does not move the others.
    clients: Vec<usize>,
}

impl Watch {
    pub(super) fn new(
        machine: Running,
        control: Option<Control>,
        signals: SignalFd,
        at_end: AtEnd,
    ) -> Self {
        Self {
            machine,
            control,
            signals,
            at_end,
            life: Life::Running,
        }
    }

    /// Until there is nothing more to do; says why the guest ended.
    pub(super) fn run(mut self) -> Result<End, VmmError> {
        self.tell(&Event::Started {
            pid: std::process::id(),
            vcpus: self.machine.vcpus(),
            memory_bytes: self.machine.ram().bytes(),
        });
        loop {
            let ready = self.wait()?;
            if ready.has_end
                && !self.has_ended()
                && let Some(ended) = self.machine.first_end()
            {
                self.finish(Some(ended.cpu), ended.end)?;
            }
            let mut must_leave = ready.has_signal;
            if let Some(control) = &mut self.control
                && ready.has_caller
            {
                control.accept();
            }
            for client in ready.clients {
                must_leave |= self.serve(client)?;
            }
            if must_leave && !self.has_ended() {
                self.finish(None, End::Ordered)?;
            }
            if let Life::Ended(end) = &self.life
                && (must_leave || self.at_end == AtEnd::Exit)
            {
                return Ok(end.clone());
            }
        }
    }

    fn wait(&self) -> Result<Ready, VmmError> {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![
            watch(self.signals.as_fd()),
            watch(self.machine.wake().as_fd()),
        ];
        if let Some(control) = &self.control {
            fds.push(watch(control.listener()));
            fds.extend(control.clients().map(watch));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(e) => return Err(VmmError::system("wait for the guest", e)),
        }
        let mut hits = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(Ready {
            has_signal: hits.next().unwrap_or_default(),
            has_end: hits.next().unwrap_or_default(),
            has_caller: hits.next().unwrap_or_default(),
            clients: {
                let hit = hits.enumerate().filter(|&(_, is_hit)| is_hit);
                let mut clients: Vec<usize> = hit.map(|(client, _)| client).collect();
                clients.reverse();
                clients
            },
        })
    }

    /// The guest has ended, or is to; its memory stays.
    fn finish(&mut self, cpu: Option<u8>, end: End) -> Result<(), VmmError> {
        self.machine.stop()?;
        // The guest's own end, if it came first, is what counts.
        let (cpu, end) = match (cpu, self.machine.first_end()) {
            (None, Some(Ended { cpu, end })) if end != End::Ordered => (Some(cpu), end),
            _ => (cpu, end),
        };
        self.tell(&Event::Ended {
            vcpu: cpu,
            reason: Reason::from(&end),
        });
        self.life = Life::Ended(end);
        Ok(())
    }

    /// To standard output, and to all clients.
    fn tell(&mut self, event: &Event) {
        let mut packet = encode(event);
        if let Some(control) = &mut self.control {
            control.broadcast(&packet);
        }
        packet.push(b'\n');
        // A reader that is gone can still ask for the status.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&packet).and_then(|()| stdout.flush());
    }

    /// Answers a client. `true` if it asked us to end.
    fn serve(&mut self, client: usize) -> Result<bool, VmmError> {
        let said = match &self.control {
            Some(control) => control.read(client),
            None => Said::Nothing,
        };
        let command = match said {
            Said::Nothing => return Ok(false),
            Said::Goodbye => {
                self.let_go(client);
                return Ok(false);
            }
            Said::Nonsense(why) => {
                self.answer(client, &Answer::Refused { why });
                return Ok(false);
            }
            Said::Command(command) => command,
        };
        let before = self.life.clone();
        let answer = match command {
            Command::Status {} => status(&self.machine, &self.life),
            Command::Memory {} => memory_answer(&self.machine),
            Command::Pause {} => self.pause()?,
            Command::Resume {} => self.resume(),
            Command::Stop {} => Answer::Stopping,
            Command::Save {}
            | Command::Load {}
            | Command::Activate { .. }
            | Command::Track {}
            | Command::Dirty { .. } => Answer::Refused {
                why: "this ghost-vmm does not do that yet".to_owned(),
            },
        };
        self.answer(client, &answer);
        match &self.life {
            life if *life == before => {}
            Life::Running => self.tell(&Event::Resumed),
            Life::Paused => self.tell(&Event::Paused),
            // Told where it was found out.
            Life::Ended(_) => {}
        }
        Ok(command == Command::Stop {})
    }

    fn answer(&mut self, client: usize, answer: &Answer) {
        let Some(control) = &self.control else {
            return;
        };
        let memory = match answer {
            Answer::Memory { .. } => Some(self.machine.memory().file()),
            _ => None,
        };
        if !control.send(client, &encode(answer), memory) {
            self.let_go(client);
        }
    }

    fn let_go(&mut self, client: usize) {
        if let Some(control) = &mut self.control {
            control.let_go(client);
        }
    }

    /// A guest that is paused already is paused.
    fn pause(&mut self) -> Result<Answer, VmmError> {
        if self.has_ended() {
            return Ok(ended());
        }
        let start = Instant::now();
        if self.life == Life::Running {
            self.machine.pause()?;
            self.life = Life::Paused;
        }
        let pause_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Answer::Paused { pause_us })
    }

    fn resume(&mut self) -> Answer {
        if self.has_ended() {
            return ended();
        }
        if self.life == Life::Paused {
            self.machine.resume();
            self.life = Life::Running;
        }
        Answer::Resumed
    }

    fn has_ended(&self) -> bool {
        matches!(self.life, Life::Ended(_))
    }
}

fn ended() -> Answer {
    Answer::Refused {
        why: "the guest has ended".to_owned(),
    }
}

fn status(machine: &Running, life: &Life) -> Answer {
    let (strays, serial_lost_bytes) = machine.counts();
    Answer::Status {
        state: match life {
            Life::Running => State::Running,
            Life::Paused => State::Paused,
            Life::Ended(end) => State::Ended(Reason::from(end)),
        },
        vcpus: machine.vcpus(),
        memory_bytes: machine.ram().bytes(),
        serial_lost_bytes,
        strays: strays.into(),
        net: machine.net_counts().map(Into::into),
    }
}

fn memory_answer(machine: &Running) -> Answer {
    let view = |region: super::layout::Region| RegionView {
        address: region.address,
        bytes: region.bytes,
        file_offset: region.file_offset,
    };
    Answer::Memory {
        bytes: machine.ram().bytes(),
        regions: machine.ram().regions().map(view).collect(),
    }
}
