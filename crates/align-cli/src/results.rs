//! What runs and stages left behind, for reports and claims.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::expert_weights::{self, WeighedText};
use crate::stages::{
    BestOfN, Bilevel, Comparison, Consistency, Done, FactorsResult, Figures, Gaps, GreedySearch,
    LearnedWeights, Map, Verdicts,
};

/// Everything of one run.
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
    /// The recipe's title, or the folder's name.
    pub(crate) title: String,
    /// The resolved recipe.
    pub(crate) recipe: Option<String>,
    /// Trainings, in the order they finished.
    pub(crate) traces: Vec<Trace>,
    /// Comparisons by stage.
    pub(crate) comparisons: Vec<(String, Comparison)>,
    /// Sweeps of best-of-n.
    pub(crate) sweeps: Vec<Sweep>,
    /// The experts' weights behind answers of fusions, by stage.
    pub(crate) weighed: Vec<(String, Vec<WeighedText>)>,
    /// Searches for greedy soups by stage.
    pub(crate) searches: Vec<(String, GreedySearch)>,
    /// Learnt weights of soups by stage.
    pub(crate) learned: Vec<(String, LearnedWeights)>,
    /// Maps of soups' neighbourhoods by stage.
    pub(crate) maps: Vec<(String, Map)>,
    /// Closures of gaps by stage.
    pub(crate) gaps: Vec<(String, Gaps)>,
    /// Models of answers by stage, a fit for each seed.
    pub(crate) fits: Vec<(String, Vec<FactorsResult>)>,
    /// Comparisons of their reasons by stage, one for each seed.
    pub(crate) consistency: Vec<(String, Vec<Consistency>)>,
    /// What bilevel stages found.
    pub(crate) bilevel: Bilevel,
    /// Figures by name, those of all seeds together. Of one stage alone: names are its own.
    pub(crate) figures: Option<Figures>,
    /// Claims by stage.
    pub(crate) verdicts: Vec<(String, Verdicts)>,
    /// What varies between stages of one recipe, by stage: `beta 0.05, noise 0.25`.
    pub(crate) varied: BTreeMap<String, String>,
    /// What finished stages said of themselves, with their seconds.
    pub(crate) stages: Vec<(String, Done)>,
}

/// A stage's best-of-n, once for each of its seeds.
pub(crate) struct Sweep {
    /// The stage's name.
    pub(crate) stage: String,
    /// By seed.
    pub(crate) seeds: Vec<BestOfN>,
}

/// The metrics of one training, step by step.
pub(crate) struct Trace {
    /// The stage's name.
    pub(crate) stage: String,
    /// The seed, if the stage ran over several.
    pub(crate) seed: Option<String>,
    /// By metric: (step, value).
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Run {
    /// Reads a run of stages or of a single stage.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let recipe = std::fs::read_to_string(folder.join("recipe.toml")).ok();
        let title = recipe
            .as_deref()
            .and_then(|text| text.parse::<toml::Table>().ok())
            .and_then(|table| Some(table.get("title")?.as_str()?.to_owned()))
            .filter(|title| !title.is_empty());
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let mut run = Self::empty(folder, title.or_else(|| name.clone()).unwrap_or_default());
        run.varied = recipe.as_deref().map(varied).unwrap_or_default();
        run.recipe = recipe;
        run.add_stage(folder, &name.unwrap_or_default())?;
        for (name, folder) in order(subfolders(folder)?, run.recipe.as_deref()) {
            run.add_stage(&folder, &name)?;
        }
        Ok(run)
    }

    /// Reads one stage.
    pub(crate) fn of_stage(folder: &Path, name: &str) -> Result<Self> {
        let mut run = Self::empty(folder, name.to_owned());
        run.add_stage(folder, name)?;
        Ok(run)
    }

