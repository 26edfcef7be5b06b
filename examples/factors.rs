//! Few people and many questions: a network is guided by what is known of the factors, and misled by what is not so.
//!
//! In a generated survey happiness depends on four primary and four secondary factors; four others only correlate with the
//! primary ones. A perceptron of 200 answers is trained without knowledge, with the true importances as knowledge, and with
//! the same masses in reverse.
//!
//! Source: the divergence of importance distributions as a loss is that of arXiv 2402.12398; survey and settings are ours.
//!
//! `cargo run --release --example factors`

use align::factors::attribution::{Baseline, Method, explain, importances};
use align::factors::guide::{FitConfig, Guide, GuideConfig, fit};
use align::factors::{
    Divergence, ImportanceDistribution, Net, NetworkConfig, Normalization, OrdinalMetrics, Scorer, Survey,
    SurveyConfig, Test, Train,
};
use burn::tensor::Device;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let survey = Survey::new(SurveyConfig::default())?;
    let (train, test) = (survey.draw::<Train>(200, 7), survey.draw::<Test>(3000, 7));
    let truth = survey.true_distribution();
    let reversed = ImportanceDistribution::new(truth.iter().rev().copied().collect())?;
    let center = train.labels.iter().sum::<f64>() / train.len() as f64;
    let start = NetworkConfig::default().build(&train.factors, center, 7, &Device::flex());
    let probe = test.rows.select(&(0..300).collect::<Vec<_>>());
    let method = Method::Permutation { pairs: 4, seed: 0 };

    println!("knowledge  squared error  accuracy  KL from the true reasons");
    for (name, knowledge, lambda) in
        [("none", &truth, 0.0), ("right", &truth, 1.0), ("reversed", &reversed, 1.0)]
    {
        let config = GuideConfig { lambda, ..GuideConfig::default() };
        let guide = Guide { config, knowledge: knowledge.clone() };
        let fitted = fit(start.clone(), &train, None, &FitConfig::default(), Some(&guide))?;
        let model = Net::new(&fitted.network);
        let figures = OrdinalMetrics::of(survey.grid(), &test.labels, &model.scores(&test.rows))?;
        let reasons = explain(&model, &probe, &train.factors, &Baseline::mean(&train.rows), method)?;
        let shares = ImportanceDistribution::of(&importances(&reasons), Normalization::Ratio)?;
        println!(
            "{name:9}  {:13.3}  {:8.3}  {:.3}",
            figures.mse,
            figures.accuracy,
            Divergence::Forward.reported(&truth, &shares)
        );
    }
    Ok(())
}
