//! Whether two vocabularies are one, and how to read one in the other if they are not.
//!
//! Scores are added by id, so ids must mean the same strings; sizes that agree prove nothing. Everything here works on plain
//! tables of strings, wherever they come from.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::VocabularyError;

/// The string of every id; some ids may have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<Option<String>>,
}

impl Vocabulary {
    /// From strings in the order of their ids.
    ///
    /// # Errors
    /// If a string occurs twice.
    pub fn from_tokens<S: Into<String>>(
        tokens: impl IntoIterator<Item = S>,
    ) -> Result<Self, VocabularyError> {
        Self::from_pairs((0..).zip(tokens).map(|(id, token)| (token, id)))
    }

    /// From strings and their ids, in any order; ids may be left out.
    ///
    /// # Errors
    /// If an id has two strings, or a string two ids.
    pub fn from_pairs<S: Into<String>>(
        pairs: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, VocabularyError> {
        let mut tokens: Vec<Option<String>> = Vec::new();
        for (token, id) in pairs {
            let (token, at) = (token.into(), id as usize);
            if at >= tokens.len() {
                tokens.resize(at + 1, None);
            }
            match &tokens[at] {
                Some(first) if *first != token => {
                    return Err(VocabularyError::TwoStrings { id, first: first.clone(), second: token });
                }
                _ => tokens[at] = Some(token),
            }
        }
        let vocabulary = Self { tokens };
        vocabulary.ids()?;
        Ok(vocabulary)
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.tokens.len()
    }

    /// The string of an id, if it has one.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)?.as_deref()
    }

    /// Ids by string.
    fn ids(&self) -> Result<HashMap<&str, u32>, VocabularyError> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, token) in (0..).zip(&self.tokens) {
            let Some(token) = token else { continue };
            match ids.entry(token.as_str()) {
                Entry::Vacant(free) => drop(free.insert(id)),
                Entry::Occupied(taken) => {
                    let (token, first) = (token.clone(), *taken.get());
                    return Err(VocabularyError::TwoIds { token, first, second: id });
                }
            }
        }
        Ok(ids)
    }
}

/// What to make of rows at the end that only one vocabulary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailing {
    /// They are a difference.
    Refused,
    /// They are padding, and are cut off.
    Tolerated,
}

/// Compares two vocabularies id by id.
///
/// # Errors
/// [`VocabularyError::Different`] with both sizes, the first id that differs, and what each calls it.
///
/// # Examples
/// ```
/// use align_fusion::{Trailing, Vocabulary, same_vocabulary};
///
/// let large = Vocabulary::from_tokens(["<s>", "a", "b", "<pad>"])?;
/// let small = Vocabulary::from_tokens(["<s>", "a", "b"])?;
/// assert!(same_vocabulary(&large, &small, Trailing::Tolerated).is_ok());
/// let error = same_vocabulary(&large, &small, Trailing::Refused).unwrap_err();
/// assert!(error.to_string().contains(r#"id 3 is "<pad>" in one and nothing in the other"#));
/// # Ok::<(), align_fusion::VocabularyError>(())
/// ```
pub fn same_vocabulary(
    first: &Vocabulary,
    second: &Vocabulary,
    trailing: Trailing,
) -> Result<(), VocabularyError> {
    let sizes = [first.size(), second.size()];
    let compared = match trailing {
        Trailing::Refused => sizes[0].max(sizes[1]),
        Trailing::Tolerated => sizes[0].min(sizes[1]),
    };
    let token = |of: &Vocabulary, id: usize| of.tokens.get(id).cloned().flatten();
    let missing = |of: &Vocabulary, id: usize| id >= of.size();
    match (0..compared).find(|&id| {
        first.tokens.get(id) != second.tokens.get(id) || missing(first, id) || missing(second, id)
    }) {
        None => Ok(()),
        Some(id) => {
            Err(VocabularyError::Different { sizes, id, first: token(first, id), second: token(second, id) })
        }
    }
}

