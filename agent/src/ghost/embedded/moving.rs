//! Cuts of a copy, and how the other one comes by them.

use std::time::Duration;
use std::{fs::File, io::Read as _, os::fd::AsFd as _, os::unix::fs::FileExt as _, path::Path};

use super::{
    Copy, disk_of,
    stage::{self, Held, Mapping},
};
use crate::{
    ghost::{
        backend::{Begin, CopyPlan, Taken},
        error::GhostError,
        life::Extent,
    },
    vmm::message::{Answer, Command},
};

/// Where a cut is gathered.
pub(crate) struct Stage {
    /// The other copy's memory and disk, for a whole cut.
    straight: Option<(Mapping, Option<File>)>,
    pages: Held,
    blocks: Held,
    /// vCPUs and devices; a memfd.
    state: Option<File>,
    /// Names the last harvest of what was written.
    sequence: u64,
}

/// What a harvest found.
struct Harvest {
    pages: Vec<u8>,
    blocks: Vec<u8>,
    sequence: u64,
}

impl Copy {
    fn mapping(&mut self) -> Result<&Mapping, GhostError> {
        if self.memory.is_none() {
            self.memory = Some(self.map()?);
        }
        self.memory
            .as_ref()
            .ok_or_else(|| GhostError::NoCut(self.id.clone()))
    }

    fn map(&mut self) -> Result<Mapping, GhostError> {
        let (file, bytes) = self.memory_file()?;
        let copy = self.id.clone();
        Mapping::new(file, bytes).map_err(|source| GhostError::Map { copy, source })
    }

    pub(super) fn memory_file(&mut self) -> Result<(File, u64), GhostError> {
        const WHAT: &str = "ask for the memory of";
        let (answer, file) = self.client()?.ask(WHAT, &Command::Memory {}, None)?;
        let (Answer::Memory { bytes, .. }, Some(file)) = (answer, file) else {
            return Err(self.confused(WHAT));
        };
        let copy = self.id.clone();
        let expected = self.record.memory_bytes;
        if bytes != expected {
            return Err(GhostError::MemorySize {
                copy,
                found: bytes,
                expected,
            });
        }
        Ok((file, bytes))
    }

    fn disk(&self) -> Result<Option<File>, GhostError> {
        let open = |path: &std::path::PathBuf| {
            let opened = File::options().read(true).write(true).open(path);
            opened.map_err(|e| GhostError::Read(path.clone(), e))
        };
        self.record.disk.as_ref().map(open).transpose()
    }

    /// vCPUs and devices of one that is paused; a memfd.
    pub(super) fn save(&mut self) -> Result<File, GhostError> {
        const WHAT: &str = "save the state of";
        match self.client()?.ask(WHAT, &Command::Save {}, None)? {
            (Answer::Saved { .. }, Some(file)) => Ok(file),
            _ => Err(self.confused(WHAT)),
        }
    }

    pub(super) fn load(&mut self, state: &File) -> Result<(), GhostError> {
        const WHAT: &str = "load a state into";
        let client = self.client()?;
        match client.ask(WHAT, &Command::Load {}, Some(state.as_fd()))? {
            (Answer::Loaded, _) => Ok(()),
            _ => Err(self.confused(WHAT)),
        }
    }

    fn track(&mut self) -> Result<(), GhostError> {
        const WHAT: &str = "record what is written by";
        match self.ask(WHAT, &Command::Track {})? {
            Answer::Tracking => Ok(()),
            _ => Err(self.confused(WHAT)),
        }
    }

    fn harvest(&mut self, release: u64) -> Result<Harvest, GhostError> {
        const WHAT: &str = "learn what was written by";
        let command = Command::Dirty { release };
        let (answer, file) = self.client()?.ask(WHAT, &command, None)?;
        let Answer::Dirty {
            sequence,
            page_map_bytes,
            block_map_bytes,
            ..
        } = answer
        else {
            return Err(self.confused(WHAT));
        };
        let file = file.ok_or_else(|| self.confused(WHAT))?;
        // One bit for each page: a wrong length is no reason to take memory.
        let most = self.record.memory_bytes / 4096 / 8 + 8;
        if page_map_bytes > most || block_map_bytes > (1 << 32) {
            return Err(self.confused(WHAT));
        }
        let failed = |source| GhostError::Talk {
            what: WHAT,
            copy: self.id.clone(),
            source,
        };
        let map = |start: u64, bytes: u64| {
            let mut map = vec![0; usize::try_from(bytes).unwrap_or_default()];
            file.read_exact_at(&mut map, start).map_err(failed)?;
            Ok(map)
        };
        let pages = map(0, page_map_bytes)?;
        let blocks = map(page_map_bytes, block_map_bytes)?;
        Ok(Harvest {
            pages,
            blocks,
            sequence,
        })
    }
}

/// A disk for a copy that has one of its own.
pub(super) fn make_disk(plan: &CopyPlan, copy: &Copy) -> Result<(), GhostError> {
    let (Some(own), Some(first)) = (disk_of(plan), plan.vm.disk.as_ref()) else {
        return Ok(());
    };
    if copy.id.side == agent_common::abi::Side::Primary {
        return Ok(());
    }
    let from = File::open(first).map_err(|e| GhostError::Read(first.clone(), e))?;
    let failed = |e| GhostError::Write(own.clone(), e);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let to = options.open(&own).map_err(failed)?;
    match plan.begin {
        Begin::Blank => {
            let bytes = from.metadata().map_err(failed)?.len();
            to.set_len(bytes).map_err(failed)
        }
        Begin::Running | Begin::Suspended => stage::copy_disk(&from, &to).map(drop).map_err(failed),
    }
}

