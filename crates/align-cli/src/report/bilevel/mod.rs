//! Bilevel optimisation: solvers beside one another, the bias of the penalty, cleaned data, tuned coefficients, designed rewards.

mod log_chart;

use std::fmt::Write;

use self::log_chart::log_chart;
use super::histogram::histogram;
use super::html::{COLORS, row};
use super::svg::{self, Series, escape};
use crate::results::Run;
use crate::stages::{Bias, CleanedData, Coefficient, Design, LinearCleaning, Race};

pub(super) const STYLE: &str = ".bar.c0{fill:var(--c0)}.bar.c1{fill:var(--c1)}\n";

/// What runs found, stage by stage.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        let heading = |what: &str, stage: &str| {
            let stage = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.to_owned() };
            format!("<h2>{what}: {}</h2>", escape(&stage))
        };
        let found = &run.bilevel;
        for (stage, cleaned) in &found.cleaned {
            let _ = write!(out, "{}{}", heading("Cleaned data", stage), of_cleaned(cleaned));
        }
        for (stage, race) in &found.races {
            let _ = write!(out, "{}{}", heading("Solvers", stage), of_race(race));
        }
        for (stage, bias) in &found.biases {
            let _ = write!(out, "{}{}", heading("Bias of the penalty", stage), of_bias(bias));
        }
        for (stage, linear) in &found.linear {
            let _ = write!(out, "{}{}", heading("Cleaning with a known answer", stage), of_linear(linear));
        }
        for (stage, coefficient) in &found.coefficients {
            let _ = write!(out, "{}{}", heading("Tuned coefficient", stage), of_coefficient(coefficient));
        }
        for (stage, design) in &found.designs {
            let _ = write!(out, "{}{}", heading("Designed reward", stage), of_design(design));
        }
    }
    out
}

/// A table and what its figures are.
fn table((header, rows): (Vec<String>, Vec<Vec<String>>), note: &str) -> String {
    let rows: String = rows.iter().map(|cells| row("td", cells)).collect();
    format!(
        "<div class=\"scroll\"><table>{}{rows}</table></div><p class=\"note\">{}.</p>",
        row("th", &header),
        escape(note)
    )
}

/// One series a line, with its colour; where there are more lines than colours, the others are dashed.
fn colored(lines: impl Iterator<Item = (String, Vec<(f64, f64)>)>) -> (Vec<Series>, String) {
    let series: Vec<Series> = lines
        .enumerate()
        .map(|(at, (name, points))| Series {
            name,
            color: at % COLORS,
            points: points.into_iter().map(|(x, y)| (x, y, 0.0)).collect(),
        })
        .collect();
    let named = |(at, one): (usize, &Series)| {
        let dashed = if at < COLORS { "" } else { " (dashed)" };
        (format!("{}{dashed}", one.name), one.color)
    };
    let names: Vec<(String, usize)> = series.iter().enumerate().map(named).collect();
    let legend = svg::legend(&names);
    (series, legend)
}

fn of_race(race: &Race) -> String {
    let curve = |solver: &crate::stages::SolverResult| {
        // Of several runs the one to the finest accuracy.
        let run = solver.runs.iter().min_by(|a, b| a.eps.unwrap_or(0.0).total_cmp(&b.eps.unwrap_or(0.0)));
        let points =
            run.map(|run| run.points.iter().map(|at| (at.calls.total() as f64, at.stationarity)).collect());
        (solver.name.clone(), points.unwrap_or_default())
    };
    let (series, legend) = colored(race.solvers.iter().map(curve));
    let title = format!("how stationary x is on `{}`, by the closed form", race.problem);
    let chart = log_chart(&title, "gradient calls", "norm of the true hyper-gradient", &series);
    format!("{legend}{chart}{}", table(race.rows(), &race.note()))
}

