use align_train::Metrics;
use proptest::prelude::*;

#[test]
fn a_mean_is_weighted_and_skips_what_counts_nothing() {
    // (3·1 + 1·5) / 4 = 2; `only` stands in one part alone; the part of weight 0 holds a NaN and does not enter.
    let parts = [
        (3.0, Metrics::new().with("loss", 1.0)),
        (1.0, Metrics::new().with("loss", 5.0).with("only", 7.0)),
        (0.0, Metrics::new().with("loss", f64::NAN)),
    ];
    assert_eq!(Metrics::mean(&parts), Metrics::new().with("loss", 2.0).with("only", 7.0));
}

#[test]
fn merging_replaces_and_prefixing_renames() {
    let mut metrics = Metrics::new().with("lr", 1.0).with("loss", 2.0);
    metrics.merge(Metrics::new().with("loss", 3.0).prefixed("eval/"));
    metrics.merge(Metrics::new().with("lr", 4.0));
    let names: Vec<_> = metrics.iter().collect();
    assert_eq!(names, [("eval/loss", 3.0), ("loss", 2.0), ("lr", 4.0)]);
}

proptest! {
    #[test]
    fn a_mean_lies_between_its_parts(parts in prop::collection::vec((0.1f64..10.0, -5.0f64..5.0), 1..8)) {
        let metrics: Vec<_> = parts.iter().map(|(w, x)| (*w, Metrics::new().with("x", *x))).collect();
        let mean = Metrics::mean(&metrics).get("x").unwrap();
        let low = parts.iter().map(|(_, x)| *x).fold(f64::INFINITY, f64::min);
        let high = parts.iter().map(|(_, x)| *x).fold(f64::NEG_INFINITY, f64::max);
        prop_assert!(low - 1e-12 <= mean && mean <= high + 1e-12); // f64 rounding
    }
}
