//! SOBA with tables of what every block of terms last said.

use std::num::NonZeroUsize;
use std::ops::Range;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use super::soba::{Directions, Triple, directions};
use super::steps::begin;
use crate::{Batches, BilevelError, Level, Oracle, Point, Problem, Sample, Solver, Step, Stream};

/// Settings of [`Saba`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SabaConfig {
    /// ρ, of y and v. Constant, as the theory of SABA has it; 0.1 as in the public benchmark.
    pub inner_step: Positive,
    /// Of x.
    pub outer_step: Positive,
    /// What the tables hold at first.
    pub start: TableStart,
    /// The seed, and how many terms make a block: one table entry each. One term by default.
    pub sampling: Sampling,
}

/// What the tables hold before a block was drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableStart {
    /// The gradients at the start, from one pass over all blocks; this is what the theory assumes.
    #[default]
    Pass,
    /// Zeros, as in the public benchmark: no pass, and a bias that fades once every block was drawn.
    Zeros,
}

impl Default for SabaConfig {
    fn default() -> Self {
        let step = Positive::literal(0.1);
        Self { inner_step: step, outer_step: step, start: TableStart::Pass, sampling: Sampling::default() }
    }
}

/// SABA: the steps of [`Soba`](super::Soba), with every gradient and product corrected as SAGA corrects gradients.
///
/// The terms of each level are cut into blocks. A step draws one block of each level, and every direction d is estimated by `m
/// w (dᵢ − d̃ᵢ) + d̄`: of m blocks, the i-th has the share w of the terms, d̃ᵢ is what it said when it was last drawn, and d̄
/// the mean over the table. On a finite sum the noise vanishes as the iterates settle, so step sizes can stay constant.
///
/// Memory: for each lower block two points like y and one like x, for each upper block one of each. One term a block, over 50 000
/// terms and 1000 parameters, is 0.8 GB in f64; larger blocks need fewer.
///
/// # Source
/// Dagréou, Ablin, Vaiter, Moreau 2022, <https://arxiv.org/abs/2201.13409>. Departures: products by differences of gradients,
/// see [`Curvature`](super::Curvature); projections; the factor m w, which is 1 there and keeps the estimate unbiased
/// where the last block is shorter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saba<X, Y> {
    config: SabaConfig,
    at: Triple<X, Y>,
    tables: Option<Tables<X, Y>>,
    iterations: u64,
}

/// `∇ᵧ g`, `∇²ᵧᵧ g · v` and `∇²ₓᵧ g · v` of the lower blocks; `∇ᵧ f` and `∇ₓ f` of the upper ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables<X, Y> {
    lower: (Table<Y>, Table<Y>, Table<X>),
    upper: (Table<Y>, Table<X>),
}

/// What each block last said, and the mean of that over all terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table<T> {
    entries: Vec<T>,
    mean: T,
}

impl<T: Point> Table<T> {
    fn zeros(like: &T, blocks: usize) -> Self {
        Self { entries: vec![like.zeros(); blocks], mean: like.zeros() }
    }

    /// Puts in what a block says now, and returns the corrected estimate of the whole.
    fn update(&mut self, block: &Block, now: T) -> T {
        let change = now.minus(&self.entries[block.index]);
        let estimate = self.mean.plus(block.share * self.entries.len() as f64, &change);
        self.mean.add_scaled(block.share, &change);
        self.entries[block.index] = now;
        estimate
    }
}

/// How the terms of a level are cut.
#[derive(Clone, Copy)]
struct Blocks {
    terms: usize,
    size: usize,
}

/// One of the blocks.
struct Block {
    index: usize,
    /// Of all terms.
    share: f64,
    sample: Sample,
}

impl Blocks {
    fn of<P: Problem>(problem: &P, level: Level, size: Option<NonZeroUsize>) -> Self {
        Self { terms: problem.terms(level), size: size.map_or(1, NonZeroUsize::get) }
    }

