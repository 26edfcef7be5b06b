//! Gradients reach every weight, and the block-wise backward pass gives the same ones.

use align_core::{CausalLm, Completions, RecomputingLm};
use align_models::Transformer;
use align_testkit::{device, fixtures, train_device};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

fn completions() -> Completions {
    Completions::from_rows(
        &[vec![5, 6, 7, 8], vec![9, 10]],
        &[vec![11, 12, 2], vec![13, 14, 15, 16, 17, 18, 19, 2]],
        &device(),
    )
}

/// Largest difference and largest size over all parameters; every parameter must have both gradients.
fn compare(model: &Transformer, found: &GradientsParams, expected: &GradientsParams) -> (f32, f32) {
    struct Compare<'a> {
        path: Vec<String>,
        found: &'a GradientsParams,
        expected: &'a GradientsParams,
        difference: f32,
        size: f32,
    }
    impl ModuleVisitor for Compare<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.path.join(".");
            let found = self.found.get::<D>(param.id).unwrap_or_else(|| panic!("{path} has no gradient"));
            let expected =
                self.expected.get::<D>(param.id).unwrap_or_else(|| panic!("{path} has no gradient"));
            let size: f32 = expected.clone().abs().max().into_scalar();
            assert!(size.is_finite() && size > 0.0, "the gradient of {path} is {size}");
            let difference: f32 = (found - expected).abs().max().into_scalar();
            self.size = self.size.max(size);
            self.difference = self.difference.max(difference);
        }
    }
    let mut compare = Compare { path: Vec::new(), found, expected, difference: 0.0, size: 0.0 };
    model.visit(&mut compare);
    (compare.difference, compare.size)
}

#[test]
fn every_weight_of_every_family_gets_a_gradient_and_blockwise_the_same() {
    for name in ["llama", "llama-mha-bias-tied", "gemma2", "gemma3", "qwen2", "qwen3", "gpt-neox", "gpt2"] {
        let folder = fixtures::path(&format!("models/{name}"));
        let model = Transformer::from_pretrained(&folder, &train_device()).unwrap();
        let plain_loss = model.token_log_probs(&completions(), 0.7).log_probs.sum();
        let loss: f32 = plain_loss.clone().without_autodiff().into_scalar();
        let expected = GradientsParams::from_grads(plain_loss.backward(), &model);
        let found = model.backward_blockwise(&completions(), 0.7, |found| found.log_probs.sum());
        let blockwise_loss: f32 = found.loss.into_scalar();
        assert!((loss - blockwise_loss).abs() <= 1e-4 * loss.abs(), "{name}: {loss} and {blockwise_loss}");
        let (difference, size) = compare(&model, &found.gradients, &expected);
        // The same sums, grouped by block: six digits of the largest.
        assert!(difference <= 1e-5 * size, "{name}: {difference} of {size}");
        println!("{name}: {:.1e} of the largest gradient", difference / size);
    }
}

#[test]
fn keys_of_padding_get_no_gradient() {
    // A row's gradient alone equals its share in a batch where it is padded on both sides.
    let folder = fixtures::path("models/llama");
    let model = Transformer::from_pretrained(&folder, &train_device()).unwrap();
    let all = completions();
    let gradients = |completions: &Completions| {
        let loss = model.token_log_probs(completions, 1.0).log_probs.sum();
        GradientsParams::from_grads(loss.backward(), &model)
    };
    let together = gradients(&all);
    let rows: Vec<GradientsParams> = (0..2)
        .map(|row| {
            let alone = Completions::from_rows(
                &[all.prompt.rows()[row].clone()],
                &[all.response.rows()[row].clone()],
                &device(),
            );
            gradients(&alone)
        })
        .collect();
    struct Sum<'a> {
        rows: &'a [GradientsParams],
        sum: GradientsParams,
    }
    impl ModuleVisitor for Sum<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let parts = self.rows.iter().filter_map(|row| row.get::<D>(param.id));
            self.sum.register::<D>(param.id, parts.reduce(|a, b| a + b).expect("both rows have one"));
        }
    }
    let mut sum = Sum { rows: &rows, sum: GradientsParams::new() };
    model.visit(&mut sum);
    let (difference, size) = compare(&model, &sum.sum, &together);
    assert!(difference <= 1e-5 * size, "{difference} of {size}");
}
