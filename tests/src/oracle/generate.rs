//! Random cases from a seed: what real clients, servers and routers send.

use super::{
    Case, Leaf, Rng, Step,
    build::{self, Ends, Tcp, tcp_flags},
    flow::{Flow, L3, frame, packet},
    fragments, hostile,
    lane::Lane,
    options,
};
use crate::topology::Family;

/// Makes case after case; the same seed makes the same ones.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    pub(super) rng: Rng,
    next: u64,
    /// Largest IP packet that fits every cable.
    packet_bytes_max: usize,
}

type Maker = fn(&mut Generator, Flow) -> Vec<Step>;

/// Every kind of case, with its weight.
const KINDS: [(&str, usize, Maker); 13] = [
    ("udp", 4, Generator::udp),
    ("udp without checksum", 1, Generator::udp_zero),
    ("tcp", 4, Generator::tcp),
    ("echo", 2, Generator::echo),
    ("error about a request", 3, Generator::error_about_request),
    ("error about an answer", 4, Generator::error_about_answer),
    ("fragments", 2, Generator::fragments),
    ("options", 3, Generator::options),
    ("ttl", 2, Generator::ttl),
    ("other protocol", 1, Generator::other_protocol),
    ("other icmp", 1, Generator::other_icmp),
    ("not ours", 1, Generator::foreign),
    ("hostile", 8, Generator::hostile),
];

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed),
            next: 0,
            packet_bytes_max: 1500,
        }
    }

    /// Packets of up to `mtu` bytes.
    #[must_use]
    pub fn with_packets_up_to(mut self, mtu: u32) -> Self {
        self.packet_bytes_max = mtu as usize;
        self
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let number = self.next;
        self.next += 1;
        let family = *self.rng.pick(&Family::BOTH);
        let lane = match self.rng.below(8) {
            0 => Lane::Tagged,
            1 => Lane::Double,
            _ => Lane::Plain,
        };
        let flow = Flow::nth(number, family, lane, &mut self.rng);
        let (kind, make) = self.kind();
        loop {
            let steps = make(self, flow);
            if let Some(steps) = lane.tag(steps, self.packet_bytes_max) {
                let seed = self.seed;
                let name = format!("seed {seed}, case {number}: {kind} {family:?} {lane:?}");
                return Case { name, steps };
            }
        }
    }

    /// A kind of case, drawn by weight.
    fn kind(&mut self) -> (&'static str, Maker) {
        let total: usize = KINDS.iter().map(|kind| kind.1).sum();
        let mut ticket = self.rng.below(total);
        for (name, weight, make) in KINDS {
            if ticket < weight {
                return (name, make);
            }
            ticket -= weight;
        }
        (KINDS[0].0, KINDS[0].2)
    }

    /// What `from`'s cable can carry: the ghost's is never wider than usual.
    pub(super) fn payload(&mut self, from: Leaf) -> Vec<u8> {
        let packet_bytes_max = match from {
            Leaf::Ghost => self.packet_bytes_max.min(1500),
            _ => self.packet_bytes_max,
        };
        let length = match self.rng.below(6) {
            0 => 0,
            1 => self.rng.below(8),
            2 => packet_bytes_max - 120,
            _ => self.rng.below(300),
        };
        self.rng.bytes(length)
    }

    /// A packet from one leaf, alone in a step.
    pub(super) fn send(&mut self, from: Leaf, ends: Ends, protocol: u8, segment: &[u8]) -> Step {
        let l3 = L3::random(&mut self.rng);
        Step {
            from,
            frames: vec![frame(from, &packet(ends, &l3, protocol, segment))],
        }
    }

    pub(super) fn udp(&mut self, flow: Flow) -> Vec<Step> {
        let request = build::udp(flow.request, &self.payload(Leaf::Client), false);
        let back = flow.at_ghost().reversed();
        let answer = build::udp(back, &self.payload(Leaf::Ghost), false);
        vec![
            self.send(Leaf::Client, flow.request, build::UDP, &request),
            self.send(Leaf::Ghost, back, build::UDP, &answer),
        ]
    }

    pub(super) fn udp_zero(&mut self, flow: Flow) -> Vec<Step> {
        let request = build::udp(flow.request, &self.payload(Leaf::Client), true);
        let back = flow.at_ghost().reversed();
        let answer = build::udp(back, &self.payload(Leaf::Ghost), true);
        vec![
            self.send(Leaf::Client, flow.request, build::UDP, &request),
            self.send(Leaf::Ghost, back, build::UDP, &answer),
        ]
    }

    /// A whole connection, some data each way.
    pub(super) fn tcp(&mut self, flow: Flow) -> Vec<Step> {
        use tcp_flags::{ACK, FIN, PSH, RST, SYN};
        let (client, ghost) = (self.rng.u32(), self.rng.u32());
        let sent = self.payload(Leaf::Client);
        let answered = self.payload(Leaf::Ghost);
        let after_sent = client.wrapping_add(1).wrapping_add(sent.len() as u32);
        let after_answered = ghost.wrapping_add(1).wrapping_add(answered.len() as u32);
        let end = *self.rng.pick(&[FIN | ACK, RST, RST | ACK]);
        let none: &[u8] = &[];
        let script: [(Leaf, u32, u32, u8, &[u8]); 6] = [
            (Leaf::Client, client, 0, SYN, none),
            (Leaf::Ghost, ghost, client.wrapping_add(1), SYN | ACK, none),
            (
                Leaf::Client,
                client.wrapping_add(1),
                ghost.wrapping_add(1),
                ACK,
                none,
            ),
            (
                Leaf::Client,
                client.wrapping_add(1),
                ghost.wrapping_add(1),
                ACK | PSH,
                &sent,
            ),
            (
                Leaf::Ghost,
                ghost.wrapping_add(1),
                after_sent,
                ACK | PSH,
                &answered,
            ),
            (Leaf::Client, after_sent, after_answered, end, none),
        ];
        let mut steps = Vec::new();
        for (from, sequence, acknowledged, flags, data) in script {
            let ends = match from {
                Leaf::Client => flow.request,
                _ => flow.at_ghost().reversed(),
            };
            let options = match flags & SYN {
                0 if self.rng.one_in(2) => Vec::new(),
                // Maximum segment size; no-operations and a time stamp.
                SYN => vec![2, 4, 5, 0xb4],
                _ => [&[1, 1, 8, 10][..], &self.rng.bytes(8)].concat(),
            };
            let header = Tcp {
                sequence,
                acknowledged,
                flags,
                options,
            };
            let segment = build::tcp(ends, &header, data);
            steps.push(self.send(from, ends, build::TCP, &segment));
        }
        steps
    }

    pub(super) fn echo(&mut self, flow: Flow) -> Vec<Step> {
        let (ask, tell) = match flow.family {
            Family::V4 => (8, 0),
            Family::V6 => (128, 129),
        };
        let word = flow.echo_word([self.rng.byte(), self.rng.byte()]);
        let payload = self.payload(Leaf::Ghost);
        let back = flow.at_ghost().reversed();
        let request = build::icmp(flow.request, ask, 0, word, &payload);
        let answer = build::icmp(back, tell, 0, word, &payload);
        vec![
            self.send(Leaf::Client, flow.request, flow.icmp_protocol(), &request),
            self.send(Leaf::Ghost, back, flow.icmp_protocol(), &answer),
        ]
    }

    fn fragments(&mut self, flow: Flow) -> Vec<Step> {
        fragments::train(&mut self.rng, flow)
    }

    fn options(&mut self, flow: Flow) -> Vec<Step> {
        options::packets(&mut self.rng, flow)
    }

    fn ttl(&mut self, flow: Flow) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..2 {
            let ttl = *self.rng.pick(&[0, 1, 1, 2, 255]);
            let l3 = L3::random(&mut self.rng).with_ttl(ttl);
            let request = build::udp(flow.request, &self.payload(Leaf::Client), false);
            let whole = packet(flow.request, &l3, build::UDP, &request);
            steps.push(Step {
                from: Leaf::Client,
                frames: vec![frame(Leaf::Client, &whole)],
            });
        }
        steps
    }

    fn other_protocol(&mut self, flow: Flow) -> Vec<Step> {
        // ESP, AH's neighbour SKIP, OSPF, PIM, two for experiments, unassigned.
        let protocol = *self.rng.pick(&[50, 57, 89, 103, 253, 254, 200]);
        let length = self.rng.between(0, 100);
        let segment = self.rng.bytes(length);
        let back = flow.at_ghost().reversed();
        vec![
            self.send(Leaf::Client, flow.request, protocol, &segment),
            self.send(Leaf::Ghost, back, protocol, &segment),
        ]
    }

    fn other_icmp(&mut self, flow: Flow) -> Vec<Step> {
        let kind = match flow.family {
            // Time stamp, information, address mask: conntrack follows them.
            Family::V4 => *self.rng.pick(&[13, 15, 17]),
            // Who-are-you of RFC 4620.
            Family::V6 => 139,
        };
        let word = [self.rng.byte(), self.rng.byte(), 0, 1];
        let rest = self.rng.bytes(12);
        let message = build::icmp(flow.request, kind, 0, word, &rest);
        vec![self.send(Leaf::Client, flow.request, flow.icmp_protocol(), &message)]
    }

    /// Next to the service address, but not it.
    fn foreign(&mut self, flow: Flow) -> Vec<Step> {
        let target = match flow.family {
            Family::V4 => "10.77.1.2".parse(),
            Family::V6 => "2001:db8:77:1::2".parse(),
        };
        let ends = Ends {
            target: target.unwrap_or(flow.request.source),
            ..flow.request
        };
        let request = build::udp(ends, &self.payload(Leaf::Client), false);
        vec![self.send(Leaf::Client, ends, build::UDP, &request)]
    }

    fn hostile(&mut self, flow: Flow) -> Vec<Step> {
        let mut steps = match self.rng.below(5) {
            0 => self.udp(flow),
            1 => self.tcp(flow),
            2 => self.echo(flow),
            3 => self.options(flow),
            _ => self.error_about_answer(flow),
        };
        // One frame is bent; what came before it stays as context.
        let victim = self.rng.below(steps.len());
        steps.truncate(victim + 1);
        if let Some(frame) = steps.last_mut().and_then(|s| s.frames.last_mut()) {
            hostile::bend(&mut self.rng, frame);
        }
        steps
    }
}

/// The seed of this run: from `GDT_SEED`, or of the clock.
pub fn run_seed() -> u64 {
    number_from("GDT_SEED").unwrap_or_else(crate::clock::now_ns)
}

/// How many cases to play: from `GDT_CASES`, or as stated.
pub fn run_cases(usual: u64) -> u64 {
    number_from("GDT_CASES").unwrap_or(usual)
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
