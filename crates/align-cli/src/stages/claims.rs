//! Claims: figures of earlier stages against what was expected of them, printed as pass or fail.

use std::path::Path;

use align_reward::overoptimization::Band;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{read_json, write_json};
use crate::context::Context;
use crate::recipe::claims::{Bound, Claim, ClaimsStage, Figure, RelativeBound, Take};
use crate::recipe::parts::stage_reference;
use crate::recipe::source::nearest_of;
use crate::results::Run;
use crate::table::table;

/// The result's file in the stage's folder.
const RESULTS: &str = "claims.json";
/// What a training's gold reward is called in its log.
const GOLD: &str = "gold/score";
/// What is read off gaps unless something else is named.
const CLOSURE: &str = "closure";

/// What came of a stage's claims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdicts {
    pub(crate) claims: Vec<Verdict>,
}

/// What came of a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The claim in words.
    pub(crate) says: String,
    pub(crate) holds: bool,
    /// The figure of the mean curve.
    pub(crate) value: f64,
    /// The figure over seeds, a mean with its 95 % interval.
    pub(crate) band: Band,
    /// Over how many seeds.
    pub(crate) seeds: usize,
    /// `≥`, `≤`, `>` or `<`.
    pub(crate) relation: String,
    /// What it was compared with.
    pub(crate) bound: f64,
    /// Whether every seed had to hold by itself.
    pub(crate) every_seed: bool,
    /// The share of seeds that had to hold by themselves, and that of those that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share_of_seeds: Option<SeedShare>,
}

/// How many seeds hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SeedShare {
    pub(crate) expected: f64,
    pub(crate) found: f64,
}

pub(super) fn run(name: &str, stage: &ClaimsStage, folder: &Path, context: &Context) -> Result<Value> {
    let claims = stage
        .claim
        .iter()
        .map(|claim| {
            verdict(claim, context).with_context(|| format!("`{name}`: cannot judge “{}”", claim.says))
        })
        .collect::<Result<Vec<_>>>()?;
    let verdicts = Verdicts { claims };
    write_json(&folder.join(RESULTS), &verdicts)?;
    let (header, rows) = verdicts.rows();
    println!("\n{}\n{}", table(&header, rows), verdicts.note());
    let held = verdicts.claims.iter().filter(|claim| claim.holds).count();
    Ok(json!({ "hold": held, "of": verdicts.claims.len() }))
}

/// A figure of the mean curve, and of each seed's.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    value: f64,
    seeds: Vec<f64>,
}

impl Measured {
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { value: f(self.value), seeds: self.seeds.into_iter().map(&f).collect() }
    }
}

fn verdict(claim: &Claim, context: &Context) -> Result<Verdict> {
    type Holds = fn(&f64, &f64) -> bool;
    let relations: [(&str, &Option<Bound>, Holds); 4] = [
        ("≥", &claim.at_least, f64::ge),
        ("≤", &claim.at_most, f64::le),
        (">", &claim.above, f64::gt),
        ("<", &claim.below, f64::lt),
    ];
    let given: Vec<_> =
        relations.iter().filter_map(|(sign, bound, holds)| Some((sign, bound.as_ref()?, holds))).collect();
    let [(relation, bound, holds)] = given[..] else {
        bail!("expected one of `at_least`, `at_most`, `above` and `below`, found {}", given.len())
    };
    let figure = measure(&claim.figure, context)?;
    let bound = match bound {
        Bound::Number(number) => Measured { value: *number, seeds: vec![*number; figure.seeds.len()] },
        Bound::Figure(RelativeBound { than, times, plus }) => {
            measure(than, context)?.map(|value| times * value + plus)
        }
    };
    let by_seed = || -> Result<Vec<bool>> {
        if bound.seeds.len() != figure.seeds.len() {
            bail!(
                "one seed beside the other needs as many seeds on both sides, found {} and {}",
                figure.seeds.len(),
                bound.seeds.len()
            );
        }
        Ok(figure.seeds.iter().zip(&bound.seeds).map(|(a, b)| holds(a, b)).collect())
    };
    let mut share_of_seeds = None;
    let holds = match (claim.every_seed, claim.share_of_seeds) {
        (false, None) => holds(&figure.value, &bound.value),
        (true, None) => by_seed()?.into_iter().all(|holds| holds),
        (false, Some(expected)) => {
            let seeds = by_seed()?;
            let held = seeds.iter().filter(|holds| **holds).count();
            let (expected, found) = (expected.get(), held as f64 / seeds.len() as f64);
            share_of_seeds = Some(SeedShare { expected, found });
            found >= expected
        }
        (true, Some(_)) => bail!("expected one of `every_seed` and `share_of_seeds`, found both"),
    };
    Ok(Verdict {
        says: claim.says.clone(),
        holds,
        value: figure.value,
        band: Band::of(&figure.seeds),
        seeds: figure.seeds.len(),
        relation: (*relation).to_owned(),
        bound: bound.value,
        every_seed: claim.every_seed,
        share_of_seeds,
    })
}

