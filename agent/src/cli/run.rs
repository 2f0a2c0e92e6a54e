//! Carries a command out: asks, renders, prints.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use serde::Serialize;

use super::{
    args::{Args, Color, Command, Output, SupposedRisk},
    clean,
    client::Client,
    doctor,
    error::{CliError, Exit},
    facts::{Facts, Families},
    generate,
    look::Look,
    offline, probe, render, switch, vm,
};
use crate::control::dto::{
    EventLine, FindingDto, OutcomeDto, PlanDto, RoutesDto, Severity, StatusDto,
};

/// Between the two readings of `doctor`: packets of any real trouble come
/// more often than this.
const SAMPLE_GAP: Duration = Duration::from_secs(1);

/// Where a command's words go.
pub(super) struct Screen {
    pub(super) look: Look,
    pub(super) output: Output,
}

impl Screen {
    fn new(args: &Args) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = match args.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: set and not empty.
            Color::Auto => terminal && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        let width = terminal.then(|| comfy_table::Table::new().width().unwrap_or(80));
        Self {
            look: Look { color, width },
            output: args.output,
        }
    }

    /// The answer as JSON, or as a person reads it.
    pub(super) fn show<T: Serialize>(
        &self,
        answer: &T,
        table: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), CliError> {
        let text = match self.output {
            Output::Table => table(answer, self.look),
            Output::Json => json(answer)?,
        };
        say(&text)
    }
}

fn json<T: Serialize>(answer: &T) -> Result<String, CliError> {
    let fail = |e: serde_json::Error| CliError::Write("JSON".to_owned(), e.into());
    let mut text = serde_json::to_string_pretty(answer).map_err(fail)?;
    text.push('\n');
    Ok(text)
}

pub(super) fn say(text: &str) -> Result<(), CliError> {
    say_bytes(text.as_bytes())
}

pub(super) fn say_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| CliError::Write("standard output".to_owned(), e))
}

pub(super) fn run(args: &Args) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(carry_out(args))
}

async fn carry_out(args: &Args) -> Result<Exit, CliError> {
    let screen = Screen::new(args);
    let client = Client::new(&args.socket);
    match &args.command {
        Command::Status { brief } => status(&client, &args.pins, &screen, *brief).await,
        Command::Routes { instance } => {
            let name = instance.as_ref().map(crate::model::InstanceName::as_str);
            routes(&client, &args.pins, &screen, name).await
        }
        Command::Switch(command) => switch::run(command, &client, &args.pins, &screen).await,
        Command::Instance(command) => vm::instance(command, &client, &screen).await,
        Command::Ghost(command) => vm::ghost(command, &client, &screen).await,
        Command::Events { follow, since } => events(&client, &screen, *since, *follow).await,
        Command::Doctor => diagnose(&client, &args.pins, &screen).await,
        Command::Clean { force, yes } => {
            let plan = clean::Wish {
                force: *force,
                ask: !*yes,
            };
            clean::run(&plan, &client, &args.pins, &screen).await
        }
        Command::Plan { risk } => plan(&client, &screen, risk).await,
        Command::Reload => {
            let outcome: OutcomeDto = client.post("/v1/reload").await?;
            screen.show(&outcome, |o, _| {
                render::outcome("reload", "configuration", *o)
            })?;
            Ok(Exit::Good)
        }
        Command::Completions { shell } => {
            generate::completions(*shell, &mut io::stdout()).map(|()| Exit::Good)
        }
        Command::Man { folder } => {
            generate::man(folder.as_deref(), &mut io::stdout()).map(|()| Exit::Good)
        }
    }
}

async fn status(
    client: &Client,
    pins: &Path,
    screen: &Screen,
    brief: bool,
) -> Result<Exit, CliError> {
    let (status, exit) = match client.get::<StatusDto>("/v1/status").await {
        Ok(status) => {
            let exit = if status.healthy() {
                Exit::Good
            } else {
                Exit::Degraded
            };
            (status, exit)
        }
        Err(error) => (offline::status(error, pins)?, Exit::Unreachable),
    };
    screen.show(&status, |status, look| {
        if brief {
            render::brief(status)
        } else {
            render::status(status, look)
        }
    })?;
    Ok(exit)
}

