//! Limits of ghosts and primaries, by a kernel that has all the controllers.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ghostd::{
    enforce::{Journal, apply, of_ghost, of_primary, released, reserve_huge_pages, squeezed},
    model::{Amounts, Grade, Grant, Risk},
};
use ghostd_tests::vm::{Spec, inside};

const ROOT: &str = "/sys/fs/cgroup";
const JOURNAL: &str = "/run/ghostd/enforce.journal";
const MIB: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

fn grant(memory_mib: u64) -> Result<Grant> {
    Ok(Grant {
        name: "web".parse()?,
        grade: Grade::Resident,
        risk: Risk::TENTH,
        amounts: Amounts {
            memory_bytes: memory_mib * MIB,
            huge_pages: 0,
            cpu_milli: 250,
            bandwidth: 0,
        },
        cpu_weight: 5,
        epoch_ms: 100,
    })
}

fn folder(name: &str) -> Result<PathBuf> {
    let path = Path::new(ROOT).join(name);
    fs::create_dir(&path)?;
    Ok(path)
}

fn journal() -> Result<Journal> {
    let (journal, left) = Journal::open(Path::new(JOURNAL))?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(journal)
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn number(folder: &Path, file: &str) -> Result<u64> {
    Ok(text(&folder.join(file))?.trim().parse()?)
}

/// A line `name value` of a file.
fn entry(folder: &Path, file: &str, name: &str) -> Result<u64> {
    let text = text(&folder.join(file))?;
    let words = text.lines().filter_map(|line| line.split_once(' '));
    let value = words.into_iter().find(|(key, _)| *key == name);
    Ok(value
        .with_context(|| format!("no {name} in {text}"))?
        .1
        .parse()?)
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < DEADLINE, "not in time: {what}");
        thread::yield_now();
    }
    Ok(())
}

/// A process in a cgroup, killed when dropped.
struct Process(Child);

impl Process {
    fn start(folder: &Path, command: &str) -> Result<Self> {
        let script = format!("echo 0 >{}/cgroup.procs && {command}", folder.display());
        let child = Command::new("sh").arg("-c").arg(script).spawn()?;
        Ok(Self(child))
    }

    /// Holds so much memory, for as long as nobody reads from the pipe.
    fn holding(folder: &Path, mib: u64) -> Result<Self> {
        let process = Self::hog(folder, mib)?;
        until("the memory is there", || {
            Ok(number(folder, "memory.current")? >= mib * MIB)
        })?;
        Ok(process)
    }

