//! The laws of guided training.

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_factors::attribution::{Baseline, BaselineConfig};
use align_factors::guide::{
    Concord, EarlyStopping, FitConfig, Fitted, Guide, GuideConfig, GuideError, JointConfig, PoolConfig,
    Probe, ProbeConfig, TaskLoss, antithetic_orders, fit, fit_grid, fit_jointly, fit_pool,
    smoothed_importances,
};
use align_factors::{
    Activation, Design, Divergence, FactorsError, FtConfig, ImportanceDistribution, Matrix, Mlp, ModelError,
    Net, Network, NetworkConfig, Normalization, Scorer, Survey, SurveyConfig, Train, Validation,
    generalized_jensen_shannon, to_double,
};
use align_testkit::{assert_all_close, assert_close, device};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn distribution(masses: &[f64]) -> ImportanceDistribution {
    ImportanceDistribution::new(masses.to_vec()).unwrap()
}

/// A small survey and a short training of a small perceptron.
struct World {
    train: Design,
    validation: Design<Validation>,
    config: FitConfig,
    guide: Guide,
}

fn world() -> World {
    let survey = Survey::new(SurveyConfig::default()).unwrap();
    let config = FitConfig {
        steps: 60,
        batch: 16,
        early_stopping: EarlyStopping { every: 20, patience: 10 },
        seed: 5,
        ..FitConfig::default()
    };
    let config_of_guide =
        GuideConfig { probe: ProbeConfig { rows: 4, ..ProbeConfig::default() }, ..GuideConfig::default() };
    World {
        train: survey.draw(80, 5),
        validation: survey.draw(80, 5),
        config,
        guide: Guide { config: config_of_guide, knowledge: survey.true_distribution() },
    }
}

fn perceptron(seed: u64) -> Mlp {
    Mlp::new(12, &[6], Activation::Tanh, 3.0, seed, &device())
}

/// What a training leaves behind, to the bit.
fn fingerprint<N: Network + Sync>(fitted: &Fitted<N>, world: &World) -> Vec<f64> {
    let mut numbers = Net::new(&fitted.network).scores(&world.validation.rows);
    for look in &fitted.looks {
        numbers.extend([look.step as f64, look.task]);
    }
    numbers
}

#[test]
fn a_guide_of_weight_0_is_no_guide_bit_for_bit() {
    let world = world();
    let run = |guide: Option<&Guide>| fit(perceptron(1), &world.train, None, &world.config, guide).unwrap();
    let silent = Guide { config: GuideConfig { lambda: 0.0, ..world.guide.config }, ..world.guide.clone() };
    let (without, with) = (run(None), run(Some(&silent)));
    assert_eq!(fingerprint(&without, &world), fingerprint(&with, &world));
    assert_eq!(without.looks, with.looks);
    let guided = run(Some(&world.guide));
    assert_ne!(fingerprint(&without, &world), fingerprint(&guided, &world));
    // Guidance takes no draw from minibatches: before it sets in, the trainings are the same.
    let late = Guide {
        config: GuideConfig { warmup: UnitInterval::literal(0.9), ..world.guide.config },
        ..world.guide.clone()
    };
    let late = run(Some(&late));
    assert_eq!(late.looks[..2], without.looks[..2]);
    assert_ne!(late.looks[2], without.looks[2]);
}

