//! The methods that others published, on the same trait: to compare with, and to use where their assumptions hold.
//!
//! | method | kind | gradient calls of an outer step | numbers kept |
//! | --- | --- | --- | --- |
//! | [`F2sa`] | penalty, growing multiplier | 3T + 3; with momentum 6T + 6 | x + 2y; with momentum 4x + 8y |
//! | [`VPbgd`] | penalty on the value gap, joint step | T + 5 | x + 2y |
//! | [`Bome`] | penalty with a multiplier of its own | T + 4 | x + y |
//! | [`Soba`] | implicit, one loop | 7 | x + 2y |
//! | [`Saba`] | the same with tables | 7 | x + 2y, and (x + 2y) a lower block, (x + y) an upper block |
//! | [`Implicit`] | implicit, conjugate gradients (AID) or a Neumann series (stocBiO) | T + 2K + 4, at most 2 more | x + 2y |
//! | [`Unrolled`] | reverse mode through the last K of T inner steps | T + 4K | x + (K + 1)y |
//! | [`FiniteDifference`] | ground truth | (2·dim x + 1)T, and 2·dim x values | x + y |
//!
//! T is the number of inner steps, K that of Hessian products or of steps gone back through. A call is one gradient at one
//! point over one sample.
//!
//! The implicit methods and unrolling are defined by second derivatives. Here these are central differences of first ones,
//! `(∇g(y + hv) − ∇g(y − hv)) / 2h`, so that every method asks the same of a problem and costs can be compared; see
//! [`Curvature`]. Their theory is for Y the whole space and a Hessian that can be inverted.
//!
//! All are projected onto X and Y where a problem has such sets, also where the publication has none. Starts outside
//! are refused. The y and z of a penalty share their lower minibatch.

mod bome;
mod curvature;
mod f2sa;
mod f2sa_config;
mod finite_difference;
mod implicit;
mod inverse;
mod power;
mod saba;
mod sampling;
mod soba;
mod steps;
mod unrolled;
mod v_pbgd;

pub use bome::{Bome, BomeConfig, Control, bome_multiplier};
pub use curvature::Curvature;
pub use f2sa::F2sa;
pub use f2sa_config::{F2saConfig, LowerConstants, Multiplier, Noise};
pub use finite_difference::{FiniteDifference, FiniteDifferenceConfig};
pub use implicit::{Implicit, ImplicitConfig, Inverse};
pub use inverse::{LinearSolution, conjugate_gradients, neumann_series};
pub use power::Power;
pub use saba::{Saba, SabaConfig, TableStart};
pub use sampling::Sampling;
pub use soba::{Soba, SobaConfig};
pub use unrolled::{Unrolled, UnrolledConfig};
pub use v_pbgd::{VPbgd, VPbgdConfig};
