#![doc = include_str!("../../../README.md")]
//!
//! # The crates
//!
//! | module | crate | what it is for |
//! | --- | --- | --- |
//! | [`core`] | `align-core` | batches, traits, divergences, advantages |
//! | [`kernels`] | `align-kernels` | fused operations |
//! | [`models`] | `align-models` | transformers, checkpoints, generation, heads, adapters |
//! | [`data`] | `align-data` | files, templates, tokenizers, a synthetic world |
//! | [`soup`] | `align-soup` | averages and merges of weights |
//! | [`fusion`] | `align-fusion` | a large model steered by small ones at decoding time |
//! | [`train`] | `align-train` | the step, the loop, resume |
//! | [`reward`] | `align-reward` | reward models, ensembles, best-of-n |
//! | [`ppo`] | `align-ppo` | PPO with any reference: SALSA |
//! | [`nash`] | `align-nash` | INPO, Nash-MD, DPO and its relatives; games with exact equilibria |
//! | [`superhf`] | `align-superhf` | filter by a reward, fine-tune with a KL prior |
//! | [`occupancy`] | `align-occupancy` | occupancy measures, correlated proxies, χ² against reward hacking |
//! | [`bilevel`] | `align-bilevel` | gradients through a training run: cleaned data, tuned coefficients, designed rewards |
//! | [`factors`] | `align-factors` | tabular models that are right for the same reasons |
//! | [`playground`] | here | the synthetic world with small models that answer in it |

pub use align_bilevel as bilevel;
pub use align_core as core;
pub use align_data as data;
pub use align_factors as factors;
pub use align_fusion as fusion;
pub use align_kernels as kernels;
pub use align_models as models;
pub use align_nash as nash;
pub use align_occupancy as occupancy;
pub use align_ppo as ppo;
pub use align_reward as reward;
pub use align_soup as soup;
pub use align_superhf as superhf;
pub use align_train as train;

pub mod playground;

/// The pages of `docs/`, compiled as tests: a stale snippet fails the build.
#[cfg(doctest)]
mod pages {
    macro_rules! page {
        ($($name:ident $path:literal)+) => {
            $(#[doc = include_str!(concat!("../../../docs/", $path))] struct $name;)+
        };
    }

    page! {
        Architecture "architecture.md"
        ComingFromTrl "coming-from-trl.md"
        Conventions "conventions.md"
        DataFormats "data-formats.md"
        Glossary "glossary.md"
        Log "log.md"
        MethodBilevel "methods/bilevel.md"
        MethodCorrelatedProxies "methods/correlated-proxies.md"
        MethodFactors "methods/factors.md"
        MethodFusion "methods/fusion.md"
        MethodMerging "methods/merging.md"
        MethodNash "methods/nash.md"
        MethodPpo "methods/ppo.md"
        MethodRewardEnsembles "methods/reward-ensembles.md"
        MethodSalsa "methods/salsa.md"
        MethodSuperHf "methods/superhf.md"
        Metrics "metrics.md"
        Numerics "numerics.md"
        Performance "performance.md"
        Recipes "recipes.md"
        Sources "sources.md"
        Testing "testing.md"
        Troubleshooting "troubleshooting.md"
    }
}
