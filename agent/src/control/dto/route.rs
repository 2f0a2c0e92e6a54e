//! Routes and their counters.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use agent_common::abi::{Reason, RouteCounters};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{L4, Protocol, RouteSpec, RouteView, Service, Snapshot, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolDto {
    Tcp,
    Udp,
}

/// The address that clients use. Protocol and port are null on an address
/// route: all protocols and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDto {
    #[schema(value_type = String, example = "192.0.2.1")]
    pub addr: IpAddr,
    pub protocol: Option<ProtocolDto>,
    pub port: Option<u16>,
}

/// Where packets go for one side of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TargetDto {
    /// The side owns the service address itself: packets go on untouched.
    Native {},
    /// The destination is rewritten; the port only on a port route.
    Translate {
        #[schema(value_type = String, example = "198.51.100.7")]
        addr: IpAddr,
        port: Option<u16>,
    },
    /// The side owns the service address too: packets go untouched, by the next
    /// hop of another address.
    Via {
        #[schema(value_type = String, example = "10.77.9.2")]
        addr: IpAddr,
    },
}

/// Packets and whole-frame bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficDto {
    pub primary_packets: u64,
    pub primary_bytes: u64,
    pub ghost_packets: u64,
    pub ghost_bytes: u64,
    /// Replies from either side.
    pub reverse_packets: u64,
    pub reverse_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountersDto {
    pub traffic: TrafficDto,
    /// Packets not steered, or not by the fast path, by reason. All reasons are there.
    pub reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteDto {
    pub instance: String,
    pub service: ServiceDto,
    pub primary: TargetDto,
    pub ghost: TargetDto,
    /// Index in `gd_counters`.
    pub counter: u32,
    pub counters: CountersDto,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutesDto {
    pub routes: Vec<RouteDto>,
}

impl RoutesDto {
    /// Routes of one instance, or of all.
    pub fn of(seen: &Snapshot, instance: Option<&str>) -> Self {
        let wanted = |name: &str| instance.is_none_or(|i| i == name);
        let mut routes = Vec::new();
        for i in seen.instances.iter().filter(|i| wanted(&i.name)) {
            routes.extend(i.routes.iter().map(|r| RouteDto::of(&i.name, r)));
        }
        Self { routes }
    }
}

impl RouteDto {
    fn of(instance: &str, seen: &RouteView) -> Self {
        let RouteView {
            spec:
                RouteSpec {
                    service,
                    primary,
                    ghost,
                },
            counter,
            counters,
        } = seen;
        Self {
            instance: instance.to_owned(),
            service: (*service).into(),
            primary: (*primary).into(),
            ghost: (*ghost).into(),
            counter: counter.0,
            counters: counters.into(),
        }
    }
}

impl From<Protocol> for ProtocolDto {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Service> for ServiceDto {
    fn from(service: Service) -> Self {
        Self {
            addr: service.addr,
            protocol: service.l4.map(|l4| l4.protocol.into()),
            port: service.l4.map(|l4| l4.port),
        }
    }
}

/// As [`Service`] is written in a configuration.
impl fmt::Display for ServiceDto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.map(|p| match p {
            ProtocolDto::Tcp => Protocol::Tcp,
            ProtocolDto::Udp => Protocol::Udp,
        });
        let service = Service {
            addr: self.addr,
            l4: protocol
                .zip(self.port)
                .map(|(protocol, port)| L4 { protocol, port }),
        };
        service.fmt(f)
    }
}

impl From<Target> for TargetDto {
    fn from(target: Target) -> Self {
        match target {
            Target::Native => Self::Native {},
            Target::Translate { addr, port } => Self::Translate { addr, port },
            Target::Via { addr } => Self::Via { addr },
        }
    }
}

impl fmt::Display for TargetDto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Native {} => f.pad("native"),
            Self::Translate { addr, port: None } => write!(f, "{addr}"),
            Self::Translate {
                addr: IpAddr::V4(a),
                port: Some(port),
            } => write!(f, "{a}:{port}"),
            Self::Translate {
                addr: IpAddr::V6(a),
                port: Some(port),
            } => write!(f, "[{a}]:{port}"),
            Self::Via { addr } => write!(f, "via {addr}"),
        }
    }
}

impl TrafficDto {
    /// Wraps like the counters themselves do.
    pub fn sum<'a>(counters: impl Iterator<Item = &'a RouteCounters>) -> Self {
        counters.fold(Self::default(), |sum, c| Self {
            primary_packets: sum.primary_packets.wrapping_add(c.primary_packets),
            primary_bytes: sum.primary_bytes.wrapping_add(c.primary_bytes),
            ghost_packets: sum.ghost_packets.wrapping_add(c.ghost_packets),
            ghost_bytes: sum.ghost_bytes.wrapping_add(c.ghost_bytes),
            reverse_packets: sum.reverse_packets.wrapping_add(c.reverse_packets),
            reverse_bytes: sum.reverse_bytes.wrapping_add(c.reverse_bytes),
        })
    }
}

impl From<&RouteCounters> for CountersDto {
    fn from(counters: &RouteCounters) -> Self {
        let named = |reason: Reason| (reason.name().to_owned(), counters.reasons[reason as usize]);
        Self {
            traffic: TrafficDto::sum(std::iter::once(counters)),
            reasons: Reason::ALL.into_iter().map(named).collect(),
        }
    }
}
