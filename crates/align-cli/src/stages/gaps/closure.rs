//! Closures and ratios of all arms, from the figures of comparisons.

use std::collections::BTreeSet;

use align_reward::overoptimization::Band;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Figures;
use crate::recipe::gaps::{GapMetric, GapsStage};

/// Closures of all arms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Gaps {
    /// Which figure of the comparisons.
    pub(crate) metric: GapMetric,
    /// The arm at which nothing is closed.
    pub(crate) floor: String,
    /// The arm at which everything is closed.
    pub(crate) ceiling: String,
    /// A gap below this is not divided by.
    pub(crate) smallest: f64,
    /// The seeds, if there were several.
    pub(crate) seeds: Vec<Option<u64>>,
    /// What is averaged.
    pub(crate) tasks: Vec<TaskGaps>,
    /// What is not.
    pub(crate) unseen: Vec<TaskGaps>,
    /// Averages over tasks, arm by arm: floor, arms, ceiling.
    pub(crate) averages: Vec<Average>,
}

/// The arms on one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TaskGaps {
    /// The task.
    pub(crate) task: String,
    /// How much better the ceiling is than the floor.
    pub(crate) gap: Over,
    /// Why nothing is divided by that gap, if nothing is.
    pub(crate) undivided: Option<String>,
    /// Floor, arms, ceiling.
    pub(crate) arms: Vec<ArmGap>,
}

/// An arm on a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ArmGap {
    /// The arm.
    pub(crate) arm: String,
    /// Its figure.
    pub(crate) figure: Over,
    /// The share of the gap it closes; none of a gap that is not divided by.
    pub(crate) closure: Option<Over>,
}

/// An arm over tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Average {
    /// The arm.
    pub(crate) arm: String,
    /// Its figure, averaged over all tasks.
    pub(crate) figure: Over,
    /// Closures, averaged over the tasks that have one.
    pub(crate) closure: Option<Over>,
    /// The published ratio of averages; none of figures of which less is better.
    pub(crate) ratio: Option<Over>,
}

/// A number over seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Over {
    /// By seed.
    pub(crate) seeds: Vec<f64>,
    /// Its mean with a 95 % interval.
    pub(crate) band: Band,
}

impl Over {
    pub(super) fn of(seeds: Vec<f64>) -> Self {
        Self { band: Band::of(&seeds), seeds }
    }

    /// Seed by seed.
    fn with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self::of(self.seeds.iter().zip(&other.seeds).map(|(a, b)| f(*a, *b)).collect())
    }

    /// The mean of several, seed by seed; `None` of none.
    fn mean<'a>(all: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let all: Vec<&Self> = all.collect();
        let first = all.first()?;
        let mean = |seed: usize| all.iter().map(|over| over.seeds[seed]).sum::<f64>() / all.len() as f64;
        Some(Self::of((0..first.seeds.len()).map(mean).collect()))
    }
}

impl Gaps {
    pub(super) fn of(
        stage: &GapsStage,
        tasks: &[(String, Figures)],
        unseen: &[(String, Figures)],
    ) -> Result<Self> {
        let everywhere = || tasks.iter().chain(unseen);
        let between: Vec<String> = match stage.arms.is_empty() {
            false => stage.arms.clone(),
            // What every comparison has.
            true => {
                let first = tasks.first().map(|(_, figures)| figures.0.as_slice()).unwrap_or_default();
                let in_all = |arm: &str| everywhere().all(|(_, figures)| figures.arm(arm).is_ok());
                let named = first.iter().map(|(arm, _)| arm.clone());
                named.filter(|arm| *arm != stage.floor && *arm != stage.ceiling && in_all(arm)).collect()
            }
        };
        let mut arms = vec![stage.floor.clone()];
        arms.extend(between);
        arms.push(stage.ceiling.clone());
        let mut seeds = BTreeSet::new();
        for (task, figures) in everywhere() {
            seeds.extend(figures.seeds(&arms).with_context(|| format!("task `{task}`"))?);
        }
        // A model without a seed beside others with seeds stands for all of them.
        if seeds.len() > 1 {
            seeds.remove(&None);
        }
        let seeds: Vec<Option<u64>> = seeds.into_iter().collect();
        let all = |tasks: &[(String, Figures)]| -> Result<Vec<TaskGaps>> {
            let one = |(task, figures): &(String, Figures)| {
                TaskGaps::of(stage, task, figures, &arms, &seeds).with_context(|| format!("task `{task}`"))
            };
            tasks.iter().map(one).collect()
        };
        let (tasks, unseen) = (all(tasks)?, all(unseen)?);
        let averages = averages(stage.metric, &tasks);
        Ok(Self {
            metric: stage.metric,
            floor: stage.floor.clone(),
            ceiling: stage.ceiling.clone(),
            smallest: stage.smallest.get(),
            seeds,
            tasks,
            unseen,
            averages,
        })
    }
}

