//! What does a step of data cleaning cost beside a plain training step of the same reward model, and what memory does it take?
//!
//! 50 000 pairs have a weight each; a step with T = 1 takes a batch of training and one of trusted pairs through the copy of the
//! model that minds the trusted pairs, the training batch through the copy that does not, and another training batch
//! forward through both. In units of plain steps that is about 3 + 2/3; the aim is at most 4 in all. The models are a
//! transformer of 0.4 M parameters, as in `recipes/clean-chat.toml`, and perceptrons whose plain steps take less than the
//! sums over 50 000 weights should.
//!
//! Rounds alternate between both kinds of steps, so that what else the machine does falls on both. Printed: time per plain
//! step, time per step of cleaning, and their ratio per round, median and range; then the peak of memory over a run for more
//! and more weights.
//!
//! `cargo bench --bench bilevel`

use std::num::NonZeroUsize;
use std::time::Instant;

use align::bilevel::alignment::{
    CleanConfig, Cleaning, ExampleSet, Examples, LinearWorldConfig, Margins, ModulePairs, Part, Weights,
};
use align::bilevel::{Batches, DoubleLoop, Oracle, Point, Solver, Stream};
use align::core::draws::{Draws, Purpose};
use align::data::PreferenceExample;
use align::data::collate::preference_pairs;
use align::models::{RewardModel, Transformer, TransformerConfig};
use align::reward::Scorer;
use align_kernels::tanh;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

const PAIRS: usize = 50_000;
const FEATURES: usize = 64;
const ROUNDS: usize = 15;
const VOCABULARY: usize = 2048;
/// Asks for the measurement of memory with so many weights, in a process of its own.
const COUNT: &str = "ALIGN_BENCH_WEIGHTS";

/// `r(x) = v · tanh(W₂ tanh(W₁ x))`.
#[derive(Module, Debug)]
struct Reward {
    first: Param<Tensor<2>>,
    second: Param<Tensor<2>>,
    last: Param<Tensor<2>>,
}

impl Reward {
    fn new(width: usize) -> Self {
        let draws = Draws::new(11);
        let normal = |list: u64, rows: usize, columns: usize| {
            let number = |i| (rows as f64).powf(-0.5) * draws.normal(Purpose::Initialize, list, i);
            let numbers: Vec<f32> = (0..(rows * columns) as u64).map(|i| number(i) as f32).collect();
            let data = TensorData::new(numbers, [rows, columns]);
            Param::from_tensor(Tensor::from_data(data, &Device::flex().autodiff()))
        };
        Self { first: normal(0, FEATURES, width), second: normal(1, width, width), last: normal(2, width, 1) }
    }
}

/// As many pairs as are asked for, by taking the rows over and over.
struct Pairs {
    differences: Tensor<2>,
    count: usize,
}

impl Pairs {
    fn of(rows: &[Vec<f64>], count: usize) -> Self {
        let numbers: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
        let data = TensorData::new(numbers, [rows.len(), FEATURES]);
        Self { differences: Tensor::from_data(data, &Device::flex()), count }
    }
}

impl Margins<Reward> for Pairs {
    fn count(&self) -> usize {
        self.count
    }

    fn margins(&self, model: &Reward, rows: &[usize]) -> Tensor<1> {
        let [distinct, _] = self.differences.dims();
        let index: Vec<i64> = rows.iter().map(|&row| (row % distinct) as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &Device::flex());
        let x = self.differences.clone().select(0, index);
        let hidden = tanh(tanh(x.matmul(model.first.val())).matmul(model.second.val()));
        hidden.matmul(model.last.val()).reshape([rows.len()])
    }
}

/// Made-up pairs of token rows: a prompt and two answers of 32 tokens each.
struct TokenPairs {
    count: usize,
}

impl Margins<RewardModel> for TokenPairs {
    fn count(&self) -> usize {
        self.count
    }

    fn margins(&self, model: &RewardModel, rows: &[usize]) -> Tensor<1> {
        let tokens = |row: usize, part: usize| -> Vec<u32> {
            (0..32).map(|at| ((row * 7919 + part * 15_485_863 + at * 104_729) % VOCABULARY) as u32).collect()
        };
        let pair = |&row: &usize| PreferenceExample {
            prompt: tokens(row, 0),
            chosen: tokens(row, 1),
            rejected: tokens(row, 2),
            margin: 0.0,
        };
        let pairs = preference_pairs(&rows.iter().map(pair).collect::<Vec<_>>(), &Device::flex());
        model.scores(&pairs.chosen) - model.scores(&pairs.rejected)
    }
}