    fn count(self) -> usize {
        self.terms.div_ceil(self.size)
    }

    fn block(self, index: usize) -> Block {
        let rows: Range<usize> = index * self.size..((index + 1) * self.size).min(self.terms);
        let share = rows.len() as f64 / self.terms as f64;
        Block { index, share, sample: Sample::of(rows.collect()) }
    }

    /// A block drawn with equal chances.
    fn draw(self, seed: u64, stream: Stream, outer: u64) -> Block {
        let one = Batches::new(seed, Some(NonZeroUsize::MIN));
        let drawn = one.draw(stream, outer, 0, self.count()).rows.expect("a sample of one");
        self.block(drawn[0])
    }
}

impl<X: Point, Y: Point> Saba<X, Y> {
    /// From a start.
    pub fn new(config: SabaConfig, x: X, y: Y) -> Self {
        Self { config, at: Triple::new(x, y), tables: None, iterations: 0 }
    }

    /// The tables as they stand before the first step. A pass asks for `∇ᵧ g` of every lower block, and for two gradients of
    /// every upper one; the products are 0, as v is.
    fn first_tables<P: Problem<X = X, Y = Y>>(
        &self,
        oracle: &Oracle<'_, P>,
        lower: Blocks,
        upper: Blocks,
    ) -> Result<Tables<X, Y>, BilevelError> {
        let Triple { x, y, .. } = &self.at;
        let of_x = |blocks: Blocks| Table::zeros(x, blocks.count());
        let of_y = |blocks: Blocks| Table::zeros(y, blocks.count());
        let mut tables =
            Tables { lower: (of_y(lower), of_y(lower), of_x(lower)), upper: (of_y(upper), of_x(upper)) };
        if self.config.start == TableStart::Pass {
            for block in (0..lower.count()).map(|index| lower.block(index)) {
                let slope = oracle.gradient_y(Level::Lower, x, y, &block.sample)?;
                tables.lower.0.update(&block, slope);
            }
            for block in (0..upper.count()).map(|index| upper.block(index)) {
                let along_y = oracle.gradient_y(Level::Upper, x, y, &block.sample)?;
                tables.upper.0.update(&block, along_y);
                let along_x = oracle.gradient_x(Level::Upper, x, y, &block.sample)?;
                tables.upper.1.update(&block, along_x);
            }
        }
        Ok(tables)
    }
}

impl<P: Problem> Solver<P> for Saba<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (outer, problem) = (self.iterations, oracle.problem());
        let sampling = self.config.sampling;
        begin(oracle, &sampling, outer, &self.at.x, &self.at.y, None)?;
        let lower_blocks = Blocks::of(problem, Level::Lower, sampling.lower);
        let upper_blocks = Blocks::of(problem, Level::Upper, sampling.upper);
        let mut tables = match self.tables.take() {
            Some(tables) => tables,
            None => self.first_tables(oracle, lower_blocks, upper_blocks)?,
        };

        let lower = lower_blocks.draw(sampling.seed, Stream::OuterLower, outer);
        let upper = upper_blocks.draw(sampling.seed, Stream::OuterUpper, outer);
        let Triple { x, y, v } = &self.at;
        let now = directions(oracle, (x, y, v), &upper.sample, &lower.sample)?;
        let along = Directions {
            lower: (
                tables.lower.0.update(&lower, now.lower.0),
                tables.lower.1.update(&lower, now.lower.1),
                tables.lower.2.update(&lower, now.lower.2),
            ),
            upper: (tables.upper.0.update(&upper, now.upper.0), tables.upper.1.update(&upper, now.upper.1)),
        };
        self.tables = Some(tables);
        let [rho, alpha] = [self.config.inner_step, self.config.outer_step].map(Positive::get);
        let step = self.at.advance(problem, along, rho, alpha, outer)?;
        self.iterations += 1;
        Ok(step)
    }

    fn x(&self) -> &P::X {
        &self.at.x
    }

    fn y(&self) -> &P::Y {
        &self.at.y
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