#[test]
fn the_same_seed_gives_the_same_training_and_another_one_another() {
    let world = world();
    let run = |seed: u64| {
        let config = FitConfig { seed, ..world.config.clone() };
        fingerprint(&fit(perceptron(1), &world.train, None, &config, Some(&world.guide)).unwrap(), &world)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn every_setting_of_a_training_changes_it() {
    let world = world();
    let run = |config: &FitConfig, guide: &Guide| {
        let fitted = fit(perceptron(1), &world.train, Some(&world.validation), config, Some(guide)).unwrap();
        fingerprint(&fitted, &world)
    };
    let usual = run(&world.config, &world.guide);
    let fits: Vec<(&str, FitConfig)> = vec![
        ("steps", FitConfig { steps: 80, ..world.config.clone() }),
        ("batch", FitConfig { batch: 8, ..world.config.clone() }),
        ("learning_rate", FitConfig { learning_rate: Positive::literal(0.01), ..world.config.clone() }),
        ("l2", FitConfig { l2: NonNegative::literal(0.3), ..world.config.clone() }),
        ("max_grad_norm", FitConfig { max_grad_norm: NonNegative::literal(0.01), ..world.config.clone() }),
        (
            "early_stopping.every",
            FitConfig {
                early_stopping: EarlyStopping { every: 10, ..world.config.early_stopping },
                ..world.config.clone()
            },
        ),
    ];
    for (name, config) in fits {
        assert_ne!(run(&config, &world.guide), usual, "{name}");
    }
    let base = world.guide.config;
    let guides: Vec<(&str, GuideConfig)> = vec![
        ("lambda", GuideConfig { lambda: 2.0, ..base }),
        ("divergence", GuideConfig { divergence: Divergence::JensenShannon, ..base }),
        (
            "normalization",
            GuideConfig { normalization: Normalization::Softmax { tau: Positive::literal(1.0) }, ..base },
        ),
        ("warmup", GuideConfig { warmup: UnitInterval::literal(0.5), ..base }),
        ("knowledge_smoothing", GuideConfig { knowledge_smoothing: UnitInterval::literal(0.2), ..base }),
        ("smoothing", GuideConfig { smoothing: Positive::literal(0.3), ..base }),
        ("probe.rows", GuideConfig { probe: ProbeConfig { rows: 8, ..base.probe }, ..base }),
        ("probe.pairs", GuideConfig { probe: ProbeConfig { pairs: 2, ..base.probe }, ..base }),
        (
            "probe.baseline",
            GuideConfig { probe: ProbeConfig { baseline: BaselineConfig::Median {}, ..base.probe }, ..base },
        ),
    ];
    for (name, config) in guides {
        let guide = Guide { config, ..world.guide.clone() };
        assert_ne!(run(&world.config, &guide), usual, "{name}");
    }
}

#[test]
fn guidance_lowers_the_divergence_and_the_task_goes_on() {
    let world = world();
    let config = FitConfig { steps: 300, ..world.config.clone() };
    // Of few rows importances are noisy, and their divergence is never small.
    let probe = ProbeConfig { rows: 64, ..world.guide.config.probe };
    let guide = Guide { config: GuideConfig { probe, ..world.guide.config }, ..world.guide.clone() };
    let fitted = fit(perceptron(1), &world.train, None, &config, Some(&guide)).unwrap();
    let guided: Vec<f64> = fitted.looks.iter().filter_map(|look| look.divergence).collect();
    assert!(guided[guided.len() - 1] < 0.5 * guided[0], "{guided:?}");
    assert!(fitted.looks[fitted.looks.len() - 1].task < fitted.looks[0].task);
    assert_eq!(fitted.skipped, 0);
}

#[test]
fn every_kind_of_network_can_be_guided() {
    let world = world();
    let config = FitConfig { steps: 120, l2: NonNegative::literal(1e-3), ..world.config.clone() };
    let kinds = [
        NetworkConfig::Linear {},
        NetworkConfig::FactorizationMachine { rank: 4 },
        NetworkConfig::default(),
        NetworkConfig::Mlp { hidden: vec![8, 8], activation: Activation::Relu },
        NetworkConfig::FtTransformer(FtConfig { width: 8, heads: 2, blocks: 1, hidden: 8 }),
    ];
    for kind in kinds {
        let network = kind.build(&world.train.factors, 3.0, 1, &device());
        let fitted = fit(network, &world.train, None, &config, Some(&world.guide)).unwrap();
        let (first, last) = (fitted.looks[0], fitted.looks[fitted.looks.len() - 1]);
        assert!(last.task < first.task, "{kind:?}: {first:?} {last:?}");
        assert!(last.divergence.unwrap().is_finite() && fitted.skipped == 0, "{kind:?}");
    }
}

#[test]
fn a_network_that_depends_on_nothing_is_not_guided_but_counted() {
    /// Learns a constant and looks at no column.
    #[derive(Module, Debug)]
    struct Constant {
        level: Param<Tensor<1>>,
    }
    impl Network for Constant {
        fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
            self.level.val().expand([rows.dims()[0]])
        }
    }
    let world = world();
    let network = Constant { level: Param::from_tensor(Tensor::zeros([1], &device())) };
    let fitted = fit(network, &world.train, None, &world.config, Some(&world.guide)).unwrap();
    // 60 steps, of which the first fifth is the warm-up.
    assert_eq!(fitted.skipped, 48);
    assert!(fitted.looks.iter().all(|look| look.divergence.is_none()));
}

#[test]
fn training_ends_early_and_keeps_the_network_of_the_lowest_validation_loss() {
    let world = world();
    let config = FitConfig {
        steps: 3000,
        l2: NonNegative::literal(0.0),
        learning_rate: Positive::literal(0.02),
        early_stopping: EarlyStopping { every: 20, patience: 3 },
        ..world.config.clone()
    };
    let run = |guide| fit(perceptron(1), &world.train, Some(&world.validation), &config, guide).unwrap();
    let fitted = run(None);
    let losses: Vec<f64> = fitted.looks.iter().filter_map(|look| look.validation).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(fitted.looks.last().unwrap().step < 3000, "80 rows are overfitted long before");
    assert_eq!(fitted.validation, Some(least));
    // The network that is returned is that one, not the last.
    let scores = Net::new(&fitted.network).scores(&world.validation.rows);
    assert_eq!(TaskLoss::Squared.mean_on_host(&scores, &world.validation.labels), least);
    assert_eq!(losses.len() - losses.iter().position(|loss| *loss == least).unwrap(), 4);
    // A guided network is never one of the warm-up, which is 600 steps here.
    assert!(run(Some(&world.guide)).step > 600);
}

#[test]
fn the_weight_is_chosen_on_validation_rows_with_0_among_the_choices() {
    let world = world();
    let config = FitConfig { steps: 200, ..world.config.clone() };
    let q = &world.guide.knowledge;
    let reversed = distribution(&q.iter().rev().copied().collect::<Vec<_>>());
    let wrong = Guide { knowledge: reversed, ..world.guide.clone() };
    let run = |guide: &Guide| {
        fit_grid(&perceptron(1), &world.train, &world.validation, &config, guide, &[3.0, 0.3]).unwrap()
    };
    for (guide, guided) in [(&world.guide, true), (&wrong, false)] {
        let selection = run(guide);
        let lambdas: Vec<f64> = selection.candidates.iter().map(|candidate| candidate.lambda).collect();
        assert_eq!(lambdas, [0.0, 0.3, 3.0]);
        let least = selection.best().fitted.validation.unwrap();
        assert!(selection.candidates.iter().all(|candidate| candidate.fitted.validation.unwrap() >= least));
        assert_eq!(selection.best().lambda > 0.0, guided);
        let alone = fit(perceptron(1), &world.train, Some(&world.validation), &config, None).unwrap();
        assert_eq!(fingerprint(selection.unguided(), &world), fingerprint(&alone, &world));
    }
}

#[test]
fn networks_trained_jointly_agree_more_than_alone() {
    let world = world();
    let config = FitConfig { steps: 300, ..world.config.clone() };
    let build = |network: NetworkConfig, seed| network.build(&world.train.factors, 3.0, seed, &device());
    let networks = || {
        vec![
            build(NetworkConfig::default(), 1),
            build(NetworkConfig::Linear {}, 2),
            build(NetworkConfig::FactorizationMachine { rank: 4 }, 3),
        ]
    };
    let disagreement = |joint: &JointConfig| {
        let fitted = fit_jointly(networks(), &world.train, None, &config, joint).unwrap();
        let orders = antithetic_orders(80, 12, 1, &mut StdRng::seed_from_u64(1));
        let baseline = Baseline::mean(&world.train.rows);
        let probe =
            Probe::new(&world.train.rows, &orders, &world.train.factors, &baseline, (&device(), DType::F32));
        let shares: Vec<ImportanceDistribution> = fitted
            .iter()
            .map(|fitted| {
                let importances = smoothed_importances(probe.attributions(&fitted.network), 0.0);
                let importances: Vec<f64> = importances.to_data().iter::<f64>().collect();
                ImportanceDistribution::of(&importances, Normalization::Ratio).unwrap()
            })
            .collect();
        generalized_jensen_shannon(&shares, &[1.0 / 3.0; 3]).unwrap()
    };
    let probe = ProbeConfig { rows: 8, ..ProbeConfig::default() };
    let joint = JointConfig { probe, ..JointConfig::default() };
    let alone = disagreement(&JointConfig { lambda: 0.0, ..joint });
    let together = disagreement(&joint);
    // The divergence of all is a mean over the models, of which each moves its own part: it takes a larger weight.
    let by_all = disagreement(&JointConfig { agreement: Concord::JensenShannon {}, lambda: 9.0, ..joint });
    assert!(together < 0.5 * alone, "{together} and alone {alone}");
    assert!(by_all < 0.5 * alone, "{by_all} and alone {alone}");
    let rarely = disagreement(&JointConfig { refresh: 1000, ..joint });
    assert_ne!(rarely, together);
}

#[test]
fn joint_training_of_weight_0_is_training_alone() {
    let world = world();
    let joint = JointConfig { lambda: 0.0, ..JointConfig::default() };
    let fitted =
        fit_jointly(vec![perceptron(1), perceptron(2)], &world.train, None, &world.config, &joint).unwrap();
    for (seed, fitted) in [1, 2].into_iter().zip(&fitted) {
        let alone = fit(perceptron(seed), &world.train, None, &world.config, None).unwrap();
        assert_eq!(fingerprint(fitted, &world), fingerprint(&alone, &world));
    }
}

#[test]
fn a_pool_leaves_out_models_that_predict_worse() {
    let world = world();
    let pool = fit_pool(&world.train, &world.validation, &PoolConfig::default()).unwrap();
    assert_eq!(pool.models.len(), 4);
    let losses: Vec<f64> = pool.models.iter().map(|(_, member)| member.validation_loss()).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    for (model, member) in &pool.models {
        let scores = model.scores(&world.validation.rows);
        let loss = TaskLoss::Squared.mean_on_host(&scores, &world.validation.labels);
        assert_close(loss, member.validation_loss(), 1e-12);
        let counts = pool.consensus.members.iter().any(|(name, _)| name == member.name());
        assert_eq!(counts, loss <= 1.05 * best, "{}", member.name());
    }
    assert_close(pool.consensus.knowledge.iter().sum::<f64>(), 1.0, 1e-12);
}

#[test]
fn wrong_settings_and_data_are_refused_by_name() {
    let world = world();
    let refused = |train: &Design, config: &FitConfig, guide: &Guide| {
        fit(perceptron(1), train, None, config, Some(guide)).unwrap_err().to_string()
    };
    let guided =
        |config: GuideConfig| refused(&world.train, &world.config, &Guide { config, ..world.guide.clone() });
    let base = world.guide.config;
    assert_eq!(
        guided(GuideConfig { lambda: -0.5, ..base }),
        "InvalidWeight: lambda must be finite and >= 0, got -0.5"
    );
    assert_eq!(
        guided(GuideConfig { lambda: f64::NAN, ..base }),
        "InvalidWeight: lambda must be finite and >= 0, got NaN"
    );
    assert_eq!(
        guided(GuideConfig { probe: ProbeConfig { rows: 0, ..base.probe }, ..base }),
        "InvalidCount: attribution rows must be at least 1, got 0"
    );
    assert_eq!(
        guided(GuideConfig { probe: ProbeConfig { pairs: 0, ..base.probe }, ..base }),
        "InvalidCount: permutation pairs must be at least 1, got 0"
    );
    let short = Guide { knowledge: distribution(&[0.5, 0.5]), ..world.guide.clone() };
    assert_eq!(
        refused(&world.train, &world.config, &short),
        "ShapeMismatch: 2 knowledge entries for 12 factors"
    );
    let idle = FitConfig { steps: 0, ..world.config.clone() };
    assert_eq!(refused(&world.train, &idle, &world.guide), "InvalidCount: steps must be at least 1, got 0");
    let binary = FitConfig { loss: TaskLoss::Logistic, ..world.config.clone() };
    let row = world.train.labels.iter().position(|&label| label > 1.0).unwrap();
    let message = refused(&world.train, &binary, &world.guide);
    assert!(message.contains(&format!("the label of row {row}")), "{message}");

    let mut values = world.train.rows.values().to_vec();
    values[12 * 7 + 3] = f64::NAN;
    let holes: Design<Train> =
        Design::new(Matrix::new(values, 12), world.train.factors.clone(), world.train.labels.clone());
    let error = fit(perceptron(1), &holes, None, &world.config, None).unwrap_err();
    assert!(matches!(error, GuideError::Model(ModelError::NotFinite { row: 7, .. })), "{error}");

    let huge: Vec<f64> = world.train.labels.iter().map(|label| label * 1e200).collect();
    let huge: Design<Train> = Design::new(world.train.rows.clone(), world.train.factors.clone(), huge);
    let error = fit(perceptron(1), &huge, None, &world.config, None).unwrap_err();
    assert!(
        matches!(error, GuideError::Factors(FactorsError::Loss { term: "task", step: 0, .. })),
        "{error}"
    );

    let joint = JointConfig::default();
    let error = fit_jointly(vec![perceptron(1)], &world.train, None, &world.config, &joint).unwrap_err();
    assert_eq!(error.to_string(), "InvalidCount: networks must be at least 2, got 1");
    let frozen = JointConfig { refresh: 0, ..joint };
    let error = fit_jointly(vec![perceptron(1), perceptron(2)], &world.train, None, &world.config, &frozen);
    assert_eq!(error.unwrap_err().to_string(), "InvalidCount: refresh must be at least 1, got 0");
}

#[test]
fn settings_are_read_with_defaults_and_strays_are_refused() {
    let config: GuideConfig = toml::from_str(
        "lambda = 0.3\ndivergence = \"jensen_shannon\"\nnormalization = { kind = \"softmax\", tau = 0.5 }\n\
         [probe]\nrows = 32\nbaseline = { kind = \"background\", rows = 8 }\n",
    )
    .unwrap();
    assert_eq!((config.lambda, config.divergence), (0.3, Divergence::JensenShannon));
    assert_eq!((config.probe.rows, config.probe.pairs), (32, 1));
    assert_eq!(toml::from_str::<GuideConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    let joint: JointConfig =
        toml::from_str("agreement = { kind = \"mean_of_others\", divergence = \"reverse\" }").unwrap();
    assert_eq!(joint.agreement, Concord::MeanOfOthers { divergence: Divergence::Reverse });
    assert!(toml::from_str::<GuideConfig>("lamda = 1.0").unwrap_err().to_string().contains("lamda"));
    assert!(toml::from_str::<FitConfig>("learning_rate = 0.0").is_err());
    let pool: PoolConfig = toml::from_str("[[models]]\nkind = \"boosted_trees\"\ndepth = 2\n").unwrap();
    assert_eq!(pool.models.len(), 1);
}

#[test]
fn networks_in_double_are_guided_to_the_same_place() {
    // Weights are updated in f32 either way; what differs is the rounding of scores.
    let world = world();
    let run = |network| fit(network, &world.train, None, &world.config, Some(&world.guide)).unwrap();
    let (single, double) = (run(perceptron(1)), run(to_double(&perceptron(1))));
    let scores = |fitted: &Fitted<Mlp>| Net::new(&fitted.network).scores(&world.validation.rows);
    assert_all_close(scores(&single), scores(&double), 1e-3, 1e-3);
}