    fn empty(folder: &Path, title: String) -> Self {
        Self {
            folder: folder.to_owned(),
            title,
            recipe: None,
            traces: Vec::new(),
            comparisons: Vec::new(),
            sweeps: Vec::new(),
            weighed: Vec::new(),
            searches: Vec::new(),
            learned: Vec::new(),
            maps: Vec::new(),
            gaps: Vec::new(),
            fits: Vec::new(),
            consistency: Vec::new(),
            bilevel: Bilevel::default(),
            figures: None,
            verdicts: Vec::new(),
            varied: BTreeMap::new(),
            stages: Vec::new(),
        }
    }

    /// True if there is nothing to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.traces.is_empty()
            && self.comparisons.is_empty()
            && self.sweeps.is_empty()
            && self.weighed.is_empty()
            && self.searches.is_empty()
            && self.learned.is_empty()
            && self.maps.is_empty()
            && self.gaps.is_empty()
            && self.fits.is_empty()
            && self.consistency.is_empty()
            && self.bilevel.is_empty()
            && self.verdicts.is_empty()
    }

    fn add_stage(&mut self, folder: &Path, name: &str) -> Result<()> {
        if let Some(done) = Done::read(folder)? {
            self.stages.push((name.to_owned(), done));
        }
        if let Some(comparison) = Comparison::read(folder)? {
            self.comparisons.push((name.to_owned(), comparison));
        }
        self.add_bilevel(folder, name.to_owned())?;
        self.add_weights(folder, name.to_owned())?;
        self.add_soup(folder, name.to_owned())?;
        if let Some(gaps) = Gaps::read(folder)? {
            self.gaps.push((name.to_owned(), gaps));
        }
        if let Some(verdicts) = Verdicts::read(folder)? {
            self.verdicts.push((name.to_owned(), verdicts));
        }
        self.add_factors(folder, name)?;
        let mut sweeps: Vec<BestOfN> = BestOfN::read(folder)?.into_iter().collect();
        if let Some(trace) = Trace::read(folder, name, None)? {
            self.traces.push(trace);
        }
        let mut repeated: Vec<(u64, Done)> = Vec::new();
        let mut compared: Vec<(u64, Comparison)> = Vec::new();
        for (subfolder, folder) in subfolders(folder)? {
            let seed = subfolder.strip_prefix("seed-").map(str::to_owned);
            // Members of an ensemble are told apart like seeds.
            let number = seed.clone().or_else(|| subfolder.strip_prefix("member-").map(str::to_owned));
            if let Some(number) = number
                && let Some(trace) = Trace::read(&folder, name, Some(number))?
            {
                self.traces.push(trace);
            }
            if let Some(seed) = seed.and_then(|seed| seed.parse().ok()) {
                compared.extend(Comparison::read(&folder)?.map(|comparison| (seed, comparison)));
                self.add_bilevel(&folder, format!("{name} seed {seed}"))?;
                // One seed's texts are enough to look at; the others' stand in their files.
                if repeated.is_empty() {
                    self.add_weights(&folder, format!("{name} seed {seed}"))?;
                }
                self.add_soup(&folder, format!("{name} seed {seed}"))?;
                sweeps.extend(BestOfN::read(&folder)?);
                repeated.extend(Done::read(&folder)?.map(|done| (seed, done)));
            }
        }
        self.comparisons.extend(Comparison::over_seeds(compared).map(|found| (name.to_owned(), found)));
        if !sweeps.is_empty() {
            self.sweeps.push(Sweep { stage: name.to_owned(), seeds: sweeps });
        }
        // A stage of PPO speaks for its seeds itself.
        if Done::read(folder)?.is_none() {
            self.stages.extend(Done::of_seeds(repeated).map(|done| (name.to_owned(), done)));
        }
        Ok(())
    }
}

impl Run {
    fn add_soup(&mut self, folder: &Path, stage: String) -> Result<()> {
        self.searches.extend(GreedySearch::read(folder)?.map(|search| (stage.clone(), search)));
        self.learned.extend(LearnedWeights::read(folder)?.map(|learned| (stage.clone(), learned)));
        self.maps.extend(Map::read(folder)?.map(|map| (stage, map)));
        Ok(())
    }

