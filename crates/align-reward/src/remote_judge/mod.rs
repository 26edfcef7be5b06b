//! A judge behind HTTP: a language model that is asked which of two answers is better.

mod config;
mod verdict;

use std::sync::{Mutex, MutexGuard};

use align_core::{Completions, Preference};
use align_models::Detokenize;
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};

pub use config::RemoteJudgeConfig;

use crate::error::with_source;
use crate::http::{Patience, RemoteError, Server};
use crate::pairs::shared_prompts;
use config::PLACEHOLDERS;
use verdict::{Verdict, verdict};

/// A language model that judges over OpenAI's chat completions, as vLLM, SGLang, llama.cpp and many others serve them.
///
/// It is asked to answer `A` or `B`. Where the server lists the log-probabilities of the first token,
/// `p = P(A) / (P(A) + P(B))`, every spelling of a letter counted (`A`, ` A`); where it does not, the text decides: 1, 0, or 1/2 if it
/// says neither. Each pair is asked about in both orders and `P(a ≻ b) = ½(p(a, b) + 1 − p(b, a))`, which takes a liking for the first
/// or the second place away: two questions a row.
///
/// Put it into [`Recorded`](crate::Recorded): then nothing is asked twice. The judge reads what the policy wrote, and an answer that
/// tells the judge what to say may be obeyed; look at what wins.
///
/// # Source
/// Zheng et al. 2023, <https://arxiv.org/abs/2306.05685>, for the method and its biases; Dong et al. 2024,
/// <https://arxiv.org/abs/2405.07863>, for the two tokens and both orders. The default wording is ours, after the manner of the
/// annotators of AlpacaFarm: Dubois et al. 2023, <https://arxiv.org/abs/2305.14387>.
///
/// # Examples
/// ```no_run
/// use align_reward::{Recorded, RemoteJudge, RemoteJudgeConfig};
///
/// let config = RemoteJudgeConfig {
///     api_key_env: Some("JUDGE_KEY".into()),
///     ..RemoteJudgeConfig::new("http://localhost:8000/v1", "judge")
/// };
/// let text = |ids: &[u32]| ids.iter().filter_map(|&id| char::from_u32(id)).collect::<String>();
/// let judge = Recorded::open("answers.jsonl".as_ref(), RemoteJudge::new(config, text)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RemoteJudge {
    server: Server,
    config: RemoteJudgeConfig,
    text: Box<dyn Detokenize>,
    failure: Mutex<Option<RemoteError>>,
    tally: Mutex<Tally>,
}

/// Counts of what was answered since they were last told.
#[derive(Default)]
struct Tally {
    questions: usize,
    undecided: usize,
    rows: usize,
    /// Sum over rows of `p(a, b) + p(b, a) − 1`.
    lean: f64,
}

impl RemoteJudge {
    /// A judge that is asked over HTTP; `text` turns the tokens of prompts and of answers into what it reads, without stop tokens.
    ///
    /// # Errors
    /// If the template lacks a placeholder, or the variable of the key is not set.
    pub fn new(config: RemoteJudgeConfig, text: impl Detokenize + 'static) -> Result<Self, RemoteError> {
        if let Some(placeholder) = PLACEHOLDERS.into_iter().find(|&name| !config.template.contains(name)) {
            return Err(RemoteError::Template { placeholder });
        }
        let patience = Patience {
            timeout_s: config.timeout_s.get().max(0.001),
            retries: config.retries,
            wait_s: config.wait_s.get(),
        };
        let server = Server::new(&config.address(), patience);
        let server = match &config.api_key_env {
            Some(variable) => server.with_key_of(variable)?,
            None => server,
        };
        let (failure, tally) = (Mutex::default(), Mutex::default());
        Ok(Self { server, config, text: Box::new(text), failure, tally })
    }

    /// Why rows of an earlier batch are NaN; the last reason since this was asked.
    pub fn take_error(&self) -> Option<RemoteError> {
        lock(&self.failure).take()
    }