/// What strings cannot say about two vocabularies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Ids of base and member that mean the same although their strings differ: begin and end of text above all.
    pub pairs: Vec<(u32, u32)>,
    /// Ids of the base that stand for something other than their string. They are never spelt, and read only by a partner.
    pub special: Vec<u32>,
}

/// How many tokens found partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapCounts {
    /// Tokens of both.
    pub shared: usize,
    /// Tokens of the base alone: the member never moves them.
    pub base_only: usize,
    /// Tokens of the member alone: what it thinks of them is lost.
    pub member_only: usize,
    /// Tokens of the base alone that the member reads as several of its own.
    pub spelt: usize,
    /// Tokens of the base that the member cannot read.
    pub unreadable: usize,
}

/// A member's vocabulary seen from the base's, by shared strings.
///
/// A token with a partner is scored and read as that. One without is never scored; it is *read* as the fewest tokens of the
/// member that spell its string, so the member reads the same text, though perhaps cut otherwise than its own tokenizer
/// would. One that cannot be spelt cannot be read.
#[derive(Clone, Debug)]
pub struct VocabularyMap {
    base: Vocabulary,
    /// By the base's id.
    partners: Vec<Option<u32>>,
    /// The member's ids for every id of the base, one after another.
    pieces: Vec<u32>,
    /// Where each token's pieces end.
    ends: Vec<usize>,
    counts: MapCounts,
}

impl VocabularyMap {
    /// Pairs tokens of equal strings, after the pairs that are given.
    ///
    /// Both tables have to be in one notation: `Ġa` and `▁a` share nothing.
    ///
    /// # Errors
    /// If nothing is shared, or a given pair cannot be.
    ///
    /// # Examples
    /// ```
    /// use align_fusion::{MapOptions, Vocabulary, VocabularyMap};
    ///
    /// let base = Vocabulary::from_tokens(["<s>", "ab", "b", "?"])?;
    /// let member = Vocabulary::from_tokens(["a", "b", "<bos>"])?;
    /// let options = MapOptions { pairs: vec![(0, 2)], special: vec![0] };
    /// let map = VocabularyMap::by_strings(&base, &member, &options)?;
    /// assert_eq!((map.partner(0), map.partner(1), map.partner(2)), (Some(2), None, Some(1)));
    /// assert_eq!(map.reading(1), [0, 1]); // "ab" is read as "a", "b"
    /// assert_eq!(map.reading(3), [0u32; 0]); // "?" cannot be read
    /// assert_eq!((map.counts().shared, map.counts().unreadable), (2, 1));
    /// # Ok::<(), align_fusion::VocabularyError>(())
    /// ```
    pub fn by_strings(
        base: &Vocabulary,
        member: &Vocabulary,
        options: &MapOptions,
    ) -> Result<Self, VocabularyError> {
        let ids = member.ids()?;
        let mut partners = vec![None; base.size()];
        let mut taken = vec![false; member.size()];
        for &(from, to) in &options.pairs {
            let free = partners.get(from as usize) == Some(&None) && taken.get(to as usize) == Some(&false);
            if !free {
                return Err(VocabularyError::CannotPair { base: from, member: to });
            }
            partners[from as usize] = Some(to);
            taken[to as usize] = true;
        }
        for (partner, token) in partners.iter_mut().zip(&base.tokens) {
            let Some(&id) = token.as_deref().and_then(|token| ids.get(token)) else { continue };
            if partner.is_none() && !taken[id as usize] {
                *partner = Some(id);
                taken[id as usize] = true;
            }
        }
        let shared = partners.iter().flatten().count();
        if shared == 0 {
            return Err(VocabularyError::NothingShared { sizes: [base.size(), member.size()] });
        }

        let longest = ids.keys().map(|token| token.len()).max().unwrap_or(0);
        let (mut pieces, mut ends) = (Vec::new(), Vec::with_capacity(base.size()));
        let (mut spelt, mut unreadable) = (0, 0);
        for (id, (partner, token)) in (0..).zip(partners.iter().zip(&base.tokens)) {
            match (partner, token) {
                (Some(partner), _) => pieces.push(*partner),
                (None, Some(token)) if !options.special.contains(&id) => match spell(token, &ids, longest) {
                    Some(spelling) => {
                        pieces.extend(spelling);
                        spelt += 1;
                    }
                    None => unreadable += 1,
                },
                (None, Some(_)) => unreadable += 1,
                (None, None) => {}
            }
            ends.push(pieces.len());
        }
        let known = |of: &Vocabulary| of.tokens.iter().flatten().count();
        let counts = MapCounts {
            shared,
            base_only: known(base).saturating_sub(shared),
            member_only: known(member).saturating_sub(shared),
            spelt,
            unreadable,
        };
        Ok(Self { base: base.clone(), partners, pieces, ends, counts })
    }