fn of_bias(bias: &Bias) -> String {
    let cases = bias.cases.iter().map(|line| {
        let points = line.order.errors.iter().map(|at| (at.sigma, at.error)).collect();
        (line.case.clone(), points)
    });
    let control = bias.control.iter().map(|control| {
        ("control: value gap".to_owned(), control.iter().map(|at| (at.sigma, at.gap)).collect())
    });
    let (series, legend) = colored(cases.chain(control));
    let errors = log_chart("error of the penalised hyper-gradient", "σ", "error", &series);
    // The same colours: cases come first, and those without a bound keep their place.
    let bounds = bias.cases.iter().map(|line| {
        let points = line.bounds.iter().map(|at| (at.sigma, at.constant)).collect();
        (line.case.clone(), points)
    });
    let bounds = log_chart("constant of the proximal error bound", "σ", "constant", &colored(bounds).0);
    format!("{legend}{errors}{bounds}{}", table(bias.rows(), &bias.note()))
}

/// Weights as a histogram, flipped labels apart where they are known.
fn weights(title: &str, weights: &[(f64, bool)]) -> String {
    let any = weights.iter().any(|(_, flipped)| *flipped);
    let mut classes = vec![("c0".to_owned(), if any { "right labels" } else { "pairs" }.to_owned())];
    classes.extend(any.then(|| ("c1".to_owned(), "flipped labels".to_owned())));
    let values: Vec<(usize, f64)> =
        weights.iter().map(|(weight, flipped)| (usize::from(*flipped), *weight)).collect();
    let names: Vec<(String, usize)> =
        classes.iter().enumerate().map(|(color, (_, name))| (name.clone(), color)).collect();
    let bars = histogram(title, "weight", "pairs", &values, &classes);
    format!("{}<div class=\"charts\">{bars}</div>", svg::legend(&names))
}

fn of_cleaned(cleaned: &CleanedData) -> String {
    let mut out = table(cleaned.rows(), &cleaned.note());
    for warning in &cleaned.warnings {
        let _ = write!(out, "<p class=\"note\">{}</p>", escape(&warning.to_string()));
    }
    out.push_str(&weights("weights of the pairs", &cleaned.weights));
    out
}

fn of_linear(linear: &LinearCleaning) -> String {
    let first = linear.seeds.first().map(|seed| format!("weights in world {seed}"));
    let bars = first.map(|title| weights(&title, &linear.weights)).unwrap_or_default();
    format!("{}{bars}", table(linear.rows(), &linear.note()))
}

fn of_coefficient(coefficient: &Coefficient) -> String {
    let gold = |(beta, psi): &(f64, f64)| (beta.log10(), -psi, 0.0);
    let line = Series {
        name: "gold reward".to_owned(),
        color: 0,
        points: coefficient.psi.iter().map(gold).collect(),
    };
    let title = "gold reward of the policy at β";
    let curve = svg::bands(title, "log₁₀ β", &[line]);
    let paths = coefficient.tuned.iter().map(|tuned| {
        let name = format!("from {}", tuned.path[0]);
        (name, tuned.path.iter().enumerate().map(|(step, beta)| (step as f64 + 1.0, *beta)).collect())
    });
    let (series, legend) = colored(paths);
    let steps = log_chart("β on the way", "step", "β", &series);
    let table = table(coefficient.rows(), &coefficient.note());
    format!("{table}<div class=\"charts\">{curve}</div>{legend}{steps}")
}

fn of_design(design: &Design) -> String {
    let probabilities = |values: &[f64]| -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(cell, value)| (cell as f64, *value)).collect()
    };
    let target = design.target.iter().map(|target| ("wanted".to_owned(), probabilities(target)));
    let known =
        [("reference", &design.reference), ("policy of the designed reward", &design.designed.policy)];
    let known = known.into_iter().map(|(name, values)| (name.to_owned(), probabilities(values)));
    let (series, legend) = colored(target.chain(known));
    let chart =
        svg::scatter("probabilities", "state and action, in the table's order", "probability", &series);
    format!("{legend}<div class=\"charts\">{chart}</div>{}", table(design.rows(), &design.note()))
}
