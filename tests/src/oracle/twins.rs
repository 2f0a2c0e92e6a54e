//! Two worlds side by side, given the same cases.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;

use super::{
    Case, Difference, Out, Rig, compare,
    rules::{Rule, excuse},
};

/// What a case showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Different for a named reason; the rest of the case is not comparable.
    Excused(Rule),
    Differs(Difference),
}

#[derive(Debug)]
pub struct Twins {
    /// Steered by nftables.
    pub reference: Rig,
    /// Steered by what is under test.
    pub subject: Rig,
    pub tally: Tally,
}

/// What was compared, so that a run can show that it was no empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub cases: u64,
    pub frames_in: u64,
    pub frames_out: u64,
    pub excused: BTreeMap<Rule, u64>,
}

impl Twins {
    pub fn new(reference: Rig, subject: Rig) -> Self {
        Self {
            reference,
            subject,
            tally: Tally::default(),
        }
    }

    /// Plays a case in both worlds.
    pub fn play(&mut self, case: &Case) -> Result<Verdict> {
        self.tally.cases += 1;
        for (place, step) in case.steps.iter().enumerate() {
            let expected: Vec<Out> = self.reference.run(step)?;
            let got = self.subject.run(step)?;
            self.tally.frames_in += step.frames.len() as u64;
            self.tally.frames_out += expected.len() as u64;
            if let Some(difference) = compare(step, &expected, &got) {
                return Ok(match excuse(&case.steps[..place], step, &difference) {
                    Some(rule) => {
                        *self.tally.excused.entry(rule).or_default() += 1;
                        Verdict::Excused(rule)
                    }
                    None => Verdict::Differs(difference),
                });
            }
        }
        Ok(Verdict::Same)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cases,
            frames_in,
            frames_out,
            excused,
        } = self;
        write!(f, "{cases} cases, {frames_in} frames in, {frames_out} out")?;
        for (rule, count) in excused {
            write!(f, "; {count} excused: {rule:?}")?;
        }
        Ok(())
    }
}