    /// The member's id for the same token, if there is one.
    pub fn partner(&self, id: u32) -> Option<u32> {
        *self.partners.get(id as usize)?
    }

    /// The member's ids that a token of the base is read as; none if it cannot be read.
    ///
    /// # Panics
    /// If the base has no such id.
    pub fn reading(&self, id: u32) -> &[u32] {
        let id = id as usize;
        assert!(id < self.size(), "token id {id} is outside the vocabulary of {}", self.size());
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.pieces[start..self.ends[id]]
    }

    /// How many tokens found partners.
    pub fn counts(&self) -> MapCounts {
        self.counts
    }

    /// Whether the member can read all of a row.
    ///
    /// # Errors
    /// [`VocabularyError::Unreadable`] names the first token it cannot read.
    pub fn check(&self, row: &[u32]) -> Result<(), VocabularyError> {
        match row.iter().position(|&id| self.reading(id).is_empty()) {
            None => Ok(()),
            Some(position) => Err(self.unreadable(position, row[position])),
        }
    }

    /// Size of the base's vocabulary.
    pub fn size(&self) -> usize {
        self.partners.len()
    }

    pub(crate) fn partners(&self) -> &[Option<u32>] {
        &self.partners
    }

    /// The largest id of the member that is read or scored.
    pub(crate) fn reach(&self) -> u32 {
        self.pieces.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn unreadable(&self, position: usize, id: u32) -> VocabularyError {
        VocabularyError::Unreadable { position, id, token: self.base.token(id).map(str::to_owned) }
    }
}

/// The fewest tokens that spell `text`; of several spellings the one whose last tokens are longest.
fn spell(text: &str, ids: &HashMap<&str, u32>, longest: usize) -> Option<Vec<u32>> {
    /// How a prefix of the text is best spelt: with how many tokens, where the last one starts, which it is.
    #[derive(Clone, Copy)]
    struct Best {
        tokens: usize,
        start: usize,
        last: u32,
    }
    let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
    for end in (1..=text.len()).filter(|&end| text.is_char_boundary(end)) {
        for start in (end.saturating_sub(longest)..end).filter(|&start| text.is_char_boundary(start)) {
            let before = match (start, best[start]) {
                (0, _) => 0,
                (_, Some(before)) => before.tokens,
                (_, None) => continue,
            };
            let fewer = best[end].is_none_or(|found| before + 1 < found.tokens);
            if let Some(&last) = ids.get(&text[start..end]).filter(|_| fewer) {
                best[end] = Some(Best { tokens: before + 1, start, last });
            }
        }
    }
    let (mut spelling, mut end) = (Vec::new(), text.len());
    while end > 0 {
        let found = best[end]?;
        spelling.push(found.last);
        end = found.start;
    }
    spelling.reverse();
    (!spelling.is_empty()).then_some(spelling)
}
