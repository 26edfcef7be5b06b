//! What is known of the reference, from all it has done so far.

use super::robots::Batch;
use crate::bounds::bound_b;
use crate::correlation::Correlation;
use crate::occupancy::Occupancy;

/// How often the reference was seen in each pair. It never changes, so batches add up.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    actions: usize,
    visits: Vec<f64>,
    total: f64,
}

/// What the account says of a policy's steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// The share of steps in pairs that the reference was never seen in.
    pub(crate) unseen_mass: f64,
    /// D.
    pub(crate) proxy_gain: Option<f64>,
    /// Bound B.
    pub(crate) bound_b: Option<f64>,
}

impl Account {
    pub(crate) fn new(pairs: usize, actions: usize) -> Self {
        Self { actions, visits: vec![0.0; pairs], total: 0.0 }
    }

    pub(crate) fn add(&mut self, batch: &Batch) {
        batch.pairs(self.actions).iter().for_each(|pair| self.visits[*pair] += 1.0);
        self.total += batch.len() as f64;
    }

    pub(crate) fn standing(
        &self,
        pairs: &[usize],
        proxy: &[f64],
        gold: Option<&[f64]>,
        chi_squared: Option<f64>,
    ) -> Standing {
        let mut standing = Standing::default();
        let unseen = pairs.iter().filter(|pair| self.visits[**pair] == 0.0).count();
        standing.unseen_mass = unseen as f64 / pairs.len() as f64;
        let Ok(seen) = Occupancy::new(self.visits.iter().map(|n| n / self.total).collect()) else {
            return standing;
        };
        let proxy_return = pairs.iter().map(|pair| proxy[*pair]).sum::<f64>() / pairs.len() as f64;
        standing.proxy_gain =
            Correlation::under(&seen, proxy, proxy).ok().map(|c| c.proxy_gain(proxy_return));
        if let (Some(gain), Some(gold), Some(chi_squared), 0) =
            (standing.proxy_gain, gold, chi_squared, unseen)
        {
            let agreement = Correlation::under(&seen, proxy, gold).ok();
            standing.bound_b = agreement.and_then(|c| bound_b(c.r, gain, chi_squared).ok());
        }
        standing
    }
}
