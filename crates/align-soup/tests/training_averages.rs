//! Averages along a training: what they compute, and that an interruption changes nothing.

mod common;

use std::fs;

use align_soup::{Ema, Lawa, SoupError};
use burn::module::Module;
use burn::tensor::DType;
use common::{Net, assert_close, bits, floats, message, names, net, typed_net};
use proptest::prelude::*;
use tempfile::tempdir;

/// θ_t of a training: every weight moves by a step of its own.
fn step(t: u32) -> Net {
    let t = f64::from(t);
    net([t, 2.0 * t, -t, 0.5], &[t * t])
}

#[test]
fn the_mean_is_of_the_last_snapshots_and_of_no_others() {
    let mut lawa = Lawa::new(&step(0), 3).unwrap();
    assert!(matches!(lawa.model(), Err(SoupError::NoIngredients)), "nothing was taken yet");
    for t in 1..=2 {
        lawa.take(&step(t));
    }
    assert_close(&floats(&lawa.model().unwrap()), &[1.5, 3.0, -1.5, 0.5, 2.5], 0.0); // of the two there are
    for t in 3..=5 {
        lawa.take(&step(t));
    }
    // Steps 3, 4, 5: means 4 and (9 + 16 + 25) / 3.
    assert_close(&floats(&lawa.model().unwrap()), &[4.0, 8.0, -4.0, 0.5, 50.0 / 3.0], 1e-14);
    assert_eq!((lawa.snapshots().len(), lawa.last()), (3, 3));
}

#[test]
fn a_snapshot_does_not_move_with_the_model() {
    let model = step(1);
    let mut lawa = Lawa::new(&model, 2).unwrap();
    lawa.take(&model);
    let moved = Net { weight: model.weight.clone().map(|weight| weight + 1.0), ..model.clone() };
    lawa.take(&moved);
    assert_close(&floats(&lawa.model().unwrap()), &[1.5, 2.5, -0.5, 1.0, 1.0], 1e-15);
}

#[test]
fn parameters_that_are_not_trained_are_not_written() {
    let training = step(1).train();
    let frozen = Net { weight: training.weight.clone().set_require_grad(false), ..training };
    let folder = tempdir().unwrap();
    let mut lawa = Lawa::new(&frozen, 2).unwrap();
    lawa.take(&frozen);
    lawa.save(folder.path()).unwrap();
    let bytes = fs::read(folder.path().join("snapshot-0.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(stored.names(), ["inner.0.bias"]);
    let mut restored = Lawa::new(&frozen, 2).unwrap();
    restored.restore(folder.path()).unwrap();
    assert_eq!(bits(&restored.model().unwrap()), bits(&lawa.model().unwrap()));
}

/// Saves an average after `stop` of `total` steps, goes on in a new one, and compares with one that was never interrupted.
fn ema_survives(dtype: DType, decay: f64, stop: u32, total: u32) {
    let at = |t: u32| {
        let t = f64::from(t) / 3.0;
        typed_net([t, t * t, -t, 0.1], &[1.0 / (1.0 + t)], dtype)
    };
    let mut straight = Ema::new(&at(0), decay).unwrap();
    (1..=total).for_each(|t| straight.update(&at(t)).unwrap());
    let folder = tempdir().unwrap();
    let mut first = Ema::new(&at(0), decay).unwrap();
    (1..=stop).for_each(|t| first.update(&at(t)).unwrap());
    first.save(folder.path()).unwrap();
    let mut second = Ema::new(&at(0), decay).unwrap();
    second.restore(folder.path()).unwrap();
    (stop + 1..=total).for_each(|t| second.update(&at(t)).unwrap());
    assert_eq!(bits(&second.model()), bits(&straight.model()));
    // What is kept is wider than what is shown: the files agree as well.
    let [a, b] = [straight, second].map(|ema| {
        let folder = tempdir().unwrap();
        ema.save(folder.path()).unwrap();
        fs::read(folder.path().join(Ema::<Net>::FILE)).unwrap()
    });
    assert_eq!(a, b);
}

#[test]
fn an_average_of_sixteen_bits_goes_on_from_what_was_kept_in_more() {
    ema_survives(DType::BF16, 0.99, 7, 20);
}

proptest! {
    #[test]
    fn an_interrupted_moving_average_is_the_same(decay in 0.0..0.9999f64, stop in 0u32..12, more in 0u32..12) {
        ema_survives(DType::F32, decay, stop, stop + more);
    }

    #[test]
    fn an_interrupted_mean_of_snapshots_is_the_same(last in 1usize..5, stop in 0u32..8, more in 1u32..8) {
        let mut straight = Lawa::new(&step(0), last).unwrap();
        (1..=stop + more).for_each(|t| straight.take(&step(t)));
        let folder = tempdir().unwrap();
        let mut first = Lawa::new(&step(0), last).unwrap();
        (1..=stop).for_each(|t| first.take(&step(t)));
        first.save(folder.path()).unwrap();
        prop_assert_eq!(names(folder.path()).len(), last.min(stop as usize));
        let mut second = Lawa::new(&step(0), last).unwrap();
        second.restore(folder.path()).unwrap();
        (stop + 1..=stop + more).for_each(|t| second.take(&step(t)));
        prop_assert_eq!(bits(&second.model().unwrap()), bits(&straight.model().unwrap()));
    }
}

#[test]
fn averages_of_a_training_model_record_nothing() {
    let training = step(2).train();
    let mut lawa = Lawa::new(&training, 2).unwrap();
    lawa.take(&training);
    let ema = Ema::new(&training, 0.5).unwrap();
    for model in [lawa.model().unwrap(), ema.model()] {
        assert!(!model.weight.val().is_autodiff());
        assert_close(&floats(&model), &floats(&step(2)), 0.0);
    }
}

#[test]
fn what_is_no_average_is_refused() {
    let error = Lawa::new(&step(0), 0).unwrap_err();
    assert_eq!(message(&error), "an average keeps at least one snapshot, found 0");
    for decay in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(Ema::new(&step(0), decay), Err(SoupError::InvalidDecay { .. })), "{decay}");
    }
}

#[test]
fn files_of_another_model_or_cut_short_leave_the_average_as_it_was() {
    let folder = tempdir().unwrap();
    let mut ema = Ema::new(&step(3), 0.5).unwrap();
    let before = bits(&ema.model());
    let mut refused = |expected: &str| {
        let error = message(&ema.restore(folder.path()).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert_eq!(bits(&ema.model()), before);
    };
    refused("cannot read");
    Ema::new(&net([1.0; 4], &[1.0, 2.0]), 0.5).unwrap().save(folder.path()).unwrap();
    refused("expected `inner.0.bias` as F64 [1], found F64 [2]");
    Ema::new(&typed_net([1.0; 4], &[1.0], DType::F32), 0.5).unwrap().save(folder.path()).unwrap();
    refused("expected `inner.0.bias` as F64 [1], found F32 [1]");
    let file = folder.path().join(Ema::<Net>::FILE);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    refused("expected a whole safetensors file");

    let mut many = Lawa::new(&step(0), 3).unwrap();
    (0..3).for_each(|t| many.take(&step(t)));
    many.save(folder.path()).unwrap();
    let mut few = Lawa::new(&step(0), 2).unwrap();
    let error = message(&few.restore(folder.path()).unwrap_err());
    assert!(error.ends_with("expected at most 2 snapshots, found 3"), "{error}");
    assert_eq!(few.snapshots().len(), 0);
}
