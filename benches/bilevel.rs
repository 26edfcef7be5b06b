//! What does a step of data cleaning cost beside a plain training step of the same reward model?
//!
//! 50 000 pairs have a weight each; a step with T = 1 takes a batch of training and one of trusted pairs through the copy of the
//! model that minds the trusted pairs, the training batch through the copy that does not, and another training batch
//! forward through both. In units of plain steps that is about 3 + 2/3; the aim is at most 4 in all.
//!
//! Rounds alternate between both kinds of steps, so that what else the machine does falls on both. Printed: time per plain
//! step, time per step of cleaning, and their ratio per round, median and range.
//!
//! `cargo bench --bench bilevel`

use std::num::NonZeroUsize;
use std::time::Instant;

use align::bilevel::alignment::{
    CleanConfig, Cleaning, ExampleSet, Examples, LinearWorldConfig, Margins, ModulePairs, Part, Weights,
};
use align::bilevel::{Batches, DoubleLoop, Oracle, Point, Solver, Stream};
use align::core::draws::{Draws, Purpose};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

const PAIRS: usize = 50_000;
const FEATURES: usize = 64;
const ROUNDS: usize = 15;
const STEPS: u64 = 40;

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

struct Pairs {
    differences: Tensor<2>,
}

impl Pairs {
    fn of(rows: &[Vec<f64>]) -> Self {
        let numbers: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
        let data = TensorData::new(numbers, [rows.len(), FEATURES]);
        Self { differences: Tensor::from_data(data, &Device::flex()) }
    }
}

impl Margins<Reward> for Pairs {
    fn count(&self) -> usize {
        self.differences.dims()[0]
    }

    fn margins(&self, model: &Reward, rows: &[usize]) -> Tensor<1> {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &Device::flex());
        let x = self.differences.clone().select(0, index);
        let hidden = x.matmul(model.first.val()).tanh().matmul(model.second.val()).tanh();
        hidden.matmul(model.last.val()).reshape([rows.len()])
    }
}

fn main() {
    align_kernels::tune_allocator();
    let world = LinearWorldConfig {
        features: FEATURES,
        training: PAIRS,
        trusted: 1000,
        test: 1,
        ..Default::default()
    };
    let world = world.draw();
    println!("{PAIRS} weights, {FEATURES} features, {ROUNDS} rounds of {STEPS} steps");
    for (width, batch) in [(128, 64), (128, 256), (512, 64)] {
        let pairs =
            ModulePairs::new(Reward::new(width), Pairs::of(&world.training), Pairs::of(&world.trusted));
        let ridge = 0.01.try_into().expect("a coefficient");
        let problem = Cleaning::new(pairs, Weights::per_example(PAIRS), ridge).expect("a problem");
        report(&problem, width, NonZeroUsize::new(batch).expect("a batch"));
    }
}

fn report(problem: &Cleaning<ModulePairs<Reward, Pairs, Pairs>>, width: usize, batch: NonZeroUsize) {
    let start = problem.examples().start();
    let config = CleanConfig {
        batch: Some(batch),
        inner_steps: NonZeroUsize::MIN,
        outer_steps: (ROUNDS as u64 + 1) * STEPS,
        ..CleanConfig::default()
    };
    let x = problem.weights().start();
    let mut solver =
        DoubleLoop::new(config.solver(problem), problem, x, start.clone(), start.clone()).expect("a solver");
    let oracle = Oracle::new(problem);
    let (batches, coefficients) = (Batches::new(3, Some(batch)), vec![1.0 / batch.get() as f64; batch.get()]);
    let mut model = start;
    let mut times: Vec<[f64; 2]> = (0..=ROUNDS as u64)
        .map(|round| {
            let started = Instant::now();
            for step in 0..STEPS {
                let rows = batches.draw(Stream::InnerLower, round, step, PAIRS).rows.expect("a batch");
                let part = Part { set: ExampleSet::Training, rows: &rows, coefficients: &coefficients };
                model.add_scaled(-0.1, &problem.examples().gradient(&model, &[part]));
            }
            let plain = started.elapsed().as_secs_f64() / STEPS as f64;
            let started = Instant::now();
            for _ in 0..STEPS {
                solver.step(&oracle).expect("a step");
            }
            [plain, started.elapsed().as_secs_f64() / STEPS as f64]
        })
        .skip(1) // the first round fills caches and warms up the inner loop
        .collect();
    times.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    let ratio = |at: usize| times[at][1] / times[at][0];
    let [plain, cleaning] = times[ROUNDS / 2].map(|seconds| 1e3 * seconds);
    let (middle, least, most) = (ratio(ROUNDS / 2), ratio(0), ratio(ROUNDS - 1));
    println!(
        "width {width:3}, batch {batch:3}: plain {plain:.3} ms, cleaning {cleaning:.3} ms, \
         ratio {middle:.2} ({least:.2} to {most:.2})"
    );
}
