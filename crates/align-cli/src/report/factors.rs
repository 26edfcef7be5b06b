//! Models of answers: figures, the importance of every factor in every model, and whether models agree.

use std::collections::BTreeSet;
use std::fmt::Write;

use align_reward::overoptimization::Band;

use super::html::{COLORS, document, row};
use super::svg::{escape, label, legend, ticks};
use super::{agreement, relations};
use crate::results::Run;
use crate::stages::{Consistency, FactorsResult, over_seeds};

const WIDTH: f64 = 760.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
const RIGHT: f64 = 18.0;
/// Of a bar, and what is left between the bars of two factors.
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
/// Of a letter of the names, about.
const LETTER: f64 = 7.5;

pub(super) const STYLE: &str = "
.share{opacity:.82}.spread{stroke:var(--fg);stroke-width:1.1}.wish{fill:var(--card);stroke:var(--fg);stroke-width:1.3}
.truth{stroke:var(--fg);stroke-width:1.6;stroke-dasharray:3 2}.key.wish{border-radius:0;transform:rotate(45deg) scale(.75);background:var(--card);border:1.5px solid var(--fg)}
.key.truth{border-radius:0;width:0;border-left:2px dashed var(--fg)}
.cell{fill:var(--fg);font-size:12px}.node{fill:var(--card);stroke:var(--dim);stroke-width:1.2}.edge{fill:none;stroke:var(--c0);stroke-width:1.7}
.edge.open{stroke:var(--dim);stroke-width:1.1;stroke-dasharray:4 3}.half{max-width:620px}.reasons{margin-bottom:1rem}
";

/// Everything about factors: fits first, then comparisons between them.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        let heading = |what: &str, stage: &str| {
            let stage = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.to_owned() };
            format!("<h2>{what}: {}</h2>", escape(&stage))
        };
        for (stage, fits) in &run.fits {
            let fits: Vec<&FactorsResult> = same_factors(fits.iter(), |fit| &fit.factors);
            out.push_str(&heading("Factors", stage));
            out.push_str(&fit_section(&fits));
        }
        for (stage, compared) in &run.consistency {
            let compared: Vec<&Consistency> = same_factors(compared.iter(), |found| &found.factors);
            out.push_str(&heading("Consistency", stage));
            out.push_str(&consistency_section(&compared));
        }
    }
    out
}

/// A page about one comparison.
pub(super) fn page(found: &Consistency) -> String {
    document("Do the models have the same reasons?", &consistency_section(&[found]))
}

/// The seeds that have the first one's factors: a column may be constant in the training rows of another.
fn same_factors<'a, T>(
    all: impl Iterator<Item = &'a T> + Clone,
    factors: impl Fn(&T) -> &Vec<String>,
) -> Vec<&'a T> {
    let first = all.clone().next().map(|one| factors(one).clone()).unwrap_or_default();
    all.filter(|one| *factors(one) == first).collect()
}

fn fit_section(fits: &[&FactorsResult]) -> String {
    let Some(first) = fits.first() else { return String::new() };
    let (header, rows) = over_seeds(fits);
    let mut out = format!("<div class=\"scroll\"><table>{}", row("th", &header));
    rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
    let _ = write!(out, "</table></div><p class=\"note\">{}.</p>", escape(&first.note(fits.len())));
    let warnings: BTreeSet<&String> = first.models.iter().flat_map(|model| &model.warnings).collect();
    for note in first.notes.iter().chain(warnings) {
        let _ = write!(out, "<p class=\"note\">{}.</p>", escape(note));
    }
    out.push_str(&importances(fits));
    if first.models.len() > 1 {
        let compared: Vec<&Consistency> = fits.iter().map(|fit| &fit.consistency).collect();
        out.push_str(&consistency_section(&compared));
    }
    out
}

fn consistency_section(compared: &[&Consistency]) -> String {
    let Some(first) = compared.first() else { return String::new() };
    let note = match compared.len() {
        1 => first.note(),
        seeds => format!(
            "means over {seeds} seeds; an order of factors is drawn if it holds in every model of every seed"
        ),
    };
    format!(
        "{}{}<p class=\"note\">{}.</p>",
        agreement::matrix(compared),
        relations::graph(compared),
        escape(&note)
    )
}

