//! The similarity of a set of completions: a measure of mode collapse.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use align_core::draws::{Draws, Purpose};

use super::Meteor;
use super::words::Words;

/// The mean similarity over ordered pairs of completions of *different* prompts; low is good, since different prompts
/// want different answers.
///
/// `texts` are completions with the keys of their prompts. All pairs are compared if there are at most `max_pairs` of
/// them; otherwise that many distinct pairs are drawn for this `step`, all sets of them equally likely. A pair counts
/// in both directions because the measure is not symmetric. Neither the order of the texts nor what else was drawn
/// changes the result.
///
/// `None` where there is nothing to compare: fewer than two prompts, or `max_pairs` = 0.
///
/// # Source
/// Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>; the released code averages over 16 to 200 random pairs. Drawing
/// distinct pairs: Floyd, in Bentley 1987, "Programming pearls: a sample of brilliance", CACM 30(9).
///
/// # Examples
/// ```
/// use align_core::Draws;
/// use align_superhf::meteor::{Meteor, mean_similarity};
///
/// let texts = [(0, "thank you for your help"), (1, "thank you very much"), (2, "no idea")];
/// let mean = mean_similarity(&Meteor::exact(), &texts, 100, &Draws::new(7), 0).unwrap();
/// assert!((mean - 0.139_995_02).abs() < 1e-8);
/// // Two answers to one prompt say nothing about collapse.
/// assert_eq!(mean_similarity(&Meteor::exact(), &[(0, "yes"), (0, "yes")], 100, &Draws::new(7), 0), None);
/// ```
pub fn mean_similarity(
    meteor: &Meteor,
    texts: &[(u64, &str)],
    max_pairs: usize,
    draws: &Draws,
    step: u64,
) -> Option<f64> {
    // In an order of their own, so that the order in which they came changes no draw and no rounding.
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    let pairs = Pairs::new(&texts.iter().map(|(prompt, _)| *prompt).collect::<Vec<_>>());
    let chosen: Box<dyn Iterator<Item = u64>> = if pairs.count() <= max_pairs as u64 {
        Box::new(0..pairs.count())
    } else {
        Box::new(distinct(pairs.count(), max_pairs as u64, draws, step).into_iter())
    };
    // Of many texts few may be drawn, and stemming costs more than matching.
    let prepared: Vec<OnceCell<Words>> = vec![OnceCell::new(); texts.len()];
    let words = |text: usize| prepared[text].get_or_init(|| meteor.words(texts[text].1));
    let (mut sum, mut count) = (0.0, 0u64);
    for pair in chosen {
        let [reference, hypothesis] = pairs.pair(pair);
        sum += meteor.score(&meteor.align(words(reference), words(hypothesis)));
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// The ordered pairs of texts of different prompts, numbered from 0, where texts of one prompt stand side by side.
struct Pairs {
    /// For each text, the range of texts of its prompt.
    same: Vec<[usize; 2]>,
    /// For each text, how many pairs have an earlier text first; then how many there are.
    before: Vec<u64>,
}

impl Pairs {
    fn new(prompts: &[u64]) -> Self {
        let mut same = Vec::with_capacity(prompts.len());
        for group in prompts.chunk_by(|a, b| a == b) {
            let start = same.len();
            same.resize(start + group.len(), [start, start + group.len()]);
        }
        let mut before = vec![0];
        for [start, end] in &same {
            before.push(before[before.len() - 1] + (prompts.len() - (end - start)) as u64);
        }
        Self { same, before }
    }

    fn count(&self) -> u64 {
        self.before[self.same.len()]
    }

    /// The texts of a pair, by their places.
    fn pair(&self, number: u64) -> [usize; 2] {
        let first = self.before.partition_point(|before| *before <= number) - 1;
        let other = (number - self.before[first]) as usize;
        let [start, end] = self.same[first];
        // The texts of the first one's own prompt are left out of the count.
        [first, if other < start { other } else { other + (end - start) }]
    }
}

/// So many distinct numbers below `limit`, each set of them equally likely (Floyd's algorithm).
fn distinct(limit: u64, count: u64, draws: &Draws, step: u64) -> BTreeSet<u64> {
    let draws = draws.child(u64::from_le_bytes(*b"meteor-p"));
    let mut chosen = BTreeSet::new();
    for top in limit - count..limit {
        let unit = draws.token(Purpose::Evaluate, step, top, 0, 0);
        // The product may round up to `top` + 1.
        let number = ((unit * (top + 1) as f64) as u64).min(top);
        if !chosen.insert(number) {
            chosen.insert(top);
        }
    }
    chosen
}