impl TaskGaps {
    fn of(
        stage: &GapsStage,
        task: &str,
        figures: &Figures,
        arms: &[String],
        seeds: &[Option<u64>],
    ) -> Result<Self> {
        let sign = if stage.metric.lower_is_better() { -1.0 } else { 1.0 };
        let floor = figures.over(&stage.floor, seeds)?;
        let gap =
            figures.over(&stage.ceiling, seeds)?.with(&floor, |ceiling, floor| sign * (ceiling - floor));
        let narrowest = gap.seeds.iter().copied().fold(f64::INFINITY, f64::min);
        let undivided = (narrowest < stage.smallest.get()).then(|| {
            format!(
                "{task}: the gap from `{}` to `{}` is {narrowest:.3}{}, below {}: it is not divided by",
                stage.floor,
                stage.ceiling,
                if seeds.len() > 1 { " for one seed" } else { "" },
                stage.smallest
            )
        });
        let one = |arm: &String| {
            let figure = figures.over(arm, seeds)?;
            let risen = figure.with(&floor, |figure, floor| sign * (figure - floor));
            let closure = undivided.is_none().then(|| risen.with(&gap, |risen, gap| risen / gap));
            Ok(ArmGap { arm: arm.clone(), figure, closure })
        };
        let arms = arms.iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Self { task: task.to_owned(), gap, undivided, arms })
    }

    /// The arm at a place, the same in all tasks.
    pub(crate) fn arm(&self, at: usize) -> &ArmGap {
        &self.arms[at]
    }
}