/// Of several stages the one whose figure is largest, or smallest if that is better.
fn measure(figure: &Figure, context: &Context) -> Result<Measured> {
    let mut best: Option<Measured> = None;
    for of in figure.of.all() {
        let curves = curves(of, figure, context)?;
        let found = read_off(&curves, figure)
            .with_context(|| format!("`{of}` has no curve of {} points", figure.window))?;
        let is_better = |best: &Measured| match figure.least {
            true => found.value < best.value,
            false => found.value > best.value,
        };
        if best.as_ref().is_none_or(is_better) {
            best = Some(found);
        }
    }
    let Some(found) = best else { bail!("`of` names no stage") };
    let Some(over) = &figure.over else { return Ok(found) };
    let over = measure(over, context)?;
    if over.seeds.len() != found.seeds.len() {
        bail!(
            "`over` needs as many seeds on both sides, found {} and {}",
            found.seeds.len(),
            over.seeds.len()
        );
    }
    Ok(Measured {
        value: found.value / over.value,
        seeds: found.seeds.iter().zip(&over.seeds).map(|(a, b)| a / b).collect(),
    })
}

/// A curve for each seed of a stage.
fn curves(of: &str, figure: &Figure, context: &Context) -> Result<Vec<Vec<f64>>> {
    let name = stage_reference(of).unwrap_or(of);
    let run = Run::of_stage(&context.path(of)?, name)?;
    if let [sweep] = &run.sweeps[..] {
        let Some(by) = &figure.by else { bail!("`{of}` is best-of-n: say `by`, the way of judging") };
        let gold = match figure.curve.as_deref() {
            None | Some("gold") => true,
            Some("proxy") => false,
            Some(other) => bail!("best-of-n has the curves `gold` and `proxy`, found `{other}`"),
        };
        return sweep
            .seeds
            .iter()
            .map(|seed| {
                let Some(selector) = seed.selector(by) else {
                    let known: Vec<&str> = seed.selectors.iter().map(|s| s.name.as_str()).collect();
                    bail!("`{of}` was not judged by `{by}`, but by {}", known.join(", "))
                };
                let value = |point: &super::BonPoint| {
                    if gold { Some(point.gold?.mean) } else { Some(point.proxy.mean) }
                };
                let curve: Option<Vec<f64>> = selector.points.iter().map(value).collect();
                curve.with_context(|| format!("`{of}` has no gold scores"))
            })
            .collect();
    }
    if let [(_, gaps)] = &run.gaps[..] {
        let Some(arm) = &figure.by else { bail!("`{of}` holds closures of gaps: say `by`, the arm") };
        let seeds = gaps.figure(arm, figure.curve.as_deref().unwrap_or(CLOSURE));
        let seeds = seeds.with_context(|| format!("`{of}` cannot say"))?;
        return Ok(seeds.into_iter().map(|seed| vec![seed]).collect());
    }
    if let Some(figures) = &run.figures {
        let found = figures.curves(figure.by.as_deref(), figure.curve.as_deref());
        return found.with_context(|| format!("`{of}` cannot say"));
    }
    let metric = figure.curve.as_deref().unwrap_or(GOLD);
    if run.traces.is_empty() {
        bail!("`{of}` has neither curves of best-of-n nor metrics of a training nor closures of gaps");
    }
    run.traces
        .iter()
        .map(|trace| {
            let found =
                trace.series.get(metric).map(|points| points.iter().map(|(_, value)| *value).collect());
            found.with_context(|| {
                let known: Vec<String> = trace.series.keys().cloned().collect();
                let hint = nearest_of(metric, &known).map(|name| format!("; did you mean `{name}`?"));
                format!("`{of}` has logged no `{metric}`{}", hint.unwrap_or_default())
            })
        })
        .collect()
}

