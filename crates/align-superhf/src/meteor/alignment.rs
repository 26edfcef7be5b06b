//! Matching words one to one, stage by stage, from the last word to the first.

use std::collections::HashMap;

use super::Synonyms;

/// A word of the hypothesis and the word of the reference that it stands for, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Place in the hypothesis, from 0.
    pub hypothesis: usize,
    /// Place in the reference, from 0.
    pub reference: usize,
}

/// Which words of two texts match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// How many words the reference has.
    pub reference_words: usize,
    /// How many words the hypothesis has.
    pub hypothesis_words: usize,
    /// The matches, in the order of the hypothesis. No word is in two of them.
    pub matches: Vec<Match>,
}

impl Alignment {
    /// Into how many runs of matches, adjacent and in the same order in both texts, the matches fall.
    pub fn chunks(&self) -> usize {
        let breaks = self.matches.windows(2).filter(|pair| {
            let [before, after] = [pair[0], pair[1]];
            after.hypothesis != before.hypothesis + 1 || after.reference != before.reference + 1
        });
        usize::from(!self.matches.is_empty()) + breaks.count()
    }
}

/// An alignment in the making.
pub(super) struct Stages {
    /// For each word of the hypothesis, its match.
    matched: Vec<Option<usize>>,
    /// For each word of the reference, whether it is in a match.
    taken: Vec<bool>,
}

impl Stages {
    pub(super) fn new(reference_words: usize, hypothesis_words: usize) -> Self {
        Self { matched: vec![None; hypothesis_words], taken: vec![false; reference_words] }
    }

    /// Matches words whose forms are equal.
    pub(super) fn equal(&mut self, reference: &[String], hypothesis: &[String]) {
        self.stage(reference, hypothesis, |free, word| free.last(word));
    }

    /// Matches a word of the hypothesis with the last free word of the reference that is among its synonyms.
    pub(super) fn synonyms(&mut self, reference: &[String], hypothesis: &[String], source: &dyn Synonyms) {
        self.stage(reference, hypothesis, |free, word| {
            source.synonyms(word).iter().filter_map(|synonym| free.last(synonym)).max()
        });
    }

    /// Goes through what is left of the hypothesis backwards and takes what `find` chooses in the reference.
    fn stage(
        &mut self,
        reference: &[String],
        hypothesis: &[String],
        find: impl Fn(&Free<'_>, &str) -> Option<usize>,
    ) {
        let mut free = Free::new(reference, &self.taken);
        for (word, matched) in hypothesis.iter().zip(&mut self.matched).rev() {
            if matched.is_none()
                && let Some(place) = find(&free, word)
            {
                *matched = Some(place);
                self.taken[place] = true;
                free.take_last(&reference[place]);
            }
        }
    }

    pub(super) fn finish(self) -> Alignment {
        let matches = self
            .matched
            .iter()
            .enumerate()
            .filter_map(|(hypothesis, matched)| matched.map(|reference| Match { hypothesis, reference }));
        Alignment {
            reference_words: self.taken.len(),
            hypothesis_words: self.matched.len(),
            matches: matches.collect(),
        }
    }
}

/// The places of each word of the reference that are free, the last one at hand: what a search through the reference
/// would find in time linear in its length, found at once.
struct Free<'a> {
    last: HashMap<&'a str, usize>,
    /// For each place, the free place of the same word before it.
    before: Vec<Option<usize>>,
}

impl<'a> Free<'a> {
    fn new(reference: &'a [String], taken: &[bool]) -> Self {
        let mut last = HashMap::with_capacity(reference.len());
        let mut before = vec![None; reference.len()];
        for (place, (word, taken)) in reference.iter().zip(taken).enumerate() {
            if !taken {
                before[place] = last.insert(word.as_str(), place);
            }
        }
        Self { last, before }
    }

    fn last(&self, word: &str) -> Option<usize> {
        self.last.get(word).copied()
    }

    fn take_last(&mut self, word: &'a str) {
        if let Some(place) = self.last.remove(word)
            && let Some(before) = self.before[place]
        {
            self.last.insert(word, before);
        }
    }
}
