//! Why a language model's game cannot be enumerated, or measured by sampling.

use align_core::OracleError;
use align_models::GenerateError;

use crate::game::GameError;

/// Why a language model's game was refused. `prompt` counts the prompts given, from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LmGameError {
    /// Nothing to answer.
    #[error("no prompts, expected at least one")]
    NoPrompts,
    /// A count that has to be positive.
    #[error("`{name}` is 0, expected at least 1")]
    Zero {
        /// The argument.
        name: &'static str,
    },
    /// A floor that is no probability.
    #[error("`floor` is {found}, expected a probability below 1")]
    Floor {
        /// What was given.
        found: f64,
    },
    /// A prompt without tokens gives the model nothing to continue.
    #[error("prompt {prompt} is empty, expected at least one token (a beginning-of-text token, say)")]
    EmptyPrompt {
        /// Which prompt.
        prompt: usize,
    },
    /// A token the model does not know.
    #[error("prompt {prompt} has token {found}, expected ids below the vocabulary of {vocabulary}")]
    TokenOutsideVocabulary {
        /// Which prompt.
        prompt: usize,
        /// The id.
        found: u32,
        /// V.
        vocabulary: usize,
    },
    /// A stop token the model can never give.
    #[error("stop token {found} is not in the model's vocabulary, expected ids below {vocabulary}")]
    StopOutsideVocabulary {
        /// The id.
        found: u32,
        /// V.
        vocabulary: usize,
    },
    /// Prompt and longest response do not fit.
    #[error(
        "prompt {prompt} and the longest response have {found} tokens, expected at most the {context} of the model's context"
    )]
    TooLong {
        /// Which prompt.
        prompt: usize,
        /// Tokens of both.
        found: usize,
        /// The context's length.
        context: usize,
    },
    /// Too many responses to compare all of them.
    #[error(
        "prompt {prompt} has more than {most} responses or beginnings of responses, expected at most as many; allow \
         more, shorten them, leave out unlikely ones by a floor, or measure by sampling"
    )]
    TooMany {
        /// Which prompt.
        prompt: usize,
        /// What was allowed.
        most: usize,
    },
    /// The floor leaves out what matters.
    #[error(
        "prompt {prompt}: responses of a probability of at most {floor} add up to {found:.3e} of the reference, expected less than \
         {expected:e}; lower the floor"
    )]
    Dropped {
        /// Which prompt.
        prompt: usize,
        /// The floor.
        floor: f64,
        /// The reference's probability of what is left out.
        found: f64,
        /// What was allowed.
        expected: f64,
    },
    /// The reference's scores are no distribution.
    #[error(
        "the reference's scores of prompt {prompt} for response token {position} are no distribution: found NaN, infinity or no token left"
    )]
    NotADistribution {
        /// Which prompt.
        prompt: usize,
        /// Which token, from 0.
        position: usize,
    },
    /// The oracle failed; rows are counted among those that were asked about together.
    #[error("the oracle failed on responses to prompt {prompt}")]
    Oracle {
        /// Which prompt.
        prompt: usize,
        /// Why.
        #[source]
        source: OracleError,
    },
    /// No game can be made of the numbers.
    #[error("prompt {prompt} has no game")]
    Game {
        /// Which prompt.
        prompt: usize,
        /// Why.
        #[source]
        source: GameError,
    },
    /// Without τ the gap is a largest value, which samples do not show.
    #[error(
        "`tau` is {found}, expected a positive finite number: at 0 the gap is a maximum over responses, which samples do not show"
    )]
    Tau {
        /// What was given.
        found: f64,
    },
    /// Too few of something to tell how far off their mean is.
    #[error("found {found} {what}, expected at least 2")]
    TooFew {
        /// Prompts or samples.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// Samples that would come from another policy than the one that is measured.
    #[error(
        "sampling is filtered or at temperature {temperature}, expected temperature 1 and no filter: samples must come from the policy itself"
    )]
    Filtered {
        /// The temperature.
        temperature: f64,
    },
    /// Policy and reference do not speak the same tokens.
    #[error("the reference has a vocabulary of {found} tokens, expected the policy's {expected}")]
    OtherVocabulary {
        /// The policy's.
        expected: usize,
        /// The reference's.
        found: usize,
    },
    /// The policy gives a response that the reference never gives.
    #[error(
        "prompt {prompt}, sample {sample}: the log-ratio of policy and reference is {found}, expected a finite number"
    )]
    LogRatio {
        /// Which prompt.
        prompt: usize,
        /// Which of the policy's responses.
        sample: usize,
        /// What was found.
        found: f64,
    },
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
