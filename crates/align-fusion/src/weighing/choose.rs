//! Weights for tilts: fixed ones measured, or matched ones searched.

use crate::matching::{Fit, Objective, Problem, solve_jointly};
use crate::tilt::{Direction, Movement, Tilt};

use super::{DynamicConfig, Experts, Step, Targets};

/// The given weights, and A there.
pub(super) fn fixed(tilts: &[Tilt<'_>], weights: &[f64]) -> (Step, f64) {
    let at = Direction { tilts, weights }.moments(1.0, 0.0);
    let target = mean_target(tilts);
    let moved = at.movement();
    let step = step(weights.to_vec(), only(tilts), moved, target, Objective::Both.loss(moved, target));
    (step, at.log_partition)
}

/// The weights of least loss, and A there.
pub(super) fn matched(tilts: &[Tilt<'_>], config: &DynamicConfig) -> (Step, f64) {
    let mean = mean_target(tilts);
    let moves = |target: Movement| target.sum() >= config.skip_below.get();
    match config.targets {
        Targets::Mean if !moves(mean) => skip(tilts, config, mean),
        Targets::Mean => match config.experts {
            Experts::OneAtATime => {
                let experts = tilts.iter().enumerate().map(|(t, tilt)| (t, tilt, mean));
                one_at_a_time(tilts.len(), experts, config).expect("there is an expert")
            }
            Experts::Joint => jointly(tilts, mean, config),
        },
        Targets::Own => {
            let experts = tilts.iter().enumerate().map(|(t, tilt)| (t, tilt, tilt.target()));
            let moving = experts.filter(|(_, _, target)| moves(*target));
            one_at_a_time(tilts.len(), moving, config).unwrap_or_else(|| skip(tilts, config, mean))
        }
    }
}

/// The expert with the least loss, of equal ones the first; none if none is given.
fn one_at_a_time<'t, 'a: 't>(
    count: usize,
    experts: impl Iterator<Item = (usize, &'t Tilt<'a>, Movement)>,
    config: &DynamicConfig,
) -> Option<(Step, f64)> {
    let mut best: Option<(usize, Movement, Fit)> = None;
    for (expert, tilt, target) in experts {
        let candidates = config.candidates(expert);
        let found = Problem { tilt, candidates, target, objective: config.objective }.solve(config.search);
        if best.is_none_or(|(_, _, best)| found.loss < best.loss) {
            best = Some((expert, target, found));
        }
    }
    let (expert, target, found) = best?;
    let mut weights = vec![0.0; count];
    weights[expert] = found.alpha;
    let step = step(weights, Some(expert), found.moved, target, found.loss);
    Some((Step { saturated: found.saturated, ..step }, found.log_partition))
}

fn jointly(tilts: &[Tilt<'_>], target: Movement, config: &DynamicConfig) -> (Step, f64) {
    let candidates = [config.candidates(0), config.candidates(1)];
    let found = solve_jointly(tilts, candidates.each_ref(), target, config.search);
    let step = step(found.weights.to_vec(), None, found.moved, target, found.loss);
    (Step { saturated: found.saturated, ..step }, found.log_partition)
}

/// The first expert at weight 1, or as near as its range allows.
fn skip(tilts: &[Tilt<'_>], config: &DynamicConfig, target: Movement) -> (Step, f64) {
    let bounds = config.bounds(0);
    let at = tilts[0].moments(1.0f64.clamp(bounds.lower.get(), bounds.upper.get()));
    let mut weights = vec![0.0; tilts.len()];
    weights[0] = at.alpha;
    let moved = at.movement();
    let step = step(weights, Some(0), moved, target, config.objective.loss(moved, target));
    (Step { skipped: true, ..step }, at.log_partition)
}

fn mean_target(tilts: &[Tilt<'_>]) -> Movement {
    Movement::mean(tilts.iter().map(Tilt::target))
}

/// The expert, where there is but one.
fn only(tilts: &[Tilt<'_>]) -> Option<usize> {
    (tilts.len() == 1).then_some(0)
}

fn step(weights: Vec<f64>, expert: Option<usize>, moved: Movement, target: Movement, loss: f64) -> Step {
    Step {
        weights,
        expert,
        forward: moved.forward,
        reverse: moved.reverse,
        target_forward: target.forward,
        target_reverse: target.reverse,
        loss,
        saturated: false,
        skipped: false,
    }
}