/// Averages over tasks within a seed: all tasks have the same arms in one order.
fn averages(metric: GapMetric, tasks: &[TaskGaps]) -> Vec<Average> {
    let Some(first) = tasks.first() else { return Vec::new() };
    let figure = |at: usize| Over::mean(tasks.iter().map(move |task| &task.arm(at).figure));
    let Some(ceiling) = figure(first.arms.len() - 1) else { return Vec::new() };
    let one = |(at, arm): (usize, &ArmGap)| {
        let figure = figure(at)?;
        let ratio = (!metric.lower_is_better()).then(|| figure.with(&ceiling, |arm, ceiling| arm / ceiling));
        let closure = Over::mean(tasks.iter().filter_map(|task| task.arm(at).closure.as_ref()));
        // A ceiling of 0 has no ratio, and JSON no number for it.
        let ratio = ratio.filter(|ratio| ratio.seeds.iter().all(|seed| seed.is_finite()));
        Some(Average { arm: arm.arm.clone(), figure, closure, ratio })
    };
    first.arms.iter().enumerate().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use align_core::number::Positive;
    use toml::Table;

    fn stage(metric: GapMetric, arms: &[&str]) -> GapsStage {
        GapsStage {
            tasks: Table::new(),
            unseen: Table::new(),
            metric,
            floor: "base".into(),
            ceiling: "tuned".into(),
            arms: arms.iter().map(|&arm| arm.to_owned()).collect(),
            smallest: Positive::literal(0.05),
        }
    }

    /// An arm's name, and its figures by seed; `None` for a model that is the same for all seeds.
    type Row<'a> = (&'a str, &'a [(Option<u64>, f64)]);

    fn task(name: &str, arms: &[Row<'_>]) -> (String, Figures) {
        let arms = arms.iter().map(|(arm, seeds)| ((*arm).to_owned(), seeds.iter().copied().collect()));
        (name.to_owned(), Figures(arms.collect()))
    }

    fn mean(over: &Option<Over>) -> f64 {
        over.as_ref().unwrap().band.mean
    }

    #[test]
    fn the_published_table_closes_less_than_its_headline_says() {
        // Fan et al. 2024, table 1, experts of 7B: base, tuned, dynamic. Their 96.4 % are a ratio of averages (here of the rows
        // themselves, which the reported averages repeat); by task the closures are 0.8044, 0.9766, 1.0377, 0.9710 and 0.8819.
        let rows = [
            ("GSM8K", 6.90, 47.23, 39.34),
            ("TruthfulQA", 46.13, 61.93, 61.56),
            ("TriviaQA", 36.44, 56.36, 57.11),
            ("CNN/DM", 8.94, 15.50, 15.31),
            ("MMLU", 51.25, 57.94, 57.15),
        ];
        let tasks: Vec<(String, Figures)> = rows
            .iter()
            .map(|&(name, base, tuned, dynamic)| {
                task(
                    name,
                    &[
                        ("base", &[(None, base)]),
                        ("tuned", &[(None, tuned)]),
                        ("dynamic", &[(None, dynamic)]),
                    ],
                )
            })
            .collect();
        let gaps = Gaps::of(&stage(GapMetric::ExactMatch, &["dynamic"]), &tasks, &[]).unwrap();
        let [base, dynamic, tuned] = &gaps.averages[..] else { panic!("{:?}", gaps.averages) };
        assert!((mean(&dynamic.closure) - 0.9343).abs() < 1e-4, "{dynamic:?}");
        assert!((mean(&dynamic.ratio) - 230.47 / 238.96).abs() < 1e-9, "{dynamic:?}");
        assert_eq!((mean(&base.closure), mean(&tuned.closure), mean(&tuned.ratio)), (0.0, 1.0, 1.0));
        // The base alone has 62.6 % of the tuned model's performance, and closes nothing.
        assert!((mean(&base.ratio) - 149.66 / 238.96).abs() < 1e-9);
    }

    #[test]
    fn closures_are_computed_by_seed_and_task_before_they_are_averaged() {
        let seeds = |values: [f64; 2]| [(Some(0), values[0]), (Some(1), values[1])];
        let (base, tuned) = ([(None, 0.0)], seeds([1.0, 0.5]));
        let one = task("one", &[("base", &base), ("tuned", &tuned), ("fused", &seeds([0.5, 0.5]))]);
        let two = task(
            "two",
            &[("base", &seeds([0.2, 0.4])), ("tuned", &seeds([0.6, 0.6])), ("fused", &seeds([0.6, 0.4]))],
        );
        let gaps = Gaps::of(&stage(GapMetric::ExactMatch, &[]), &[one, two], &[]).unwrap();
        assert_eq!(gaps.seeds, [Some(0), Some(1)], "the base of task one stands for both");
        let closures = |task: usize| gaps.tasks[task].arm(1).closure.clone().unwrap().seeds;
        // (0.5 − 0)/(1 − 0), (0.5 − 0)/(0.5 − 0); (0.6 − 0.2)/0.4, (0.4 − 0.4)/0.2.
        for (found, expected) in closures(0).iter().chain(&closures(1)).zip([0.5, 1.0, 1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-12, "{gaps:?}");
        }
        let average = gaps.averages[1].closure.clone().unwrap().seeds;
        assert!((average[0] - 0.75).abs() < 1e-12 && (average[1] - 0.5).abs() < 1e-12, "{average:?}");
        // Ratios by seed: 0.55/0.8 and 0.45/0.55.
        let ratio = gaps.averages[1].ratio.clone().unwrap().seeds;
        assert!((ratio[0] - 0.6875).abs() < 1e-12 && (ratio[1] - 9.0 / 11.0).abs() < 1e-12, "{ratio:?}");
    }

    #[test]
    fn less_is_better_of_a_likelihood_and_has_no_ratio() {
        let one =
            task("t", &[("base", &[(None, 2.5)]), ("tuned", &[(None, 0.5)]), ("fused", &[(None, 1.0)])]);
        let gaps = Gaps::of(&stage(GapMetric::Nll, &[]), &[one], &[]).unwrap();
        assert_eq!(mean(&gaps.averages[1].closure), 0.75);
        assert_eq!(gaps.averages[1].ratio, None);
    }

    #[test]
    fn a_gap_that_is_too_small_is_said_and_not_divided_by() {
        let wide =
            || task("wide", &[("base", &[(None, 0.0)]), ("tuned", &[(None, 1.0)]), ("f", &[(None, 0.5)])]);
        for ceiling in [0.64, 0.5] {
            let arms = [("base", &[(None, 0.6)][..]), ("tuned", &[(None, ceiling)]), ("f", &[(None, 0.9)])];
            let gaps =
                Gaps::of(&stage(GapMetric::ExactMatch, &[]), &[task("narrow", &arms), wide()], &[]).unwrap();
            assert_eq!(gaps.tasks[0].arm(1).closure, None);
            let notes = gaps.notes();
            assert!(notes[0].contains("mean over 1 of 2 tasks"), "{notes:?}");
            assert!(notes[1].contains("narrow: the gap from `base` to `tuned` is"), "{notes:?}");
            assert_eq!(mean(&gaps.averages[1].closure), 0.5, "the other task alone");
            assert!(
                gaps.figure("f", "closure/narrow").unwrap_err().to_string().contains("is not divided by")
            );
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let one = || {
            task(
                "t",
                &[("base", &[(Some(0), 0.0)]), ("tuned", &[(Some(0), 1.0)]), ("fused", &[(Some(1), 1.0)])],
            )
        };
        let refused = |stage: GapsStage| format!("{:#}", Gaps::of(&stage, &[one()], &[]).unwrap_err());
        let message = refused(stage(GapMetric::ExactMatch, &["fusd"]));
        assert_eq!(message, "task `t`: no arm is called `fusd`; did you mean `fused`?");
        let message = refused(stage(GapMetric::ExactMatch, &[]));
        assert_eq!(message, "task `t`: arm `base` has no model of seed 1, which others have");
        let whole = task("t", &[("base", &[(None, 0.0)]), ("tuned", &[(None, 1.0)])]);
        let gaps = Gaps::of(&stage(GapMetric::ExactMatch, &[]), &[whole], &[]).unwrap();
        let message = gaps.figure("base", "closure/u").unwrap_err().to_string();
        assert!(message.contains("no figure is called `closure/u`; did you mean `closure/t`?"), "{message}");
        assert_eq!(gaps.figure("tuned", "exact_match/t").unwrap(), [1.0]);
    }
}
