//! What matching divergences is good for: drawn logits, small trained networks, and several experts at once.
//!
//! `cargo test -p align-fusion --test experiments -- --nocapture`; the whole table over twenty seeds with `--ignored` too.

#[path = "experiments/mlp.rs"]
mod mlp;

use align_core::{Draws, draws::Purpose};
use align_fusion::tilt::Tilt;
use align_fusion::{DynamicConfig, Objective, Row, Search, Weighing};
use mlp::{Example, Mlp, Training};

fn fixed(weights: &[f64]) -> Weighing {
    Weighing::Static { weights: weights.to_vec() }
}

fn fuse(weighing: &Weighing, base: &[f32], anchor: &[f32], experts: &[&[f32]]) -> Vec<f32> {
    let mut out = vec![0.0; base.len()];
    weighing.weigh(Row { base, anchor, experts }, &mut out).expect("finite scores");
    out
}

/// Experiment A: KL of the true tuned distribution from the fused one, mean of `count` drawn rows.
fn divergences_from_truth(weighings: &[Weighing], sharpness: &[f64], seed: u64, count: u64) -> Vec<f64> {
    let draws = Draws::new(seed);
    let mut sums = vec![0.0; weighings.len()];
    for index in 0..count {
        let normal = |list: u64| move |token: u64| draws.normal(Purpose::Synthesize, 3 * index + list, token);
        let pick = draws.token(Purpose::Sample, 0, index, 0, 0) * sharpness.len() as f64;
        let c = sharpness[pick as usize];
        let (m, d, e) = (normal(0), normal(1), normal(2));
        let row = |score: &dyn Fn(u64) -> f64| (0..50).map(|token| score(token) as f32).collect::<Vec<_>>();
        let anchor = row(&|i| 1.5 * m(i));
        let expert = row(&|i| 1.5 * m(i) + d(i));
        let base = row(&|i| c * (1.5 * m(i) + 0.5 * e(i)));
        let truth = row(&|i| c * (1.5 * m(i) + d(i) + 0.5 * e(i)));
        // A static weight of 0 leaves the base: here a log-softmax of the truth.
        let truth = fuse(&fixed(&[0.0]), &truth, &truth, &[&truth]);
        for (sum, weighing) in sums.iter_mut().zip(weighings) {
            let fused = fuse(weighing, &base, &anchor, &[&expert]);
            let kl = |(&p, &q): (&f32, &f32)| f64::from(p).exp() * (f64::from(p) - f64::from(q));
            *sum += truth.iter().zip(&fused).map(kl).sum::<f64>();
        }
    }
    sums.into_iter().map(|sum| sum / count as f64).collect()
}

#[test]
fn where_the_size_of_the_shift_differs_matching_beats_every_constant() {
    let weighings = [Weighing::default(), fixed(&[0.5]), fixed(&[1.0]), fixed(&[1.5])];
    for seed in 0..3 {
        let [dynamic, constants @ ..] = &divergences_from_truth(&weighings, &[0.5, 1.0, 2.0], seed, 2000)[..]
        else {
            unreachable!()
        };
        println!("A, seed {seed}: dynamic {dynamic:.3}; 0.5, 1, 1.5: {constants:.3?}");
        let best = constants.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(*dynamic <= 0.85 * best, "{dynamic} {best}");
        // With one sharpness weight 1 is exact, and adapting costs next to nothing.
        let same = divergences_from_truth(&[Weighing::default(), fixed(&[1.0])], &[1.0], seed, 2000);
        println!("A, seed {seed}, one sharpness: dynamic {:.4}, weight 1 {:.1e}", same[0], same[1]);
        assert!(same[0] <= 0.005 && same[1] < 1e-6, "{same:?}");
    }
}

const TASKS: usize = 3;
const RANGE: usize = 11;
/// Eleven answers, then chatter, then the marker that precedes an answer.
const CHATTER: usize = 11;
const MARKER: usize = 12;
const VOCABULARY: usize = 13;
/// Task, x, y, and whether the marker has been said.
const INPUTS: usize = TASKS + 2 * RANGE + 2;

/// Facts, and the pairs each task is tuned on.
struct World {
    facts: Vec<usize>,
    tuned: Vec<Vec<bool>>,
}

impl World {
    fn new(draws: &Draws) -> Self {
        let uniform = |list: u64, i: usize| draws.token(Purpose::Synthesize, list, i as u64, 0, 0);
        let facts = (0..RANGE * RANGE).map(|i| (uniform(0, i) * RANGE as f64) as usize).collect();
        let tuned = (0..TASKS).map(|task| {
            let mut order: Vec<usize> = (0..RANGE * RANGE).collect();
            order.sort_by(|&i, &j| uniform(1 + task as u64, i).total_cmp(&uniform(1 + task as u64, j)));
            let mut tuned = vec![false; RANGE * RANGE];
            order[..60].iter().for_each(|&pair| tuned[pair] = true);
            tuned
        });
        Self { facts, tuned: tuned.collect() }
    }

