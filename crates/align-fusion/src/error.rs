//! What can go wrong between the models of a fusion.

use std::sync::{Mutex, PoisonError};

use crate::row_error::{RowError, WeighingError};

/// Why models cannot be fused, or a fusion cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FusionError {
    /// Nothing to steer by.
    #[error(
        "found no experts, expected at least one: a base alone is no fusion; LogLinear mixes models without experts"
    )]
    NoExperts,
    /// Two experts of one name, which no log could tell apart.
    #[error("two experts are called `{name}`, expected different names")]
    SameName {
        /// The name.
        name: String,
    },
    /// Weights that do not fit.
    #[error(transparent)]
    Weighing(#[from] WeighingError),
    /// A member scores another number of tokens.
    #[error(
        "{member} scores {found} tokens, expected the base's {expected}: tokens are matched by id; if the tokenizers are the \
         same and only the rows of padding differ, say so by `Fusion::with_same_tokenizers`; if they are not, map one into \
         the other by `VocabularyMap`"
    )]
    VocabularySize {
        /// Which member.
        member: String,
        /// Of the base.
        expected: usize,
        /// Of the member.
        found: usize,
    },
    /// A row that some member was not made for.
    #[error("row {row} has {found} tokens, expected at most the {context} of the context of {member}")]
    TooLong {
        /// Which row.
        row: usize,
        /// How long it is, prompt and response together.
        found: usize,
        /// The longest sequence of the member.
        context: usize,
        /// The member with the shortest context.
        member: String,
    },
    /// Scores of which no distribution can be made.
    #[error("scores for token {step} of row {row} ({member}): {source}")]
    Scores {
        /// Whose scores.
        member: String,
        /// Which row: of the batch where one was scored, by the order of admission where one was decoded.
        row: usize,
        /// Which token of the response, from 0, the scores are for; of the whole row where it was scored whole.
        step: usize,
        /// What is wrong with them.
        source: RowError,
    },
    /// An expert that moves no token.
    #[error(
        "expert `{expert}` gives the scores of the small base at all {positions} positions looked at, expected a model tuned \
         from it: it has no direction to steer in"
    )]
    NoDirection {
        /// Which one.
        expert: String,
        /// How many were looked at.
        positions: usize,
    },
}

/// Why a prefix cannot be put before every row of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// A prefix that changes nothing.
    #[error("the prefix is empty, expected at least one token")]
    Empty,
    /// A token the model does not know.
    #[error(
        "the prefix has token {found} at position {position}, expected ids below the vocabulary of {vocabulary}"
    )]
    TokenOutsideVocabulary {
        /// Where in the prefix.
        position: usize,
        /// The id.
        found: u32,
        /// V.
        vocabulary: usize,
    },
    /// The context is full before the first token.
    #[error(
        "the prefix has {found} tokens, expected fewer than the {context} of the model's context, so that a row fits"
    )]
    TooLong {
        /// Its length.
        found: usize,
        /// The context's length.
        context: usize,
    },
}

/// Why two vocabularies are not one, or cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// An id means two things, or one thing has other ids.
    #[error(
        "the vocabularies differ (sizes {sizes:?}): id {id} is {first} in one and {second} in the other, expected the same; \
         models of two tokenizers are fused only through a `VocabularyMap`",
        first = shown(first), second = shown(second)
    )]
    Different {
        /// Of the first and the second.
        sizes: [usize; 2],
        /// The first id that differs.
        id: usize,
        /// What the first calls it, if anything.
        first: Option<String>,
        /// What the second calls it, if anything.
        second: Option<String>,
    },
    /// A table in which one id has two strings.
    #[error("id {id} is {first:?} and {second:?}, expected one string an id")]
    TwoStrings {
        /// The id.
        id: u32,
        /// The string read first.
        first: String,
        /// The string read later.
        second: String,
    },
    /// A table in which one string has two ids.
    #[error("{token:?} has the ids {first} and {second}, expected one id a string")]
    TwoIds {
        /// The string.
        token: String,
        /// The lower one.
        first: u32,
        /// The higher one.
        second: u32,
    },
    /// Nothing to map by.
    #[error(
        "the vocabularies (sizes {sizes:?}) share no string, expected some: are both written in one notation? (`Ġ` and `▁` \
         both stand for a space)"
    )]
    NothingShared {
        /// Of the base and the member.
        sizes: [usize; 2],
    },
    /// A pair of ids of which one is already taken or does not exist.
    #[error("cannot pair the base's {base} with the member's {member}: expected two tokens without partners")]
    CannotPair {
        /// The base's id.
        base: u32,
        /// The member's id.
        member: u32,
    },
    /// A map that reaches ids the model does not score.
    #[error("the map reaches id {id} of the member, expected ids below its vocabulary of {vocabulary}")]
    MapOutsideModel {
        /// The largest id.
        id: u32,
        /// V of the model.
        vocabulary: usize,
    },
    /// A row that is longer in the member's tokens than in the base's.
    #[error(
        "a row has {found} tokens in the member's vocabulary, expected at most the {context} of its context"
    )]
    TooLong {
        /// How many.
        found: usize,
        /// The longest sequence of the member.
        context: usize,
    },
    /// A token that no tokens of the member spell.
    #[error("token {id}, {token}, at position {position} has no partner and cannot be spelt in the member's vocabulary",
        token = shown(token))]
    Unreadable {
        /// Where in the row, from 0.
        position: usize,
        /// The base's id.
        id: u32,
        /// Its string, if it has one.
        token: Option<String>,
    },
}

fn shown(token: &Option<String>) -> String {
    token.as_ref().map_or_else(|| "nothing".to_owned(), |token| format!("{token:?}"))
}

/// Keeps the first failure of methods that cannot return one.
#[derive(Debug)]
pub(crate) struct FirstFailure<E>(Mutex<Option<E>>);

impl<E> Default for FirstFailure<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E> FirstFailure<E> {
    pub(crate) fn keep(&self, failure: E) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    pub(crate) fn take(&self) -> Option<E> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
