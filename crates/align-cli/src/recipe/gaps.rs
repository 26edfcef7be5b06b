//! How much of the way from one model to another a third one goes.
//!
//! ```toml
//! [[stage]]
//! name = "gaps"
//! kind = "gaps"
//! tasks = { addition = "@eval-addition", facts = "@eval-facts" }
//! unseen = { larger = "@eval-larger" }
//! metric = "exact_match"
//! floor = "large base"
//! ceiling = "large tuned"
//! ```

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

/// Closure of the gap between two arms of comparisons, `(arm − floor) / (ceiling − floor)`, task by task and then averaged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GapsStage {
    /// Comparisons (`@stage` of kind `eval`) by the task they are about; these are averaged.
    pub(crate) tasks: toml::Table,
    /// Comparisons on what no expert was tuned on; reported, and in no average.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub(crate) unseen: toml::Table,
    /// Which figure of the comparisons.
    #[serde(default)]
    pub(crate) metric: GapMetric,
    /// The arm at which nothing is closed: the base.
    pub(crate) floor: String,
    /// The arm at which everything is closed: the fully tuned model.
    pub(crate) ceiling: String,
    /// What is measured between them, in the table's order; every other arm if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) arms: Vec<String>,
    /// A gap below this, in units of the metric, is not divided by.
    #[serde(default = "smallest")]
    pub(crate) smallest: Positive,
}

/// A figure of a comparison that has a better and a worse end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapMetric {
    /// The share of answers that are right token by token.
    #[default]
    ExactMatch,
    /// Nats a token of the right answers; lower is better.
    Nll,
    /// The reward that was meant.
    Gold,
    /// The reward that was optimised.
    Reward,
    /// The share of comparisons that are won.
    WinRate,
}

impl GapMetric {
    /// Its name among the figures of a comparison.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact_match",
            Self::Nll => "nll",
            Self::Gold => "gold",
            Self::Reward => "reward",
            Self::WinRate => "win_rate",
        }
    }

    /// Whether less of it is better.
    pub(crate) fn lower_is_better(self) -> bool {
        self == Self::Nll
    }
}

/// A twentieth: of a share of right answers about what 61 questions can tell apart.
fn smallest() -> Positive {
    Positive::literal(0.05)
}