    fn answer(&self, task: usize, pair: usize) -> usize {
        let (x, y) = (pair / RANGE, pair % RANGE);
        match task {
            0 => (x + y) % RANGE,
            1 => self.facts[pair],
            _ => x.max(y),
        }
    }

    fn inputs(task: usize, pair: usize, marked: bool) -> Vec<usize> {
        vec![
            task,
            TASKS + pair / RANGE,
            TASKS + RANGE + pair % RANGE,
            TASKS + 2 * RANGE + usize::from(marked),
        ]
    }

    /// Both steps of some pairs of a task: chatter or the marker, then an answer that is right with probability `right`.
    fn examples(&self, task: usize, chatter: f32, right: f32, among: impl Fn(usize) -> bool) -> Vec<Example> {
        let pairs = (0..RANGE * RANGE).filter(|&pair| among(pair));
        let both = pairs.flat_map(|pair| {
            let mut opening = vec![0.0; VOCABULARY];
            (opening[CHATTER], opening[MARKER]) = (chatter, 1.0 - chatter);
            let mut answer = vec![0.0; VOCABULARY];
            answer[..RANGE].fill((1.0 - right) / (RANGE - 1) as f32);
            answer[self.answer(task, pair)] = right;
            [(false, opening), (true, answer)]
                .map(|(marked, target)| Example { inputs: Self::inputs(task, pair, marked), target })
        });
        both.collect()
    }
}

/// Everything trained for one seed; experts and ceilings by task.
struct Models {
    world: World,
    large: Mlp,
    small: Mlp,
    experts: Vec<Mlp>,
    tuned: Vec<Mlp>,
}

impl Models {
    fn train(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let world = World::new(&draws);
        let corpus: Vec<Example> = [0.7, 0.9, 0.97]
            .into_iter()
            .enumerate()
            .flat_map(|(task, chatter)| world.examples(task, chatter, 0.85, |_| true))
            .collect();
        let pretrained = |sizes: &[usize], learning_rate: f32, part: u64| {
            let draws = draws.child(part);
            let mut model = Mlp::new(sizes, &draws);
            let training = Training { steps: 1500, learning_rate, batch: Some(256) };
            model.train(&corpus, &training, &draws);
            model
        };
        let large = pretrained(&[INPUTS, 96, 96, VOCABULARY], 1e-2, 1);
        let small = pretrained(&[INPUTS, 10, VOCABULARY], 2e-2, 2);
        let tune = |start: &Mlp, learning_rate: f32| -> Vec<Mlp> {
            let tasks = (0..TASKS).map(|task| {
                let examples = world.examples(task, 0.1, 0.98, |pair| world.tuned[task][pair]);
                let mut model = start.clone();
                let training = Training { steps: 300, learning_rate, batch: None };
                model.train(&examples, &training, &draws);
                model
            });
            tasks.collect()
        };
        let (experts, tuned) = (tune(&small, 3e-3), tune(&large, 1e-3));
        Self { world, large, small, experts, tuned }
    }

