//! METEOR: how alike two texts are, and through it whether a policy gives every prompt the same answer.
//!
//! Words of the hypothesis are matched one to one with words of the reference: equal words, then words with equal
//! stems, then synonyms. With m matches that lie in c chunks (runs that are adjacent in both texts), h words in the
//! hypothesis and r in the reference,
//!
//! ```text
//! P = m/h,   Q = m/r,   F = P·Q / (α·P + (1−α)·Q),   score = F · (1 − γ·(c/m)^β)
//! ```
//!
//! and 0 where nothing matches. The score is not symmetric (α = 0.9 weighs recall nine times precision) and identical
//! texts of n words score 1 − γ/n^β, not 1.
//!
//! # Agreement with NLTK
//! The paper measures with NLTK's `meteor_score`, which is followed here: words are what stands between white space,
//! in lower case; each stage goes through the hypothesis from its last word to its first and takes the last free word
//! of the reference; stems are Porter's as NLTK extends them. The stemmer is `nltk-porter`, which gave the stems of
//! NLTK 3.10.4 on each of the 109 308 distinct words of HH-RLHF's harmless test set, AlpacaEval and Tiny Shakespeare. The
//! crates that carry Snowball's stemmers do not: on the 36 790 of these words that are letters only, Snowball's English
//! gives another stem 781 times and Snowball's Porter 729 times.
//!
//! One departure: NLTK hands the *stems* of what the second stage left to the third, so that a synonym is looked up by
//! "happi" and seldom found. [`Meteor::with_synonyms`] looks up words; [`Meteor::with_synonyms_of_stems`] does as NLTK.
//!
//! No word list is bundled: NLTK's synonyms are WordNet's, here they are what the caller brings ([`Synonyms`]).
//!
//! # Source
//! Lavie, Agarwal 2007, "METEOR: an automatic metric for MT evaluation with high levels of correlation with human
//! judgments", <https://aclanthology.org/W07-0734/>; NLTK, `nltk/translate/meteor_score.py`. As a measure of mode
//! collapse: Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>.

mod alignment;
mod mean;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use align_core::number::{NonNegative, UnitInterval};

pub use alignment::{Alignment, Match};
pub use mean::mean_similarity;

use words::Words;

/// Which words mean the same.
pub trait Synonyms: Send + Sync {
    /// The synonyms of a word in lower case; none for a word that is not known. Whether the word itself is among them
    /// changes nothing.
    fn synonyms(&self, word: &str) -> &[String];
}

impl Synonyms for HashMap<String, Vec<String>> {
    fn synonyms(&self, word: &str) -> &[String] {
        self.get(word).map_or(&[], Vec::as_slice)
    }
}

impl Synonyms for BTreeMap<String, Vec<String>> {
    fn synonyms(&self, word: &str) -> &[String] {
        self.get(word).map_or(&[], Vec::as_slice)
    }
}

/// The third stage: where synonyms come from, and which form of a word is looked up and compared.
#[derive(Clone)]
struct Thesaurus {
    source: Arc<dyn Synonyms>,
    of_stems: bool,
}

/// The measure: its stages and its parameters.
///
/// # Examples
/// ```
/// use align_superhf::meteor::Meteor;
///
/// let exact = Meteor::exact();
/// // Four of five and of six words match, in two chunks; the direction matters.
/// let (long, short) = ("Thank you for your help today", "thank you for the help");
/// assert!((exact.similarity(long, short) - 0.635_593_22).abs() < 1e-8);
/// assert!((exact.similarity(short, long) - 0.735_294_12).abs() < 1e-8);
/// // "walked" and "walking" have one stem.
/// assert_eq!(exact.similarity("walked", "walking"), 0.0);
/// assert_eq!(Meteor::stemmed().similarity("walked", "walking"), 0.5);
/// ```
#[derive(Clone)]
pub struct Meteor {
    /// α: recall weighs α, precision 1 − α. NLTK's 0.9.
    pub alpha: UnitInterval,
    /// β: how fast the penalty grows with fragmentation. NLTK's 3.
    pub beta: NonNegative,
    /// γ: the most that fragmentation takes away. NLTK's 0.5.
    pub gamma: UnitInterval,
    stems: bool,
    thesaurus: Option<Thesaurus>,
}

impl Meteor {
    /// Equal words match, nothing else does.
    pub fn exact() -> Self {
        Self {
            alpha: UnitInterval::literal(0.9),
            beta: NonNegative::literal(3.0),
            gamma: UnitInterval::literal(0.5),
            stems: false,
            thesaurus: None,
        }
    }

    /// Equal words match, then words with equal stems: NLTK's measure without its synonyms.
    pub fn stemmed() -> Self {
        Self { stems: true, ..Self::exact() }
    }

    /// Then synonyms match: a word of the hypothesis and one of the reference that is among its synonyms.
    ///
    /// Words are looked up as they are written, in lower case.
    pub fn with_synonyms(self, synonyms: impl Synonyms + 'static) -> Self {
        Self { thesaurus: Some(Thesaurus { source: Arc::new(synonyms), of_stems: false }), ..self }
    }

    /// Then synonyms match as in NLTK: the *stem* of a word of the hypothesis is looked up, and the *stem* of a word of
    /// the reference has to be among what is found. Turns stemming on.
    pub fn with_synonyms_of_stems(self, synonyms: impl Synonyms + 'static) -> Self {
        let thesaurus = Thesaurus { source: Arc::new(synonyms), of_stems: true };
        Self { thesaurus: Some(thesaurus), stems: true, ..self }
    }

    /// How much of the reference the hypothesis says, in [0, 1]; 0 if nothing matches or a text is empty.
    ///
    /// Time is linear in the number of words (and of their synonyms).
    pub fn similarity(&self, reference: &str, hypothesis: &str) -> f64 {
        self.score(&self.alignment(reference, hypothesis))
    }

    /// Which words match which.
    pub fn alignment(&self, reference: &str, hypothesis: &str) -> Alignment {
        self.align(&self.words(reference), &self.words(hypothesis))
    }

    /// The score of an alignment: the equation at the head of this module.
    pub fn score(&self, alignment: &Alignment) -> f64 {
        if alignment.matches.is_empty() {
            return 0.0;
        }
        let matches = alignment.matches.len() as f64;
        let precision = matches / alignment.hypothesis_words as f64;
        let recall = matches / alignment.reference_words as f64;
        let alpha = self.alpha.get();
        let mean = precision * recall / (alpha * precision + (1.0 - alpha) * recall);
        let fragmentation = alignment.chunks() as f64 / matches;
        mean * (1.0 - self.gamma.get() * fragmentation.powf(self.beta.get()))
    }

    fn words(&self, text: &str) -> Words {
        Words::new(text, self.stems)
    }

    fn align(&self, reference: &Words, hypothesis: &Words) -> Alignment {
        let mut stages = alignment::Stages::new(reference.len(), hypothesis.len());
        stages.equal(&reference.written, &hypothesis.written);
        if self.stems {
            stages.equal(&reference.stems, &hypothesis.stems);
        }
        if let Some(Thesaurus { source, of_stems }) = &self.thesaurus {
            stages.synonyms(reference.form(*of_stems), hypothesis.form(*of_stems), source.as_ref());
        }
        stages.finish()
    }
}

impl fmt::Debug for Meteor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Meteor")
            .field("alpha", &self.alpha)
            .field("beta", &self.beta)
            .field("gamma", &self.gamma)
            .field("stems", &self.stems)
            .field("synonyms", &self.thesaurus.is_some())
            .finish()
    }
}