pub(super) fn begin(to: &mut Copy, extent: Extent) -> Result<Stage, GhostError> {
    let straight = match extent {
        Extent::Whole => Some((to.map()?, to.disk()?)),
        Extent::Written => None,
    };
    Ok(Stage {
        straight,
        pages: Held::default(),
        blocks: Held::default(),
        state: None,
        sequence: 0,
    })
}

pub(super) fn gather(from: &mut Copy, stage: &mut Stage) -> Result<Taken, GhostError> {
    // Before anything is read: what is written meanwhile is seen then.
    from.track()?;
    let whole = match &stage.straight {
        Some((memory, disk)) => copy_all(from, memory, disk.as_ref())?,
        None => Taken::default(),
    };
    let round = take_written(from, stage)?;
    Ok(Taken {
        pages: whole.pages + round.pages,
        blocks: whole.blocks + round.blocks,
    })
}

fn copy_all(from: &mut Copy, memory: &Mapping, disk: Option<&File>) -> Result<Taken, GhostError> {
    let copy = from.id.clone();
    let failed = |source| GhostError::Talk {
        what: "copy",
        copy: copy.clone(),
        source,
    };
    let pages = stage::copy_memory(from.mapping()?, memory).map_err(failed)?;
    let blocks = match from.disk()?.zip(disk) {
        Some((from, to)) => stage::copy_disk(&from, to).map_err(failed)?,
        None => 0,
    };
    Ok(Taken { pages, blocks })
}

/// All that was written since what was released last.
fn take_written(from: &mut Copy, stage: &mut Stage) -> Result<Taken, GhostError> {
    let harvest = from.harvest(0)?;
    let copy = from.id.clone();
    let page_failed = |(page, source)| GhostError::Page {
        copy: copy.clone(),
        page,
        source,
    };
    let disk_failed = |source| GhostError::Talk {
        what: "copy the disk of",
        copy: copy.clone(),
        source,
    };
    let disk = from.disk()?;
    let memory = from.mapping()?;
    let pages = match &stage.straight {
        Some((to, _)) => stage::copy_pages(memory, to, &harvest.pages),
        None => stage.pages.take_pages(memory, &harvest.pages),
    };
    let blocks = match &disk {
        Some(disk) => stage
            .blocks
            .take_blocks(disk, &harvest.blocks)
            .map_err(disk_failed)?,
        None => 0,
    };
    stage.sequence = harvest.sequence;
    Ok(Taken {
        pages: pages.map_err(page_failed)?,
        blocks,
    })
}

pub(super) fn cut(from: &mut Copy, stage: &mut Stage) -> Result<Taken, GhostError> {
    let taken = take_written(from, stage)?;
    stage.state = Some(from.save()?);
    Ok(taken)
}

pub(super) fn forward(from: &mut Copy, to: &mut Copy) -> Result<(), GhostError> {
    const TAKE: &str = "take the waiting frames of";
    const GIVE: &str = "give frames to";
    let (answer, file) = from.client()?.ask(TAKE, &Command::TakeFrames {}, None)?;
    let file = match (answer, file) {
        (Answer::Frames { frames: 0 }, _) => return Ok(()),
        (Answer::Frames { .. }, Some(file)) => file,
        _ => return Err(from.confused(TAKE)),
    };
    let given = to
        .client()?
        .ask(GIVE, &Command::GiveFrames {}, Some(file.as_fd()))?;
    match given {
        (Answer::Given { .. }, _) => Ok(()),
        _ => Err(to.confused(GIVE)),
    }
}

pub(super) fn apply(to: &mut Copy, stage: &Stage) -> Result<(), GhostError> {
    let copy = to.id.clone();
    let state = stage
        .state
        .as_ref()
        .ok_or_else(|| GhostError::NoCut(copy.clone()))?;
    let page_failed = |(page, source)| GhostError::Page {
        copy: copy.clone(),
        page,
        source,
    };
    stage.pages.put_pages(to.mapping()?).map_err(page_failed)?;
    if let Some(disk) = to.disk()? {
        let failed = |source| GhostError::Talk {
            what: "write the disk of",
            copy: copy.clone(),
            source,
        };
        let bytes = disk.metadata().map_err(failed)?.len();
        stage.blocks.put_blocks(&disk, bytes).map_err(failed)?;
    }
    to.load(state)
}

pub(super) fn release(from: &mut Copy, stage: &Stage) -> Result<(), GhostError> {
    // What is written from here on comes again with the next harvest.
    from.harvest(stage.sequence).map(drop)
}

pub(super) fn activate(copy: &mut Copy) -> Result<Duration, GhostError> {
    copy.track()?;
    enter(copy)
}

/// As a new incarnation of whatever it is a copy of.
pub(super) fn enter(copy: &mut Copy) -> Result<Duration, GhostError> {
    const WHAT: &str = "activate";
    let generation = generation().map_err(|e| GhostError::Read("/dev/urandom".into(), e))?;
    match copy.ask(WHAT, &Command::Activate { generation })? {
        Answer::Activated { activate_us } => Ok(Duration::from_micros(activate_us)),
        _ => Err(copy.confused(WHAT)),
    }
}

/// 128 bits that no activation had before.
fn generation() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open(Path::new("/dev/urandom"))?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