async fn routes(
    client: &Client,
    pins: &Path,
    screen: &Screen,
    instance: Option<&str>,
) -> Result<Exit, CliError> {
    let uri = instance.map_or("/v1/routes".to_owned(), |name| {
        format!("/v1/routes?instance={name}")
    });
    let (routes, exit) = match client.get::<RoutesDto>(&uri).await {
        Ok(routes) => (routes, Exit::Good),
        Err(error) => (offline::routes(error, pins, instance)?, Exit::Unreachable),
    };
    screen.show(&routes, render::routes)?;
    Ok(exit)
}

async fn plan(client: &Client, screen: &Screen, risks: &[SupposedRisk]) -> Result<Exit, CliError> {
    let risks = risks.iter().map(|r| format!("{}={}", r.instance, r.risk));
    let risks: Vec<String> = risks.collect();
    let uri = if risks.is_empty() {
        "/v1/plan".to_owned()
    } else {
        format!("/v1/plan?risk={}", risks.join(","))
    };
    let plan: PlanDto = client.get(&uri).await?;
    screen.show(&plan, render::plan)?;
    Ok(Exit::Good)
}

async fn events(
    client: &Client,
    screen: &Screen,
    since: u64,
    follow: bool,
) -> Result<Exit, CliError> {
    let mut events = client.events(since, follow).await?;
    while let Some(line) = events.next().await? {
        let text = match screen.output {
            Output::Table => render::event_line(&line, screen.look),
            Output::Json => ndjson(&line)?,
        };
        say(&text)?;
    }
    Ok(Exit::Good)
}

/// One event a line, as the API sends it.
fn ndjson(line: &EventLine) -> Result<String, CliError> {
    let fail = |e: serde_json::Error| CliError::Write("JSON".to_owned(), e.into());
    let mut text = serde_json::to_string(line).map_err(fail)?;
    text.push('\n');
    Ok(text)
}

#[derive(Serialize)]
struct Diagnosis {
    findings: Vec<FindingDto>,
}

async fn diagnose(client: &Client, pins: &Path, screen: &Screen) -> Result<Exit, CliError> {
    let facts = gather(client, pins).await?;
    let diagnosis = Diagnosis {
        findings: doctor::examine(&facts),
    };
    screen.show(&diagnosis, |d, look| {
        if d.findings.is_empty() {
            "nothing found\n".to_owned()
        } else {
            render::findings(&d.findings, look)
        }
    })?;
    let worst = diagnosis.findings.iter().map(|f| f.severity).max();
    Ok(match worst {
        None | Some(Severity::Info) => Exit::Good,
        Some(Severity::Warning | Severity::Error) => Exit::Degraded,
    })
}

async fn gather(client: &Client, pins: &Path) -> Result<Facts, CliError> {
    let root = Path::new("/");
    let mut facts = probe::of_kernel(root);
    // Who may ask the daemon need not have the right to see the pins.
    let pinned = offline::pins(pins);
    facts.pinned = pinned.as_ref().map_or(true, |found| !found.is_empty());
    match client.get::<StatusDto>("/v1/status").await {
        Ok(status) => {
            facts.status = Some(status);
            let before: RoutesDto = client.get("/v1/routes").await?;
            tokio::time::sleep(SAMPLE_GAP).await;
            facts.routes = Some((before, client.get("/v1/routes").await?));
        }
        Err(error) if error.is_unreachable() => {
            facts.daemon_trouble = Some(error.daemon_trouble());
            match pinned {
                Ok(_) => offline::gather(&mut facts, pins, SAMPLE_GAP).await,
                Err(error) => facts.pins_trouble = Some(offline::chain(&error)),
            }
        }
        // The daemon itself cannot look at what it needs.
        Err(CliError::Refused(problem)) if problem.status >= 500 => {
            facts.pins_trouble = Some(problem.detail);
        }
        Err(error) => return Err(error),
    }
    if let (Some(status), Some((_, routes))) = (&facts.status, &facts.routes) {
        let families = Families::of(routes);
        let names = doctor::interfaces(status);
        let interfaces = names
            .iter()
            .map(|name| probe::of_interface(root, name, families));
        facts.interfaces = interfaces.collect();
    }
    facts.cgroup_unknown = offline::cgroup_unknown(pins);
    // Without the right to ask, this is a fact that is not there.
    facts.foreign_xdp = probe::foreign_xdp().await.unwrap_or_default();
    Ok(facts)
}