    fn hog(folder: &Path, mib: u64) -> Result<Self> {
        let command = format!("exec dd bs={mib}M count=1 if=/dev/zero of=/run/pipe 2>/dev/null");
        Self::start(folder, &command)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both ends, so that opening it does not block.
fn pipe() -> Result<File> {
    let made = Command::new("mkfifo").arg("/run/pipe").status()?;
    ensure!(made.success(), "mkfifo");
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .open("/run/pipe")?)
}

/// Compressed memory as swap, so that memory can be reclaimed at all.
fn swap_on() -> Result<()> {
    fs::write("/sys/block/zram0/disksize", "1G")?;
    for command in ["mkswap", "swapon"] {
        let mut command = Command::new(command);
        let done = command.arg("/dev/zram0").stdout(Stdio::null()).status()?;
        ensure!(done.success(), "{command:?}");
    }
    Ok(())
}

#[test]
fn a_hog_in_a_ghost_is_limited_and_a_primary_keeps_its_memory() -> Result<()> {
    let spec = Spec::default().memory_mib(384).modules(&["zram"]);
    inside(
        "enforce::a_hog_in_a_ghost_is_limited_and_a_primary_keeps_its_memory",
        spec,
        || {
            let (primary, ghost) = (folder("web")?, folder("web.ghost")?);
            let mut journal = journal()?;
            let _pipe = pipe()?;
            for (folder, settings) in [
                (&primary, of_primary(72 * MIB)),
                (&ghost, of_ghost(&grant(64)?)),
            ] {
                let report = apply(folder, &settings, &mut journal)?;
                ensure!(report.not_in_force.is_empty(), "{report:?}");
                ensure!(report.in_force == settings, "{report:?}");
            }
            limited(&ghost)?;
            swap_on()?;
            gives_way(&primary, &ghost, &mut journal)?;
            let left = journal.undo();
            ensure!(left.is_empty(), "{left:?}");
            ensure!(
                text(&Path::new(ROOT).join("cgroup.subtree_control"))?
                    .trim()
                    .is_empty()
            );
            ensure!(!primary.join("memory.min").exists());
            Ok(())
        },
    )
}

/// Without swap, memory beyond the limit is the end of who takes it; CPU time
/// beyond it is not had.
fn limited(ghost: &Path) -> Result<()> {
    let mut hog = Process::hog(ghost, 200)?;
    let ended = hog.0.wait()?;
    ensure!(!ended.success(), "{ended}");
    ensure!(entry(ghost, "memory.events", "oom_kill")? >= 1);

    let before = entry(ghost, "cpu.stat", "usage_usec")?;
    let began = Instant::now();
    let _busy = Process::start(ghost, "while :; do :; done")?;
    until("it was throttled twenty times", || {
        Ok(entry(ghost, "cpu.stat", "nr_throttled")? >= 20)
    })?;
    let used = entry(ghost, "cpu.stat", "usage_usec")? - before;
    let elapsed = u64::try_from(began.elapsed().as_micros())?;
    // A quarter of a CPU, and a period at either end.
    ensure!(used <= elapsed / 4 + 100_000, "{used} us of {elapsed} us");
    Ok(())
}

/// Somebody takes all the memory there is: the ghost loses its own, the
/// primary nothing.
fn gives_way(primary: &Path, ghost: &Path, journal: &mut Journal) -> Result<()> {
    let _held = Process::holding(primary, 56)?;
    let _resident = Process::holding(ghost, 48)?;

    let report = apply(ghost, &[squeezed(8 * MIB)], journal)?;
    ensure!(report.not_in_force.is_empty(), "{report:?}");
    until("the ghost is squeezed", || {
        Ok(number(ghost, "memory.current")? <= 9 * MIB)
    })?;
    apply(ghost, &[released()], journal)?;
    ensure!(text(&ghost.join("memory.high"))? == "max\n");

    let others = folder("others")?;
    let _another = Process::holding(ghost, 8)?;
    let held = number(primary, "memory.current")?;
    let _hog = Process::hog(&others, 400)?;
    until("memory is short", || {
        Ok(number(&others, "memory.swap.current")? >= 100 * MIB)
    })?;
    let (kept, swapped) = (
        number(primary, "memory.current")?,
        number(primary, "memory.swap.current")?,
    );
    ensure!(
        swapped == 0 && kept >= held - MIB,
        "{kept} of {held}, {swapped} swapped"
    );
    ensure!(number(ghost, "memory.swap.current")? >= 40 * MIB);
    Ok(())
}

const CHILD: &str = "ENFORCE_AND_WAIT";

#[test]
fn huge_pages_come_in_part_and_go_when_ghostd_was_killed() -> Result<()> {
    const NAME: &str = "enforce::huge_pages_come_in_part_and_go_when_ghostd_was_killed";
    inside(NAME, Spec::default().memory_mib(512), || {
        let pool = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
        if std::env::var_os(CHILD).is_some() {
            return enforce_and_wait();
        }
        // Three of somebody else's.
        fs::write(pool, "3")?;
        let primary = folder("web")?;
        let child = Command::new("/proc/self/exe")
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .spawn()?;
        let mut child = Process(child);
        until("the limits are in force", || {
            if let Some(ended) = child.0.try_wait()? {
                bail!("it ended: {ended}");
            }
            Ok(Path::new("/run/ready").exists())
        })?;
        let pages: u64 = text(pool)?.trim().parse()?;
        let got: u64 = text(Path::new("/run/ready"))?.parse()?;
        ensure!(
            got > 0 && got < 1000 && pages == 3 + got,
            "{got} of {pages}"
        );
        ensure!(number(&primary, "memory.min")? == 16 * MIB);
        // kill -9.
        drop(child);
        ensure!(text(pool)?.trim() != "3", "nothing is left to undo");

        journal()?;
        ensure!(text(pool)? == "3\n");
        ensure!(
            !primary.join("memory.min").exists(),
            "the controller is off again"
        );
        Ok(())
    })
}

/// Twice as many huge pages as the VM has memory for, and a primary's
/// protection; then it waits to be killed.
fn enforce_and_wait() -> Result<()> {
    let mut journal = journal()?;
    let report = apply(
        &Path::new(ROOT).join("web"),
        &of_primary(16 * MIB),
        &mut journal,
    )?;
    ensure!(report.not_in_force.is_empty(), "{report:?}");
    let pool = reserve_huge_pages(Path::new("/"), 512, &mut journal)?;
    ensure!(
        pool.missing > 0 && pool.pages + pool.missing == 512,
        "{pool:?}"
    );
    fs::write("/run/ready.new", pool.pages.to_string())?;
    fs::rename("/run/ready.new", "/run/ready")?;
    loop {
        thread::park();
    }
}
