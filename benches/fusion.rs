//! What does choosing the weights of a fused token cost, and how much of it does the grid in powers save?
//!
//! One row, one expert, one thread, at several vocabularies: `search/naive/V` walks the published grid (a log-softmax and two
//! KLs for each of 21 candidates, in f64), `search/grid/V` the same candidates in powers, `search/refined/V` adds Newton's
//! method, and `search/static/V` only measures a given weight. All of them read three rows of f32 and write the fused
//! log-probabilities.
//!
//! `cargo bench --bench fusion`

use std::hint::black_box;
use std::time::Duration;

use align_core::Draws;
use align_core::draws::Purpose;
use align_fusion::{DynamicConfig, Row, Search, Weighing};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Normal scores of a standard deviation, as peaked as a trained model's.
fn scores(list: u64, deviation: f64, vocabulary: usize) -> Vec<f32> {
    let draws = Draws::new(1);
    (0..vocabulary as u64)
        .map(|token| (deviation * draws.normal(Purpose::Evaluate, list, token)) as f32)
        .collect()
}

fn searches(criterion: &mut Criterion) {
    let dynamic = |search| Weighing::Dynamic(DynamicConfig { search, ..DynamicConfig::default() });
    let kinds = [
        ("naive", dynamic(Search::PaperGrid)),
        ("grid", dynamic(Search::Grid)),
        ("refined", dynamic(Search::Refined)),
        ("static", Weighing::Static { weights: vec![1.0] }),
    ];
    let mut group = criterion.benchmark_group("search");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for vocabulary in [2048, 32_000, 128_000] {
        let (base, anchor) = (scores(0, 3.0, vocabulary), scores(1, 2.0, vocabulary));
        let expert: Vec<f32> =
            anchor.iter().zip(scores(2, 1.0, vocabulary)).map(|(anchor, shift)| anchor + shift).collect();
        let row = Row { base: &base, anchor: &anchor, experts: &[&expert] };
        let mut fused = vec![0.0; vocabulary];
        for (kind, weighing) in &kinds {
            group.bench_function(BenchmarkId::new(*kind, vocabulary), |bench| {
                bench.iter(|| weighing.weigh(black_box(row), black_box(&mut fused)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, searches);
criterion_main!(benches);
