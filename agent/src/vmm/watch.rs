//! The main thread while the guest runs: ends, signals, clients.

use std::{io::Write as _, os::fd::AsFd};

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
    guest::{Guest, Life, Reply},
    message::{Answer, Command, Event, Reason, encode},
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
    guest: Guest,
    control: Option<Control>,
    signals: SignalFd,
    at_end: AtEnd,
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
        guest: Guest,
        control: Option<Control>,
        signals: SignalFd,
        at_end: AtEnd,
    ) -> Self {
        Self {
            guest,
            control,
            signals,
            at_end,
        }
    }

    /// Until there is nothing more to do; says why the guest ended.
    pub(super) fn run(mut self) -> Result<End, VmmError> {
        self.tell(&Event::Started {
            pid: std::process::id(),
            vcpus: self.guest.machine().vcpus(),
            memory_bytes: self.guest.machine().ram().bytes(),
            jail: self.guest.jail().cloned(),
        });
        if *self.guest.life() != Life::Running {
            self.tell(&Event::Paused);
        }
        loop {
            let ready = self.wait()?;
            if ready.has_end
                && !self.guest.has_ended()
                && let Some(ended) = self.guest.machine().first_end()
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
            if must_leave && !self.guest.has_ended() {
                self.finish(None, End::Ordered)?;
            }
            if let Life::Ended(end) = self.guest.life()
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
            watch(self.guest.machine().wake().as_fd()),
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

    /// The guest has ended, or is to.
    fn finish(&mut self, cpu: Option<u8>, end: End) -> Result<(), VmmError> {
        let (vcpu, end) = self.guest.finish(cpu, end)?;
        self.tell(&Event::Ended {
            vcpu,
            reason: Reason::from(&end),
        });
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
        let (command, file) = match said {
            Said::Nothing => return Ok(false),
            Said::Goodbye => {
                self.let_go(client);
                return Ok(false);
            }
            Said::Nonsense(why) => {
                self.answer(client, &Answer::Refused { why }.into());
                return Ok(false);
            }
            Said::Command(command, file) => (command, file),
        };
        let before = self.guest.life().clone();
        let reply = self.guest.obey(&command, file)?;
        self.answer(client, &reply);
        match self.guest.life() {
            life if *life == before => {}
            Life::Running => self.tell(&Event::Resumed),
            Life::Paused => self.tell(&Event::Paused),
            // Told where it was found out.
            Life::Blank | Life::Broken(_) | Life::Ended(_) => {}
        }
        Ok(command == Command::Stop {})
    }

    fn answer(&mut self, client: usize, Reply { answer, file }: &Reply) {
        let Some(control) = &self.control else {
            return;
        };
        let file = file.as_ref().map(AsFd::as_fd);
        if !control.send(client, &encode(answer), file) {
            self.let_go(client);
        }
    }

    fn let_go(&mut self, client: usize) {
        if let Some(control) = &mut self.control {
            control.let_go(client);
        }
    }
}
