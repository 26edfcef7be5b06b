//! How fits and agreement are printed.

use std::collections::BTreeSet;

use align_factors::attribution::Band as Bootstrap;
use align_reward::overoptimization::Band;

use super::consistency::Consistency;
use super::result::{FactorsResult, ModelResult};
use crate::table::table;

/// Figures of test rows, in this order.
const OF_TEST_ROWS: [&str; 5] = ["mse", "mae", "log_loss", "accuracy", "macro_f1"];

/// A column of the table: what stands above it, and a model's number in it.
type Column = (String, Box<dyn Fn(&ModelResult) -> Option<f64>>);

/// The headings and rows of a table of one or several fits of the same models: figures on test rows and distances, means over
/// seeds with 95 % intervals where there are several.
pub(crate) fn over_seeds(fits: &[&FactorsResult]) -> (Vec<String>, Vec<Vec<String>>) {
    let Some(first) = fits.first() else { return (Vec::new(), Vec::new()) };
    let columns = columns(first);
    let mut header = vec!["model".to_owned(), "kind".to_owned(), "λ".to_owned()];
    header.extend(columns.iter().map(|(heading, _)| heading.clone()));
    let rows = first.models.iter().map(|model| {
        let same: Vec<&ModelResult> =
            fits.iter().flat_map(|fit| fit.models.iter().find(|other| other.name == model.name)).collect();
        let mut row = vec![model.name.clone(), model.kind.clone(), lambda(&same)];
        for (_, figure) in &columns {
            row.push(shown(&same.iter().filter_map(|model| figure(model)).collect::<Vec<_>>()));
        }
        row
    });
    (header, rows.collect())
}

/// Figures on test rows, how far guided models are from what guided them, and how far all are from each reference. What else claims
/// can read is in factors.json.
fn columns(fit: &FactorsResult) -> Vec<Column> {
    let named = |heading: String, name: String| -> Column {
        (heading, Box::new(move |model| model.metrics.get(&name).copied()))
    };
    let mut columns: Vec<Column> = OF_TEST_ROWS
        .iter()
        .filter(|name| fit.models.iter().any(|model| model.metrics.contains_key(**name)))
        .map(|name| named(name.replace('_', " "), (*name).to_owned()))
        .collect();
    if !fit.knowledge.is_empty() {
        let own = |model: &ModelResult| model.metrics.get(&format!("kl/{}", model.guide.as_ref()?)).copied();
        columns.push(("KL to its knowledge".to_owned(), Box::new(own)));
    }
    for known in &fit.references {
        let name = &known.name;
        columns.push(named(format!("KL to {name}"), format!("kl/{name}")));
        columns.push(named(format!("τ with {name}"), format!("tau/{name}")));
        columns
            .push(named(format!("first {} of {name}", fit.consistency.top), format!("top_overlap/{name}")));
    }
    columns
}

/// The weight of guidance; where seeds chose different ones, from the least to the largest.
fn lambda(models: &[&ModelResult]) -> String {
    let guided = models.iter().filter(|model| model.guide.is_some());
    let weights: Vec<f64> = guided.filter_map(|model| Some(model.training.as_ref()?.lambda)).collect();
    let (low, high) =
        weights.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    match weights.is_empty() {
        true => "–".to_owned(),
        false if low == high => format!("{low}"),
        false => format!("{low} to {high}"),
    }
}

/// `0.467 ±0.012`, or one number without interval.
fn shown(values: &[f64]) -> String {
    match values {
        [] => "–".to_owned(),
        [one] => format!("{one:.3}"),
        several => {
            let band = Band::of(several);
            format!("{:.3} ±{:.3}", band.mean, band.high - band.mean)
        }
    }
}

/// A table of factors, the most important first, with their bands.
pub(crate) fn importance_table(
    factors: &[String],
    importances: &[Bootstrap],
    shares: &[Bootstrap],
) -> String {
    let header = ["factor", "importance", "", "share", ""].map(str::to_owned).to_vec();
    let mut order: Vec<usize> = (0..factors.len()).collect();
    order.sort_by(|&a, &b| importances[b].value.total_cmp(&importances[a].value));
    let cells = |at: usize| {
        let band = |band: &Bootstrap| format!("{:.3} to {:.3}", band.low, band.high);
        vec![
            factors[at].clone(),
            format!("{:.3}", importances[at].value),
            band(&importances[at]),
            format!("{:.3}", shares[at].value),
            band(&shares[at]),
        ]
    };
    table(&header, order.into_iter().map(cells).collect())
}

impl FactorsResult {
    /// What the figures are.
    pub(crate) fn note(&self, seeds: usize) -> String {
        let rows = self.rows;
        let over = match seeds {
            0 | 1 => String::new(),
            seeds => format!("; means over {seeds} seeds ± a 95 % interval"),
        };
        format!(
            "`{}` predicted from {} factors: fitted on {} rows, chosen on {}, figures on {} test rows, explained on {} of \
             them{over}. KL in nats, from the knowledge to the model's shares of importance",
            self.label,
            self.factors.len(),
            rows.train,
            rows.validation,
            rows.test,
            rows.explained
        )
    }

    /// Tables for a terminal: figures, then agreement.
    pub(super) fn text(&self) -> String {
        let (header, rows) = over_seeds(&[self]);
        let mut lines = vec![table(&header, rows), self.note(1)];
        let warnings: BTreeSet<&String> = self.models.iter().flat_map(|model| &model.warnings).collect();
        lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
        if self.models.len() > 1 {
            lines.push(String::new());
            lines.push(self.consistency.text());
        }
        lines.join("\n")
    }
}

impl Consistency {
    /// The matrix of τ, and what all models share.
    pub(crate) fn text(&self) -> String {
        let mut header = vec!["Kendall's τ".to_owned()];
        header.extend((1..=self.models.len()).map(|number| number.to_string()));
        let cell = |first: usize, second: usize| match self.between(first, second) {
            None => "·".to_owned(),
            Some(pair) => pair.tau.map_or_else(|| "–".to_owned(), |tau| format!("{tau:.2}")),
        };
        let row = |first: usize| {
            let mut row = vec![format!("{} {}", first + 1, self.models[first])];
            row.extend((0..self.models.len()).map(|second| cell(first, second)));
            row
        };
        let rows = (0..self.models.len()).map(row).collect();
        format!("{}\n{}", table(&header, rows), self.note())
    }

    /// What all models share.
    pub(crate) fn note(&self) -> String {
        let mean = |name: &str| self.mean(name).map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let certified = match self.mean("certified") {
            None => "no orders are certified, since models were not explained on the same rows".to_owned(),
            Some(share) => format!("{:.0} % of orders certified", 100.0 * share),
        };
        format!(
            "means over every two models: τ {}, first {} factors in common {}, orders alike {}, {certified}",
            mean("tau"),
            self.top,
            mean("top_overlap"),
            mean("order_agreement")
        )
    }
}
