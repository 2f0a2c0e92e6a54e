//! Repeated measurements of one thing, and taking turns between several.

use anyhow::Result;

/// Measured values in ascending order, at least one.
#[derive(Debug, Clone)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(super) fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The value that `part` of all values do not exceed.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        self.0.get(place).copied().unwrap_or(f64::NAN)
    }
}

/// Measures each of several things once a round, so that what drifts on the
/// machine drifts for all of them. Gives the values of each, by round.
pub(super) fn in_turns<C>(
    cases: &[C],
    rounds: usize,
    mut measure: impl FnMut(&C) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::with_capacity(rounds); cases.len()];
    // A round that warms caches and meters does not count.
    for case in cases {
        measure(case)?;
    }
    for _ in 0..rounds {
        for (case, values) in cases.iter().zip(&mut values) {
            values.push(measure(case)?);
        }
    }
    Ok(values)
}

/// What `values` exceed `base` by, round by round.
pub(super) fn net(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).map(|(v, b)| v - b).collect()
}

/// `values` as parts of `base`, round by round.
pub(super) fn ratio(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).map(|(v, b)| v / b).collect()
}
