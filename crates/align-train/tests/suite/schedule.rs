use align_core::number::UnitInterval;
use align_train::Schedule;

const ZERO: UnitInterval = UnitInterval::literal(0.0);
const TENTH: UnitInterval = UnitInterval::literal(0.1);

fn factors(schedule: Schedule, total: u64) -> Vec<f64> {
    (0..=total).map(|step| schedule.factor(step, total)).collect()
}

fn assert_factors(schedule: Schedule, total: u64, expected: &[f64]) {
    let found = factors(schedule, total);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected} in {schedule:?}"); // f64 rounding
    }
}

#[test]
fn warm_up_rises_to_the_full_rate_and_wastes_no_step() {
    assert_factors(Schedule::Constant { warmup: 4 }, 6, &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_line_ends_at_its_floor_right_after_the_last_step() {
    assert_factors(Schedule::Linear { warmup: 0, floor: ZERO }, 4, &[1.0, 0.75, 0.5, 0.25, 0.0]);
    assert_factors(Schedule::Linear { warmup: 2, floor: TENTH }, 4, &[0.5, 1.0, 1.0, 0.55, 0.1]);
}

#[test]
fn a_cosine_is_halfway_in_the_middle() {
    // ½(1 + cos(π/4)) = 0.8535533905932737
    let quarter = 0.853_553_390_593_273_7;
    assert_factors(Schedule::Cosine { warmup: 0, floor: ZERO }, 4, &[1.0, quarter, 0.5, 1.0 - quarter, 0.0]);
    assert_factors(Schedule::Cosine { warmup: 0, floor: TENTH }, 2, &[1.0, 0.55, 0.1]);
}

#[test]
fn after_the_end_the_floor_stays() {
    assert_eq!(Schedule::Linear { warmup: 0, floor: TENTH }.factor(99, 4), 0.1);
    assert_eq!(Schedule::Cosine { warmup: 0, floor: ZERO }.factor(99, 4), 0.0);
}

#[test]
fn files_name_the_kind_and_refuse_unknown_keys() {
    let read = |text: &str| serde_json::from_str::<Schedule>(text);
    let cosine = read(r#"{"kind": "cosine", "warmup": 3, "floor": 0.1}"#).unwrap();
    assert_eq!(cosine, Schedule::Cosine { warmup: 3, floor: TENTH });
    assert_eq!(read(r#"{"kind": "linear"}"#).unwrap(), Schedule::Linear { warmup: 0, floor: ZERO });
    assert!(read(r#"{"kind": "constant", "floor": 0.1}"#).unwrap_err().to_string().contains("`floor`"));
    assert!(read(r#"{"kind": "linear", "floor": 2.0}"#).unwrap_err().to_string().contains("[0, 1], found 2"));
}