    fn add_factors(&mut self, folder: &Path, stage: &str) -> Result<()> {
        let (mut fits, mut compared) = (Vec::new(), Vec::new());
        let seeds = seeds_of(folder)?.into_iter().map(|(_, folder)| folder);
        for folder in [folder.to_owned()].into_iter().chain(seeds) {
            fits.extend(FactorsResult::read(&folder)?);
            compared.extend(Consistency::read(&folder)?);
        }
        if !fits.is_empty() {
            self.fits.push((stage.to_owned(), fits));
        }
        if !compared.is_empty() {
            self.consistency.push((stage.to_owned(), compared));
        }
        Ok(())
    }

    fn add_bilevel(&mut self, folder: &Path, stage: String) -> Result<()> {
        self.bilevel.add(folder, &stage)?;
        if let Some(figures) = Figures::read(folder)? {
            self.figures.get_or_insert_default().append(figures);
        }
        Ok(())
    }

    fn add_weights(&mut self, folder: &Path, stage: String) -> Result<()> {
        // A cleaning's weights have the same name, and are of pairs.
        if self.bilevel.cleaned.iter().any(|(cleaned, _)| *cleaned == stage) {
            return Ok(());
        }
        let texts = expert_weights::read(folder)?;
        if !texts.is_empty() {
            self.weighed.push((stage, texts));
        }
        Ok(())
    }
}

impl Trace {
    fn read(folder: &Path, stage: &str, seed: Option<String>) -> Result<Option<Self>> {
        // Some trainings have a folder of their own inside their stage's.
        let places = ["metrics.jsonl", "cleaning/metrics.jsonl"].map(|place| folder.join(place));
        let Some(path) = places.into_iter().find(|path| path.exists()) else { return Ok(None) };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let row: serde_json::Map<String, Value> = serde_json::from_str(line)
                .with_context(|| format!("{}:{} is no JSON object", path.display(), number + 1))?;
            let Some(step) = row.get("step").and_then(Value::as_f64) else { continue };
            for (name, value) in &row {
                if let Some(value) = value.as_f64().filter(|value| value.is_finite()) {
                    series.entry(name.clone()).or_default().push((step, value));
                }
            }
        }
        Ok(Some(Self { stage: stage.to_owned(), seed, series }))
    }
}

/// The folders of a stage's seeds.
pub(crate) fn seeds_of(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let seed = |(name, folder): (String, PathBuf)| Some((name.strip_prefix("seed-")?.parse().ok()?, folder));
    Ok(subfolders(folder)?.into_iter().filter_map(seed).collect())
}

/// Folders by name.
fn subfolders(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the run in {}", folder.display()))?;
    let mut folders: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect();
    // `seed-10` after `seed-9`.
    folders.sort_by_cached_key(|(name, _)| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        (stem.to_owned(), name[stem.len()..].parse::<u64>().ok(), name.clone())
    });
    Ok(folders)
}

/// What the recipe says varied, by stage.
fn varied(recipe: &str) -> BTreeMap<String, String> {
    let table: toml::Table = recipe.parse().unwrap_or_default();
    let stages = table.get("stage").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    stages
        .iter()
        .filter_map(|stage| {
            let name = stage.get("name")?.as_str()?.split('/').next()?;
            let varied = stage.get("varied")?.as_table()?;
            let parts: Vec<String> =
                varied.iter().map(|(key, value)| format!("{key} {}", text(value))).collect();
            Some((name.to_owned(), parts.join(", ")))
        })
        .collect()
}

/// Stages in the recipe's order, whatever else there is after them.
fn order(mut folders: Vec<(String, PathBuf)>, recipe: Option<&str>) -> Vec<(String, PathBuf)> {
    let names: Vec<String> = recipe
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| table.get("stage")?.as_array().cloned())
        .map(|stages| {
            stages
                .iter()
                .filter_map(|stage| Some(stage.get("name")?.as_str()?.split('/').next()?.to_owned()))
                .collect()
        })
        .unwrap_or_default();
    let place = |name: &String| names.iter().position(|known| known == name).unwrap_or(usize::MAX);
    folders.sort_by_key(|(name, _)| place(name));
    folders
}
