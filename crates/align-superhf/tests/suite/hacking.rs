//! The small faithful experiment of the SuperHF specification, section 7, tier 1: a proxy that can be hacked, with and without
//! the prior. Everything is sampled, scored and compared here, from final weights.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use align_core::draws::Purpose;
use align_core::exact::{Exact, token_divergences};
use align_core::{CausalLm, Completions, Draws, Frozen, Reward, RewardFn, divergence::ReverseKl};
use align_superhf::meteor::Meteor;
use align_superhf::{SuperHf, SuperHfParts};
use align_testkit::salsa_task::{Gold, Hackable, PatternNet, answers, demonstrations, prompts};
use align_testkit::{device, train_device};
use align_train::{Learner, NextToken, OptimizerConfig};
use burn::module::Module;
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use serde_json::json;

const GROUPS: usize = 150;
const PROMPTS: usize = 4;
const SEEDS: u64 = 3;
const BETAS: [f64; 7] = [0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0];
const SAMPLES: [usize; 5] = [1, 2, 4, 8, 16];
/// With which the hack beats honesty, and with which it does not but is easier to find.
const BONUS: f64 = 1.25;
const LESS: f64 = 1.0;

/// What is known of a policy.
#[derive(Clone, Copy, Debug)]
struct Measured {
    gold: f64,
    proxy: f64,
    /// METEOR between successive responses, whose prompts differ; tokens are words.
    similarity: f64,
    /// KL(p_0‖p_θ) per token, nats.
    divergence: f64,
}

/// One arm of the experiment.
#[derive(Clone, Copy)]
struct Arm {
    beta: f64,
    samples: usize,
    kept: usize,
    bonus: f64,
    /// Scores that say nothing take the place of the proxy.
    random_scores: bool,
    /// An unrelated net takes the place of the prior.
    wrong_prior: bool,
}

const USUAL: Arm =
    Arm { beta: 0.35, samples: 16, kept: 1, bonus: BONUS, random_scores: false, wrong_prior: false };

struct World {
    start: PatternNet,
    draws: Draws,
}

/// Each start is trained once for all tests.
fn world(seed: u64) -> &'static World {
    static WORLDS: [OnceLock<World>; SEEDS as usize] = [const { OnceLock::new() }; SEEDS as usize];
    WORLDS[seed as usize].get_or_init(|| World::of(seed))
}

impl World {
    /// A net trained on demonstrations that are right 55 % of the time: 6 epochs, batch 16, Adam at 0.01.
    fn of(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let net = PatternNet::random(&draws, 1.0, &train_device());
        let (given, wanted) = demonstrations(&draws.child(1), 4096, 0.55);
        let config = OptimizerConfig {
            learning_rate: 0.01.try_into().expect("a positive rate"),
            max_grad_norm: 0.0.try_into().expect("not negative"),
            ..OptimizerConfig::default()
        };
        let mut learner = Learner::new(net, config, 1).expect("something to train");
        for epoch in 0..6 {
            let mut order: Vec<usize> = (0..given.len()).collect();
            order.shuffle(&mut draws.child(2).generator(Purpose::Shuffle, epoch));
            for rows in order.chunks(16) {
                let pick = |from: &[Vec<u32>]| rows.iter().map(|&row| from[row].clone()).collect::<Vec<_>>();
                let batch = Completions::from_rows(&pick(&given), &pick(&wanted), &device());
                learner.step(&NextToken, &[batch.into()]).expect("a step");
            }
        }
        Self { start: learner.into_model().valid(), draws }
    }

