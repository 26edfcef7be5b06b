//! Which judge is asked, and how.

use std::num::NonZeroUsize;

use align_core::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

/// What the judge is told about its task, unless stated.
const SYSTEM: &str = "You compare two answers to the same request and say which of them a careful reader would prefer. \
Your reply is a single letter.";

/// How it is asked, unless stated.
const TEMPLATE: &str = "Here is a request, and two answers to it. The better answer does what was asked for, is correct, \
and is clear without being longer than it needs to be. The order in which the answers stand says nothing about them.

### Request
{prompt}

### Answer A
{first}

### Answer B
{second}

Which answer is better? Reply with A or B and nothing else.";

/// The texts that a template shows.
pub(super) const PLACEHOLDERS: [&str; 3] = ["{prompt}", "{first}", "{second}"];

/// Which judge is asked, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteJudgeConfig {
    /// The address of an OpenAI-compatible server, up to its version (`http://localhost:8000/v1`), or the whole one, which ends in
    /// `/chat/completions`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The environment variable that holds the server's key; the key itself stands in no recipe. `None` sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The system message. Empty sends none, for models whose template takes none.
    #[serde(default = "RemoteJudgeConfig::default_system")]
    pub system: String,
    /// The question, with `{prompt}`, `{first}` and `{second}` where those texts go. The judge must be asked to reply with `A` or
    /// `B`, for the first and the second.
    #[serde(default = "RemoteJudgeConfig::default_template")]
    pub template: String,
    /// How many of the likeliest first tokens the judge is asked to list, 20 being the most that OpenAI's servers list; some list
    /// fewer. A letter that is not among them counts as impossible. 0 asks for none: the text decides.
    #[serde(default = "RemoteJudgeConfig::default_top_logprobs")]
    pub top_logprobs: u32,
    /// Questions on their way at a time. 8: enough for a server to batch, few enough for a key's rate limit.
    #[serde(default = "RemoteJudgeConfig::default_concurrent")]
    pub concurrent: NonZeroUsize,
    /// Seconds until a question is given up.
    #[serde(default = "RemoteJudgeConfig::default_timeout")]
    pub timeout_s: Positive,
    /// How often a question is asked again when there was no answer, or one of 408, 429 or 500 and above.
    #[serde(default = "RemoteJudgeConfig::default_retries")]
    pub retries: u32,
    /// Seconds before the first repetition; each further wait is twice as long.
    #[serde(default = "RemoteJudgeConfig::default_wait")]
    pub wait_s: NonNegative,
}

impl RemoteJudgeConfig {
    /// 8 questions at a time, 180 s, 5 repetitions after 1 s and more.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key_env: None,
            system: Self::default_system(),
            template: Self::default_template(),
            top_logprobs: Self::default_top_logprobs(),
            concurrent: Self::default_concurrent(),
            timeout_s: Self::default_timeout(),
            retries: Self::default_retries(),
            wait_s: Self::default_wait(),
        }
    }

    fn default_system() -> String {
        SYSTEM.into()
    }

    fn default_template() -> String {
        TEMPLATE.into()
    }

    fn default_top_logprobs() -> u32 {
        20
    }

    fn default_concurrent() -> NonZeroUsize {
        const { NonZeroUsize::new(8).unwrap() }
    }

    fn default_timeout() -> Positive {
        Positive::literal(180.0)
    }

    fn default_retries() -> u32 {
        5
    }

    fn default_wait() -> NonNegative {
        NonNegative::literal(1.0)
    }

    /// Where chat completions are asked for.
    pub(super) fn address(&self) -> String {
        const PATH: &str = "/chat/completions";
        let url = self.url.trim_end_matches('/');
        if url.ends_with(PATH) { url.to_owned() } else { format!("{url}{PATH}") }
    }

    /// The template with its texts; a text that looks like a placeholder is left alone.
    pub(super) fn question(&self, texts: [&str; 3]) -> String {
        let mut question = String::new();
        let mut rest = self.template.as_str();
        // The placeholder that comes next, until there is none.
        while let Some((at, which)) =
            (0..PLACEHOLDERS.len()).filter_map(|which| Some((rest.find(PLACEHOLDERS[which])?, which))).min()
        {
            question.push_str(&rest[..at]);
            question.push_str(texts[which]);
            rest = &rest[at + PLACEHOLDERS[which].len()..];
        }
        question + rest
    }
}
