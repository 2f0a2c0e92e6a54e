//! The guest's life, and what its owner may ask of it when.
//!
//! States: running; paused; blank, which is paused with nothing in its vCPUs
//! yet; broken, which is a blank or paused one into which a state was loaded
//! by half; ended. Only a paused one runs on, and a broken one never.

use std::{os::fd::OwnedFd, time::Instant};

use super::{
    clock::Generation,
    dirty::{self, Pending, Written},
    end::End,
    error::VmmError,
    frames,
    machine::Running,
    message::{Answer, Command, JailView, Reason, RegionView, State},
    state::{self, StateError},
    vcpu::{Ended, Start},
};

pub(super) struct Guest {
    machine: Running,
    life: Life,
    /// There once writes are tracked.
    pending: Option<Pending>,
    jail: Option<JailView>,
}

/// How far the guest has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Paused,
    Blank,
    /// Why.
    Broken(String),
    Ended(End),
}

/// An answer, and what goes with it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) file: Option<OwnedFd>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, file: None }
    }
}

impl Guest {
    pub(super) fn new(machine: Running, start: Start, jail: Option<JailView>) -> Self {
        let life = match start {
            // Its vCPUs know nothing of what is in its memory.
            _ if machine.memory().is_copy() => Life::Blank,
            Start::Running => Life::Running,
            Start::Paused => Life::Paused,
        };
        Self {
            machine,
            life,
            pending: None,
            jail,
        }
    }

    /// What holds the process; nothing if there is no jail.
    pub(super) fn jail(&self) -> Option<&JailView> {
        self.jail.as_ref()
    }

