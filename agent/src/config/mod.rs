//! TEMPORARY stand-in until the parser lands.
use crate::model::*;
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

pub struct Config {
    pub socket: PathBuf,
    pub limits: Limits,
    pub uplinks: BTreeMap<String, UplinkMode>,
    pub replace_foreign: bool,
    pub instances: Vec<InstanceSpec>,
}

#[derive(serde::Deserialize)]
struct Raw {
    steering: RawSteering,
    #[serde(default)]
    limits: RawLimits,
    api: Option<RawApi>,
    #[serde(default)]
    instance: Vec<RawInstance>,
}
#[derive(serde::Deserialize)]
struct RawSteering {
    uplinks: Vec<String>,
    mode: Option<String>,
    #[serde(default)]
    replace_foreign: bool,
}
#[derive(serde::Deserialize, Default)]
struct RawLimits {
    routes: Option<u32>,
    instances: Option<u32>,
    flows: Option<u32>,
    fragments: Option<u32>,
}
#[derive(serde::Deserialize)]
struct RawApi {
    socket: Option<PathBuf>,
}
#[derive(serde::Deserialize)]
struct RawInstance {
    name: String,
    cgroup: Option<PathBuf>,
    #[serde(default)]
    armed: bool,
    affinity: Option<String>,
    drain_idle_s: Option<u64>,
    drain_max_s: Option<u64>,
    #[serde(default)]
    route: Vec<RawRoute>,
    #[serde(default)]
    port: Vec<RawPort>,
}
#[derive(serde::Deserialize)]
struct RawRoute {
    service: IpAddr,
    protocol: Option<String>,
    port: Option<u16>,
    primary: Option<String>,
    ghost: Option<String>,
}
#[derive(serde::Deserialize)]
struct RawPort {
    interface: String,
    side: String,
    fence: Option<String>,
}

pub fn parse(text: &str) -> Result<Config, String> {
    use agent_common::abi::{FenceMode, Side};
    let raw: Raw = toml::from_str(text).map_err(|e| e.to_string())?;
    let mode = match raw.steering.mode.as_deref() {
        Some("native") => UplinkMode::Native,
        Some("generic") => UplinkMode::Generic,
        _ => UplinkMode::Auto,
    };
    let target = |t: &Option<String>, port: Option<u16>| -> Result<Target, String> {
        match t {
            None => Ok(Target::Native),
            Some(t) if t == "native" => Ok(Target::Native),
            Some(t) => Ok(Target::Translate {
                addr: t.parse().map_err(|_| format!("bad address {t}"))?,
                port,
            }),
        }
    };
    let mut instances = Vec::new();
    for i in raw.instance {
        let mut routes = Vec::new();
        for r in i.route {
            let l4 = match (r.protocol.as_deref(), r.port) {
                (Some("tcp"), Some(port)) => Some(L4 {
                    protocol: Protocol::Tcp,
                    port,
                }),
                (Some("udp"), Some(port)) => Some(L4 {
                    protocol: Protocol::Udp,
                    port,
                }),
                _ => None,
            };
            routes.push(RouteSpec {
                service: Service {
                    addr: r.service,
                    l4,
                },
                primary: target(&r.primary, r.port)?,
                ghost: target(&r.ghost, r.port)?,
            });
        }
        instances.push(InstanceSpec {
            name: i.name.parse().map_err(|e: IdError| e.to_string())?,
            owner: None,
            cgroup: i.cgroup,
            armed: i.armed,
            affinity: if i.affinity.as_deref() == Some("connections") {
                Affinity::Connections {
                    idle: Duration::from_secs(i.drain_idle_s.unwrap_or(60)),
                    drain_max: Duration::from_secs(i.drain_max_s.unwrap_or(300)),
                }
            } else {
                Affinity::None
            },
            routes,
            ports: i
                .port
                .into_iter()
                .map(|p| PortSpec {
                    interface: p.interface,
                    side: if p.side == "ghost" {
                        Side::Ghost
                    } else {
                        Side::Primary
                    },
                    fence: match p.fence.as_deref() {
                        Some("silent") => FenceMode::Silent,
                        Some("off") => FenceMode::Off,
                        _ => FenceMode::Quiet,
                    },
                })
                .collect(),
        });
    }
    Ok(Config {
        socket: raw
            .api
            .and_then(|a| a.socket)
            .unwrap_or_else(|| "/run/ghostd/api.sock".into()),
        limits: Limits {
            routes: raw.limits.routes.unwrap_or(4096),
            instances: raw.limits.instances.unwrap_or(1024),
            flows: raw.limits.flows.unwrap_or(65536),
            fragments: raw.limits.fragments.unwrap_or(8192),
        },
        uplinks: raw
            .steering
            .uplinks
            .into_iter()
            .map(|u| (u, mode))
            .collect(),
        replace_foreign: raw.steering.replace_foreign,
        instances,
    })
}
