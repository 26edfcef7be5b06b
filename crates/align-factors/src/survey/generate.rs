//! The generator.

use align_core::draws::{Draws, Purpose};
use align_core::number::{Finite, NonNegative, UnitInterval};
use serde::{Deserialize, Serialize};

use super::normal::folded_normal_mean;
use crate::design::Design;
use crate::distribution::{ImportanceDistribution, at_least_two};
use crate::ordinal::Grid;
use crate::split::Part;
use crate::{Factors, FactorsError, Matrix, Normalization, Scorer};

/// Added to true importances before they are normalised, so that a factor without any keeps some mass.
const FLOOR: f64 = 1e-3;

/// What a survey's answers depend on. The defaults are our experiment, not the paper's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SurveyConfig {
    /// Coefficients of the primary factors.
    pub primary: Vec<Finite>,
    /// Coefficients of the secondary factors.
    pub secondary: Vec<Finite>,
    /// How many factors nothing depends on.
    pub nuisance: usize,
    /// Correlation of the i-th nuisance factor with the i-th primary one, as far as there are both.
    pub correlation: UnitInterval,
    /// Coefficient of the product of the first and the third primary factor; it needs three.
    pub interaction: Finite,
    /// Standard deviation of what no factor explains.
    pub noise: NonNegative,
    /// Where the latent number, divided by its standard deviation, is cut: rising. k of them make the classes 1 to k + 1.
    pub thresholds: Vec<Finite>,
}

impl Default for SurveyConfig {
    /// Four primary factors, four secondary, four of nuisance that correlate 0.5 with the primary ones, and five classes.
    fn default() -> Self {
        Self {
            primary: [1.2, -0.9, 0.7, 0.5].map(Finite::literal).to_vec(),
            secondary: [0.3, -0.25, 0.2, 0.15].map(Finite::literal).to_vec(),
            nuisance: 4,
            correlation: UnitInterval::literal(0.5),
            interaction: Finite::literal(0.4),
            noise: NonNegative::literal(1.0),
            thresholds: [-1.2, -0.4, 0.4, 1.2].map(Finite::literal).to_vec(),
        }
    }
}

/// A survey with known reasons: standard normal factors x, a latent number `u = β·x + w x₁x₃ + noise`, and happiness, 1 + the
/// number of thresholds below `u / sd(u)`.
///
/// As a [`Scorer`] it gives u without the noise: what a perfect model would have learnt.
///
/// # Examples
/// ```
/// use align_factors::{Survey, SurveyConfig, Test, Train};
///
/// let survey = Survey::new(SurveyConfig::default())?;
/// let (train, test) = (survey.draw::<Train>(200, 7), survey.draw::<Test>(3000, 7));
/// assert_eq!((train.rows.width(), train.len(), test.len()), (12, 200, 3000));
/// let truth = survey.true_distribution();
/// assert!(truth[3] > truth[4], "the weakest primary factor counts more than the strongest secondary one");
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    config: SurveyConfig,
    coefficients: Vec<f64>,
    deviation: f64,
}

impl Survey {
    /// A survey.
    ///
    /// # Errors
    /// [`FactorsError::NothingToCompare`] with fewer than two factors; [`FactorsError::InvalidCount`] for an interaction
    /// without a third primary factor, or no thresholds; [`FactorsError::InvalidThresholds`] if they do not rise;
    /// [`FactorsError::DegenerateExplanation`] if happiness depends on nothing.
    pub fn new(config: SurveyConfig) -> Result<Self, FactorsError> {
        let given = config.primary.iter().chain(&config.secondary).map(|coefficient| coefficient.get());
        let mut coefficients: Vec<f64> = given.collect();
        coefficients.resize(coefficients.len() + config.nuisance, 0.0);
        at_least_two(coefficients.len())?;
        let (w, found) = (config.interaction.get(), config.primary.len());
        if w != 0.0 && found < 3 {
            let name = "primary factors of a survey with an interaction";
            return Err(FactorsError::InvalidCount { name, least: 3, found });
        }
        if config.thresholds.is_empty() {
            return Err(FactorsError::InvalidCount { name: "thresholds", least: 1, found: 0 });
        }
        if !config.thresholds.is_sorted_by(|a, b| a < b) {
            let thresholds = config.thresholds.iter().map(|threshold| threshold.get()).collect();
            return Err(FactorsError::InvalidThresholds { thresholds });
        }
        // β'Σβ = Σ β², since factors that correlate do so with nuisance, whose β is 0. Var(x₁x₃) = 1, and it correlates with
        // no x.
        let explained = coefficients.iter().map(|beta| beta * beta).sum::<f64>() + w * w;
        if explained == 0.0 {
            return Err(FactorsError::DegenerateExplanation);
        }
        let deviation = (explained + config.noise.get().powi(2)).sqrt();
        Ok(Self { config, coefficients, deviation })
    }

