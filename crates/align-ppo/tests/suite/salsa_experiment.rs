//! The small experiment of the SALSA specification, section 7, tier 1: from a pretrained net to trained arms.
//!
//! Shared by the reduced test, the bench of the claim and the example. Every number is measured from final weights.

use align_core::draws::Purpose;
use align_core::{Completions, Draws, Frozen};
use align_ppo::{Ppo, PpoConfig, PpoParts, mix};
use align_testkit::salsa_task::{Evaluated, Gold, PatternNet, demonstrations, evaluate, prompts};
use align_testkit::{device, train_device};
use align_train::{Learner, NextToken, OptimizerConfig};
use burn::module::Module;
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use serde_json::json;

/// Nets of one seed, all on the plain device.
pub(crate) struct Ingredients {
    /// θ_1 and θ_2: fine-tuned from one net on the same data in another order.
    pub(crate) tuned: [PatternNet; 2],
    /// Their average.
    pub(crate) soup: PatternNet,
    /// θ_1 averaged with an unrelated random net: the negative control.
    pub(crate) nonsense: PatternNet,
    draws: Draws,
}

impl Ingredients {
    /// Pretrains once on weak demonstrations and fine-tunes twice on better ones.
    pub(crate) fn of(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let start = PatternNet::random(&draws, 1.0, &train_device());
        let weak = demonstrations(&draws.child(1), 4096, 0.15);
        let pretrained = learn(start, &weak, (2, 32, 3e-3), &draws.child(2));
        let better = demonstrations(&draws.child(3), 512, 0.55);
        let tune =
            |order: u64| learn(pretrained.clone(), &better, (30, 16, 0.02), &draws.child(order)).valid();
        let tuned = [tune(4), tune(5)];
        let soup = mix(&tuned[0], &tuned[1], 0.5);
        let stranger = PatternNet::random(&draws.child(6), 3.0, &device());
        let nonsense = mix(&tuned[0], &stranger, 0.5);
        Self { tuned, soup, nonsense, draws }
    }

    /// PPO from θ_1 towards the gold reward, held to `reference`; arms of one seed differ in nothing else.
    pub(crate) fn arm(&self, reference: &PatternNet, beta: f64, updates: usize) -> PatternNet {
        let config: PpoConfig = serde_json::from_value(json!({
            "rollout_batch": 64, "microbatch": 64, "total_episodes": 64 * updates, "num_ppo_epochs": 2,
            "response_length": 8, "temperature": 1.0, "kl_coef": beta, "cliprange": 0.2,
            "learning_rate": 3e-3, "lr_schedule": { "kind": "constant" }, "adam_epsilon": 1e-8, "max_grad_norm": 0.0,
            "advantage_estimator": "position_baseline", "seed": self.draws.seed(),
        }))
        .expect("settings go together");
        let parts = PpoParts {
            policy: self.tuned[0].clone().train(),
            critic: None,
            reference: Frozen::new(reference).into(),
            reward: Box::new(Gold),
            regularizer: None,
            prompts: prompts(&self.draws.child(7), 64 * updates),
            gold: None,
            anchors: Vec::new(),
        };
        let mut ppo: Ppo<PatternNet> = Ppo::new(parts, config).expect("parts go together");
        for iteration in 0..updates as u64 {
            ppo.iteration(iteration).expect("an iteration");
        }
        ppo.into_policy().valid()
    }

    /// Gold reward of `policy` and its exact KL to `from`, on 2048 fresh prompts.
    pub(crate) fn measure(&self, policy: &PatternNet, from: &PatternNet) -> Evaluated {
        evaluate(policy, from, &self.draws.child(8), 2048)
    }
}

/// Supervised learning: (epochs, batch, rate), plain Adam, the data in an order drawn from `draws`.
fn learn(
    net: PatternNet,
    (given, wanted): &(Vec<Vec<u32>>, Vec<Vec<u32>>),
    (epochs, batch, rate): (u64, usize, f64),
    draws: &Draws,
) -> PatternNet {
    let optimizer = OptimizerConfig {
        learning_rate: rate.try_into().expect("a positive rate"),
        max_grad_norm: 0.0.try_into().expect("not negative"),
        ..OptimizerConfig::default()
    };
    let mut learner = Learner::new(net, optimizer, epochs).expect("something to train");
    for epoch in 0..epochs {
        let mut order: Vec<usize> = (0..given.len()).collect();
        order.shuffle(&mut draws.generator(Purpose::Shuffle, epoch));
        for rows in order.chunks(batch) {
            let pick = |from: &[Vec<u32>]| rows.iter().map(|&row| from[row].clone()).collect::<Vec<_>>();
            let microbatch = Completions::from_rows(&pick(given), &pick(wanted), &device());
            learner.step(&NextToken, &[microbatch.into()]).expect("a step");
        }
    }
    learner.into_model()
}

/// All weights, to the bit.
pub(crate) fn bits(net: &PatternNet) -> Vec<u32> {
    let flat = |values: Vec<f32>| values.into_iter().map(f32::to_bits);
    let matrix = |x: &Tensor<2>| x.to_data().iter::<f32>().collect::<Vec<_>>();
    let vector = |x: &Tensor<1>| x.to_data().iter::<f32>().collect::<Vec<_>>();
    flat(matrix(&net.input.val()))
        .chain(flat(vector(&net.input_bias.val())))
        .chain(flat(matrix(&net.output.val())))
        .chain(flat(vector(&net.output_bias.val())))
        .collect()
}