/// A bar with its band for every factor and model, a mark where knowledge wants it, and a line at every reference.
fn importances(fits: &[&FactorsResult]) -> String {
    let first = fits[0];
    let models = first.models.len() as f64;
    let of_row = models * BAR + GAP;
    let longest = first.factors.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let left = (longest * LETTER + 14.0).min(WIDTH / 2.0);
    let bottom = TOP + first.factors.len() as f64 * of_row;
    let bars: Vec<Vec<Band>> = (0..first.models.len()).map(|model| shares(fits, model)).collect();
    let known =
        |pick: &dyn Fn(&FactorsResult) -> Option<Vec<f64>>| mean(fits.iter().filter_map(|fit| pick(fit)));
    let wishes: Vec<Option<Vec<f64>>> = first
        .models
        .iter()
        .map(|model| {
            let guide = model.guide.as_ref()?;
            known(&|fit| Some(fit.knowledge.iter().find(|known| known.name == *guide)?.masses.clone()))
        })
        .collect();
    let references: Vec<(&str, Vec<f64>)> = (0..first.references.len())
        .filter_map(|at| {
            let masses = known(&|fit| Some(fit.references.get(at)?.masses.clone()))?;
            Some((first.references[at].name.as_str(), masses))
        })
        .collect();
    let all = bars.iter().flatten().map(|band| band.high);
    let marks = wishes.iter().flatten().chain(references.iter().map(|(_, masses)| masses)).flatten().copied();
    let high = all.chain(marks).fold(0.01f64, f64::max) * 1.04;
    let px = |x: f64| left + x / high * (WIDTH - left - RIGHT);
    let height = bottom + BOTTOM;
    let title = "share of each factor in a model's importances";
    let mut out = format!(
        r#"{}<figure class="wide reasons"><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">"#,
        keys(first)
    );
    for tick in ticks((0.0, high), 6.0) {
        let x = px(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{x:.1} {TOP}V{bottom:.1}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            label(tick)
        );
    }
    for (factor, name) in first.factors.iter().enumerate() {
        let top = TOP + factor as f64 * of_row + GAP / 2.0;
        let _ = write!(
            out,
            r#"<text class="arm" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 10.0,
            top + models * BAR / 2.0 + 4.5,
            escape(name)
        );
        for (at, model) in first.models.iter().enumerate() {
            let Band { mean, low, high } = bars[at][factor];
            let (y, middle) = (top + at as f64 * BAR, top + (at as f64 + 0.5) * BAR);
            let _ = write!(
                out,
                r#"<rect class="share dot c{}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}"><title>{}, {}: {mean:.3} ({low:.3} to {high:.3})</title></rect><path class="spread" d="M{:.1} {middle:.1}H{:.1}"/>"#,
                at % COLORS,
                y + 0.5,
                px(mean) - left,
                BAR - 1.0,
                escape(name),
                escape(&model.name),
                px(low.max(0.0)),
                px(high)
            );
            if let (Some(masses), Some(guide)) = (&wishes[at], &model.guide) {
                let _ = write!(
                    out,
                    r#"<path class="wish" d="M{:.1} {:.1}l4 4l-4 4l-4 -4z"><title>{}: {:.3}</title></path>"#,
                    px(masses[factor]),
                    middle - 4.0,
                    escape(guide),
                    masses[factor]
                );
            }
        }
        for (reference, masses) in &references {
            let _ = write!(
                out,
                r#"<path class="truth" d="M{:.1} {:.1}V{:.1}"><title>{}: {:.3}</title></path>"#,
                px(masses[factor]),
                top - 2.0,
                top + models * BAR + 2.0,
                escape(reference),
                masses[factor]
            );
        }
    }
    let over = match fits.len() {
        1 => "bands hold 95 % of samples of rows".to_owned(),
        seeds => format!("means over {seeds} seeds with 95 % intervals"),
    };
    let _ = write!(
        out,
        r#"<path class="axis" d="M{left:.1} {TOP}V{bottom:.1}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">share of importance; {over}</text></svg></figure>"#,
        (left + WIDTH - RIGHT) / 2.0,
        height - 6.0
    );
    out
}

/// The shares of a model: of one fit with the bands of its rows, of several with intervals over seeds.
fn shares(fits: &[&FactorsResult], model: usize) -> Vec<Band> {
    let first = &fits[0].models[model];
    let same: Vec<Vec<f64>> = fits
        .iter()
        .filter_map(|fit| fit.models.iter().find(|other| other.name == first.name))
        .map(|model| model.distribution())
        .collect();
    if let [_] = &same[..] {
        let band = |share: &align_factors::attribution::Band| Band {
            mean: share.value,
            low: share.low,
            high: share.high,
        };
        return first.shares.iter().map(band).collect();
    }
    let over = |factor: usize| Band::of(&same.iter().map(|shares| shares[factor]).collect::<Vec<_>>());
    (0..first.shares.len()).map(over).collect()
}

/// Place by place the mean of lists of one length; nothing of no lists.
fn mean(lists: impl Iterator<Item = Vec<f64>>) -> Option<Vec<f64>> {
    let lists: Vec<Vec<f64>> = lists.collect();
    let width = lists.iter().map(Vec::len).min()?;
    Some((0..width).map(|at| lists.iter().map(|list| list[at]).sum::<f64>() / lists.len() as f64).collect())
}

/// What colours and marks mean.
fn keys(fit: &FactorsResult) -> String {
    let names: Vec<(String, usize)> =
        fit.models.iter().enumerate().map(|(at, model)| (model.name.clone(), at % COLORS)).collect();
    let mut marks = String::new();
    if fit.models.iter().any(|model| model.guide.is_some()) {
        marks.push_str("<span><i class=\"key wish\"></i>what knowledge wants of it</span>");
    }
    for reference in &fit.references {
        let _ = write!(marks, "<span><i class=\"key truth\"></i>{}</span>", escape(&reference.name));
    }
    legend(&names).replace("</p>", &format!("{marks}</p>"))
}