fn main() {
    align_kernels::tune_allocator();
    if let Ok(count) = std::env::var(COUNT) {
        return memory(count.parse().expect("a number of weights"));
    }
    println!("{PAIRS} weights, {ROUNDS} rounds");
    let config = TransformerConfig {
        intermediate_size: 256,
        num_key_value_heads: 2,
        ..TransformerConfig::llama(VOCABULARY, 96, 3, 4)
    };
    let base = Transformer::init(&config, &Draws::new(1), &Device::flex().autodiff());
    let model = RewardModel::from_transformer(&base, &Draws::new(2));
    let pairs = ModulePairs::new(model, TokenPairs { count: PAIRS }, TokenPairs { count: 1000 });
    report("transformer of 0.4 M parameters", &cleaning(pairs, PAIRS), 16, 3);

    let world = LinearWorldConfig {
        features: FEATURES,
        training: PAIRS,
        trusted: 1000,
        test: 1,
        ..Default::default()
    };
    let world = world.draw();
    let perceptron = |width, count| {
        let (training, trusted) = (Pairs::of(&world.training, count), Pairs::of(&world.trusted, 1000));
        cleaning(ModulePairs::new(Reward::new(width), training, trusted), count)
    };
    for (width, batch) in [(128, 64), (128, 256), (512, 64)] {
        report(&format!("perceptron of width {width}"), &perceptron(width, PAIRS), batch, 40);
    }
    for count in [PAIRS, 4 * PAIRS, 16 * PAIRS] {
        let itself = std::env::current_exe().expect("this program");
        let status = std::process::Command::new(itself).env(COUNT, count.to_string()).status();
        assert!(status.expect("it runs").success());
    }
}

fn cleaning<M, T, V>(pairs: ModulePairs<M, T, V>, count: usize) -> Cleaning<ModulePairs<M, T, V>>
where
    M: Module + Sync,
    T: Margins<M>,
    V: Margins<M>,
{
    let ridge = 0.01.try_into().expect("a coefficient");
    Cleaning::new(pairs, Weights::per_example(count), ridge).expect("a problem")
}

/// One inner step for each of the weights, both on batches.
fn solver<E: Examples>(
    problem: &Cleaning<E>,
    start: E::Y,
    batch: NonZeroUsize,
    steps: u64,
) -> DoubleLoop<Vec<f64>, E::Y> {
    let config = CleanConfig {
        batch: Some(batch),
        outer_batch: Some(batch),
        inner_steps: NonZeroUsize::MIN,
        outer_steps: steps,
        ..CleanConfig::default()
    };
    let x = problem.weights().start();
    DoubleLoop::new(config.solver(problem), problem, x, start.clone(), start).expect("a solver")
}

fn report<M: Module + Sync, T: Margins<M>, V: Margins<M>>(
    name: &str,
    problem: &Cleaning<ModulePairs<M, T, V>>,
    batch: usize,
    steps: u64,
) {
    let batch = NonZeroUsize::new(batch).expect("a batch");
    let mut model = problem.examples().start();
    let mut solver = solver(problem, model.clone(), batch, (ROUNDS as u64 + 1) * steps);
    let oracle = Oracle::new(problem);
    let (batches, coefficients) = (Batches::new(3, Some(batch)), vec![1.0 / batch.get() as f64; batch.get()]);
    let mut times: Vec<[f64; 2]> = (0..=ROUNDS as u64)
        .map(|round| {
            let started = Instant::now();
            for step in 0..steps {
                let rows = batches.draw(Stream::InnerLower, round, step, PAIRS).rows.expect("a batch");
                let part = Part { set: ExampleSet::Training, rows: &rows, coefficients: &coefficients };
                model.add_scaled(-0.1, &problem.examples().gradient(&model, &[part]));
            }
            let plain = started.elapsed().as_secs_f64() / steps as f64;
            let started = Instant::now();
            for _ in 0..steps {
                solver.step(&oracle).expect("a step");
            }
            [plain, started.elapsed().as_secs_f64() / steps as f64]
        })
        .skip(1) // the first round fills caches and warms up the inner loop
        .collect();
    times.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    let ratio = |at: usize| times[at][1] / times[at][0];
    let [plain, cleaning] = times[ROUNDS / 2].map(|seconds| 1e3 * seconds);
    let (middle, least, most) = (ratio(ROUNDS / 2), ratio(0), ratio(ROUNDS - 1));
    println!(
        "{name}, batch {batch:3}: plain {plain:.3} ms, cleaning {cleaning:.3} ms, \
         ratio {middle:.2} ({least:.2} to {most:.2})"
    );
}

/// What 40 steps add to the peak of memory, in a process that has done nothing else. Printed on Linux alone.
fn memory(count: usize) {
    let peak = || align_testkit::memory("VmHWM");
    let rows = vec![vec![0.1; FEATURES]; 100];
    let pairs = ModulePairs::new(Reward::new(128), Pairs::of(&rows, count), Pairs::of(&rows, 1000));
    let problem = cleaning(pairs, count);
    let Some(before) = peak() else { return };
    let batch = NonZeroUsize::new(64).expect("a batch");
    let mut solver = solver(&problem, problem.examples().start(), batch, 40);
    let oracle = Oracle::new(&problem);
    for _ in 0..40 {
        solver.step(&oracle).expect("a step");
    }
    let added = peak().unwrap_or_default() - before;
    let each = added * f64::from(1 << 20) / count as f64;
    println!("{count:6} weights: {added:5.1} MiB more, {each:.0} bytes for each");
}
