//! `ghostd`: the wiring.
//!
//! Owns: the order of things. The configuration is read and checked whole;
//! then the lock, the API socket, the kernel; then the service manager is told.
//! At the end the API drains within a deadline, and steering stays in force.
//!
//! Refuses: to decide anything (see `orchestrate`).
//!
//! How it fails: exit 2 for a configuration that is wrong, with nothing
//! opened; exit 1 for everything else.

mod args;
mod lock;
mod notify;
mod settings;
mod signals;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use tokio::sync::{mpsc, oneshot, watch};
use tracing_subscriber::EnvFilter;

use self::args::{Args, Command};
use crate::{
    config::{Colour, Config},
    control::{self, ApiState},
    ghost::{self, GhostManager, Parts},
    orchestrate::{
        command::REQUEST_QUEUE,
        driver::{Channels, Driver, Order},
        event::EventLog,
        limits::Limits,
        vms::VmDesk,
    },
    steer::{Plane, object::OBJECT},
};

/// Exit code for a configuration that is wrong.
const EXIT_CONFIG: u8 = 2;

/// From the order to stop until the end, whoever still talks to the API.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Folders of copies. Gone after a reboot, like the processes that they are about.
const VM_FOLDER: &str = "/run/ghostd/vm";

/// What was changed to limit copies, so that it can be undone.
const LIMITS_JOURNAL: &str = "/run/ghostd/limits.journal";

/// The whole of `ghostd`.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let path = match &args.command {
        Command::Run { config, .. } | Command::Check { config } => config.clone(),
    };
    let colour = if io::IsTerminal::is_terminal(&io::stderr()) {
        Colour::Always
    } else {
        Colour::Never
    };
    let config = match settings::read(&path, colour) {
        Ok(config) => config,
        Err(diagnostic) => {
            eprintln!("{diagnostic}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match args.command {
        Command::Check { .. } => {
            for warning in &config.warnings {
                eprintln!("{}", warning.render(colour));
            }
            println!("{}: {}", path.display(), summary(&config));
            ExitCode::SUCCESS
        }
        Command::Run { pins, .. } => match run(path, config, pins) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn summary(config: &Config) -> String {
    let routes: usize = config.instances.iter().map(|i| i.routes.len()).sum();
    format!(
        "good: {} uplinks, {} instances, {routes} routes",
        config.steering.uplinks.len(),
        config.instances.len(),
    )
}

fn run(path: PathBuf, config: Config, pins: Option<PathBuf>) -> anyhow::Result<()> {
    log();
    for warning in &config.warnings {
        tracing::warn!("{}", warning.one_line());
    }
    let pins = &pins.unwrap_or_else(|| config.steering.pins.clone());
    let _lock = lock::take(pins)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(path, config, pins));
    // Whatever is left is the API's stragglers.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// To standard error, where the service manager stamps each line itself.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        subscriber.without_time().init();
    } else {
        subscriber.init();
    }
}

async fn serve(path: PathBuf, config: Config, pins: &Path) -> anyhow::Result<()> {
    let (order, orders) = watch::channel(Order::Run);
    // First of all: a signal must never end a daemon half way.
    let signals = signals::listen(order)?;
    let access = settings::access(&config.api);
    let socket = config.api.socket.clone();
    let listener = control::bind(&socket, &access)?;
    let limits = Limits::open(Path::new(LIMITS_JOURNAL));
    let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
    let log = EventLog::new();
    let desk = VmDesk::default();
    let state = ApiState {
        requests: requests.clone(),
        events: log.feed(),
        desk: desk.clone(),
        access,
        host: settings::host_name(&config.host),
    };
    let (stop_api, api_stops) = oneshot::channel::<()>();
    let api = tokio::spawn(control::serve(listener, state, async {
        // A sender that is gone says the same.
        let _ = api_stops.await;
    }));
    let map_limits = config.limits;
    let fixed = settings::Fixed::of(&config);
    let vmm = config.ghosts.vmm.clone();
    let vmm = vmm.map_or_else(ghost::beside_us, Ok)?;
    let ghosts: Ghosts = Arc::default();
    let ghosts_reloaded = Arc::clone(&ghosts);
    let started = Plane::start(pins, &map_limits, OBJECT)?;
    let channels = Channels {
        requests: queue,
        orders,
        source: Box::new(move || {
            let new = settings::read(&path, Colour::Never)?;
            fixed.check(&path, &new)?;
            if let Some(ghosts) = &mut *locked(&ghosts_reloaded) {
                ghosts.configure(&new.instances);
            }
            Ok(settings::wanted(new))
        }),
        service: notify::service(),
    };
    let instances = config.instances.clone();
    let parts = Parts {
        vmm,
        run: PathBuf::from(VM_FOLDER),
        requests,
        limits,
        log: log.writer(),
        desk,
    };
    let driver = Driver::start(started, settings::wanted(config), log, channels)?;
    // What it asks of the driver waits until that runs.
    *locked(&ghosts) = Some(GhostManager::start(parts, &instances)?);
    release_memory();
    notify::ready();
    tracing::info!(socket = %socket.display(), pins = %pins.display(), "steering");
    let result = driver.run().await;
    notify::stopping();
    signals.abort();
    if let Some(ghosts) = locked(&ghosts).take() {
        ghosts.stop(STOP_TIMEOUT);
    }
    drop(stop_api);
    match tokio::time::timeout(STOP_TIMEOUT, api).await {
        Ok(Ok(served)) => served.context("the API ended badly")?,
        Ok(Err(e)) => return Err(anyhow!(e).context("the API ended badly")),
        Err(_) => tracing::warn!("the API did not end in time; left behind"),
    }
    result.context("the kernel's event streams broke")?;
    tracing::info!("stopped; steering stays in force");
    Ok(())
}

type Ghosts = Arc<Mutex<Option<GhostManager>>>;

/// No code panics while it holds the lock, so a poisoned one is as good.
fn locked(ghosts: &Ghosts) -> MutexGuard<'_, Option<GhostManager>> {
    ghosts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loading parses megabytes of type information, once. What it took goes back
/// to the system.
#[allow(unsafe_code)]
fn release_memory() {
    // SAFETY: only gives back what the allocator does not use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