/// The number of the mean curve and the same of every seed's curve at the same places, or of every seed's own curve and their
/// mean. `None` of curves without points.
fn read_off(curves: &[Vec<f64>], figure: &Figure) -> Option<Measured> {
    let window = figure.window.max(1);
    let smooth = |curve: &Vec<f64>| -> Vec<f64> {
        curve.windows(window).map(|part| part.iter().sum::<f64>() / window as f64).collect()
    };
    let curves: Vec<Vec<f64>> = curves.iter().map(smooth).collect();
    let points = curves.iter().map(Vec::len).min().filter(|points| *points > 0)?;
    if figure.own {
        let seeds: Vec<f64> = curves.iter().map(|curve| Places::of(curve).take(curve, figure.take)).collect();
        return Some(Measured { value: seeds.iter().sum::<f64>() / seeds.len() as f64, seeds });
    }
    let mean: Vec<f64> = (0..points)
        .map(|at| curves.iter().map(|curve| curve[at]).sum::<f64>() / curves.len() as f64)
        .collect();
    let places = Places::of(&mean);
    let seeds = curves.iter().map(|curve| places.take(curve, figure.take)).collect();
    Some(Measured { value: places.take(&mean, figure.take), seeds })
}

/// Where on a curve numbers are read.
struct Places {
    last: usize,
    peak: usize,
    /// The start of the smallest step up.
    flattest: usize,
}

impl Places {
    fn of(curve: &[f64]) -> Self {
        let last = curve.len() - 1;
        let step = |at: usize| curve[at + 1] - curve[at];
        Self {
            last,
            peak: (0..=last).max_by(|&a, &b| curve[a].total_cmp(&curve[b])).unwrap_or(0),
            flattest: (0..last).min_by(|&a, &b| step(a).total_cmp(&step(b))).unwrap_or(0),
        }
    }

    fn take(&self, curve: &[f64], take: Take) -> f64 {
        let Self { last, peak, flattest } = *self;
        match take {
            Take::First => curve[0],
            Take::Last => curve[last],
            Take::Peak => curve[peak],
            Take::Drop => curve[peak] - curve[last],
            Take::Gain => curve[last] - curve[0],
            Take::Growth => curve[last] / curve[0],
            Take::LeastRise => curve[(flattest + 1).min(last)] - curve[flattest],
        }
    }
}

impl Verdicts {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["claim", "", "figure", "expected", "seeds"].map(str::to_owned).to_vec();
        let rows = self.claims.iter().map(|claim| {
            let half = claim.band.high - claim.band.mean;
            let every = if claim.every_seed { "every " } else { "" };
            let seeds = match claim.share_of_seeds {
                None => claim.seeds.to_string(),
                Some(SeedShare { expected, found }) => {
                    let held = (found * claim.seeds as f64).round();
                    format!("{held} of {}, expected {:.0} %", claim.seeds, 100.0 * expected)
                }
            };
            vec![
                // On a narrow page the first column is what one sees.
                format!("{} {}", if claim.holds { "✓" } else { "✗" }, claim.says),
                if claim.holds { "pass" } else { "FAIL" }.to_owned(),
                format!("{:.3} ±{half:.3}", claim.value),
                format!("{every}{} {:.3}", claim.relation, claim.bound),
                seeds,
            ]
        });
        (header, rows.collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        let held = self.claims.iter().filter(|claim| claim.holds).count();
        format!(
            "{held} of {} claims hold; figures are those of the mean curve over seeds, ± a 95 % interval over seeds",
            self.claims.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::claims::OneOrMany;

    #[test]
    fn figures_are_read_off_the_mean_curve() {
        // Means 1, 3, 2; the highest is the second.
        let curves = [vec![0.0, 4.0, 1.0], vec![2.0, 2.0, 3.0]];
        let figure = |take, window, own| Figure {
            of: OneOrMany::One("@a".into()),
            by: None,
            curve: None,
            take,
            window,
            own,
            least: false,
            over: None,
        };
        let read = |take| read_off(&curves, &figure(take, 1, false)).unwrap();
        assert_eq!(read(Take::First), Measured { value: 1.0, seeds: vec![0.0, 2.0] });
        assert_eq!(read(Take::Peak), Measured { value: 3.0, seeds: vec![4.0, 2.0] });
        assert_eq!(read(Take::Drop), Measured { value: 1.0, seeds: vec![3.0, -1.0] });
        assert_eq!(read(Take::Gain), Measured { value: 1.0, seeds: vec![1.0, 1.0] });
        assert_eq!(read(Take::Growth).value, 2.0);
        assert_eq!(read(Take::LeastRise).value, -1.0);
        // Means of two neighbours: 2, 2.5.
        assert_eq!(read_off(&curves, &figure(Take::Gain, 2, false)).unwrap().value, 0.5);
        assert_eq!(read_off(&curves, &figure(Take::Last, 4, false)), None);
        // Of their own curves: 4 − 1 and 3 − 3.
        let own = read_off(&curves, &figure(Take::Drop, 1, true)).unwrap();
        assert_eq!(own, Measured { value: 1.5, seeds: vec![3.0, 0.0] });
    }
}