    /// Exact match and NLL of marker and answer on held-out pairs, mean over tasks; `log_probs` of task and inputs.
    fn evaluate(&self, log_probs: impl Fn(usize, &[usize]) -> Vec<f32>) -> Score {
        let mut score = Score { exact: 0.0, nll: 0.0 };
        for task in 0..TASKS {
            let held_out: Vec<usize> =
                (0..RANGE * RANGE).filter(|&pair| !self.world.tuned[task][pair]).collect();
            let share = 1.0 / (TASKS * held_out.len()) as f64;
            for pair in held_out {
                let wanted = [MARKER, self.world.answer(task, pair)];
                let rows = [false, true].map(|marked| log_probs(task, &World::inputs(task, pair, marked)));
                let best = |row: &[f32]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j]));
                let exact = rows.iter().zip(wanted).all(|(row, token)| best(row) == Some(token));
                score.exact += share * f64::from(u8::from(exact));
                score.nll -=
                    share * rows.iter().zip(wanted).map(|(row, token)| f64::from(row[token])).sum::<f64>();
            }
        }
        score
    }

    fn alone<'m>(&self, model: impl Fn(usize) -> &'m Mlp) -> Score {
        self.evaluate(|task, inputs| {
            let scores = model(task).scores(inputs);
            fuse(&fixed(&[0.0]), &scores, &scores, &[&scores])
        })
    }

    /// Every task fused with its own expert.
    fn with_expert(&self, weighing: &Weighing) -> Score {
        self.with_changed_expert(weighing, |expert, _| expert.to_vec())
    }

    /// The same with an expert made of the expert and the small base.
    fn with_changed_expert(&self, weighing: &Weighing, change: impl Fn(&[f32], &[f32]) -> Vec<f32>) -> Score {
        self.evaluate(|task, inputs| {
            let (base, anchor) = (self.large.scores(inputs), self.small.scores(inputs));
            fuse(weighing, &base, &anchor, &[&change(&self.experts[task].scores(inputs), &anchor)])
        })
    }

    /// Every task fused with all experts, whose is which unknown.
    fn with_all(&self, weighing: &Weighing) -> Score {
        self.evaluate(|_, inputs| {
            let experts: Vec<Vec<f32>> = self.experts.iter().map(|expert| expert.scores(inputs)).collect();
            let experts: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            fuse(weighing, &self.large.scores(inputs), &self.small.scores(inputs), &experts)
        })
    }

    /// Weights of the tasks' own experts at both steps, and the share of answers at the upper bound.
    fn weights(&self) -> [Vec<f64>; 2] {
        let mut weights = [Vec::new(), Vec::new()];
        for task in 0..TASKS {
            for pair in (0..RANGE * RANGE).filter(|&pair| !self.world.tuned[task][pair]) {
                for (marked, weights) in [false, true].into_iter().zip(&mut weights) {
                    let inputs = World::inputs(task, pair, marked);
                    let (base, anchor) = (self.large.scores(&inputs), self.small.scores(&inputs));
                    let expert = self.experts[task].scores(&inputs);
                    let row = Row { base: &base, anchor: &anchor, experts: &[&expert] };
                    let step = Weighing::default().weigh(row, &mut [0.0; VOCABULARY]).expect("finite scores");
                    weights.push(step.weights[0]);
                }
            }
        }
        weights
    }
}

#[derive(Clone, Copy, Debug)]
struct Score {
    exact: f64,
    nll: f64,
}

