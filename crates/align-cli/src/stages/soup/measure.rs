//! One figure of `align eval`, of any soup of some models.

use std::path::{Path, PathBuf};

use align_soup::{SoupOptions, Weights};
use anyhow::{Context as _, Result};

use super::{Ingredient, counting, soup_watched};
use crate::context::Context;
use crate::recipe::eval::EvalStage;
use crate::stages::Bench;

/// Where a soup lies while it is evaluated, inside the stage's folder.
pub(super) const TRIAL: &str = "trial";

/// What soups are measured with, opened once for all of them.
pub(super) struct Measure<'a> {
    name: &'a str,
    bench: Bench,
    metric: &'a str,
    ingredients: &'a [Ingredient],
    trial: PathBuf,
    context: &'a Context,
}

impl<'a> Measure<'a> {
    /// Opens data, judges and anchors. Soups that are tried lie in `folder` for as long as that takes.
    pub(super) fn open(
        name: &'a str,
        metric: &'a str,
        eval: &EvalStage,
        ingredients: &'a [Ingredient],
        folder: &Path,
        context: &'a Context,
    ) -> Result<Self> {
        let first = context.open(&ingredients[0].folder)?;
        let bench = Bench::open(eval, &first, context)?;
        Ok(Self { name, bench, metric, ingredients, trial: folder.join(TRIAL), context })
    }

    /// The figure of a soup of the ingredients; of a single ingredient there is nothing to average.
    pub(super) fn of(&self, weights: &Weights) -> Result<f64> {
        let context = self.context;
        context.check_interrupt()?;
        let folders: Vec<PathBuf> = self.ingredients.iter().map(|one| one.folder.clone()).collect();
        let (folders, weights) = counting(&folders, weights)?;
        let made = match folders.as_slice() {
            [one] => one.clone(),
            folders => {
                // Whether they average is what is found out here.
                let options = SoupOptions {
                    overwrite: true,
                    allow_different_ancestors: true,
                    ..SoupOptions::default()
                };
                let report =
                    soup_watched(self.name, folders, &weights, &options, &self.trial, &context.interrupt);
                context.check_interrupt()?;
                report?;
                self.trial.clone()
            }
        };
        let figures = self.bench.figures(&context.open(&made)?, context)?;
        let figure = figures.get(self.metric).expect("the recipe's figure was checked to be measured");
        Ok(figure.mean)
    }
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        // The next run removes what stays here, too.
        let _ = std::fs::remove_dir_all(&self.trial);
    }
}

/// Reads which weights are in each model's folder.
pub(super) fn identities(ingredients: &[Ingredient]) -> Result<Vec<String>> {
    let id = |one: &Ingredient| {
        align_soup::checkpoint_id(&one.folder)
            .with_context(|| format!("cannot tell which weights are in {}", one.folder.display()))
    };
    ingredients.iter().map(id).collect()
}
