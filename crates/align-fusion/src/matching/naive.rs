//! The grid as it is published: a log-softmax and two KLs for each candidate.

use crate::tilt::{Movement, Tilt};

use super::Candidates;

/// f and g at each candidate.
pub(super) fn grid(tilt: &Tilt<'_>, candidates: &Candidates) -> Vec<Movement> {
    let (log_p, shift) = tilt.columns();
    let mut trial = Trial::new(&log_p);
    (0..candidates.count).map(|index| trial.movement(&[(candidates.at(index), &shift)])).collect()
}

/// f and g at each pair of candidates; the second expert's weight runs faster.
pub(super) fn pair_grid(tilts: [&Tilt<'_>; 2], candidates: [&Candidates; 2]) -> Vec<Movement> {
    let [(log_p, one), (_, two)] = tilts.map(Tilt::columns);
    let mut trial = Trial::new(&log_p);
    let mut movements = Vec::with_capacity(candidates[0].count * candidates[1].count);
    for first in 0..candidates[0].count {
        for second in 0..candidates[1].count {
            let shifts = [(candidates[0].at(first), &one[..]), (candidates[1].at(second), &two[..])];
            movements.push(trial.movement(&shifts));
        }
    }
    movements
}

/// P, and room for a fused distribution.
struct Trial<'a> {
    log_p: &'a [f64],
    p: Vec<f64>,
    log_fused: Vec<f64>,
    fused: Vec<f64>,
}

impl<'a> Trial<'a> {
    fn new(log_p: &'a [f64]) -> Self {
        let p = log_p.iter().map(|log_prob| log_prob.exp()).collect();
        Self { log_p, p, log_fused: log_p.to_vec(), fused: log_p.to_vec() }
    }

    fn movement(&mut self, shifts: &[(f64, &[f64])]) -> Movement {
        self.log_fused.copy_from_slice(self.log_p);
        for (alpha, shift) in shifts {
            for (score, v) in self.log_fused.iter_mut().zip(*shift) {
                *score += alpha * v;
            }
        }
        log_softmax(&mut self.log_fused);
        for (prob, log_prob) in self.fused.iter_mut().zip(&self.log_fused) {
            *prob = log_prob.exp();
        }
        Movement {
            forward: kl(&self.fused, &self.log_fused, self.log_p),
            reverse: kl(&self.p, self.log_p, &self.log_fused),
        }
    }
}

fn log_softmax(scores: &mut [f64]) {
    let top = (0..scores.len()).fold(0, |top, i| if scores[i] > scores[top] { i } else { top });
    let peak = scores[top];
    // The peak's own e⁰ stays outside the sum, so that a nearly certain token keeps the digits of its little doubt.
    let others = scores.iter().enumerate().filter(|(token, _)| *token != top);
    let log_norm = others.map(|(_, score)| (score - peak).exp()).sum::<f64>().ln_1p();
    for score in scores {
        *score = *score - peak - log_norm;
    }
}

/// `Σ p (log p − log q)`.
fn kl(p: &[f64], log_p: &[f64], log_q: &[f64]) -> f64 {
    p.iter().zip(log_p).zip(log_q).map(|((p, log_p), log_q)| p * (log_p - log_q)).sum()
}
