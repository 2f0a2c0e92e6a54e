//! The configuration file and what the host says about it.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::{
    sys::statfs::{CGROUP2_SUPER_MAGIC, statfs},
    unistd,
};

use crate::{
    config::{self, ApiConfig, Colour, Config, GhostsConfig, Group, HostConfig, HostFacts},
    control::access::{self, Access},
    model::Limits,
    orchestrate::wanted::Wanted,
};

/// 65,536 instances with a route and two ports each take about 16 MiB.
const CONFIG_BYTES_MAX: u64 = 32 << 20;

/// Reads the configuration and compares it with the host. The error is the
/// full diagnostic; nothing has been opened then.
pub(super) fn read(path: &Path, colour: Colour) -> Result<Config, String> {
    let text =
        text(path).map_err(|e| format!("cannot read the configuration {}: {e}", path.display()))?;
    let mut config =
        config::parse(&path.display().to_string(), &text).map_err(|e| e.render(colour))?;
    let warnings = config::check_host(&config, &facts(&config)).map_err(|e| e.render(colour))?;
    config.warnings.extend(warnings);
    // The text of the file has served its purpose.
    config.places = config::Places::default();
    Ok(config)
}

/// The file's text. The driver waits for it on a reload, so it is a file that
/// ends, and soon.
fn text(path: &Path) -> io::Result<String> {
    // Without O_NONBLOCK a pipe that nobody writes to would never open.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        let text = format!("it is larger than {CONFIG_BYTES_MAX} bytes");
        return Err(io::Error::other(text));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8"))
    })
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

/// The configured name, or else the kernel's.
pub(super) fn host_name(config: &HostConfig) -> String {
    let own =
        || unistd::gethostname().map_or_else(|_| String::new(), |n| n.to_string_lossy().into());
    config.name.clone().unwrap_or_else(own)
}

/// What a running daemon cannot change. A new configuration that does is
/// refused, so that nobody believes it is in force.
pub(super) struct Fixed {
    host: HostConfig,
    limits: Limits,
    pins: PathBuf,
    api: ApiConfig,
    ghosts: GhostsConfig,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            host: config.host.clone(),
            limits: config.limits,
            pins: config.steering.pins.clone(),
            api: config.api.clone(),
            ghosts: config.ghosts.clone(),
        }
    }

    pub(super) fn check(&self, path: &Path, new: &Config) -> Result<(), String> {
        let Self {
            host,
            limits,
            pins,
            api,
            ghosts,
        } = self;
        let what = if new.limits != *limits {
            "limits are fixed while the maps live; to change them: \
             stop ghostd, `ghostctl clean`, start it again"
        } else if new.steering.pins != *pins {
            "`pins` is fixed while ghostd runs; to change it: \
             stop ghostd, `ghostctl clean`, start it again"
        } else if new.host != *host {
            "[host] is fixed while ghostd runs; to change it: \
             restart ghostd, which interrupts no packet"
        } else if new.api != *api {
            "[api] is fixed while ghostd runs; to change it: \
             restart ghostd, which interrupts no packet"
        } else if new.ghosts != *ghosts {
            "[ghosts] is fixed while ghostd runs; to change it: \
             restart ghostd, which ends no microVM"
        } else {
            return Ok(());
        };
        Err(format!("{}: {what}", path.display()))
    }
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
        allocation: config.allocation,
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
