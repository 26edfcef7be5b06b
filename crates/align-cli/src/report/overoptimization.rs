//! Gold beside proxy along an optimisation: sweeps of best-of-n.

use std::fmt::Write;

use align_reward::overoptimization::Band;

use super::html::{COLORS, row};
use super::svg::{self, Series, escape};
use crate::results::{Run, Sweep};
use crate::stages::BestOfN;

/// One section for each sweep.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        for Sweep { stage, seeds } in &run.sweeps {
            let heading = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.clone() };
            if let Some(sweep) = BestOfN::over_seeds(seeds) {
                let _ = write!(out, "<h2>Best of n: {}</h2>{}", escape(&heading), sweep_section(&sweep));
            }
        }
    }
    out
}

fn sweep_section(sweep: &BestOfN) -> String {
    let (header, rows) = sweep.rows();
    let mut out = String::from("<div class=\"scroll\"><table>");
    out.push_str(&row("th", &header));
    rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
    let _ = write!(
        out,
        "</table></div><p class=\"note\">{}. KL of the best of n is log n − (n−1)/n. “single” is the mean over members that \
         choose alone.</p>",
        sweep.note()
    );
    let gold = |point: &crate::stages::BonPoint| point.gold;
    let proxy = |point: &crate::stages::BonPoint| Some(point.proxy);
    let names: Vec<(String, usize)> =
        sweep.selectors.iter().enumerate().map(|(at, s)| (s.name.clone(), at % COLORS)).collect();
    let _ = write!(
        out,
        "{}<div class=\"charts\">{}{}</div>",
        svg::legend(&names),
        chart("gold reward, the best of n", sweep, gold),
        chart("proxy reward, the best of n", sweep, proxy)
    );
    out
}

/// A line and its band for each selector; empty where there is nothing to draw.
fn chart(title: &str, sweep: &BestOfN, of: impl Fn(&crate::stages::BonPoint) -> Option<Band>) -> String {
    let series: Vec<Series> = sweep
        .selectors
        .iter()
        .enumerate()
        .map(|(at, selector)| Series {
            name: selector.name.clone(),
            color: at % COLORS,
            points: selector
                .points
                .iter()
                .filter_map(|point| {
                    let band = of(point)?;
                    Some((point.kl.sqrt(), band.mean, band.high - band.mean))
                })
                .collect(),
        })
        .collect();
    if series.iter().all(|series| series.points.is_empty()) {
        return String::new();
    }
    svg::bands(title, "√KL (√nats)", &series)
}
