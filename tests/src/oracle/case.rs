//! A case: frames, and where they are put on the wire; as text for the corpus.

use std::{fmt, fmt::Write, str::FromStr};

use anyhow::{Context, Result, bail, ensure};

/// A place where frames go in and come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaf {
    Client,
    Primary,
    Ghost,
}

impl Leaf {
    pub const ALL: [Self; 3] = [Self::Client, Self::Primary, Self::Ghost];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Primary => "primary",
            Self::Ghost => "ghost",
        }
    }
}

/// Frames sent back to back from one place; what comes out is looked at after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub from: Leaf,
    pub frames: Vec<Vec<u8>>,
}

/// Steps that belong together, such as a request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it is, for people.
    pub name: String,
    pub steps: Vec<Step>,
}

/// The corpus format: `# name`, then lines of place and frame in hex; an empty
/// line ends a step.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.name)?;
        for step in &self.steps {
            for frame in &step.frames {
                writeln!(f, "{} {}", step.from.name(), hex(frame))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut case = Self {
            name: String::new(),
            steps: Vec::new(),
        };
        let mut open: Option<Step> = None;
        for (number, line) in text.lines().enumerate() {
            let at = || format!("line {}", number + 1);
            if let Some(name) = line.strip_prefix('#') {
                name.trim().clone_into(&mut case.name);
            } else if line.trim().is_empty() {
                case.steps.extend(open.take());
            } else {
                let (leaf, bytes) = line.split_once(' ').with_context(at)?;
                let from = leaf_of(leaf).with_context(at)?;
                let frame = unhex(bytes.trim()).with_context(at)?;
                let step = open.get_or_insert_with(|| Step {
                    from,
                    frames: Vec::new(),
                });
                ensure!(step.from == from, "{}: another place in one step", at());
                step.frames.push(frame);
            }
        }
        case.steps.extend(open);
        ensure!(!case.steps.is_empty(), "a case without frames");
        Ok(case)
    }
}

fn leaf_of(name: &str) -> Result<Leaf> {
    match Leaf::ALL.into_iter().find(|leaf| leaf.name() == name) {
        Some(leaf) => Ok(leaf),
        None => bail!("no such place: {name}"),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(
        text.len().is_multiple_of(2) && text.is_ascii(),
        "not hex: {text}"
    );
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_reads_back_as_it_was_written() {
        let step = |from, frame: &[u8]| Step {
            from,
            frames: vec![frame.to_vec(), vec![0xff]],
        };
        let case = Case {
            name: "seed 1, case 2: udp".to_owned(),
            steps: vec![step(Leaf::Client, &[0, 1, 0xab]), step(Leaf::Ghost, &[9])],
        };
        assert_eq!(case.to_string().parse::<Case>().unwrap(), case);
    }

    #[test]
    fn bad_text_is_refused_with_its_line() {
        for text in ["client 0", "client zz", "nowhere 00", "client", ""] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }
}
