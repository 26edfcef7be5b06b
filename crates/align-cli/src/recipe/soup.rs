//! Soups: equal weights, given ones, chosen greedily by a figure of `align eval`, or learnt on held-out data.

use align_core::number::{NonNegative, Positive};
use align_soup::{Better, Granularity, LearnedOptions, Region};
use serde::{Deserialize, Serialize};

use super::eval::EvalStage;
use super::parts::{DataConfig, EncodeConfig, at_least_one};
use super::source::nearest_of;

/// A soup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SoupStage {
    /// What is averaged.
    pub(crate) models: Vec<String>,
    /// One weight per model, summing to 1; equal if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) weights: Vec<f64>,
    /// Keep a model only if the soup does not get worse with it, instead of `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) greedy: Option<GreedyConfig>,
    /// Learn the weights, instead of `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) learned: Option<LearnedConfig>,
    /// Demonstrations for the health gate; no gate without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthConfig>,
    /// Draw the plane through three models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) map: Option<MapConfig>,
}

/// A greedy search.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GreedyConfig {
    /// A figure of `eval`: `nll`, `exact_match`, `gold`, `reward`, `kl/<anchor>` and so on.
    pub(crate) metric: String,
    /// Whether a higher or a lower figure is better; known of all but lengths, entropies and similarities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) better: Option<Better>,
    /// What every soup is evaluated with: the keys of a comparison, without `arms` and `against`.
    pub(crate) eval: Box<EvalStage>,
}

/// Weights learnt on rows that no ingredient was trained on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LearnedConfig {
    /// Held-out demonstrations.
    pub(crate) data: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// What shares a set of weights: the whole model, or each layer.
    #[serde(default)]
    pub(crate) by: Granularity,
    /// Whether weights stay above 0 (simplex) or may extrapolate (affine).
    #[serde(default)]
    pub(crate) region: Region,
    /// Steps of Adam on the weights.
    #[serde(default = "learned_steps")]
    pub(crate) steps: u64,
    /// Its step size.
    #[serde(default = "learned_rate")]
    pub(crate) learning_rate: Positive,
    /// Rows of a step.
    #[serde(default = "learned_minibatch", deserialize_with = "at_least_one")]
    pub(crate) minibatch: usize,
    /// The order of the rows.
    #[serde(default)]
    pub(crate) seed: u64,
}

impl LearnedConfig {
    /// As the library takes them.
    pub(crate) fn options(&self) -> LearnedOptions {
        let Self { by, region, steps, .. } = *self;
        LearnedOptions { by, region, steps, learning_rate: self.learning_rate.get() }
    }
}

/// A figure on the plane through three models.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MapConfig {
    /// The three models; those of the soup if it has three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) models: Vec<String>,
    /// A figure of `eval`.
    pub(crate) metric: String,
    /// Whether a higher or a lower figure is better; known of all but lengths, entropies and similarities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) better: Option<Better>,
    /// What every point is evaluated with.
    pub(crate) eval: Box<EvalStage>,
    /// Points along the longer side. Every one is a model that is averaged, loaded and evaluated.
    #[serde(default = "map_points")]
    pub(crate) points: usize,
    /// How far the map goes beyond the three models, as a share of their extent.
    #[serde(default = "map_margin")]
    pub(crate) margin: NonNegative,
}

/// The health gate: a soup must not be worse at its ingredients' job than they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthConfig {
    /// Held-out demonstrations.
    pub(crate) data: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// By how many nats a token the soup may be worse than its worst ingredient.
    #[serde(default = "health_tolerance")]
    pub(crate) tolerance: NonNegative,
}

impl SoupStage {
    /// The models of its map.
    pub(crate) fn mapped(&self) -> &[String] {
        match &self.map {
            Some(map) if !map.models.is_empty() => &map.models,
            _ => &self.models,
        }
    }

    /// Refuses what contradicts itself or cannot be measured: the key, and what is wrong.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let ways = [
            ("weights", !self.weights.is_empty()),
            ("greedy", self.greedy.is_some()),
            ("learned", self.learned.is_some()),
        ];
        let given: Vec<&'static str> =
            ways.into_iter().filter(|(_, given)| *given).map(|(way, _)| way).collect();
        if let [first, second, ..] = given[..] {
            let message = format!("`{first}` and `{second}` both decide the weights, expected one of them");
            return Err((second, message));
        }
        let several = |what: &str| match self.models.len() {
            0 | 1 => Err(("models", format!("{what} needs at least 2 models, found {}", self.models.len()))),
            _ => Ok(()),
        };
        if let Some(greedy) = &self.greedy {
            several("a greedy soup")?;
            direction(&greedy.metric, greedy.better, &greedy.eval).map_err(|message| ("greedy", message))?;
        }
        if let Some(learned) = &self.learned {
            several("a learned soup")?;
            if learned.steps == 0 {
                return Err(("learned", "`steps` must be at least 1, found 0".to_owned()));
            }
        }
        if let Some(map) = &self.map {
            if self.mapped().len() != 3 {
                let message = format!(
                    "a map is the plane through 3 models, found {}; name them as `models`",
                    self.mapped().len()
                );
                return Err(("map", message));
            }
            if map.points < 2 {
                return Err(("map", format!("`points` must be at least 2, found {}", map.points)));
            }
            direction(&map.metric, map.better, &map.eval).map_err(|message| ("map", message))?;
        }
        Ok(())
    }
}

