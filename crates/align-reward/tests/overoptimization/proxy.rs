//! Proxies of the small task: five networks that differ by their seed.

use align_core::draws::Purpose;
use align_core::number::{NoiseRate, NonNegative};
use align_core::{Completions, Draws, PreferencePairs};
use align_data::synthetic::TrapWorld;
use align_reward::{
    BradleyTerryObjective, Judge, LabelFlips, ReferenceScores, Scorer, Target, finite_scores, microbatches,
};
use align_testkit::{device, train_device};
use align_train::{Learner, OptimizerConfig};
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Scores of texts on a scale of mean 0 and deviation 1.
pub(crate) type Member = Box<dyn Fn(&Completions) -> Vec<f64> + Send + Sync>;

/// Five members of a world, trained on a thousand pairs of which this share is labelled wrongly.
pub(crate) fn members(task: &TrapWorld, seed: u64, noise: f64) -> Vec<Member> {
    let [better, worse]: [Vec<Vec<u32>>; 2] = {
        let pairs = task.pairs(1000);
        [0, 1].map(|side| pairs.iter().map(|pair| pair[side].clone()).collect())
    };
    let clean = PreferencePairs {
        chosen: completions(&better),
        rejected: completions(&worse),
        margin: Tensor::zeros([1000], &device()),
    };
    let flips = LabelFlips::draw(0..1000, NoiseRate::try_from(noise).unwrap(), &Draws::new(seed));
    let pairs = flips.apply(&clean);
    (0..5).map(|member| trained(task, 100 * seed + member, &pairs)).collect()
}

/// Token counts → 16 → 32, tanh → one score.
#[derive(Module, Debug)]
struct Proxy {
    embedding: Param<Tensor<2>>,
    hidden: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    head: Param<Tensor<2>>,
}

impl Proxy {
    fn new(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let matrix = |which: u64, rows: usize, columns: usize, deviation: f64| {
            let normal = |at| draws.normal(Purpose::Initialize, which, at);
            let values: Vec<f32> =
                (0..(rows * columns) as u64).map(|at| (deviation * normal(at)) as f32).collect();
            let data = TensorData::new(values, [rows, columns]);
            Param::from_tensor(Tensor::<2>::from_data(data, &train_device()))
        };
        Self {
            embedding: matrix(0, TrapWorld::WORDS, 16, 3.0),
            hidden: matrix(1, 16, 32, 0.25),
            bias: Param::from_tensor(Tensor::zeros([32], &train_device())),
            head: matrix(2, 32, 1, 1.0 / 33.0_f64.sqrt()),
        }
    }
}

/// Word counts divided by √12, `[B, 40]`.
fn counts(completions: &Completions) -> Tensor<2> {
    let rows = completions.response.rows();
    let scale = 1.0 / (TrapWorld::LENGTH as f32).sqrt();
    let mut counts = vec![0.0_f32; rows.len() * TrapWorld::WORDS];
    for (row, words) in rows.iter().enumerate() {
        words.iter().for_each(|&word| counts[row * TrapWorld::WORDS + word as usize] += scale);
    }
    Tensor::from_data(TensorData::new(counts, [rows.len(), TrapWorld::WORDS]), &device())
}

impl Scorer for Proxy {
    fn scores(&self, completions: &Completions) -> Tensor<1> {
        let x = counts(completions).matmul(self.embedding.val());
        let x = (x.matmul(self.hidden.val()) + self.bias.val().unsqueeze_dim(0)).tanh();
        x.matmul(self.head.val()).squeeze_dim(1)
    }
}

pub(crate) fn completions(texts: &[Vec<u32>]) -> Completions {
    Completions::from_rows(&vec![vec![0]; texts.len()], texts, &device())
}

/// Five epochs over the pairs, then a scale measured on 500 clean pairs.
fn trained(task: &TrapWorld, seed: u64, pairs: &PreferencePairs) -> Member {
    let config = OptimizerConfig {
        learning_rate: 3e-3.try_into().unwrap(),
        beta_2: 0.95,
        ..OptimizerConfig::default()
    };
    let mut learner = Learner::new(Proxy::new(seed), config, 5 * 32).unwrap();
    let objective = BradleyTerryObjective {
        reward_l2_coefficient: NonNegative::literal(0.001),
        ..BradleyTerryObjective::default()
    };
    let batches = microbatches(pairs, 32);
    for epoch in 0..5 {
        let mut order: Vec<usize> = (0..batches.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(1000 * seed + epoch));
        for batch in order {
            learner.step(&objective, std::slice::from_ref(&batches[batch])).unwrap();
        }
    }
    let judge = Judge::new(learner.model());
    let held_out: Vec<Vec<u32>> = (0..1000).map(|index| task.text(7, index)).collect();
    let measured =
        ReferenceScores::measure(&judge, [&completions(&held_out)], "1000 held-out texts").unwrap();
    let scale = measured.normalization(Target::MeanAndDeviation).unwrap();
    Box::new(move |completions| {
        let raw = finite_scores(&judge, [completions]).unwrap();
        raw.into_iter().map(|score| score * scale.gain + scale.bias).collect()
    })
}