/// Trains for each seed, on as many threads as there are processors, and keeps what is made of it.
fn for_seeds<T: Send>(seeds: std::ops::Range<u64>, of: impl Fn(&Models) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let (seeds, of) = (seeds.clone(), &of);
                scope.spawn(move || {
                    let mine = seeds.filter(|seed| seed % threads == first);
                    mine.map(|seed| (seed, of(&Models::train(seed)))).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("trained")).collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values.iter().copied());
    (values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// A row of scores as if its columns stood for other tokens.
fn permuted(scores: &[f32]) -> Vec<f32> {
    (0..scores.len()).map(|token| scores[(token + 5) % scores.len()]).collect()
}

#[test]
fn small_experts_make_a_large_base_say_what_it_knows() {
    let grid = Weighing::Dynamic(DynamicConfig { search: Search::Grid, ..DynamicConfig::default() });
    let rows = for_seeds(100..108, |models| {
        let scores = [
            models.alone(|_| &models.large),
            models.alone(|task| &models.experts[task]),
            models.alone(|task| &models.tuned[task]),
            models.with_expert(&fixed(&[0.5])),
            models.with_expert(&fixed(&[1.0])),
            models.with_expert(&fixed(&[1.5])),
            models.with_expert(&grid),
            models.with_expert(&Weighing::default()),
            // Controls: an expert that did not move, and one that speaks of other tokens.
            models.with_changed_expert(&grid, |_, anchor| anchor.to_vec()),
            models.with_changed_expert(&grid, |expert, _| permuted(expert)),
            // Experiment C: all experts at once.
            models.with_all(&fixed(&[1.0; TASKS])),
            models.with_all(&fixed(&[1.0 / TASKS as f64; TASKS])),
            models.with_all(&grid),
        ];
        scores.map(|score| score.exact)
    });
    let [base, expert, tuned, half, one, more, dynamic, refined, unmoved, scrambled, sum, share, any] =
        std::array::from_fn(|method| mean(rows.iter().map(|row| row[method])));
    println!(
        "B: base {base:.3}, expert {expert:.3}, tuned {tuned:.3}; 0.5, 1, 1.5: {half:.3} {one:.3} {more:.3}"
    );
    println!("   grid {dynamic:.3}, refined {refined:.3}; unmoved {unmoved:.3}, permuted {scrambled:.3}");
    println!("C: all with 1: {sum:.3}, with 1/3: {share:.3}, one a step: {any:.3}");
    let won = rows.iter().filter(|row| row[6] > row[4]).count();
    assert!(base <= 0.02 && expert <= 0.6 && tuned >= 0.97);
    for found in [dynamic, refined] {
        assert!((found - base) / (tuned - base) >= 0.90, "gap closed");
        assert!(found - expert >= 0.3 && found - one >= 0.01);
        assert!(found > half && found > one && found > more);
    }
    assert!(10 * won >= 7 * rows.len(), "{won} seeds won");
    assert!((unmoved - base).abs() < 1e-12 && scrambled < 0.2);
    assert!(any >= sum + 0.1 && any >= one - 0.02);
}

#[test]
#[ignore = "the whole table over twenty seeds"]
fn the_table_of_experiment_b() {
    let with = |objective| Weighing::Dynamic(DynamicConfig { objective, ..DynamicConfig::default() });
    let grid = Weighing::Dynamic(DynamicConfig { search: Search::Grid, ..DynamicConfig::default() });
    let names = [
        "large base",
        "small base",
        "small expert",
        "large fine-tuned",
        "static 0.5",
        "static 1.0",
        "static 1.5",
        "dynamic, grid",
        "dynamic, refined",
        "forward term only",
        "reverse term only",
        "Jeffreys",
        "small-shift weight",
        "C: all, weight 1",
        "C: all, weight 1/3",
        "C: all, weight 0.5",
        "C: one a step",
        "C: expert 0 for all",
        "C: expert 1 for all",
        "C: expert 2 for all",
    ];
    let rows = for_seeds(0..20, |models| {
        let small_shift = models.evaluate(|task, inputs| {
            let (base, anchor) = (models.large.scores(inputs), models.small.scores(inputs));
            let expert = models.experts[task].scores(inputs);
            let tilt = Tilt::new(&base, &anchor, &expert);
            let weight = (tilt.target().sum() / tilt.moments(0.0).variance).sqrt().min(2.0);
            fuse(&fixed(&[weight]), &base, &anchor, &[&expert])
        });
        let only = |expert: usize| {
            let mut weights = [0.0; TASKS];
            weights[expert] = 1.0;
            models.with_all(&fixed(&weights))
        };
        let scores = [
            models.alone(|_| &models.large),
            models.alone(|_| &models.small),
            models.alone(|task| &models.experts[task]),
            models.alone(|task| &models.tuned[task]),
            models.with_expert(&fixed(&[0.5])),
            models.with_expert(&fixed(&[1.0])),
            models.with_expert(&fixed(&[1.5])),
            models.with_expert(&grid),
            models.with_expert(&with(Objective::Both)),
            models.with_expert(&with(Objective::Forward)),
            models.with_expert(&with(Objective::Reverse)),
            models.with_expert(&with(Objective::Jeffreys)),
            small_shift,
            models.with_all(&fixed(&[1.0; TASKS])),
            models.with_all(&fixed(&[1.0 / 3.0; TASKS])),
            models.with_all(&fixed(&[0.5; TASKS])),
            models.with_all(&Weighing::default()),
            only(0),
            only(1),
            only(2),
        ];
        (scores, models.weights())
    });
    println!("{:<22} {:>7} {:>7} {:>6}", "method", "exact", "(sd)", "NLL");
    for (method, name) in names.iter().enumerate() {
        let exact: Vec<f64> = rows.iter().map(|(scores, _)| scores[method].exact).collect();
        let nll = mean(rows.iter().map(|(scores, _)| scores[method].nll));
        println!("{name:<22} {:>7.3} {:>7.3} {nll:>6.2}", mean(exact.iter().copied()), deviation(&exact));
    }
    let gains: Vec<f64> = rows.iter().map(|(scores, _)| scores[7].exact - scores[5].exact).collect();
    let error = deviation(&gains) / (gains.len() as f64).sqrt();
    let won = gains.iter().filter(|gain| **gain > 0.0).count();
    println!(
        "grid − static 1.0: {:+.4} (standard error {error:.4}), {won} of 20 won",
        mean(gains.iter().copied())
    );
    for (step, name) in ["opening", "answer"].into_iter().enumerate() {
        let weights: Vec<f64> = rows.iter().flat_map(|(_, weights)| weights[step].iter().copied()).collect();
        let bound = weights.iter().filter(|weight| **weight == 2.0).count() as f64 / weights.len() as f64;
        let (centre, spread) = (mean(weights.iter().copied()), deviation(&weights));
        println!("weight at the {name}: {centre:.2} (sd {spread:.2}), at the bound {:.0} %", 100.0 * bound);
    }
    assert!(mean(gains.iter().copied()) > 3.0 * error);
}
