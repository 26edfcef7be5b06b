//! A reward that a server computes.

use std::sync::Mutex;

use align_core::{Completions, Reward};
use align_models::Detokenize;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::with_source;
use crate::http::{Patience, RemoteError, Server};

/// What a server is asked and how it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RequestForm {
    /// OpenRLHF's remote reward model: `{"query": [text …], "prompts": [prompt …]}` → `{"rewards": [score …]}`.
    #[serde(rename = "openrlhf")]
    OpenRlhf {},
    /// vLLM's `/classify`: `{"model", "input": [text …]}` → `{"data": [{"index", "probs": [score]} …]}`; the first number counts.
    VllmClassify {
        /// The model's name there.
        model: String,
    },
    /// vLLM's `/pooling`: `{"model", "input": [text …]}` → `{"data": [{"index", "data": …} …]}`. Of a list the last number
    /// counts, which is the last token's of a model that scores every token.
    VllmPooling {
        /// The model's name there.
        model: String,
    },
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// The whole address, `http://localhost:5000/get_reward` say.
    pub url: String,
    /// What it understands.
    pub form: RequestForm,
    /// Completions in one request.
    #[serde(default = "RemoteConfig::default_batch")]
    pub batch: usize,
    /// Seconds until a request is given up.
    #[serde(default = "RemoteConfig::default_timeout")]
    pub timeout_s: f64,
    /// How often a request is made again when there was no answer, or one of 408, 429 or 500 and above.
    #[serde(default = "RemoteConfig::default_retries")]
    pub retries: u32,
    /// Seconds before the first repetition; each further wait is twice as long.
    #[serde(default = "RemoteConfig::default_wait")]
    pub wait_s: f64,
}

impl RemoteConfig {
    /// 64 completions a request, 180 s, 5 repetitions after 1 s and more.
    pub fn new(url: impl Into<String>, form: RequestForm) -> Self {
        Self {
            url: url.into(),
            form,
            batch: Self::default_batch(),
            timeout_s: Self::default_timeout(),
            retries: Self::default_retries(),
            wait_s: Self::default_wait(),
        }
    }

    fn default_batch() -> usize {
        64
    }

    fn default_timeout() -> f64 {
        180.0
    }

    fn default_retries() -> u32 {
        5
    }

    fn default_wait() -> f64 {
        1.0
    }
}

/// A reward model behind HTTP, as OpenRLHF and vLLM serve them. Completions go there as text.
pub struct RemoteReward {
    server: Server,
    config: RemoteConfig,
    text: Box<dyn Detokenize>,
    failure: Mutex<Option<RemoteError>>,
}

impl RemoteReward {
    /// A reward that asks a server; `text` turns tokens into the text it reads, with whatever marks the turns.
    pub fn new(config: RemoteConfig, text: impl Detokenize + 'static) -> Self {
        let patience = Patience {
            timeout_s: config.timeout_s.max(0.001),
            retries: config.retries,
            wait_s: config.wait_s.max(0.0),
        };
        let server = Server::new(&config.url, patience);
        Self { server, config, text: Box::new(text), failure: Mutex::new(None) }
    }

    /// The scores of all rows, in order.
    ///
    /// # Errors
    /// If the server does not answer after all repetitions, refuses, or answers something else than a score a row.
    pub fn try_score(&self, completions: &Completions) -> Result<Vec<f32>, RemoteError> {
        let prompts = completions.prompt.rows();
        let responses = completions.response.rows();
        let mut scores = Vec::with_capacity(prompts.len());
        let size = self.config.batch.max(1);
        for (prompts, responses) in prompts.chunks(size).zip(responses.chunks(size)) {
            let texts: Vec<String> = prompts
                .iter()
                .zip(responses)
                .map(|(prompt, response)| self.text.text(&[prompt.as_slice(), response].concat()))
                .collect();
            let request = match &self.config.form {
                RequestForm::OpenRlhf {} => {
                    let prompts: Vec<String> = prompts.iter().map(|prompt| self.text.text(prompt)).collect();
                    json!({ "query": texts, "prompts": prompts })
                }
                RequestForm::VllmClassify { model } | RequestForm::VllmPooling { model } => {
                    json!({ "model": model, "input": texts })
                }
            };
            scores.extend(self.read(&self.server.ask(&request)?, texts.len())?);
        }
        Ok(scores)
    }

    /// Why rows of an earlier batch scored NaN; the last reason since this was asked.
    pub fn take_error(&self) -> Option<RemoteError> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    /// Finds the scores in an answer.
    fn read(&self, body: &str, count: usize) -> Result<Vec<f32>, RemoteError> {
        let (place, numbers) = match serde_json::from_str::<Value>(body) {
            Err(_) => ("JSON", None),
            Ok(answer) => match &self.config.form {
                RequestForm::OpenRlhf {} => ("`rewards`", listed(&answer["rewards"])),
                RequestForm::VllmClassify { .. } => {
                    ("`data[…].probs`", by_index(&answer, |row| row["probs"].get(0)?.as_f64()))
                }
                RequestForm::VllmPooling { .. } => {
                    ("`data[…].data`", by_index(&answer, |row| last_number(&row["data"])))
                }
            },
        };
        numbers
            .filter(|numbers| numbers.len() == count)
            .ok_or_else(|| self.server.other_form(format!("{count} numbers in {place}"), body))
    }
}

impl Reward for RemoteReward {
    /// Every row scores NaN where the server gave no scores, which stops whoever reads them; [`Reward::take_failure`] says why.
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let rows = completions.batch_size();
        let scores = self.try_score(completions).unwrap_or_else(|error| {
            *self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
            vec![f32::NAN; rows]
        });
        let device = completions.response.ids.device().without_autodiff();
        Tensor::from_data(TensorData::new(scores, [rows]), &device)
    }

    fn take_failure(&self) -> Option<String> {
        self.take_error().map(|error| with_source(&error))
    }
}

/// A list of numbers, each perhaps in a list of its own.
fn listed(value: &Value) -> Option<Vec<f32>> {
    value.as_array()?.iter().map(|value| last_number(value).map(|number| number as f32)).collect()
}

/// A number, or the last one of nested lists.
fn last_number(value: &Value) -> Option<f64> {
    match value {
        Value::Array(values) => last_number(values.last()?),
        value => value.as_f64(),
    }
}

/// What `score` finds in the rows of `data`, put in the order of their `index`.
fn by_index(answer: &Value, score: impl Fn(&Value) -> Option<f64>) -> Option<Vec<f32>> {
    let mut rows: Vec<(u64, f32)> = answer["data"]
        .as_array()?
        .iter()
        .map(|row| Some((row["index"].as_u64()?, score(row)? as f32)))
        .collect::<Option<_>>()?;
    rows.sort_by_key(|(index, _)| *index);
    // Each index once.
    let complete = rows.iter().enumerate().all(|(at, (index, _))| at as u64 == *index);
    complete.then(|| rows.into_iter().map(|(_, score)| score).collect())
}
