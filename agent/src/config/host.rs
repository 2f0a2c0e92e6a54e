//! Compares a configuration with the host it is for.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    problem::{ConfigErrors, Draft, Problem, Problems},
    read::nearest,
    schema::Config,
};

/// Interfaces named in a hint; a hypervisor may have thousands.
const INTERFACES_NAMED_MAX: usize = 12;

/// What the caller has found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Names of all interfaces of the host's network namespace.
    pub interfaces: BTreeSet<String>,
    /// Those of the configured cgroup paths that are not on a cgroup v2 file
    /// system. For a path that does not exist yet, its nearest parent that
    /// does is what counts.
    pub not_cgroup2: BTreeSet<PathBuf>,
}

/// Errors for uplinks that are not there and cgroups that never will be;
/// warnings for ports' interfaces that are not there, because those come and
/// go with their microVMs. By place.
pub fn check_host(config: &Config, facts: &HostFacts) -> Result<Vec<Problem>, ConfigErrors> {
    let places = &config.places;
    let Some(source) = &places.source else {
        return Ok(Vec::new());
    };
    let mut problems = Problems::new(source);
    for (name, span) in &places.uplinks {
        if !facts.interfaces.contains(name) {
            let message = format!("there is no interface `{name}`");
            let draft = Draft::new(span.clone(), message, "not on this host");
            problems.error(draft.help(existing(name, facts)));
        }
    }
    for (instance, place) in config.instances.iter().zip(&places.instances) {
        // ghost-vmm makes the interfaces of a microVM itself.
        let ports = instance.ports.iter().filter(|_| instance.vm.is_none());
        for (port, span) in ports.zip(&place.ports) {
            let name = &port.interface;
            if !facts.interfaces.contains(name) {
                let message = format!("there is no interface `{name}` yet");
                let draft = Draft::new(span.clone(), message, "not on this host");
                let help = existing(name, facts);
                problems.warning(draft.help(format!("not fenced until it appears; {help}")));
            }
        }
        if let Some((path, span)) = instance.cgroup.as_ref().zip(place.cgroup.as_ref())
            && facts.not_cgroup2.contains(path)
        {
            let message = format!("{} is not on a cgroup v2 file system", path.display());
            let draft = Draft::new(span.clone(), message, "not cgroup v2");
            problems.error(draft.help("see `findmnt -t cgroup2` for where that is mounted"));
        }
    }
    problems.conclude(Some(())).map(|((), warnings)| warnings)
}

/// Hints at the name that was meant, or at those that there are.
fn existing(name: &str, facts: &HostFacts) -> String {
    let names: Vec<&str> = facts.interfaces.iter().map(String::as_str).collect();
    if let Some(near) = nearest(name, &names) {
        return format!("did you mean `{near}`?");
    }
    match (names.len(), names.get(..INTERFACES_NAMED_MAX)) {
        (0, _) => "this host has no interface".to_owned(),
        (_, None) => format!("this host has: {}", names.join(", ")),
        (all, Some(some)) => {
            let more = all - some.len();
            format!("this host has: {} and {more} more", some.join(", "))
        }
    }
}
