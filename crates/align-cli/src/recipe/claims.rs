//! Claims: what is expected of the results of earlier stages.
//!
//! ```toml
//! [[stage.claim]]
//! says = "one member turns over"
//! figure = { of = "@bon", by = "single", take = "drop" }
//! at_least = 0.02
//!
//! [[stage.claim]]
//! says = "the worst case ends far higher"
//! figure = { of = "@bon", by = "WCO", take = "last" }
//! at_least = { times = 1.4, than = { of = "@bon", by = "single", take = "last" } }
//!
//! [[stage.claim]]
//! says = "the fusion closes most of the gap"
//! figure = { of = "@gaps", by = "dynamic", curve = "closure" }
//! at_least = 0.8
//! share_of_seeds = 0.7
//! ```

use align_core::number::Fraction;
use serde::{Deserialize, Serialize};

/// What is expected of earlier stages' results, printed and drawn as pass or fail.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimsStage {
    /// One by one.
    pub(crate) claim: Vec<Claim>,
}

/// A figure and what it must be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// In words.
    pub(crate) says: String,
    /// The figure.
    pub(crate) figure: Figure,
    /// It must be this or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<Bound>,
    /// It must be this or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<Bound>,
    /// It must be more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) above: Option<Bound>,
    /// It must be less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) below: Option<Bound>,
    /// Of every seed by itself instead of the mean over seeds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) every_seed: bool,
    /// Of at least this share of the seeds by themselves instead of the mean over seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share_of_seeds: Option<Fraction>,
}

/// A number, or `times` another figure `plus` a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a table with `than` and perhaps `times` and `plus`")]
pub(crate) enum Bound {
    /// As it stands.
    Number(f64),
    /// Of another figure.
    Figure(RelativeBound),
}

/// `times·than + plus`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelativeBound {
    pub(crate) than: Figure,
    #[serde(default = "once")]
    pub(crate) times: f64,
    #[serde(default)]
    pub(crate) plus: f64,
}

/// A number read off the curves of an earlier stage, which are averaged over its seeds; closures of gaps are curves of one point.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    /// `@stage`, of kind `bon`, `gaps` or a training; of several the one with the largest figure.
    pub(crate) of: OneOrMany,
    /// Best-of-n: the way of judging, as its table calls it. Gaps: the arm. Bilevel stages: a name in their `figures.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    /// Best-of-n: `gold` or `proxy`, over n. Trainings: a metric, over steps. Gold if not given. Gaps: `closure` (if not given), `ratio`
    /// or the metric, averaged over tasks, or of one task as `closure/<task>` and `<metric>/<task>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) curve: Option<String>,
    /// Which number; the last if not given.
    #[serde(default)]
    pub(crate) take: Take,
    /// A mean over so many neighbouring points stands for each point.
    #[serde(default = "one_point")]
    pub(crate) window: usize,
    /// Read it off every seed's own curve and average the numbers, instead of off the mean curve.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) own: bool,
    /// Of several stages the one with the smallest figure, for figures of which less is better.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) least: bool,
    /// Divide by this figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<Box<Figure>>,
}

/// A number of a curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Take {
    /// Its first point.
    First,
    /// Its last.
    #[default]
    Last,
    /// Its highest.
    Peak,
    /// How far the last lies below the highest.
    Drop,
    /// How far the last lies above the first.
    Gain,
    /// The last divided by the first.
    Growth,
    /// The smallest rise from a point to the next: above 0 the curve rises everywhere.
    LeastRise,
}

/// One text or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `@stage` or a list of them")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

fn once() -> f64 {
    1.0
}

fn one_point() -> usize {
    1
}
