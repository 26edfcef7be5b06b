//! One bilevel method on a problem that `bilevel.py` wrote, in a process of its own.
//!
//! `bilevel FOLDER METHOD STEPS` prints one line of JSON: where x ended, seconds, and the gradient calls. The problem is the
//! choice of one ridge weight per feature, in logarithms, for a logistic regression: `g = mean log(1 + exp(−b aᵀy)) + ½ Σ
//! exp(xⱼ) yⱼ²` over training rows, and f the mean loss on validation rows. The settings of every method are those that
//! `bilevel.py` gives the other side.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use align_bilevel::peers::{
    Bome, BomeConfig, F2sa, F2saConfig, Implicit, ImplicitConfig, Inverse, Multiplier, Power, Saba,
    SabaConfig, Sampling, Soba, SobaConfig, TableStart,
};
use align_bilevel::{
    BilevelError, Calls, Count, DoubleLoop, DoubleLoopConfig, Level, LevelBatches, Oracle, Problem, Sample,
    Schedule, Solver, run,
};
use align_core::number::{Finite, NonNegative, Positive};
use serde_json::{Value, json};

const USAGE: &str = "bilevel FOLDER (f2sa|bome|soba|saba|stocbio|double-loop) STEPS";
const BATCH: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// Rows of features, each already multiplied by its label.
struct Rows {
    width: usize,
    values: Vec<f64>,
}

impl Rows {
    fn read(path: &Path, width: usize) -> Self {
        let bytes = std::fs::read(path).expect("a file that bilevel.py wrote");
        let value = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Self { width, values: bytes.chunks_exact(8).map(value).collect() }
    }

    fn count(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..][..self.width]
    }

    /// The mean over a sample of `term(margin, row)`.
    fn mean(&self, y: &[f64], sample: &Sample, mut term: impl FnMut(f64, &[f64], f64)) {
        let mut visit = |row: &[f64], share: f64| {
            term(dot(row, y), row, share);
        };
        match &sample.rows {
            Some(rows) => {
                let share = 1.0 / rows.len() as f64;
                rows.iter().for_each(|&index| visit(self.row(index), share));
            }
            None => {
                let share = 1.0 / self.count() as f64;
                self.values.chunks_exact(self.width).for_each(|row| visit(row, share));
            }
        }
    }

    fn loss(&self, y: &[f64], sample: &Sample) -> f64 {
        let mut sum = 0.0;
        // log(1 + e^(−m)) = max(−m, 0) + log(1 + e^(−|m|))
        self.mean(y, sample, |margin, _, share| {
            sum += share * ((-margin).max(0.0) + (-margin.abs()).exp().ln_1p())
        });
        sum
    }

    fn slope(&self, y: &[f64], sample: &Sample) -> Vec<f64> {
        let mut slope = vec![0.0; self.width];
        self.mean(y, sample, |margin, row, share| {
            let pull = -share / (1.0 + margin.exp());
            slope.iter_mut().zip(row).for_each(|(slope, a)| *slope += pull * a);
        });
        slope
    }
}

/// In four sums, which the compiler may keep in one register.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (fours, rest) = a.as_chunks::<4>();
    let (other_fours, other_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in fours.iter().zip(other_fours) {
        (0..4).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    sums.iter().sum::<f64>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f64>()
}

struct Ridges {
    train: Rows,
    validation: Rows,
}

impl Ridges {
    fn rows(&self, level: Level) -> &Rows {
        match level {
            Level::Upper => &self.validation,
            Level::Lower => &self.train,
        }
    }
}

impl Problem for Ridges {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> f64 {
        let ridge = || x.iter().zip(y).map(|(x, y)| x.exp() * y * y / 2.0).sum::<f64>();
        self.rows(level).loss(y, sample) + if level == Level::Lower { ridge() } else { 0.0 }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0; x.len()],
            Level::Lower => x.iter().zip(y).map(|(x, y)| x.exp() * y * y / 2.0).collect(),
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        let mut slope = self.rows(level).slope(y, sample);
        if level == Level::Lower {
            slope.iter_mut().zip(x.iter().zip(y)).for_each(|(slope, (x, y))| *slope += x.exp() * y);
        }
        slope
    }

    fn lower_difference_x(&self, x: &Vec<f64>, y: &Vec<f64>, z: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        x.iter().zip(y.iter().zip(z)).map(|(x, (y, z))| x.exp() * (y - z) * (y + z) / 2.0).collect()
    }

    fn terms(&self, level: Level) -> usize {
        self.rows(level).count()
    }
}

