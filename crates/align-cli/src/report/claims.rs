//! What was expected of a run, and whether it held.

use std::fmt::Write;

use super::html::row;
use super::svg::escape;
use crate::results::Run;

/// One table for each stage of claims.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        for (stage, verdicts) in &run.verdicts {
            let heading = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.clone() };
            let (header, rows) = verdicts.rows();
            let _ = write!(out, "<h2>{}</h2><div class=\"scroll\"><table>", escape(&heading));
            out.push_str(&row("th", &header));
            rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
            let _ = write!(out, "</table></div><p class=\"note\">{}.</p>", escape(&verdicts.note()));
        }
    }
    out
}