/// Which of two values of a figure is better; the error says what figures there are.
pub(crate) fn direction(metric: &str, better: Option<Better>, eval: &EvalStage) -> Result<Better, String> {
    if !eval.arms.is_empty() {
        return Err("`eval.arms` has no place here: what is evaluated are the soups".to_owned());
    }
    if eval.against.is_some() {
        return Err("`eval.against` names an arm, and there are none here".to_owned());
    }
    eval.check().map_err(|message| format!("eval: {message}"))?;
    let known = figures(eval);
    let Some((_, usual)) = known.iter().find(|(name, _)| name == metric) else {
        let names: Vec<String> = known.into_iter().map(|(name, _)| name).collect();
        let hint = nearest_of(metric, &names).map(|nearest| format!("; did you mean `{nearest}`?"));
        return Err(format!(
            "`metric` is {metric:?}, and this `eval` measures {}{}",
            names.join(", "),
            hint.unwrap_or_default()
        ));
    };
    better.or(*usual).ok_or_else(|| {
        format!(
            "neither a high nor a low `{metric}` is better by itself: set `better` to \"higher\" or \"lower\""
        )
    })
}

/// The figures that a comparison with these keys has, and which of their values are better where that is known.
fn figures(eval: &EvalStage) -> Vec<(String, Option<Better>)> {
    let mut figures = Vec::new();
    let mut add = |given: bool, name: String, better: Option<Better>| {
        if given {
            figures.push((name, better));
        }
    };
    add(eval.answers.is_some(), "nll".to_owned(), Some(Better::Lower));
    if eval.draw {
        add(eval.answers.is_some(), "exact_match".to_owned(), Some(Better::Higher));
        add(eval.gold.is_some(), "gold".to_owned(), Some(Better::Higher));
        add(eval.reward.is_some(), "reward".to_owned(), Some(Better::Higher));
        for anchor in eval.anchors.keys() {
            add(true, format!("kl/{anchor}"), Some(Better::Lower));
        }
        add(true, "stop_rate".to_owned(), Some(Better::Higher));
        for undecided in ["length", "entropy", "similarity"] {
            add(true, undecided.to_owned(), None);
        }
    }
    figures
}

fn health_tolerance() -> NonNegative {
    NonNegative::literal(0.05)
}

fn learned_steps() -> u64 {
    LearnedOptions::default().steps
}

fn learned_rate() -> Positive {
    Positive::literal(LearnedOptions::default().learning_rate)
}

fn learned_minibatch() -> usize {
    16
}

/// A few hundred evaluations: enough for smooth contours.
fn map_points() -> usize {
    17
}

/// A quarter to each side shows whether the models lie on the slope of a basin or on its floor.
fn map_margin() -> NonNegative {
    NonNegative::literal(0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(text: &str) -> SoupStage {
        let models = "models = [\"@a\", \"@b\"]\n";
        toml::from_str(&format!("{models}{text}")).unwrap()
    }

    fn refused(text: &str) -> String {
        let (key, message) = stage(text).check().unwrap_err();
        format!("{key}: {message}")
    }

    const NLL: &str = "eval = { answers = { path = \"f\" }, draw = false }";

    #[test]
    fn figures_that_are_known_have_a_direction() {
        stage(&format!("greedy = {{ metric = \"nll\", {NLL} }}")).check().unwrap();
        let eval = "eval = { prompts = { path = \"f\" }, gold = \"@w\", anchors = { start = \"@a\" } }";
        for (metric, better) in [("gold", Better::Higher), ("kl/start", Better::Lower)] {
            let stage = stage(&format!("greedy = {{ metric = \"{metric}\", {eval} }}"));
            let greedy = stage.greedy.unwrap();
            assert_eq!(direction(&greedy.metric, greedy.better, &greedy.eval), Ok(better));
        }
        stage(&format!("greedy = {{ metric = \"length\", better = \"lower\", {eval} }}")).check().unwrap();
        assert!(refused(&format!("greedy = {{ metric = \"length\", {eval} }}")).contains("set `better`"));
        let unknown = refused(&format!("greedy = {{ metric = \"golden\", {eval} }}"));
        assert!(
            unknown.contains("measures gold, kl/start, stop_rate, length, entropy, similarity"),
            "{unknown}"
        );
        assert!(unknown.ends_with("did you mean `gold`?"), "{unknown}");
        let missing = refused(&format!("greedy = {{ metric = \"exact_match\", {NLL} }}"));
        assert!(missing.contains("measures nll"), "{missing}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let greedy = format!("greedy = {{ metric = \"nll\", {NLL} }}");
        let learned = "learned = { data = { path = \"f\" } }";
        assert!(
            refused(&format!("weights = [1.0, 0.0]\n{greedy}")).starts_with("greedy: `weights` and `greedy`")
        );
        assert!(refused(&format!("{greedy}\n{learned}")).starts_with("learned: `greedy` and `learned`"));
        assert!(refused("learned = { data = { path = \"f\" }, steps = 0 }").contains("`steps`"));
        let map = format!("map = {{ metric = \"nll\", {NLL} }}");
        assert!(refused(&map).contains("the plane through 3 models, found 2"));
        let named = format!("map = {{ models = [\"@a\", \"@b\", \"@c\"], metric = \"nll\", {NLL} }}");
        stage(&named).check().unwrap();
        assert!(refused(&named.replace("metric", "points = 1, metric")).contains("`points`"));
        let arms = greedy.replace("draw", "arms = { a = \"@a\" }, draw");
        assert!(refused(&arms).contains("`eval.arms` has no place here"));
        let one: SoupStage = toml::from_str(&format!("models = [\"@a\"]\n{greedy}")).unwrap();
        assert!(one.check().unwrap_err().1.contains("at least 2 models, found 1"));
    }
}