    pub(super) fn machine(&self) -> &Running {
        &self.machine
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.life, Life::Ended(_))
    }

    /// The guest has ended, or is to; its memory stays. Says how it did.
    pub(super) fn finish(
        &mut self,
        cpu: Option<u8>,
        end: End,
    ) -> Result<(Option<u8>, End), VmmError> {
        self.machine.stop()?;
        // The guest's own end, if it came first, is what counts.
        let (cpu, end) = match (cpu, self.machine.first_end()) {
            (None, Some(Ended { cpu, end })) if end != End::Ordered => (Some(cpu), end),
            _ => (cpu, end),
        };
        self.life = Life::Ended(end.clone());
        Ok((cpu, end))
    }

    /// Carries out a command that came just now, with what came with it.
    pub(super) fn obey(
        &mut self,
        command: &Command,
        file: Option<OwnedFd>,
    ) -> Result<Reply, VmmError> {
        let reply = match command {
            Command::Status {} => self.status().into(),
            Command::Memory {} => self.memory(),
            Command::Stop {} => Answer::Stopping.into(),
            _ if self.has_ended() => refused("the guest has ended"),
            Command::Pause {} => self.pause()?.into(),
            Command::Resume {} => self.resume()?,
            Command::Save {} => self.save(),
            Command::Load {} => self.load(file),
            Command::Activate { generation } => self.activate(generation)?,
            Command::TakeFrames {} => self.take_frames(),
            Command::GiveFrames {} => self.give_frames(file),
            Command::Track {} => self.track(),
            Command::Dirty { release } => self.dirty(*release),
        };
        Ok(reply)
    }

    /// A guest that is paused already is paused.
    fn pause(&mut self) -> Result<Answer, VmmError> {
        let start = Instant::now();
        if self.life == Life::Running {
            self.machine.pause()?;
            self.life = Life::Paused;
        }
        Ok(Answer::Paused {
            pause_us: micros(start, Instant::now()),
        })
    }

    /// A guest that runs already runs.
    fn resume(&mut self) -> Result<Reply, VmmError> {
        if self.life != Life::Running {
            if let Some(why) = self.may_not_run() {
                return Ok(refused(why));
            }
            self.machine.resume()?;
            self.life = Life::Running;
        }
        Ok(Answer::Resumed.into())
    }

    fn save(&mut self) -> Reply {
        if let Some(why) = self.may_not_run() {
            return refused(why);
        }
        match self.machine.save().and_then(|saved| state::write(&saved)) {
            Ok((file, bytes)) => Reply {
                answer: Answer::Saved { bytes },
                file: Some(file),
            },
            Err(error) => failed("save the state", error),
        }
    }

    fn load(&mut self, file: Option<OwnedFd>) -> Reply {
        match &self.life {
            Life::Paused | Life::Blank => {}
            Life::Running | Life::Broken(_) | Life::Ended(_) => {
                return refused(self.may_not_run().unwrap_or_default());
            }
        }
        let file = file.ok_or(StateError::NoFile);
        let saved = match file.and_then(|file| state::read(file, self.machine.here())) {
            Ok(saved) => saved,
            Err(error) => return failed("load the state", error),
        };
        match self.machine.load(saved) {
            // Nothing has been set by then.
            Err(error @ StateError::Devices(_)) => failed("load the state", error),
            Ok(()) => {
                self.life = Life::Paused;
                Answer::Loaded.into()
            }
            // Some of it has been set by now.
            Err(error) => {
                let why = chain(error);
                self.life = Life::Broken(why.clone());
                refused(format!("cannot load the state: {why}"))
            }
        }
    }

    fn activate(&mut self, generation: &str) -> Result<Reply, VmmError> {
        let start = Instant::now();
        if let Some(why) = self.may_not_run() {
            return Ok(refused(why));
        }
        let Some(generation) = Generation::parse(generation) else {
            return Ok(refused("a generation has 32 hexadecimal digits"));
        };
        // It has not run yet if this fails, and stays paused.
        if let Err(error) = self.machine.reincarnate(generation) {
            return Ok(failed("set the generation and the clocks", error));
        }
        let entered = self.machine.resume()?;
        self.life = Life::Running;
        Ok(Answer::Activated {
            activate_us: micros(start, entered),
        }
        .into())
    }

    fn take_frames(&mut self) -> Reply {
        if let Some(why) = self.may_not_run() {
            return refused(why);
        }
        let taken = self.machine.take_frames();
        let frames = taken.len() as u64;
        match state::sealed(c"ghost-frames", &[&frames::write(&taken)]) {
            Ok(file) => Reply {
                answer: Answer::Frames { frames },
                file: Some(file),
            },
            Err(error) => {
                // They were the first, and are again.
                self.machine.give_frames(taken);
                failed("hand out frames", error)
            }
        }
    }

    fn give_frames(&mut self, file: Option<OwnedFd>) -> Reply {
        if let Some(why) = self.may_not_run() {
            return refused(why);
        }
        let Some(file) = file else {
            return refused("no file came with the command");
        };
        let given = match frames::read(file) {
            Ok(given) => given,
            Err(error) => return failed("take over frames", error),
        };
        let frames = given.len() as u64;
        if frames > 0 && !self.machine.give_frames(given) {
            return refused("the guest has no network");
        }
        Answer::Given { frames }.into()
    }

    /// What is tracked already stays as it is.
    fn track(&mut self) -> Reply {
        if self.machine.memory().is_copy() {
            return refused("what is written to a copy of another's memory is not tracked");
        }
        if self.pending.is_none() {
            if let Err(error) = self.machine.track() {
                return failed("begin to track", error);
            }
            self.pending = Some(Pending::default());
        }
        Answer::Tracking.into()
    }

    fn dirty(&mut self, release: u64) -> Reply {
        let Some(pending) = &mut self.pending else {
            return refused("nothing is tracked yet");
        };
        if !pending.release(release) {
            let latest = pending.sequence();
            return refused(format!(
                "there was no harvest {release} yet, the latest is {latest}"
            ));
        }
        let fresh = match self.machine.harvest() {
            Ok(fresh) => fresh,
            Err(error) => return failed("harvest", error),
        };
        let Written { pages, blocks } = pending.harvest(fresh);
        let bytes =
            |bits: &[u64]| -> Vec<u8> { bits.iter().flat_map(|word| word.to_le_bytes()).collect() };
        let (page_map, block_map) = (bytes(&pages), bytes(&blocks));
        let answer = Answer::Dirty {
            sequence: pending.sequence(),
            pages: dirty::count(&pages),
            page_map_bytes: page_map.len() as u64,
            blocks: dirty::count(&blocks),
            block_map_bytes: block_map.len() as u64,
        };
        match state::sealed(c"ghost-dirty", &[&page_map, &block_map]) {
            Ok(file) => Reply {
                answer,
                file: Some(file),
            },
            // It stays pending, and is told next time.
            Err(error) => failed("hand out what was written", error),
        }
    }

    /// Why it cannot be let run, or saved, now.
    fn may_not_run(&self) -> Option<String> {
        match &self.life {
            Life::Paused => None,
            Life::Running => Some("the guest is running; pause it first".to_owned()),
            Life::Blank => Some("no state has been loaded yet".to_owned()),
            Life::Broken(why) => Some(format!(
                "a state was loaded by half, so the guest can only be stopped: {why}"
            )),
            Life::Ended(_) => Some("the guest has ended".to_owned()),
        }
    }

    fn status(&self) -> Answer {
        let (strays, serial_lost_bytes) = self.machine.counts();
        Answer::Status {
            state: match &self.life {
                Life::Running => State::Running,
                Life::Paused => State::Paused,
                Life::Blank => State::Blank,
                Life::Broken(why) => State::Broken { why: why.clone() },
                Life::Ended(end) => State::Ended(Reason::from(end)),
            },
            vcpus: self.machine.vcpus(),
            memory_bytes: self.machine.ram().bytes(),
            serial_lost_bytes,
            strays: strays.into(),
            net: self.machine.devices().net_counts().map(Into::into),
            disk: self.machine.devices().block_counts().map(Into::into),
            jail: self.jail.clone().map(Box::new),
        }
    }

    fn memory(&self) -> Reply {
        let view = |region: super::layout::Region| RegionView {
            address: region.address,
            bytes: region.bytes,
            file_offset: region.file_offset,
        };
        let Some(file) = self.machine.memory().file() else {
            return refused("the guest's memory is a copy that only its process has");
        };
        match file.try_clone_to_owned() {
            Ok(file) => Reply {
                answer: Answer::Memory {
                    bytes: self.machine.ram().bytes(),
                    regions: self.machine.ram().regions().map(view).collect(),
                },
                file: Some(file),
            },
            Err(error) => failed("hand out the memory", error),
        }
    }
}

fn refused(why: impl Into<String>) -> Reply {
    Answer::Refused { why: why.into() }.into()
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Reply {
    refused(format!("cannot {what}: {}", chain(error)))
}

/// An error with its sources.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

fn micros(start: Instant, end: Instant) -> u64 {
    let passed = end.saturating_duration_since(start);
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
