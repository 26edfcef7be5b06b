//! A world small enough to know everything about, and oracles of all kinds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_core::persist::{read_module, write_module};
use align_core::{CausalLm, Completions, Draws, Frozen, Persist, PersistError, Preference, TokenBatch};
use align_nash::self_play::{EtaSchedule, Method, SelfPlay, SelfPlayConfig, SelfPlayParts};
use align_nash::{LmGame, Responses};
use align_testkit::{BigramLm, device, train_device};
use align_train::{OptimizerConfig, Schedule};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Prompts x = 0..4, one token each.
pub(crate) const PROMPTS: usize = 4;
/// Tokens that are ever said.
pub(crate) const SAID: usize = 3;
/// V; the last token is never said.
pub(crate) const VOCABULARY: usize = 4;
/// The logit of what is never said: its probability is 0 in f32 and in f64.
const NEVER: f32 = -1e4;
/// τ of the games.
pub(crate) const TAU: f64 = 0.1;

/// A policy over answers of two tokens: three logits after each prompt x, three after each (x, a).
#[derive(Module, Debug)]
pub(crate) struct PrefixLm {
    /// `[16, 3]`: rows x, then rows 4 + 3x + a.
    pub(crate) table: Param<Tensor<2>>,
}

impl PrefixLm {
    /// From log-probabilities or logits of a row and a token.
    pub(crate) fn new(logit: impl Fn(usize, usize) -> f64, device: &Device) -> Self {
        let rows = PROMPTS + PROMPTS * SAID;
        let values: Vec<f32> = (0..rows * SAID).map(|at| logit(at / SAID, at % SAID) as f32).collect();
        Self { table: Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, SAID]), device)) }
    }

    /// The reference: `a` with (0.6, 0.3, 0.1) by (a − x) mod 3, `b` with (0.5, 0.3, 0.2) by b.
    pub(crate) fn reference(device: &Device) -> Self {
        let logit = |row: usize, token: usize| {
            if row < PROMPTS {
                [0.6f64, 0.3, 0.1][(token + 2 * row) % SAID].ln()
            } else {
                [0.5f64, 0.3, 0.2][token].ln()
            }
        };
        Self::new(logit, device)
    }

    /// The policy of an answer's probability `p(x, a, b)`.
    pub(crate) fn of(p: impl Fn(usize, usize, usize) -> f64, device: &Device) -> Self {
        let first = |x: usize, a: usize| (0..SAID).map(|b| p(x, a, b)).sum::<f64>();
        let logit = |row: usize, token: usize| match row.checked_sub(PROMPTS) {
            None => first(row, token).ln(),
            Some(second) => {
                let (x, a) = (second / SAID, second % SAID);
                (p(x, a, token) / first(x, a)).ln()
            }
        };
        Self::new(logit, device)
    }

    /// The table, row by row.
    pub(crate) fn values(&self) -> Vec<f32> {
        self.table.val().to_data().iter::<f32>().collect()
    }

    /// The row of the distribution after so many tokens; past the answer any row will do.
    fn row(seen: &[u32]) -> i64 {
        match *seen {
            [] => 0,
            [x] => i64::from(x),
            [x, a, ..] => PROMPTS as i64 + SAID as i64 * i64::from(x) + i64::from(a).min(SAID as i64 - 1),
        }
    }
}

impl CausalLm for PrefixLm {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let [b, t] = tokens.ids.dims();
        let ids: Vec<u32> = tokens.ids.to_data().iter::<i64>().map(|id| id as u32).collect();
        let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
        let mut rows = Vec::with_capacity(b * t);
        for (ids, mask) in ids.chunks(t).zip(mask.chunks(t)) {
            let mut seen = Vec::with_capacity(t);
            for (&id, &counts) in ids.iter().zip(mask) {
                seen.extend(counts.then_some(id));
                rows.push(Self::row(&seen));
            }
        }
        let table = self.table.val();
        let plain = table.device().without_autodiff();
        let index = Tensor::<1, Int>::from_data(TensorData::new(rows, [b * t]), &plain);
        let never = Tensor::<2>::full([b * t, VOCABULARY - SAID], NEVER, &plain);
        Tensor::cat(vec![table.select(0, index), never], 1).reshape([b, t, VOCABULARY])
    }

    fn vocab_size(&self) -> usize {
        VOCABULARY
    }

    fn device(&self) -> Device {
        self.table.val().device()
    }
}

impl Persist for PrefixLm {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        write_module(self, &folder.join("prefix.safetensors"))
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        read_module(self, &folder.join("prefix.safetensors"))
    }
}

/// P(first ≻ second) of each pair by a function of prompt and answers.
pub(crate) struct ByRows<F>(pub(crate) F);

impl<F: Fn(&[u32], &[u32], &[u32]) -> f64 + Send + Sync> Preference for ByRows<F> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let (prompts, a, b) = (first.prompt.rows(), first.response.rows(), second.response.rows());
        let answers: Vec<f32> =
            (0..prompts.len()).map(|row| (self.0)(&prompts[row], &a[row], &b[row]) as f32).collect();
        Tensor::from_data(TensorData::new(answers, [prompts.len()]), &device())
    }
}

