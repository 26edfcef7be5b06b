//! What an ensemble costs beside one of its members, and what the curve of best-of-n costs at 12 500 answers.
//!
//! `cargo bench --bench ensemble`. The model is a Llama of hidden 256, 8 layers of 8 heads, FFN 688; the batch is 16 × 64 tokens.
//! The aim is that five members on a frozen base cost less than 1.6 times one.

use align_core::{Completions, Draws, Reward};
use align_models::{LoraConfig, RewardModel, SharedRewardModels, Transformer, TransformerConfig};
use align_reward::best_of_n::Ranking;
use align_reward::{Aggregate, Ensemble};
use burn::module::Module;
use burn::tensor::Device;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const MEMBERS: u64 = 5;
const ROWS: usize = 16;
const WIDTH: usize = 64;
const VOCABULARY: usize = 2048;

fn members(criterion: &mut Criterion) {
    align_kernels::tune_allocator();
    let device = Device::flex();
    let config =
        TransformerConfig { intermediate_size: 688, ..TransformerConfig::llama(VOCABULARY, 256, 8, 8) };
    let base = Transformer::init(&config, &Draws::new(1), &device);
    let row = |row: usize| (0..WIDTH).map(|at| ((row * 7919 + at * 104_729) % VOCABULARY) as u32).collect();
    let rows: Vec<Vec<u32>> = (0..ROWS).map(row).collect();
    let (prompts, responses): (Vec<_>, Vec<_>) =
        rows.iter().map(|row| (row[..WIDTH / 2].to_vec(), row[WIDTH / 2..].to_vec())).unzip();
    let batch = Completions::from_rows(&prompts, &responses, &device);

    let head = |seed| RewardModel::from_transformer(&base, &Draws::new(seed));
    let adapted = |seed, last_layers| {
        let lora = LoraConfig { last_layers, ..LoraConfig::default() };
        head(seed).with_adapters(&lora, &Draws::new(seed)).valid()
    };
    let five = |member: &dyn Fn(u64) -> RewardModel| {
        let members = SharedRewardModels::new((0..MEMBERS).map(member).collect());
        Ensemble::new(members, Aggregate::uncertainty_weighted(0.5)).expect("five members")
    };
    let mut group = criterion.benchmark_group("a batch scored by");
    let one = head(0);
    group.bench_function("one member", |bench| bench.iter(|| one.score(&batch).into_data()));
    for (name, ensemble) in [
        ("five heads on one base", five(&head)),
        ("five with adapters on the last layer", five(&|seed| adapted(seed, Some(1)))),
        ("five with adapters on every layer", five(&|seed| adapted(seed, None))),
    ] {
        group.bench_function(name, |bench| bench.iter(|| ensemble.score(&batch).into_data()));
    }
    group.finish();
}

fn curves(criterion: &mut Criterion) {
    let draws = Draws::new(3);
    let scores = |which: u32| -> Vec<f64> {
        (0..12_500)
            .map(|answer| draws.token(align_core::draws::Purpose::Sample, 0, answer, which, 0))
            .collect()
    };
    let (proxy, gold) = (scores(0), scores(1));
    criterion.bench_function("the whole curve of best-of-12500 for one prompt", |bench| {
        bench.iter_batched(
            || proxy.clone(),
            |proxy| Ranking::new(&proxy).expect("scores").curve(&gold),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, members, curves);
criterion_main!(benches);