fn main() {
    // `cargo bench` without arguments and `cargo test` come here too.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [folder, method, steps] = arguments.as_slice() else {
        return println!("{USAGE}");
    };
    let folder = Path::new(folder);
    let settings = std::fs::read_to_string(folder.join("settings.json")).expect("settings of bilevel.py");
    let settings: Value = serde_json::from_str(&settings).expect("settings in JSON");
    let width = settings["width"].as_u64().expect("a width") as usize;
    let problem = Ridges {
        train: Rows::read(&folder.join("train.f64"), width),
        validation: Rows::read(&folder.join("validation.f64"), width),
    };
    let x = vec![settings["start"].as_f64().expect("a start"); width];
    let mut solver = solver(method, &settings[method.as_str()], &problem, x, vec![0.0; width]);
    let steps = steps.parse().expect(USAGE);
    let begun = Instant::now();
    let calls = go(solver.as_mut(), &problem, steps).expect("a run without errors");
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", json!({ "x": solver.x(), "seconds": seconds, "calls": calls, "total": calls.total() }));
}

fn go(solver: &mut dyn Solver<Ridges>, problem: &Ridges, steps: u64) -> Result<Calls, BilevelError> {
    run(solver, &Oracle::new(problem), steps, |_, _, _| ControlFlow::Continue(()))
}

/// A method with the settings of the same name in the other side's words.
fn solver(
    method: &str,
    settings: &Value,
    problem: &Ridges,
    x: Vec<f64>,
    y: Vec<f64>,
) -> Box<dyn Solver<Ridges>> {
    let number = |name: &str| settings[name].as_f64().unwrap_or_else(|| panic!("{method} needs {name}"));
    let positive = |value| Positive::try_from(value).expect("a setting above 0");
    let count = |name: &str| NonZeroUsize::new(number(name) as usize).expect("a count");
    let law =
        |first: f64, exponent: f64| Power::new(positive(first), Finite::try_from(exponent).expect("finite"));
    let (inner, outer) = (number("step_size"), number("step_size") / number("outer_ratio"));
    let sampling = Sampling { seed: 1, upper: Some(BATCH), lower: Some(BATCH) };
    match method {
        "f2sa" => {
            let config = F2saConfig {
                inner_steps: count("n_inner_steps"),
                alpha: law(inner, -5.0 / 7.0),
                gamma: law(inner, -4.0 / 7.0),
                xi: law(outer / inner, 1.0 / 7.0),
                multiplier: Multiplier::Additive {
                    first: positive(number("lmbda0")),
                    increment: NonNegative::try_from(number("delta_lmbda")).expect("an increment"),
                    decay: NonNegative::try_from(1.0 / 7.0).expect("a seventh"),
                },
                momentum: None,
                constants: None,
                sampling,
            };
            Box::new(F2sa::new(config, x, y.clone(), y).expect("settings that fit"))
        }
        "bome" => {
            let config = BomeConfig {
                inner_steps: count("n_inner_steps"),
                inner_step: positive(inner),
                outer_step: positive(outer),
                joint_step: positive(inner),
                ..BomeConfig::default()
            };
            Box::new(Bome::new(config, x, y))
        }
        "soba" => {
            let config = SobaConfig { inner_step: law(inner, -0.5), outer_step: law(outer, -0.5), sampling };
            Box::new(Soba::new(config, x, y))
        }
        "saba" => {
            let [inner_step, outer_step] = [inner, outer].map(positive);
            let config = SabaConfig { inner_step, outer_step, start: TableStart::Zeros, sampling };
            Box::new(Saba::new(config, x, y))
        }
        "stocbio" => {
            let config = ImplicitConfig {
                inner_steps: count("n_inner_steps"),
                inner_step: positive(inner),
                outer_step: positive(outer),
                inverse: Inverse::NeumannSeries { products: count("n_shia_steps"), step: positive(inner) },
                sampling,
            };
            Box::new(Implicit::new(config, x, y))
        }
        "double-loop" => {
            let batch = LevelBatches::both(Count::constant(BATCH.get()));
            let decaying = |first| Schedule::Power { first, exponent: -0.5, offset: 100.0 };
            let config = DoubleLoopConfig {
                outer_steps: number("outer_steps") as u64,
                inner_steps: Count::constant(number("n_inner_steps") as usize),
                gamma: decaying(inner),
                alpha: decaying(outer),
                rho: number("rho"),
                inner_batch: batch,
                outer_batch: batch,
                ..DoubleLoopConfig::default()
            };
            Box::new(DoubleLoop::new(config, problem, x, y.clone(), y).expect("settings that fit"))
        }
        _ => panic!("{USAGE}"),
    }
}