/// The oracle of the experiment: the first token goes round in a circle, the second has an order.
pub(crate) fn cyclic(prompt: &[u32], first: &[u32], second: &[u32]) -> f64 {
    const CIRCLE: [[f64; 3]; 3] = [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]];
    const QUALITY: [f64; 3] = [0.5, 0.0, -0.5];
    let x = prompt[0] as usize;
    let place = |token: u32| (token as usize + 2 * x) % 3; // (a − x) mod 3
    let quality = |token: u32| QUALITY[(token as usize + x) % 3];
    let sign = if x.is_multiple_of(2) { 1.0 } else { -1.0 };
    let logit =
        sign * 9f64.ln() * CIRCLE[place(first[0])][place(second[0])] + quality(first[1]) - quality(second[1]);
    1.0 / (1.0 + (-logit).exp())
}

/// An oracle that says the opposite.
pub(crate) fn flipped(prompt: &[u32], first: &[u32], second: &[u32]) -> f64 {
    1.0 - cyclic(prompt, first, second)
}

/// An oracle that knows nothing.
pub(crate) fn coin(_: &[u32], _: &[u32], _: &[u32]) -> f64 {
    0.5
}

/// Counts the pairs another oracle is asked about.
pub(crate) struct Counting<P> {
    pub(crate) oracle: P,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl<P: Preference> Preference for Counting<P> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        self.asked.fetch_add(first.batch_size(), Ordering::Relaxed);
        self.oracle.prefer(first, second)
    }
}

/// All prompts.
pub(crate) fn prompts() -> Vec<Vec<u32>> {
    (0..PROMPTS as u32).map(|x| vec![x]).collect()
}

/// The exact games under an oracle.
pub(crate) fn game(oracle: &dyn Preference) -> LmGame {
    // What is never said is left out, with exactly nothing of the reference.
    let responses = Responses { length: 2, stop_token_ids: Vec::new(), most: 100, floor: 1e-9 };
    LmGame::over(oracle, &PrefixLm::reference(&device()), &prompts(), &responses, TAU).expect("a game")
}

/// The parts of a run from the reference.
pub(crate) fn parts(oracle: impl Preference + 'static) -> SelfPlayParts<PrefixLm> {
    SelfPlayParts {
        policy: PrefixLm::reference(&train_device()),
        reference: Box::new(Frozen::new(&PrefixLm::reference(&device()))),
        oracle: Box::new(oracle),
        prompts: prompts(),
        held_out: Vec::new(),
        measures: Vec::new(),
    }
}

/// Sixteen tokens: no two answers of six are ever the same.
pub(crate) fn wide(oracle: impl Preference + 'static) -> SelfPlayParts<BigramLm> {
    SelfPlayParts {
        policy: BigramLm::random(16, &Draws::new(1), &train_device()),
        reference: Box::new(Frozen::new(&BigramLm::random(16, &Draws::new(2), &device()))),
        oracle: Box::new(oracle),
        prompts: (0..10).map(|x| vec![x, 3]).collect(),
        held_out: Vec::new(),
        measures: Vec::new(),
    }
}

/// Prefers the larger sum of tokens.
pub(crate) fn larger(_: &[u32], first: &[u32], second: &[u32]) -> f64 {
    let sum = |tokens: &[u32]| f64::from(tokens.iter().sum::<u32>());
    1.0 / (1.0 + ((sum(second) - sum(first)) / 10.0).exp())
}

/// A model that says one token, with these probabilities whatever the prompt.
pub(crate) fn one_token(probabilities: [f64; 3]) -> BigramLm {
    BigramLm::independent(&probabilities.map(|p| p.ln() as f32), &device())
}

/// A policy that is neither the reference nor uniform, never 0.
pub(crate) fn other() -> PrefixLm {
    let logit = |row: usize, token: usize| ((7 * row + 5 * token) % 11) as f64 / 5.0;
    PrefixLm::new(logit, &device())
}

/// A small run: 16 pairs to each prompt, two passes of two steps over them, three iterations.
pub(crate) fn small() -> SelfPlayConfig {
    SelfPlayConfig {
        method: inpo(0.5, TAU),
        num_generations: 32,
        num_epochs: 2,
        minibatch: 32,
        microbatch: 32,
        optimizer: table_optimizer(),
        response_length: 2,
        evaluate_every: 0,
        ..SelfPlayConfig::default()
    }
}

/// Adam for tables: 0.05 on a line to 0, no clipping.
pub(crate) fn table_optimizer() -> OptimizerConfig {
    OptimizerConfig {
        learning_rate: Positive::literal(0.05),
        max_grad_norm: NonNegative::literal(0.0),
        schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
        ..OptimizerConfig::default()
    }
}

/// INPO with constant η and τ.
pub(crate) fn inpo(eta: f64, tau: f64) -> Method {
    Method::Inpo {
        eta: Positive::literal(eta),
        tau: Some(NonNegative::literal(tau)),
        schedule: EtaSchedule::Constant,
        loss_scaling: false,
    }
}

/// A run put together.
pub(crate) fn run(oracle: impl Preference + 'static, config: SelfPlayConfig) -> SelfPlay<PrefixLm> {
    SelfPlay::new(parts(oracle), config).expect("a run")
}