    /// What it was made from.
    pub fn config(&self) -> &SurveyConfig {
        &self.config
    }

    /// How many factors.
    pub fn width(&self) -> usize {
        self.coefficients.len()
    }

    /// The classes of happiness.
    pub fn grid(&self) -> Grid {
        Grid::new(1, self.config.thresholds.len() as i64 + 1)
    }

    /// `primary 1`, `primary 2`, … `secondary 1`, … `nuisance 1`, …
    pub fn factors(&self) -> Factors {
        let roles = [
            ("primary", self.config.primary.len()),
            ("secondary", self.config.secondary.len()),
            ("nuisance", self.config.nuisance),
        ];
        let names =
            roles.into_iter().flat_map(|(role, count)| (1..=count).map(move |i| format!("{role} {i}")));
        Factors::columns(names).expect("two factors at least, each with a name of its own")
    }

    /// Positions of the primary factors.
    pub fn primaries(&self) -> std::ops::Range<usize> {
        0..self.config.primary.len()
    }

    /// The standard deviation of the latent number.
    pub fn latent_deviation(&self) -> f64 {
        self.deviation
    }

    /// Answers of `people`. The parts of one seed have no random number in common, and a longer list begins with the shorter.
    ///
    /// # Panics
    /// If there are no people.
    pub fn draw<P: Part>(&self, people: usize, seed: u64) -> Design<P> {
        assert!(people > 0, "Survey::draw: nobody is asked");
        let width = self.width();
        let (draws, first_nuisance) = (Draws::new(seed).child(P::STREAM), width - self.config.nuisance);
        let (rho, rest) = (self.config.correlation.get(), (1.0 - self.config.correlation.powi(2)).sqrt());
        let mut rows = vec![0.0; people * width];
        let mut labels = Vec::with_capacity(people);
        for (person, row) in rows.chunks_exact_mut(width).enumerate() {
            let normal = |index: usize| draws.normal(Purpose::Synthesize, person as u64, index as u64);
            for factor in 0..width {
                let own = normal(factor);
                let twin =
                    factor.checked_sub(first_nuisance).filter(|twin| *twin < self.config.primary.len());
                row[factor] = twin.map_or(own, |twin| rho * row[twin] + rest * own);
            }
            let latent = self.score(row) + self.config.noise.get() * normal(width);
            labels.push(self.class(latent));
        }
        Design::new(Matrix::new(rows, width), self.factors(), labels)
    }

    fn class(&self, latent: f64) -> f64 {
        let below = self.config.thresholds.iter().filter(|cut| cut.get() < latent / self.deviation).count();
        1.0 + below as f64
    }

    /// `β·x + w x₁x₃`.
    fn score(&self, row: &[f64]) -> f64 {
        let linear: f64 = self.coefficients.iter().zip(row).map(|(beta, x)| beta * x).sum();
        match self.config.interaction.get() {
            0.0 => linear,
            w => linear + w * row[0] * row[2],
        }
    }

    /// `E|φ_j|` of the latent number with the mean as the baseline, where `φ_j = β_j x_j`, and half of the product is added
    /// for its two factors: `√(2/π) |β_j|`, and `√(2/π) E|N(β_j, (w/2)²)|` for these.
    pub fn true_importances(&self) -> Vec<f64> {
        let half = self.config.interaction.abs() / 2.0;
        let importance = |(factor, &beta): (usize, &f64)| {
            let interacts = half > 0.0 && (factor == 0 || factor == 2);
            let slope = if interacts { folded_normal_mean(beta, half) } else { beta.abs() };
            std::f64::consts::FRAC_2_PI.sqrt() * slope
        };
        self.coefficients.iter().enumerate().map(importance).collect()
    }

    /// The true importances plus 0.001, normalised: knowledge q* that is right.
    pub fn true_distribution(&self) -> ImportanceDistribution {
        let raised: Vec<f64> = self.true_importances().iter().map(|importance| importance + FLOOR).collect();
        ImportanceDistribution::of(&raised, Normalization::Ratio).expect("two factors, and something matters")
    }
}

impl Scorer for Survey {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }
}
