//! The small experiment in small: criteria 1, 2, 3 and 7 of the specification on two seeds and few updates.
//!
//! The whole of it, five seeds and 150 updates, is the bench `salsa_claim`.

use align_testkit::salsa_task::PatternNet;
use align_testkit::train_device;
use burn::module::Module;

use crate::salsa_experiment::{Ingredients, bits};

const UPDATES: usize = 30;

#[test]
fn the_net_has_the_specified_number_of_weights() {
    let net = PatternNet::random(&align_core::Draws::new(0), 1.0, &train_device());
    assert_eq!(net.num_params(), 5712);
}

#[test]
fn the_claim_in_small() {
    for seed in 0..2 {
        let nets = Ingredients::of(seed);
        let [first, second] = &nets.tuned;
        // 3: otherwise the arms could not differ.
        let apart = nets.measure(first, &nets.soup);
        assert!(apart.kl >= 1.0, "seed {seed}: {apart:?}");

        // 1 and 2: without β, or with θ_2 = θ_1, SALSA is PPO bit for bit; with β and a soup it is not.
        let plain = nets.arm(first, 0.05, UPDATES);
        let salsa = nets.arm(&nets.soup, 0.05, UPDATES);
        assert_eq!(bits(&nets.arm(first, 0.0, 10)), bits(&nets.arm(&nets.soup, 0.0, 10)));
        assert_eq!(bits(&plain), bits(&nets.arm(&align_ppo::mix(first, first, 0.5), 0.05, UPDATES)));
        assert_ne!(bits(&plain), bits(&salsa));

        // 7: a reference averaged with a stranger is worse than either ingredient, and holds the policy back.
        let gold = |net: &PatternNet| nets.measure(net, first).gold;
        let nonsense = gold(&nets.nonsense);
        assert!(nonsense < gold(first) && nonsense < gold(second), "seed {seed}: {nonsense}");
        let (held_back, free) = (gold(&nets.arm(&nets.nonsense, 0.05, UPDATES)), gold(&plain));
        println!(
            "seed {seed}: kl {:.2}, ppo {free:.3}, salsa {:.3}, nonsense {held_back:.3}",
            apart.kl,
            gold(&salsa)
        );
        assert!(held_back < free, "seed {seed}: {held_back} against {free}");
    }
}