    /// 150 groups of SuperHF.
    fn train(&self, arm: Arm) -> PatternNet {
        let config = json!({
            "superbatch_size": arm.samples, "prompt_accumulation_steps": PROMPTS, "top_k": arm.kept,
            "kl_coef": arm.beta, "kl_reduction": "token_mean", "kl_samples": 0,
            "prior": if arm.wrong_prior { "other" } else { "start" },
            "temperature": 1.0, "top_p": 1.0, "response_length": 8,
            "minibatch": PROMPTS * arm.kept, "microbatch": 64, "total_episodes": GROUPS * PROMPTS * arm.samples,
            "learning_rate": 3e-3, "lr_schedule": { "kind": "cosine" }, "weight_decay": 0.0, "seed": self.draws.seed(),
        });
        let calls = AtomicU64::new(0);
        let draws = self.draws.child(9);
        let random = move |completions: &Completions| -> Tensor<1> {
            let first = calls.fetch_add(1, Ordering::Relaxed);
            let rows = completions.batch_size() as u64;
            let score = |row| draws.token(Purpose::Synthesize, first, row, 0, 0) as f32;
            Tensor::from_floats((0..rows).map(score).collect::<Vec<_>>().as_slice(), &device())
        };
        let reward: Box<dyn Reward> = match arm.random_scores {
            true => Box::new(RewardFn(random)),
            false => Box::new(Hackable { bonus: arm.bonus }),
        };
        let prior = match arm.wrong_prior {
            true => PatternNet::random(&self.draws.child(6), 3.0, &device()),
            false => self.start.clone(),
        };
        let before = bits(&prior);
        let parts = SuperHfParts {
            policy: self.start.clone().train(),
            prior: Box::new(Frozen::new(&prior)),
            reward,
            validation: None,
            gold: None,
            prompts: prompts(&self.draws.child(7), GROUPS * PROMPTS),
        };
        let mut superhf =
            SuperHf::new(parts, serde_json::from_value(config).expect("settings")).expect("parts");
        assert_eq!(superhf.plan().groups, GROUPS as u64);
        for step in 0..GROUPS as u64 {
            superhf.iteration(step).expect("a group");
        }
        assert_eq!(bits(&prior), before, "6: the prior stands still to the last bit");
        superhf.into_policy().valid()
    }

    /// On 2048 prompts that nobody trained on.
    fn measure(&self, policy: &PatternNet, bonus: f64) -> Measured {
        let (given, said) = answers(policy, &self.draws.child(8), 2048);
        let completions = Completions::from_rows(&given, &said, &device());
        let mean = |reward: &dyn Reward| reward.score(&completions).mean().into_scalar::<f64>();
        let texts: Vec<String> =
            said.iter().map(|row| row.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")).collect();
        let meteor = Meteor::exact();
        let pairs = texts.windows(2).map(|pair| meteor.similarity(&pair[0], &pair[1]));
        let how = Exact { divergence: &ReverseKl, temperature: 1.0, columns: 8 };
        let (of_policy, of_prior) = (policy.next_tokens(&completions), self.start.next_tokens(&completions));
        let divergence = token_divergences(&of_policy, &of_prior, &completions.response.mask, &how);
        Measured {
            gold: mean(&Gold),
            proxy: mean(&Hackable { bonus }),
            similarity: pairs.sum::<f64>() / 2047.0,
            divergence: divergence.mean().into_scalar(),
        }
    }

    fn arm(&self, arm: Arm) -> Measured {
        self.measure(&self.train(arm), arm.bonus)
    }
}

fn bits(net: &PatternNet) -> Vec<u32> {
    let matrix = |x: &Tensor<2>| x.to_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
    [matrix(&net.input.val()), matrix(&net.output.val())].concat()
}

/// All arms of one seed.
struct Outcome {
    start: Measured,
    /// In the order of [`BETAS`].
    betas: Vec<Measured>,
    /// In the order of [`SAMPLES`].
    samples: Vec<Measured>,
    /// K = N, and random scores, at the usual β.
    controls: [Measured; 2],
    /// With the bonus that does not pay.
    less: [Measured; 2],
}

impl Outcome {
    fn of(seed: u64) -> Self {
        let world = world(seed);
        let betas: Vec<Measured> = BETAS.map(|beta| world.arm(Arm { beta, ..USUAL })).to_vec();
        let samples = SAMPLES.map(|samples| match samples {
            16 => betas[4],
            samples => world.arm(Arm { samples, ..USUAL }),
        });
        let outcome = Self {
            start: world.measure(&world.start, BONUS),
            samples: samples.to_vec(),
            controls: [world.arm(Arm { kept: 16, ..USUAL }), world.arm(Arm { random_scores: true, ..USUAL })],
            less: [world.measure(&world.start, LESS), world.arm(Arm { bonus: LESS, ..USUAL })],
            betas,
        };
        println!("seed {seed}: start {:?}", outcome.start);
        BETAS.iter().zip(&outcome.betas).for_each(|(beta, of)| println!("  β {beta}: {of:?}"));
        SAMPLES.iter().zip(&outcome.samples).for_each(|(samples, of)| println!("  N {samples}: {of:?}"));
        println!("  K = N: {:?}\n  random: {:?}", outcome.controls[0], outcome.controls[1]);
        println!("  h = 1: {:?} to {:?}", outcome.less[0], outcome.less[1]);
        outcome
    }
}

/// 1: the collapse is real, and it pays.
fn collapses(start: Measured, free: Measured) -> bool {
    free.similarity >= 0.6 && free.gold <= 0.25 && free.proxy >= start.proxy + 0.4
}

/// 2: more of the prior is never more of the collapse; and it does hold the policy nearer.
fn is_monotone(betas: &[Measured]) -> bool {
    betas.windows(2).all(|pair| {
        let [less, more] = [pair[0], pair[1]];
        more.similarity <= less.similarity + 0.02
            && more.gold >= less.gold - 0.02
            && more.divergence < less.divergence
    })
}

/// 3: enough of it removes the collapse and keeps what was gained.
fn is_held(start: Measured, held: Measured) -> bool {
    held.similarity <= 0.20 && held.gold >= start.gold + 0.02
}

fn is_held_where_the_hack_does_not_pay([start, held]: [Measured; 2]) -> bool {
    held.gold >= start.gold + 0.05 && held.similarity <= 0.16
}

/// 4: more samples are better, as means over seeds.
fn rises(proxies: &[f64]) -> bool {
    proxies.windows(2).all(|pair| pair[1] > pair[0]) && proxies[proxies.len() - 1] - proxies[0] >= 0.25
}

/// 5: where nothing is selected, or not by the proxy, the proxy stays.
fn stays(start: Measured, control: Measured) -> bool {
    (control.proxy - start.proxy).abs() < 0.05
}

#[test]
fn the_prior_removes_a_collapse_that_the_proxy_likes() {
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let seeds: Vec<_> = (0..SEEDS).map(|seed| scope.spawn(move || Outcome::of(seed))).collect();
        seeds.into_iter().map(|seed| seed.join().expect("a seed")).collect()
    });
    for (seed, of) in outcomes.iter().enumerate() {
        assert!(collapses(of.start, of.betas[0]), "1, seed {seed}: {:?}", of.betas[0]);
        assert!(is_monotone(&of.betas), "2, seed {seed}: {:?}", of.betas);
        assert!(is_held(of.start, of.betas[6]), "3, seed {seed}: {:?}", of.betas[6]);
        assert!(is_held_where_the_hack_does_not_pay(of.less), "3, seed {seed}: {:?}", of.less);
        for control in of.controls.iter().chain(of.samples.first()) {
            assert!(stays(of.start, *control), "5, seed {seed}: {control:?} from {:?}", of.start);
        }
    }
    let proxies: Vec<f64> = (0..SAMPLES.len())
        .map(|index| outcomes.iter().map(|of| of.samples[index].proxy).sum::<f64>() / SEEDS as f64)
        .collect();
    assert!(rises(&proxies), "4: {proxies:?}");
}

