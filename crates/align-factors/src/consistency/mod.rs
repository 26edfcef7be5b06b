//! Whether models have the same reasons.
//!
//! | question | answer |
//! | --- | --- |
//! | do two models rank factors alike? | [`Agreement`], [`kendall_tau_b`], [`spearman`], [`order_agreement`] |
//! | do they name the same factors first? | [`top_k_overlap`], [`top_k_jaccard`] |
//! | which factors are primary to which, in one model or in all? | [`Relations`] |
//! | which orders must both models share? | [`Margins`] |

mod agreement;
mod margin;
mod rank;
mod relations;

pub use agreement::{Agreement, agreements};
pub use margin::{CertifiedPair, Margins};
pub use rank::{kendall_tau_b, order_agreement, share_above, spearman, top_k, top_k_jaccard, top_k_overlap};
pub use relations::Relations;
