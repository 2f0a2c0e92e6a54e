//! Whether the promise held, from what the clients and the wire saw. Pure.

use crate::{
    traffic::{Exchange, Outcome, Summary},
    wire::{Frame, payload_of},
};

/// Numbered datagrams seen on one copy's cable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Sent before the throw.
    pub before: u64,
    /// Sent after the throw, and before the switch was given back.
    pub between: u64,
    /// Sent after it was given back.
    pub after: u64,
}

impl Arrivals {
    pub fn count(frames: &[Frame], thrown_ns: u64, returned_ns: u64) -> Self {
        let mut count = Self::default();
        for (_, sent_ns) in frames.iter().filter_map(payload_of) {
            if sent_ns <= thrown_ns {
                count.before += 1;
            } else if sent_ns <= returned_ns {
                count.between += 1;
            } else {
                count.after += 1;
            }
        }
        count
    }
}

/// What one client saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub summary: Summary,
    /// The first request or connection begun after the throw that failed.
    pub first_failed: Option<String>,
}

/// What is promised, and what was seen.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    pub clients: Vec<Seen>,
    pub at_primary: Arrivals,
    pub at_ghost: Arrivals,
}

impl Judgement {
    pub fn add(&mut self, name: &str, exchanges: &[Exchange], thrown_ns: u64) {
        let summary = Summary::of(exchanges, thrown_ns);
        let late = |e: &&Exchange| e.failed() && e.opened_ns > thrown_ns;
        let first = exchanges.iter().find(late);
        self.clients.push(Seen {
            name: name.to_owned(),
            summary,
            first_failed: first.map(|e| describe(e, thrown_ns)),
        });
    }

    /// Every way in which the promise was broken; none if it held.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.at_primary.between > 0 {
            faults.push(format!(
                "{} datagrams sent after the throw reached the dead instance",
                self.at_primary.between
            ));
        }
        for Seen {
            name,
            summary,
            first_failed,
        } in &self.clients
        {
            if let Some(first) = first_failed {
                faults.push(format!(
                    "{name}: {} requests or connections begun after the throw failed; {first}",
                    summary.failed_opened_after
                ));
            }
            if summary.by_ghost == 0 {
                faults.push(format!("{name}: the ghost never answered"));
            }
        }
        // A demo that sent nothing would promise nothing.
        if self.at_primary.before == 0 || self.at_ghost.between == 0 {
            faults.push("too little was sent to tell".to_owned());
        }
        faults
    }
}

/// When and why an exchange failed, in microseconds after `zero_ns`.
pub fn describe(exchange: &Exchange, zero_ns: u64) -> String {
    let us = |at_ns: u64| (at_ns as f64 - zero_ns as f64) / 1000.0;
    let Exchange {
        number,
        sent_ns,
        opened_ns,
        outcome,
    } = exchange;
    let end = match outcome {
        Outcome::Failed { at_ns, why } => format!("failed at {:+.1} us ({why})", us(*at_ns)),
        Outcome::Answered { at_ns, by } => format!("answered at {:+.1} us by {by}", us(*at_ns)),
        Outcome::Waiting => "was never answered".to_owned(),
    };
    format!(
        "request {number}, opened {:+.1} us, sent {:+.1} us, {end}",
        us(*opened_ns),
        us(*sent_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Side, traffic::Outcome};

    fn exchange(sent_ns: u64, outcome: Outcome) -> Exchange {
        Exchange {
            number: 0,
            sent_ns,
            opened_ns: sent_ns,
            outcome,
        }
    }

    fn answered(by: Side) -> Outcome {
        Outcome::Answered { at_ns: 9, by }
    }

    fn failed() -> Outcome {
        let why = "reset".to_owned();
        Outcome::Failed { at_ns: 9, why }
    }

    fn good() -> Judgement {
        let mut judgement = Judgement {
            at_primary: Arrivals {
                before: 1,
                between: 0,
                after: 1,
            },
            at_ghost: Arrivals {
                before: 0,
                between: 1,
                after: 0,
            },
            ..Judgement::default()
        };
        let exchanges = [
            exchange(1, answered(Side::Primary)),
            exchange(2, failed()),
            exchange(12, answered(Side::Ghost)),
        ];
        judgement.add("tcp", &exchanges, 10);
        judgement
    }

    #[test]
    fn what_was_open_at_the_throw_is_counted_apart() {
        let judgement = good();
        assert_eq!(judgement.faults(), Vec::<String>::new());
        assert_eq!(judgement.clients[0].summary.failed_opened_before, 1);
    }

    #[test]
    fn a_failure_after_the_throw_is_a_fault() {
        let mut judgement = good();
        judgement.add(
            "http",
            &[exchange(11, failed()), exchange(12, answered(Side::Ghost))],
            10,
        );
        assert_eq!(
            judgement.faults(),
            [
                "http: 1 requests or connections begun after the throw failed; request 0, \
                 opened +0.0 us, sent +0.0 us, failed at -0.0 us (reset)"
            ]
        );
    }

    #[test]
    fn a_datagram_at_the_dead_instance_is_a_fault() {
        let mut judgement = good();
        judgement.at_primary.between = 2;
        assert_eq!(
            judgement.faults(),
            ["2 datagrams sent after the throw reached the dead instance"]
        );
    }

    #[test]
    fn an_empty_run_is_a_fault() {
        assert_eq!(
            Judgement::default().faults(),
            ["too little was sent to tell"]
        );
    }
}
