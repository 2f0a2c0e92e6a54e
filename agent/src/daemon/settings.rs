//! The configuration file and what the host says about it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::{
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
    unistd,
};

use crate::{
    config::{self, ApiConfig, Colour, Config, Group, HostFacts},
    control::access::{self, Access},
    orchestrate::wanted::Wanted,
};

/// Reads the configuration and compares it with the host. The error is the
/// full diagnostic; nothing has been opened then.
pub(super) fn read(path: &Path, colour: Colour) -> Result<Config, String> {
    let text = fs::read_to_string(path)
        .map_err(|e| format!("cannot read the configuration {}: {e}", path.display()))?;
    let mut config =
        config::parse(&path.display().to_string(), &text).map_err(|e| e.render(colour))?;
    let warnings = config::check_host(&config, &facts(&config)).map_err(|e| e.render(colour))?;
    config.warnings.extend(warnings);
    // The text of the file has served its purpose.
    config.places = config::Places::default();
    Ok(config)
}

fn facts(config: &Config) -> HostFacts {
    // Interfaces that cannot be listed are reported as absent, which is what
    // attaching to them would find.
    let interfaces = nix::net::if_::if_nameindex().map(|all| {
        all.iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect()
    });
    let cgroups = config.instances.iter().filter_map(|i| i.cgroup.as_ref());
    HostFacts {
        interfaces: interfaces.unwrap_or_default(),
        not_cgroup2: cgroups
            .filter(|path| !on_cgroup2(path))
            .cloned()
            .collect::<BTreeSet<PathBuf>>(),
    }
}

/// Whether a path, or the nearest folder above it that exists, is on cgroup v2.
fn on_cgroup2(path: &Path) -> bool {
    path.ancestors()
        .find_map(|folder| statfs(folder).ok())
        .is_some_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// What the driver is to bring about.
pub(super) fn wanted(config: Config) -> Wanted {
    let mode = config.steering.mode;
    Wanted {
        uplinks: config
            .steering
            .uplinks
            .into_iter()
            .map(|name| (name, mode))
            .collect(),
        replace_foreign: config.steering.replace_foreign,
        instances: config.instances,
    }
}

/// Rights on the API. A group that does not exist has no members.
pub(super) fn access(api: &ApiConfig) -> Access {
    let found = |groups: &[Group]| groups.iter().filter_map(group).collect();
    Access {
        daemon_uid: unistd::geteuid().as_raw(),
        operators: found(&api.operators),
        readers: found(&api.readers),
    }
}

fn group(group: &Group) -> Option<access::Group> {
    let found = match group {
        Group::Name(name) => unistd::Group::from_name(name),
        Group::Id(gid) => unistd::Group::from_gid((*gid).into()),
    };
    match (found, group) {
        (Ok(Some(found)), _) => Some(access::Group {
            name: found.name,
            gid: found.gid.as_raw(),
        }),
        (_, Group::Id(gid)) => Some(access::Group {
            name: gid.to_string(),
            gid: *gid,
        }),
        (_, Group::Name(name)) => {
            tracing::warn!(group = %name, "there is no such group; it has no members");
            None
        }
    }
}
