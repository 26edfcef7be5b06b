//! How closures are printed, and what claims read off them.

use std::path::Path;

use anyhow::{Result, bail};

use super::super::read_json;
use super::RESULTS;
use super::closure::{Gaps, Over};
use crate::recipe::source::nearest_of;
use crate::table::table;

impl Over {
    /// `0.714 ±0.012`.
    fn show(&self) -> String {
        format!("{:.3} ±{:.3}", self.band.mean, self.band.high - self.band.mean)
    }
}

impl Gaps {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// The headings and rows of the table: the closure by task and on average, the ratio, the figures, and what is unseen.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let dash = |over: Option<&Over>| over.map_or_else(|| "–".to_owned(), Over::show);
        let metric = self.metric.name().replace('_', " ");
        let mut header = vec!["arm".to_owned()];
        header.extend(self.tasks.iter().map(|task| format!("{}: {metric}", task.task)));
        header.extend(self.tasks.iter().map(|task| format!("{}: closed", task.task)));
        header.push("closed, mean".to_owned());
        header.push("ratio of means".to_owned());
        for task in &self.unseen {
            header.push(format!("unseen {}: {metric}", task.task));
            header.push("closed".to_owned());
        }
        let rows = self.averages.iter().enumerate().map(|(at, average)| {
            let mut row = vec![average.arm.clone()];
            row.extend(self.tasks.iter().map(|task| task.arm(at).figure.show()));
            row.extend(self.tasks.iter().map(|task| dash(task.arm(at).closure.as_ref())));
            row.push(dash(average.closure.as_ref()));
            row.push(dash(average.ratio.as_ref()));
            for task in &self.unseen {
                row.push(task.arm(at).figure.show());
                row.push(dash(task.arm(at).closure.as_ref()));
            }
            row
        });
        (header, rows.collect())
    }

    /// What the figures are, and what was not divided.
    pub(crate) fn notes(&self) -> Vec<String> {
        let (seeds, counted) =
            (self.seeds.len(), self.tasks.iter().filter(|t| t.undivided.is_none()).count());
        let over = match seeds {
            1 => "one seed".to_owned(),
            _ => format!("means over {seeds} seeds ± a 95 % interval"),
        };
        let mut notes = vec![format!(
            "closed: (arm − {}) / ({} − {}) of each task and seed; mean over {counted} of {} tasks; ratio of means: mean of arm / \
             mean of {}, as published, which counts what the base can do already; {over}",
            self.floor,
            self.ceiling,
            self.floor,
            self.tasks.len(),
            self.ceiling
        )];
        notes.extend(self.tasks.iter().chain(&self.unseen).filter_map(|task| task.undivided.clone()));
        notes
    }

    /// The table and its notes for a terminal.
    pub(super) fn text(&self) -> String {
        let (header, rows) = self.rows();
        format!("{}\n{}", table(&header, rows), self.notes().join("\n"))
    }

    /// What claims read off: of an arm `closure`, `ratio` and the metric's name, averaged, or of one task as `closure/<task>` and
    /// `<metric>/<task>`; by seed.
    pub(crate) fn figure(&self, arm: &str, name: &str) -> Result<Vec<f64>> {
        let known: Vec<String> = self.averages.iter().map(|average| average.arm.clone()).collect();
        let Some(at) = known.iter().position(|known| known == arm) else {
            let hint = nearest_of(arm, &known).map(|name| format!("; did you mean `{name}`?"));
            bail!(
                "no arm is called `{arm}`{}",
                hint.unwrap_or_else(|| format!("; arms are {}", known.join(", ")))
            );
        };
        let metric = self.metric.name();
        let average = &self.averages[at];
        let mut all: Vec<(String, Option<&Over>)> = vec![
            ("closure".to_owned(), average.closure.as_ref()),
            ("ratio".to_owned(), average.ratio.as_ref()),
            (metric.to_owned(), Some(&average.figure)),
        ];
        for task in self.tasks.iter().chain(&self.unseen) {
            all.push((format!("closure/{}", task.task), task.arm(at).closure.as_ref()));
            all.push((format!("{metric}/{}", task.task), Some(&task.arm(at).figure)));
        }
        let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
        match all.into_iter().find(|(known, _)| known == name) {
            Some((_, Some(over))) => Ok(over.seeds.clone()),
            Some((_, None)) => bail!("`{name}` of `{arm}` is not there: {}", self.notes()[1..].join("; ")),
            None => {
                let hint = nearest_of(name, &names).map(|name| format!("; did you mean `{name}`?"));
                bail!(
                    "no figure is called `{name}`{}",
                    hint.unwrap_or_else(|| format!(", but {}", names.join(", ")))
                )
            }
        }
    }
}