    /// Every pair as two questions, in both orders, side by side.
    fn questions(&self, first: &Completions, second: &Completions) -> Vec<String> {
        let texts = |rows: &[Vec<u32>]| rows.iter().map(|row| self.text.text(row)).collect::<Vec<String>>();
        let prompts = texts(&shared_prompts("RemoteJudge", first, second));
        let (first, second) = (texts(&first.response.rows()), texts(&second.response.rows()));
        (0..prompts.len())
            .flat_map(|row| {
                let (prompt, a, b) = (&prompts[row], &first[row], &second[row]);
                [[prompt, a, b], [prompt, b, a]]
            })
            .map(|[prompt, a, b]| self.config.question([prompt, a, b]))
            .collect()
    }

    /// Asks all questions, several at a time, until one finds no answer; those on their way then are waited for.
    fn ask_all(&self, questions: &[String]) -> (Vec<Option<Verdict>>, Option<RemoteError>) {
        struct Progress {
            next: usize,
            verdicts: Vec<Option<Verdict>>,
            failure: Option<RemoteError>,
        }
        let progress = Mutex::new(Progress { next: 0, verdicts: vec![None; questions.len()], failure: None });
        let take = || {
            let mut progress = lock(&progress);
            let index = progress.next;
            progress.next += 1;
            (index < questions.len() && progress.failure.is_none()).then_some(index)
        };
        std::thread::scope(|scope| {
            for _ in 0..self.config.concurrent.get().min(questions.len()) {
                scope.spawn(|| {
                    while let Some(index) = take() {
                        let verdict = self.ask(&questions[index]);
                        let mut progress = lock(&progress);
                        match verdict {
                            Ok(verdict) => progress.verdicts[index] = Some(verdict),
                            Err(error) => progress.failure = progress.failure.take().or(Some(error)),
                        }
                    }
                });
            }
        });
        let Progress { verdicts, failure, .. } =
            progress.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        (verdicts, failure)
    }

    fn ask(&self, question: &str) -> Result<Verdict, RemoteError> {
        let mut messages = vec![json!({ "role": "user", "content": question })];
        if !self.config.system.is_empty() {
            messages.insert(0, json!({ "role": "system", "content": self.config.system }));
        }
        let mut request =
            json!({ "model": self.config.model, "messages": messages, "max_tokens": 1, "temperature": 0 });
        if self.config.top_logprobs > 0 {
            request["logprobs"] = json!(true);
            request["top_logprobs"] = json!(self.config.top_logprobs);
        }
        let body = self.server.ask(&request)?;
        let answer: Value = serde_json::from_str(&body).map_err(|_| self.server.other_form("JSON", &body))?;
        verdict(&answer["choices"][0])
            .ok_or_else(|| self.server.other_form("log-probabilities or a text in `choices[0]`", &body))
    }
}

impl Preference for RemoteJudge {
    /// A row is NaN if one of its two questions found no answer; [`Preference::take_failure`] says why.
    ///
    /// # Panics
    /// If a row's two prompts differ.
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let (verdicts, failure) = self.ask_all(&self.questions(first, second));
        let mut tally = lock(&self.tally);
        for verdict in verdicts.iter().flatten() {
            tally.questions += 1;
            tally.undecided += usize::from(!verdict.is_decided);
        }
        let values: Vec<f32> = verdicts
            .chunks(2)
            .map(|both| match both {
                [Some(forward), Some(backward)] => {
                    let (forward, backward) = (forward.preference, backward.preference);
                    tally.rows += 1;
                    tally.lean += forward + backward - 1.0;
                    ((forward + 1.0 - backward) / 2.0) as f32
                }
                _ => f32::NAN,
            })
            .collect();
        if failure.is_some() {
            *lock(&self.failure) = failure;
        }
        let device = first.response.ids.device().without_autodiff();
        let rows = values.len();
        Tensor::from_data(TensorData::new(values, [rows]), &device)
    }

    /// `judge/questions` answered; `judge/undecided`, the share of them to which it said neither `A` nor `B`; `judge/place_bias`, the
    /// mean of `p(a, b) + p(b, a) − 1`: above 0 it likes what comes first.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        let Tally { questions, undecided, rows, lean } = std::mem::take(&mut *lock(&self.tally));
        let mut metrics = Vec::new();
        if questions > 0 {
            metrics.push(("judge/questions".into(), questions as f64));
            metrics.push(("judge/undecided".into(), undecided as f64 / questions as f64));
        }
        if rows > 0 {
            metrics.push(("judge/place_bias".into(), lean / rows as f64));
        }
        metrics
    }

    fn take_failure(&self) -> Option<String> {
        self.take_error().map(|error| with_source(&error))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