#[test]
fn a_trainer_that_is_wrong_fails() {
    let world = world(0);
    let start = world.measure(&world.start, BONUS);
    // A KL to another model does not hold the policy where it was.
    let wrong_prior = world.arm(Arm { beta: 1.0, wrong_prior: true, ..USUAL });
    assert!(!is_held(start, wrong_prior), "{wrong_prior:?}");
    // One that does not learn what was filtered neither collapses without the prior nor gains with more samples.
    let unfiltered = world.arm(Arm { beta: 0.0, random_scores: true, ..USUAL });
    assert!(!collapses(start, unfiltered), "{unfiltered:?}");
    assert!(!rises(&[start.proxy, unfiltered.proxy]), "{unfiltered:?}");
    // One that does not filter at all leaves the proxy alone, so the criterion for controls must refuse the proper arm.
    assert!(!stays(start, world.arm(USUAL)));
}

#[test]
fn beta_0_and_no_prior_give_one_net_to_the_last_bit() {
    let world = world(0);
    let train = |changes: serde_json::Value| {
        let mut config = json!({
            "superbatch_size": 4, "prompt_accumulation_steps": PROMPTS, "top_p": 1.0, "response_length": 8,
            "minibatch": PROMPTS, "total_episodes": 20 * 16, "learning_rate": 3e-3, "seed": 1,
        });
        changes.as_object().expect("an object").iter().for_each(|(name, value)| config[name] = value.clone());
        let parts = SuperHfParts {
            policy: world.start.clone().train(),
            prior: Box::new(Frozen::new(&world.start)),
            reward: Box::new(Hackable { bonus: BONUS }),
            validation: None,
            gold: None,
            prompts: prompts(&world.draws.child(7), 80),
        };
        let mut superhf =
            SuperHf::new(parts, serde_json::from_value(config).expect("settings")).expect("parts");
        (0..20).for_each(|step| drop(superhf.iteration(step).expect("a group")));
        bits(superhf.policy())
    };
    let without = train(json!({ "prior": "none" }));
    assert_eq!(without, train(json!({ "kl_coef": 0.0 })));
    assert_ne!(without, train(json!({})));
}
