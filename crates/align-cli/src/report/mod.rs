//! `report.html`: one file that opens without a server and reads on a phone.

mod agreement;
mod bilevel;
mod claims;
mod contour;
mod factors;
pub(crate) mod fusion;
mod gaps;
mod histogram;
mod html;
mod overoptimization;
mod panel;
mod relations;
mod seeds;
mod soup;
mod svg;

use std::path::{Path, PathBuf};

use align_core::persist::replace_file;
use anyhow::{Result, bail};

use crate::args::ReportArgs;
use crate::results::Run;
use crate::stages::Consistency;

/// The report's name in a run folder.
pub(crate) const FILE: &str = "report.html";

/// The figures of trainings with a gold reward and of best-of-n, beside the report.
const PANEL: &str = "panel.json";

/// `align report`.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| args.runs[0].join(FILE));
    println!("{}", draw(&args.runs, &out)?.display());
    Ok(())
}

/// Draws what the runs left behind.
fn draw(runs: &[PathBuf], out: &Path) -> Result<PathBuf> {
    let runs = runs.iter().map(|run| Run::read(run)).collect::<Result<Vec<_>>>()?;
    if let Some(empty) = runs.iter().find(|run| run.is_empty()) {
        bail!(
            "nothing to report in {}: expected metrics.jsonl, comparison.json, best_of_n.json, path.json, weights.json, \
             map.json, weights.jsonl, gaps.json, claims.json, or what bilevel stages write below it",
            empty.folder.display()
        );
    }
    write(&runs, out)
}

/// Draws a run into its folder; nothing if it left nothing to draw, as making and merging models does.
pub(crate) fn draw_run(folder: &Path) -> Result<Option<PathBuf>> {
    let run = Run::read(folder)?;
    if run.is_empty() { Ok(None) } else { write(&[run], &folder.join(FILE)).map(Some) }
}

/// Draws one comparison of models.
pub(crate) fn draw_consistency(found: &Consistency, out: &Path) -> Result<()> {
    Ok(replace_file(out, |file| std::io::Write::write_all(file, factors::page(found).as_bytes()))?)
}

fn write(runs: &[Run], out: &Path) -> Result<PathBuf> {
    let panel = panel::Figures::of(runs);
    if !panel.is_empty() {
        let path = out.with_file_name(PANEL);
        replace_file(&path, |file| Ok(serde_json::to_writer_pretty(file, &panel)?))?;
    }
    let page = html::page(runs);
    replace_file(out, |file| std::io::Write::write_all(file, page.as_bytes()))?;
    Ok(out.to_owned())
}
