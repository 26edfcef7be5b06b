use align_testkit::{assert_close, plain, train_device};
use align_train::{AdamW, Moments};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Tensor;

use crate::common::{Net, Squares, bits, brisk, learner, rows};

const RULE: AdamW = AdamW { learning_rate: 0.1, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay: 0.0 };

#[test]
fn the_first_step_moves_by_the_learning_rate_against_the_sign() {
    // m/(1−β₁) = g and √(v/(1−β₂)) = |g|, so the step is −η·sign(g), whatever the scale of the gradient.
    let (updated, moments) = RULE.update(plain([1.0, 1.0]), plain([4.0, -0.5]), 0.25, None);
    assert_close(updated, [0.9, 1.1], 1e-6); // ε and rounding in f32
    assert_eq!(moments.time, 1);
    assert_close(moments.first, [0.1 * 1.0, 0.1 * -0.125], 1e-7); // (1−β₁)·scale·g
    assert_close(moments.second, [0.01 * 1.0, 0.01 * 0.015625], 1e-7); // (1−β₂)·(scale·g)²
}

#[test]
fn the_second_step_weighs_both_gradients() {
    // g = 1, then 3: m = 0.9·0.1 + 0.3 = 0.39, v = 0.99·0.01 + 0.09 = 0.0999; the corrections are 0.19 and 0.0199.
    let first = Moments { first: plain([0.1]), second: plain([0.01]), time: 1 };
    let (updated, _) = RULE.update(plain([0.0]), plain([3.0]), 1.0, Some(first));
    assert_close(updated, [-0.1 * (0.39 / 0.19) / (0.0999_f64 / 0.0199).sqrt()], 1e-6); // rounding in f32
}

#[test]
fn decay_shrinks_the_weight_and_not_the_gradient() {
    // With g = 0 the moments stay 0 and only (1 − ηλ) acts: 2·(1 − 0.1·0.5) = 1.9.
    let rule = AdamW { weight_decay: 0.5, ..RULE };
    let (updated, moments) = rule.update(plain([2.0]), plain([0.0]), 1.0, None);
    assert_close(updated, [1.9], 1e-6); // one rounding in f32
    assert_close(moments.second, [0.0], 0.0);
}

#[test]
fn ten_steps_agree_with_burns_adamw() {
    let mut ours = learner(brisk());
    let mut theirs = Net::new(1, &train_device());
    let mut optimizer = AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(0.999)
        .with_epsilon(1e-8)
        .with_weight_decay(0.0)
        .init();
    for _ in 0..10 {
        ours.step(&Squares, &[rows()]).unwrap();
        let data = rows();
        let loss = (theirs.forward(data.0) - data.1).square().sum() / 4.0;
        let gradients = GradientsParams::from_grads(loss.backward(), &theirs);
        theirs = optimizer.step(0.1, theirs, gradients);
    }
    let values = |net: &Net| bits(net).into_iter().map(f32::from_bits).collect::<Vec<_>>();
    let start = values(&Net::new(1, &train_device()));
    let [ours, theirs] = [values(ours.model()), values(&theirs)];
    let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &align_testkit::device());
    // Ten steps of η = 0.1 in another order of operations: ten roundings of numbers about 1.
    assert_close(tensor(&ours), tensor(&theirs), 1e-5);
    assert!(start.iter().zip(&ours).all(|(a, b)| (a - b).abs() > 0.01), "nothing moved");
}
