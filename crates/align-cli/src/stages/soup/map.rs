//! A figure on the plane through three models, written down point by point.

use std::path::Path;

use align_soup::{Better, Plane, PlaneGrid, Point, Weights, plane_of_folders};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::Ingredient;
use super::measure::{Measure, identities};
use crate::context::Context;
use crate::progress::rows_bar;
use crate::recipe::soup::{MapConfig, direction};
use crate::stages::{read_json, write_json};

/// The result's file in the stage's folder.
const RESULTS: &str = "map.json";

/// A figure around three models and their soup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Map {
    /// The figure.
    pub(crate) metric: String,
    /// Which of its values are better.
    pub(crate) better: Better,
    /// The three models.
    pub(crate) names: Vec<String>,
    /// Which weights they have.
    pub(crate) ids: Vec<String>,
    /// Where they are.
    pub(crate) plane: Plane,
    /// The soup's weights, if it is on the plane.
    pub(crate) soup: Option<[f64; 3]>,
    /// Where the figure was computed.
    pub(crate) grid: PlaneGrid,
    /// The figure of the models, of the soup if there is one, and then of the grid row by row; as far as it was computed.
    pub(crate) figures: Vec<f64>,
}

impl Map {
    /// Reads a stage's map, if it has one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// The models, and the soup if there is one: name, place and figure, as far as it was computed.
    pub(crate) fn marked(&self) -> Vec<(&str, Point, Option<f64>)> {
        let models = self.names.iter().map(String::as_str).zip(self.plane.models());
        let soup = self.soup.map(|weights| ("soup", self.plane.point_of(weights)));
        let all = models.chain(soup).enumerate();
        all.map(|(at, (name, point))| (name, point, self.figures.get(at).copied())).collect()
    }

    /// The figures of the grid row by row, as far as they were computed.
    pub(crate) fn surface(&self) -> &[f64] {
        self.figures.get(self.apart()..).unwrap_or_default()
    }

    /// How many figures are not of the grid.
    fn apart(&self) -> usize {
        3 + usize::from(self.soup.is_some())
    }

    /// The weights of every figure, in order.
    fn weights(&self) -> Vec<Weights> {
        let points =
            self.plane.models().into_iter().chain(self.soup.map(|weights| self.plane.point_of(weights)));
        points.chain(self.grid.points()).map(|point| self.plane.weights_at(point)).collect()
    }

    /// Takes over what another run computed of the same map.
    fn go_on_with(&mut self, earlier: Self) -> Result<()> {
        let figures = earlier.figures.clone();
        if (Self { figures: Vec::new(), ..earlier }) != *self {
            bail!("it is of other models or of another grid");
        }
        if figures.len() > self.weights().len() || figures.iter().any(|figure| !figure.is_finite()) {
            bail!("it is damaged");
        }
        self.figures = figures;
        Ok(())
    }
}

/// Computes what is missing of the map.
pub(super) fn draw(
    name: &str,
    config: &MapConfig,
    ingredients: &[Ingredient],
    soup: Option<&Weights>,
    folder: &Path,
    context: &Context,
) -> Result<()> {
    let better = direction(&config.metric, config.better, &config.eval).map_err(anyhow::Error::msg)?;
    let names: Vec<String> = ingredients.iter().map(|one| one.name.clone()).collect();
    let spanned = || format!("no plane through {}", names.join(", "));
    let [a, b, c] = ingredients else { bail!("{}: expected three models", spanned()) };
    let plane = plane_of_folders(&a.folder, &b.folder, &c.folder).with_context(spanned)?;
    let mut map = Map {
        metric: config.metric.clone(),
        better,
        ids: identities(ingredients)?,
        plane,
        soup: soup.and_then(|weights| weights.as_slice().try_into().ok()),
        grid: plane.grid(config.points, config.margin.get())?,
        figures: Vec::new(),
        names,
    };
    if let Some(earlier) = Map::read(folder)? {
        let path = folder.join(RESULTS);
        map.go_on_with(earlier).with_context(|| format!("cannot go on with {}", path.display()))?;
        eprintln!("{name}: going on after {} of {} points", map.figures.len(), map.weights().len());
    }
    let all = map.weights();
    let bar = rows_bar(&format!("{name}: map"), all.len());
    bar.inc(map.figures.len() as u64);
    let measure = Measure::open(name, &config.metric, &config.eval, ingredients, folder, context)?;
    for weights in &all[map.figures.len()..] {
        let figure = measure.of(weights).with_context(|| {
            format!(
                "cannot evaluate the soup by weights {:.3?}; a smaller `margin` extrapolates less",
                weights.as_slice()
            )
        })?;
        map.figures.push(figure);
        write_json(&folder.join(RESULTS), &map)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let best = map
        .marked()
        .into_iter()
        .map(|(name, _, figure)| format!("{name} {:.4}", figure.expect("every figure was computed")));
    println!("{name}: {} of {}", config.metric, best.collect::<Vec<_>>().join(", "));
    Ok(())
}
