//! Bilevel optimisation: solvers where the answer is known, the bias of the penalty, and what the method is for in alignment.

mod bias;
mod clean;
mod linear;
mod policies;
mod solvers;

use std::path::Path;

use anyhow::Result;

pub(crate) use bias::Bias;
pub(crate) use clean::CleanedData;
pub(crate) use linear::LinearCleaning;
pub(crate) use policies::{Coefficient, Design};
pub(crate) use solvers::{Race, SolverResult};

pub(super) use bias::run as bias;
pub(super) use clean::run as clean;
pub(super) use linear::run as linear_cleaning;
pub(super) use policies::{coefficient, design};
pub(super) use solvers::run as solvers;

/// Does something with the problem of a name: `with_problem!(name, |problem| …)`.
macro_rules! with_problem {
    ($name:expr, |$problem:ident| $body:expr) => {
        match $name {
            ProblemName::Portable => {
                let $problem = &Quadratic::portable();
                $body
            }
            ProblemName::Scalar => {
                let $problem = &Quadratic::scalar();
                $body
            }
            ProblemName::Vector => {
                let $problem = &Quadratic::vector();
                $body
            }
            ProblemName::Tied => {
                let $problem = &Tied;
                $body
            }
            ProblemName::TiedUniform => {
                let $problem = &TiedUniform;
                $body
            }
            ProblemName::Boxed => {
                let $problem = &Boxed;
                $body
            }
        }
    };
}
use with_problem;

/// What bilevel stages of a run found, each by stage.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) races: Vec<(String, Race)>,
    pub(crate) biases: Vec<(String, Bias)>,
    pub(crate) linear: Vec<(String, LinearCleaning)>,
    pub(crate) coefficients: Vec<(String, Coefficient)>,
    pub(crate) designs: Vec<(String, Design)>,
    pub(crate) cleaned: Vec<(String, CleanedData)>,
}

impl Found {
    /// Adds what a stage's folder, or that of one of its seeds, holds.
    pub(crate) fn add(&mut self, folder: &Path, stage: &str) -> Result<()> {
        let named = || stage.to_owned();
        self.races.extend(Race::read(folder)?.map(|found| (named(), found)));
        self.biases.extend(Bias::read(folder)?.map(|found| (named(), found)));
        self.linear.extend(LinearCleaning::read(folder)?.map(|found| (named(), found)));
        self.coefficients.extend(Coefficient::read(folder)?.map(|found| (named(), found)));
        self.designs.extend(Design::read(folder)?.map(|found| (named(), found)));
        self.cleaned.extend(CleanedData::read(folder)?.map(|found| (named(), found)));
        Ok(())
    }

    /// True if there is nothing to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.races.is_empty()
            && self.biases.is_empty()
            && self.linear.is_empty()
            && self.coefficients.is_empty()
            && self.designs.is_empty()
            && self.cleaned.is_empty()
    }
}
