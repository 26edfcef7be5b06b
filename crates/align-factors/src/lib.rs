//! Tabular models that are right for the same reasons.
//!
//! Models of a survey reach the same accuracy in different ways. Those that are accurate still tend to agree on which factors
//! matter most, the *primary* ones, and which matter less. This crate measures the reasons of a model, says which of them it
//! must share with another, and trains networks whose reasons are those of experts or of a pool of models. It serves whatever
//! scores rows of named numbers: a happiness survey, or a reward made of attributes, where length should count for little.
//!
//! ```text
//! f(x) = φ₀ + Σ_j φ_j(x)      attributions    what each factor adds to a score
//! I_j  = mean |φ_j|           importances     how much a factor matters
//! p_j  = I_j / Σ_k I_k        distribution    comparable between models
//! task + λ · KL(q ‖ p)        guidance        q is knowledge
//! ```
//!
//! | topic | where |
//! | --- | --- |
//! | files to typed columns | [`Schema`], [`read_csv`], [`read_parquet`], [`Table`] |
//! | who is trained on, chosen on, tested on, by type | [`Split`], [`Rows`], [`Design`] |
//! | columns to numbers and factors | [`Encoder`], [`Factors`], [`Matrix`] |
//! | models of a pool | [`Ridge`], [`Logistic`], [`BoostedStumps`], [`Forest`], saved as a [`Model`] |
//! | networks that can be guided | [`Linear`], [`FactorizationMachine`], [`Mlp`], [`FtTransformer`] |
//! | what each factor adds to a score | [`attribution`] |
//! | importances as distributions, and how far apart they are | [`ImportanceDistribution`], [`Divergence`], [`generalized_jensen_shannon`] |
//! | knowledge from experts, a teacher, a consensus | [`Knowledge`], [`PoolMember`], [`consensus`] |
//! | do models agree, and which orders must they share | [`Agreement`], [`Relations`], [`Margins`] |
//! | training with guidance | [`guide`] |
//! | how good predictions on a scale are | [`Grid`], [`OrdinalMetrics`] |
//! | surveys whose reasons are known | [`Survey`] |
//!
//! # What is the paper's and what is ours
//! The idea is that of Wu, Li, Tao, Xing, Yuan 2024, "Primary and secondary factor consistency as domain knowledge to guide
//! happiness computing in online assessment", <https://arxiv.org/abs/2402.12398>. Its abstract states additive attributions of
//! factors, relations between them that several models share, relations with magnitude as an importance distribution, and a
//! Kullback–Leibler loss on differing explanations. That is all we could check. Everything more precise is our choice: the
//! attribution methods and baselines, the normalisation, the direction of the divergence, λ, warm-up and clipping, the models,
//! how a pool is weighed, the metrics, the margin lemma and its proof, and the generated survey. Where there was a choice it is
//! a setting.
//!
//! # Examples
//! Two models of the same answers, and what they have to agree on:
//! ```
//! use align_factors::attribution::{Baseline, Method, explain, importances};
//! use align_factors::{
//!     Agreement, BoostedStumps, ImportanceDistribution, Margins, Normalization, Ridge, RidgeConfig, Scorer,
//!     StumpsConfig, Survey, SurveyConfig, Train,
//! };
//!
//! let survey = Survey::new(SurveyConfig::default())?;
//! let train = survey.draw::<Train>(400, 7);
//! let ridge = Ridge::fit(&train.rows, &train.labels, &RidgeConfig::default())?;
//! let stumps = BoostedStumps::fit(&train.rows, &train.labels, &StumpsConfig::default())?;
//!
//! let baseline = Baseline::mean(&train.rows);
//! let explained = |model: &dyn Scorer| explain(model, &train.rows, &train.factors, &baseline, Method::default());
//! let (first, second) = (explained(&ridge)?, explained(&stumps)?);
//!
//! // Both name the four primary factors first, as the truth does.
//! let p = ImportanceDistribution::of(&importances(&first), Normalization::Ratio)?;
//! let q = ImportanceDistribution::of(&importances(&second), Normalization::Ratio)?;
//! assert_eq!(Agreement::between(&p, &q, 4).top_k_overlap, 1.0);
//! assert_eq!(Agreement::between(&p, &survey.true_distribution(), 4).top_k_overlap, 1.0);
//!
//! // For some pairs nothing else was possible: the models are too close, and the factors too far apart.
//! let margins = Margins::between(&first.values, &second.values);
//! assert!(margins.certifies(0, 8) && !margins.certifies(8, 9));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod attribution;
mod consistency;
mod design;
mod distribution;
mod divergence;
mod encode;
mod error;
mod factors;
pub mod guide;
mod knowledge;
mod matrix;
mod models;
mod ordinal;
mod scorer;
mod split;
mod survey;
mod table;

pub use consistency::{
    Agreement, CertifiedPair, Margins, Relations, agreements, kendall_tau_b, order_agreement, share_above,
    spearman, top_k, top_k_jaccard, top_k_overlap,
};
pub use design::Design;
pub use distribution::{ImportanceDistribution, Normalization};
pub use divergence::{Divergence, REPORT_FLOOR, generalized_jensen_shannon};
pub use encode::{Answer, Constant, Encoder, EncoderConfig, MissingCode, OrdinalCode, Unseen};
pub use error::FactorsError;
pub use factors::{Factor, Factors};
pub use knowledge::{
    Consensus, ConsensusConfig, Group, Knowledge, PoolMember, PoolWeights, Pooling, consensus, geometric,
    pooled,
};
pub use matrix::Matrix;
pub use models::{
    Activation, AnyNetwork, BoostedStumps, FactorizationMachine, Forest, FtConfig, FtTransformer, Linear,
    Logistic, Mlp, Model, ModelError, Net, NetworkConfig, Node, PairTerm, Ridge, RidgeConfig, RidgeTerms,
    Side, Stump, StumpsConfig, Tree, TreesConfig, TreesLoss, to_double,
};
pub use ordinal::{Grid, OrdinalMetrics};
pub use scorer::{Network, ScoreFn, Scorer};
pub use split::{Part, Rows, Shares, Split, SplitError, Test, Train, Validation};
pub use survey::{Survey, SurveyConfig};
pub use table::{
    Code, Column, ColumnSchema, Delimiter, Label, Levels, MissingLabels, Others, Place, Schema, Table,
    TableError, Unit, Values, read_csv, read_parquet, read_table,
};
