//! XPO's bonus: `α log π` of the reference's answer is added to the loss, as in TRL.

use align_core::Frozen;
use align_core::number::{NonNegative, Positive};
use align_nash::PairLoss;
use align_nash::self_play::{Labels, Method, SelfPlay, SelfPlayConfig, SelfPlayParts};
use align_testkit::{assert_close, device, train_device};

use crate::common::{ByRows, PrefixLm, coin, game, parts, small};

/// A policy that says either of two things, and a reference that only says the first of them. The oracle knows nothing, so that soft
/// labels pull the two together and nothing pulls them apart.
fn make(alpha: f64) -> SelfPlay<PrefixLm> {
    let either = |_: usize, a: usize, b: usize| if a == b && a < 2 { 0.5 } else { 1e-6 };
    let one = |_: usize, a: usize, b: usize| if (a, b) == (0, 0) { 1.0 } else { 1e-6 };
    let ipo = PairLoss::Ipo { beta: Positive::literal(0.5), length_normalized: false };
    let parts = SelfPlayParts {
        policy: PrefixLm::of(either, &train_device()),
        reference: Box::new(Frozen::new(&PrefixLm::of(one, &device()))),
        ..parts(ByRows(coin))
    };
    let config = SelfPlayConfig {
        method: Method::Xpo { loss: ipo, alpha: NonNegative::literal(alpha) },
        labels: Some(Labels::Soft),
        num_generations: 2,
        prompts_per_iteration: Some(64),
        minibatch: 64,
        ..small()
    };
    SelfPlay::new(parts, config).expect("a run")
}

/// log π of what the reference says, averaged over prompts.
fn of_reference(policy: &PrefixLm) -> f64 {
    let exact = game(&ByRows(coin));
    let policies = exact.policies(&Frozen::new(policy));
    let place = |x: usize| exact.responses(x).iter().position(|y| *y == [0, 0]).expect("an answer");
    policies.iter().enumerate().map(|(x, policy)| policy.log_probs()[place(x)]).sum::<f64>() / 4.0
}

#[test]
fn the_loss_is_that_of_the_pairs_and_alpha_log_pi_of_the_references_answer() {
    let (without, with) = (make(0.0).step(0).expect("a step"), make(0.3).step(0).expect("a step"));
    // Pairs in which the policy said the same are dropped; all others have the reference's answer, which the policy gives with ½.
    let bonus = 0.3 * 0.5f64.ln();
    let difference = with.get("loss").expect("a loss") - without.get("loss").expect("a loss");
    assert_close(difference, bonus, 1e-4); // the 1e-6 of the other answers
}

#[test]
fn it_lowers_what_the_reference_says_and_without_it_that_is_raised() {
    let after = |alpha: f64| {
        let mut run = make(alpha);
        let before = of_reference(run.policy());
        (0..run.plan().steps_per_iteration as u64).for_each(|step| drop(run.step(step).expect("a step")));
        of_reference(run.policy()) - before
    };
    // The reference says it with 1 and the policy with ½: IPO of tied answers pulls towards the reference, with a slope of 2d by the
    // log-odds of the two answers, d = ln ½ − ln 10⁻⁶ − ln ½ = 13.8. The bonus pulls away with α/2.
    assert!(after(0.0) > 0.01, "{}", after(0.0));
    assert!(after(100.0) < -0.01, "{}", after(100.0));
}
