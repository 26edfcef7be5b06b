//! What must hold before a policy has moved: at the first step of every iteration it is the policy that drew the pairs.

use align_core::log_probs::sequence_log_probs;
use align_core::{CausalLm, Completions};
use align_nash::self_play::{EtaSchedule, Labels, Method, SelfPlay, SelfPlayConfig, SelfPlayError};
use align_nash::{Pair, SelfPlayParts};
use align_testkit::{assert_close, device, train_device};
use burn::module::Module;

use crate::common::{ByRows, PrefixLm, TAU, cyclic, inpo, parts, run, small};

/// log π of both answers.
fn log_probs(model: &dyn CausalLm, pair: &Pair) -> [f64; 2] {
    let prompts = vec![pair.prompt.clone(); 2];
    let rows = Completions::from_rows(&prompts, &pair.responses, &device());
    let tokens = model.token_log_probs(&rows, 1.0).log_probs;
    let sums: Vec<f64> = sequence_log_probs(tokens, &rows.response.mask).to_data().iter::<f64>().collect();
    [sums[0], sums[1]]
}

/// One step an iteration, over all pairs of it.
fn in_one_step(method: Method) -> SelfPlayConfig {
    SelfPlayConfig { method, num_epochs: 1, minibatch: 1000, reset_optimizer: Some(true), ..small() }
}

#[test]
fn the_first_loss_is_one_over_four_eta_squared() {
    for eta in [0.1, 0.25, 0.5, 2.0] {
        for scaled in [false, true] {
            let Method::Inpo { eta, tau, schedule, .. } = inpo(eta, TAU) else { unreachable!() };
            let method = Method::Inpo { eta, tau, schedule, loss_scaling: scaled };
            let metrics = run(ByRows(cyclic), SelfPlayConfig { method, ..small() }).step(0).expect("a step");
            let get = |name: &str| metrics.get(name).expect("a number");
            let eta = eta.get();
            assert_eq!(
                (get("nash/h"), get("nash/h_over_target")),
                (0.0, 0.0),
                "log-ratios of a policy to itself"
            );
            // (1/(2η))² and η² are rounded to f32.
            let expected = 1.0 / (4.0 * eta * eta);
            assert_close(get("loss/inpo"), expected, 1e-6 * expected);
            assert_close(get("loss/inpo_scaled"), 0.25, 1e-6);
            assert_close(get("loss"), if scaled { 0.25 } else { expected }, 1e-6 * expected.max(0.25));
        }
    }
}

#[test]
fn later_iterations_begin_at_the_share_of_tau_of_what_was_learnt() {
    // h = (τ/η)(Δ_t − Δ_ref), of every pair and, reported, of their mean.
    for (eta, tau) in [(0.5, 0.1), (0.3, 0.3), (0.5, 0.0)] {
        let mut run = run(ByRows(cyclic), in_one_step(inpo(eta, tau)));
        let reference = PrefixLm::reference(&device());
        for iteration in 0..3 {
            let policy = run.policy().clone().valid();
            let metrics = run.step(iteration).expect("a step");
            let mut sum = 0.0;
            for pair in run.pairs() {
                let (own, frozen) = (log_probs(&policy, pair), log_probs(&reference, pair));
                let [first, second] = pair.anchors.map(f64::from);
                let h = (own[0] - own[1]) - (first - second);
                let expected = tau / eta * ((own[0] - own[1]) - (frozen[0] - frozen[1]));
                assert_close(h, expected, 1e-5); // sums of a few logarithms in f32
                sum += h;
            }
            let mean = sum / run.pairs().len() as f64;
            assert_close(metrics.get("nash/h").expect("h"), mean, 1e-5);
            assert_eq!(mean.abs() > 1e-3, iteration > 0 && tau > 0.0, "h is {mean} in iteration {iteration}");
        }
    }
}

#[test]
fn a_decreasing_schedule_gives_the_reference_two_of_t_plus_two() {
    let Method::Inpo { eta, tau, loss_scaling, .. } = inpo(0.5, TAU) else { unreachable!() };
    let method = Method::Inpo { eta, tau, schedule: EtaSchedule::Decreasing, loss_scaling };
    for t in 0..4 {
        let step = method.inpo(t).expect("a schedule").expect("INPO");
        // Counted from 1 in the paper: η_t = τ(t + 2)/2.
        assert_close(step.eta, TAU * (t as f64 + 3.0) / 2.0, 1e-15);
        assert_close(step.ratio(), 2.0 / (t as f64 + 3.0), 1e-15);
    }
    let mut run = run(ByRows(cyclic), in_one_step(method));
    let reference = PrefixLm::reference(&device());
    for iteration in 0..3 {
        let policy = run.policy().clone().valid();
        let metrics = run.step(iteration).expect("a step");
        let ratio = 2.0 / (iteration as f64 + 3.0);
        for pair in run.pairs() {
            let (own, frozen) = (log_probs(&policy, pair), log_probs(&reference, pair));
            for side in 0..2 {
                let expected = ratio * frozen[side] + (1.0 - ratio) * own[side];
                assert_close(f64::from(pair.anchors[side]), expected, 1e-5); // f32
            }
        }
        let eta = TAU * (iteration as f64 + 3.0) / 2.0;
        let (h, over) = (metrics.get("nash/h").expect("h"), metrics.get("nash/h_over_target").expect("h"));
        assert_close(over, h * 2.0 * eta, 1e-12);
    }
}

#[test]
fn soft_labels_begin_at_their_variance() {
    // (h − (p − ½)/η)² at h = 0, over all pairs.
    let config = SelfPlayConfig { labels: Some(Labels::Soft), ..in_one_step(inpo(0.5, TAU)) };
    let mut run = run(ByRows(cyclic), config);
    let metrics = run.step(0).expect("a step");
    let squares = run.pairs().iter().map(|pair| ((f64::from(pair.preference) - 0.5) / 0.5).powi(2));
    let expected = squares.sum::<f64>() / run.pairs().len() as f64;
    assert_close(metrics.get("loss/inpo").expect("a loss"), expected, 1e-6); // f32
}

/// A model that is another one where gradients are recorded: a dropout that was left on, say.
#[derive(burn::module::Module, Debug)]
struct TwoFaced {
    inner: PrefixLm,
}

impl CausalLm for TwoFaced {
    fn logits(&self, tokens: &align_core::TokenBatch) -> burn::Tensor<3> {
        let logits = self.inner.logits(tokens);
        if logits.is_autodiff() { logits * 0.9 } else { logits }
    }
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
    fn device(&self) -> burn::tensor::Device {
        self.inner.device()
    }
}

#[test]
fn a_policy_that_is_not_itself_while_it_learns_is_refused() {
    let SelfPlayParts { reference, oracle, prompts, held_out, measures, .. } = parts(ByRows(cyclic));
    let policy = TwoFaced { inner: PrefixLm::reference(&train_device()) };
    let parts = SelfPlayParts { policy, reference, oracle, prompts, held_out, measures };
    let error = SelfPlay::new(parts, small()).expect("a run").step(0).expect_err("another policy");
    assert!(
        matches!(error, SelfPlayError::NotItself { iteration: 1, found, expected } if found != expected),
        "{error}"
    );
}
