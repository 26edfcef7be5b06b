//! Adapters share their base: measured.

#![cfg(target_os = "linux")]

use align_core::{CausalLm, Draws, TokenBatch};
use align_fusion::{Expert, Fusion, Weighing};
use align_models::{LoraConfig, Transformer, TransformerConfig};
use align_testkit::{device, memory};

/// Memory of this process in MiB.
fn resident() -> f64 {
    memory("VmRSS").expect("linux")
}

/// Alone in its file: what other tests allocate would be counted too.
#[test]
fn four_adapters_over_one_base_take_no_copy_of_it() {
    // Embedding and head 2 × 8192 × 256, four layers of 12 · 256² or so: 28 MiB in f32.
    let mut config = TransformerConfig::llama(8192, 256, 4, 4);
    config.tied = false;
    let base = Transformer::init(&config, &Draws::new(1), &device());
    let tokens = TokenBatch::left_padded(&[vec![1, 2]], &device());
    let warm = |model: &dyn CausalLm| drop(model.logits(&tokens).into_data());
    warm(&base);

    let before = resident();
    let adapter = |seed| {
        base.clone().with_adapters(&LoraConfig { rank: 2, ..LoraConfig::default() }, &Draws::new(seed))
    };
    let experts =
        (0..4).map(|seed| Expert::new(format!("{seed}"), Box::new(adapter(seed)) as Box<dyn CausalLm>));
    let (large, small) = (Box::new(base.clone()), Box::new(base.clone()));
    let fusion = Fusion::new(large, small, experts.collect(), Weighing::default()).expect("they fit");
    warm(&fusion);
    let shared = resident() - before;

    // The measure sees copies where there are some: merging writes new weights.
    let before = resident();
    let merged: Vec<Transformer> = (0..4)
        .map(|seed| {
            let all = LoraConfig { targets: align_models::LoraTarget::ALL.to_vec(), ..LoraConfig::default() };
            base.clone().with_adapters(&all, &Draws::new(seed)).merged()
        })
        .collect();
    merged.iter().for_each(|model| warm(model));
    let copied = resident() - before;
    // Four times the layers' 12 MiB.
    assert!(copied > 30.0, "merged copies took {copied:.1} MiB, expected about 48");
    assert!(shared < 8.0, "adapters took {shared:.1} MiB beside a base of 28 MiB, expected next to nothing");
}
