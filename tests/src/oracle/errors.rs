//! ICMP errors: about requests and about answers, from ends and from routers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Generator, Leaf, Step,
    build::{self, Ends, Tcp, tcp_flags},
    flow::{Flow, L3, packet},
};
use crate::topology::Family;

/// What the error quotes.
#[derive(Debug, Clone, Copy)]
enum Quoted {
    Udp,
    UdpZero,
    Tcp,
    Echo,
}

impl Generator {
    /// The ghost's side complains about a request: the ghost itself (port
    /// unreachable, say), or a router before it.
    pub(super) fn error_about_request(&mut self, flow: Flow) -> Vec<Step> {
        let what = self.what(flow);
        let mut steps = self.exchange(flow, what);
        steps.truncate(1);
        let quoted = self.quote(flow.at_ghost(), what, flow, Leaf::Client);
        let mut ends = flow.at_ghost().reversed();
        if self.rng.one_in(3) {
            ends.source = match flow.family {
                Family::V4 => Ipv4Addr::new(10, 77, 2, 77).into(),
                Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x77, 2, 0, 0, 0, 0x77).into(),
            };
        }
        steps.push(self.error(Leaf::Ghost, flow, ends, &quoted));
        steps
    }

    /// The client's side complains about an answer: the client itself, or a
    /// router on the way, which is nobody of the flow.
    pub(super) fn error_about_answer(&mut self, flow: Flow) -> Vec<Step> {
        let what = self.what(flow);
        let mut steps = self.exchange(flow, what);
        let quoted = self.quote(flow.request.reversed(), what, flow, Leaf::Ghost);
        let mut ends = flow.request;
        if self.rng.one_in(2) {
            ends.source = flow.router();
        }
        steps.push(self.error(Leaf::Client, flow, ends, &quoted));
        steps
    }

    fn what(&mut self, flow: Flow) -> Quoted {
        match self.rng.below(5) {
            0 if flow.family == Family::V4 => Quoted::UdpZero,
            1 => Quoted::Tcp,
            2 => Quoted::Echo,
            _ => Quoted::Udp,
        }
    }

    /// Request and answer, so that everybody knows the flow.
    fn exchange(&mut self, flow: Flow, what: Quoted) -> Vec<Step> {
        match what {
            Quoted::Udp => self.udp(flow),
            Quoted::UdpZero => self.udp_zero(flow),
            Quoted::Echo => self.echo(flow),
            Quoted::Tcp => {
                let mut steps = self.tcp(flow);
                steps.truncate(2);
                steps
            }
        }
    }

    /// A packet of the flow as an error quotes it, with at least 8 bytes of
    /// its L4 header. `from` sent it first.
    fn quote(&mut self, ends: Ends, what: Quoted, flow: Flow, from: Leaf) -> Vec<u8> {
        let payload = self.payload(from);
        let (protocol, segment) = match what {
            Quoted::Udp => (build::UDP, build::udp(ends, &payload, false)),
            Quoted::UdpZero => (build::UDP, build::udp(ends, &payload, true)),
            Quoted::Tcp => {
                let header = Tcp {
                    sequence: self.rng.u32(),
                    flags: tcp_flags::SYN,
                    ..Tcp::default()
                };
                (build::TCP, build::tcp(ends, &header, &payload))
            }
            Quoted::Echo => {
                let kind = match (flow.family, from) {
                    (Family::V4, Leaf::Client) => 8,
                    (Family::V4, _) => 0,
                    (Family::V6, Leaf::Client) => 128,
                    (Family::V6, _) => 129,
                };
                let word = flow.echo_word([0, 1]);
                let message = build::icmp(ends, kind, 0, word, &payload);
                (flow.icmp_protocol(), message)
            }
        };
        let l3 = L3::random(&mut self.rng);
        let mut whole = packet(ends, &l3, protocol, &segment);
        let head = whole.len() - segment.len();
        let keep = match self.rng.below(3) {
            0 => head + 8,
            1 => head + self.rng.between(8, segment.len()),
            _ => whole.len(),
        };
        // What every path carries, less the error's own headers.
        whole.truncate(keep.min(500));
        whole
    }

    fn error(&mut self, from: Leaf, flow: Flow, ends: Ends, quoted: &[u8]) -> Step {
        let (kind, code, word) = match flow.family {
            Family::V4 => *self.rng.pick(&[
                (3, 3, [0; 4]),
                (3, 1, [0; 4]),
                (3, 4, [0, 0, 5, 0]),
                (11, 0, [0; 4]),
                (12, 0, [9, 0, 0, 0]),
            ]),
            Family::V6 => *self.rng.pick(&[
                (1, 4, [0; 4]),
                (1, 0, [0; 4]),
                (2, 0, [0, 0, 5, 0]),
                (3, 0, [0; 4]),
                (4, 1, [0, 0, 0, 40]),
            ]),
        };
        let message = build::icmp(ends, kind, code, word, quoted);
        self.send(from, ends, flow.icmp_protocol(), &message)
    }
}
