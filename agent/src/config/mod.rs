//! The configuration file: from text to an inert [`Config`].
//!
//! Owns: the schema with its defaults, every check that needs no look at the
//! host, and how mistakes are shown (file, line, caret, hint).
//! [`check_host`] compares a configuration with facts about the host that
//! the caller has gathered.
//!
//! Refuses: I/O. Nothing is opened here, so a refused file changes nothing.
//!
//! How it fails: [`ConfigErrors`], with all independent mistakes at once.

mod address;
mod host;
mod instance;
mod overlap;
mod problem;
mod read;
mod reserve;
mod schema;
mod sections;
mod vm;

use toml::de::DeTable;

pub use host::{HostFacts, check_host};
pub use problem::{Colour, ConfigErrors, PROBLEMS_SHOWN_MAX, Problem};
pub use schema::{ApiConfig, Config, GhostsConfig, Group, HostConfig, Places, SteeringConfig};

use problem::{Draft, Problems, Source};
use read::Section;

/// Reads a configuration. `file_name` is only for messages.
pub fn parse(file_name: &str, text: &str) -> Result<Config, ConfigErrors> {
    let source = Source::new(file_name, text);
    let mut problems = Problems::new(&source);
    let (document, mistakes) = DeTable::parse_recoverable(text);
    let config = match mistakes.iter().min_by_key(|mistake| start(mistake)) {
        None => read_root(document.get_ref(), &source, &mut problems),
        // What can be salvaged from a broken file, and even the mistakes that
        // follow, would mostly mislead: one missing bracket leaves a trail.
        Some(first) => {
            let span = first.span().unwrap_or(0..0);
            let message = format!("this is not TOML: {}", first.message());
            let draft = Draft::new(span, message, "here or just before");
            problems.error(draft.help("what comes after it has not been read"));
            None
        }
    };
    let (mut config, warnings) = problems.conclude(config)?;
    config.warnings = warnings;
    Ok(config)
}

fn start(mistake: &toml::de::Error) -> usize {
    mistake.span().map_or(0, |span| span.start)
}

fn read_root(document: &DeTable<'_>, source: &Source, problems: &mut Problems) -> Option<Config> {
    let mut root = Section::new("the file", 0..0, document);
    if !root.has("steering") {
        let draft = Draft::new(0..0, "there is no section [steering]", "not in this file");
        problems.error(draft.help("it must name the uplinks, for example: uplinks = [\"eth0\"]"));
    }
    let host = root.section("host", "[host]", problems);
    let steering = root.section("steering", "[steering]", problems);
    let limits = root.section("limits", "[limits]", problems);
    let api = root.section("api", "[api]", problems);
    let ghosts = root.section("ghosts", "[ghosts]", problems);
    let reserve = root.section("reserve", "[reserve]", problems);
    let owners = root.sections("owner", "[[owner]]", problems);
    let instances = root.sections("instance", "[[instance]]", problems);
    root.finish(problems);

    let mut places = Places::new(source);
    let host = sections::host(host, problems);
    let steering = sections::steering(steering, &mut places, problems);
    let limits = sections::limits(limits, problems);
    let api = sections::api(api, problems);
    let ghosts = sections::ghosts(ghosts, problems);
    let allocation = reserve::allocation(reserve, owners, problems);
    let found: Vec<_> = instances
        .into_iter()
        .flatten()
        .map(|section| instance::read(section, problems))
        .collect();
    overlap::check(&found, &places, &limits, problems);

    let mut instances = Vec::new();
    for instance in found {
        let (spec, place) = instance.complete()?;
        instances.push(spec);
        places.instances.push(place);
    }
    Some(Config {
        host,
        steering: steering?,
        limits,
        api,
        ghosts,
        allocation,
        instances,
        warnings: Vec::new(),
        places,
    })
}
