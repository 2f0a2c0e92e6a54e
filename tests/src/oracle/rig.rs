//! A world without servers: frames are put on its cables, and what comes out
//! of them is taken down.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};

use super::{
    Leaf, Step,
    build::{self, Ends},
    compare::network,
    flow::{L3, frame, packet},
    lane,
    rng::Rng,
};
use crate::{
    clock::now_ns,
    host::bpf::Attached,
    netns::NetNs,
    topology::{LEAF, Topology},
    wire::PacketSocket,
};

/// A frame that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    pub at: Leaf,
    pub bytes: Vec<u8>,
}

/// Longest wait for a frame of our own to come through.
const MARK_LIMIT: Duration = Duration::from_secs(10);

/// Starts the payload of frames that mark the end of a step.
const MARK: [u8; 8] = *b"gdt-mark";

#[derive(Debug)]
pub struct Rig {
    sockets: [PacketSocket; 3],
    marks: u64,
    _untag: Attached,
    pub net: Topology,
}

impl Rig {
    pub fn new() -> Result<Self> {
        Self::over(Topology::new()?)
    }

    pub fn over(net: Topology) -> Result<Self> {
        net.silence()?;
        let untag = lane::lay(&net.host)?;
        let open = |ns: &NetNs| PacketSocket::open(ns, LEAF);
        Ok(Self {
            sockets: [open(&net.client)?, open(&net.primary)?, open(&net.ghost)?],
            marks: 0,
            _untag: untag,
            net,
        })
    }

    /// Sends a step's frames and gives all that came out, in order at each leaf.
    ///
    /// The end is seen by marks: packets to every leaf that nobody translates,
    /// sent after the step from the same place. Two rounds of them, because
    /// frames that the host redirects may be overtaken within one burst.
    pub fn run(&mut self, step: &Step) -> Result<Vec<Out>> {
        for bytes in &step.frames {
            self.sockets[step.from as usize]
                .send(bytes)
                .with_context(|| format!("at the {}", step.from.name()))?;
        }
        let mut outs = self.collect(step.from)?;
        outs.extend(self.collect(step.from)?);
        Ok(outs)
    }

    /// Sends a mark from `from` to each leaf; gives what arrived before it.
    fn collect(&mut self, from: Leaf) -> Result<Vec<Out>> {
        self.marks += 1;
        let payload = [MARK, self.marks.to_be_bytes()].concat();
        for to in Leaf::ALL {
            self.sockets[from as usize].send(&mark(from, to, &payload))?;
        }
        let mut outs = Vec::new();
        let deadline = now_ns() + MARK_LIMIT.as_nanos() as u64;
        for at in Leaf::ALL {
            loop {
                let left = Duration::from_nanos(deadline.saturating_sub(now_ns()));
                let got = self.sockets[at as usize].receive(left)?;
                let frame = got.with_context(|| format!("no mark came to the {}", at.name()))?;
                if frame.bytes.ends_with(&payload) {
                    break;
                }
                if is_ours(&frame.bytes) {
                    let bytes = frame.bytes;
                    outs.push(Out { at, bytes });
                }
            }
        }
        Ok(outs)
    }
}

/// Marks use addresses of their own, next to everyone's.
fn mark(from: Leaf, to: Leaf, payload: &[u8]) -> Vec<u8> {
    let address = |leaf| match leaf {
        Leaf::Client => Ipv4Addr::new(192, 0, 2, 9),
        Leaf::Primary => Ipv4Addr::new(10, 77, 1, 9),
        Leaf::Ghost => Ipv4Addr::new(10, 77, 2, 9),
    };
    let ends = Ends {
        source: address(from).into(),
        target: address(to).into(),
        source_port: 9,
        target_port: 9,
    };
    let l3 = L3::random(&mut Rng::new(0)).with_ttl(64);
    let segment = build::udp(ends, payload, false);
    frame(from, &packet(ends, &l3, build::UDP, &segment))
}

/// Not the host's own multicast listener reports (ICMPv6 behind a hop-by-hop
/// header, to ff02::/16), which come when they like.
fn is_ours(bytes: &[u8]) -> bool {
    let multicast_v6 = network(bytes)
        .is_some_and(|(kind, at)| kind == 0x86dd && bytes.get(at + 24) == Some(&0xff));
    !multicast_v6
}
