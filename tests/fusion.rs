//! Experts merged in weight space, then fused as one: task arithmetic beside fusion.

use align::core::{CausalLm, Completions, Draws};
use align::fusion::{Expert, Fusion, Weighing};
use align::models::{Transformer, TransformerConfig};
use align::soup::{Weights, average};
use align_testkit::{assert_close, device};

fn model(seed: u64, hidden: usize) -> Transformer {
    let mut config = TransformerConfig::llama(23, hidden, 1, 2);
    // Next-token distributions that differ as those of trained models do.
    config.initializer_range = 0.3;
    Transformer::init(&config, &Draws::new(seed), &device())
}

fn fuse<'m>(base: &'m Transformer, anchor: &'m Transformer, expert: &'m Transformer) -> Fusion<'m> {
    let experts = vec![Expert::new("merged", Box::new(expert) as Box<dyn CausalLm>)];
    Fusion::new(Box::new(base), Box::new(anchor), experts, Weighing::default()).expect("they fit")
}

#[test]
fn experts_merged_in_weight_space_are_one_expert() -> Result<(), Box<dyn std::error::Error>> {
    let (base, anchor, first, second) = (model(1, 24), model(2, 12), model(3, 12), model(4, 12));
    let texts = Completions::from_rows(&[vec![3, 1], vec![4]], &[vec![1, 5, 9], vec![2, 6]], &device());
    let scored = |fusion: &Fusion<'_>| fusion.token_log_probs(&texts, 1.0).log_probs;

    // base + λ (first − base) + λ (second − base), the sum of task vectors.
    let merged = |lambda: f64, other: f64| {
        let weights = Weights::extrapolating(&[1.0 - lambda - other, lambda, other])?;
        average(&[anchor.clone(), first.clone(), second.clone()], weights)
    };
    let both = merged(0.4, 0.4)?;
    let fusion = fuse(&base, &anchor, &both);
    fusion.check_direction(&texts)?;
    assert_eq!(fusion.explain(&texts)?.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);

    // All of one and none of the other is that one; none of both has no direction.
    assert_close(
        scored(&fuse(&base, &anchor, &merged(1.0, 0.0)?)),
        scored(&fuse(&base, &anchor, &first)),
        1e-4,
    );
    assert!(fuse(&base, &anchor, &merged(0.0, 0.0)?).check_direction(&texts).is_err());
    Ok(())
}
