//! Laws of projections onto closed convex sets, for every kind of set.

use align_bilevel::{
    BilevelError, Constrained, Point, Problem, Set, SetConfig, problems::Quadratic, stationarity,
};
use align_testkit::assert_close;
use proptest::prelude::*;

const LENGTH: usize = 4;

fn vector() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-3.0..3.0f64, LENGTH)
}

/// A set of four coordinates, of any kind.
fn any_set() -> impl Strategy<Value = Set> {
    let bounds = (vector(), prop::collection::vec(0.0..2.0f64, LENGTH))
        .prop_map(|(lower, width)| Set::bounds(lower.clone(), lower.plus(1.0, &width)).unwrap());
    let ball = (vector(), 0.0..2.0f64).prop_map(|(centre, radius)| Set::ball(centre, radius).unwrap());
    let simplex = (0.0..3.0f64).prop_map(|total| Set::simplex(LENGTH, total).unwrap());
    let halfspace = (vector(), -2.0..2.0f64)
        .prop_filter("a normal", |(normal, _)| normal.norm() > 0.1)
        .prop_map(|(normal, offset)| Set::halfspace(normal, offset).unwrap());
    let product = (0.1..2.0f64, -1.0..1.0f64).prop_map(|(radius, lower)| {
        let parts = vec![
            (1, Set::bounds(vec![lower], vec![lower + 1.0]).unwrap()),
            (2, Set::ball(vec![0.5, -0.5], radius).unwrap()),
            (1, Set::non_negative()),
        ];
        Set::product(parts).unwrap()
    });
    prop_oneof![Just(Set::whole()), Just(Set::non_negative()), bounds, ball, simplex, halfspace, product]
}

/// A point of the set made from any vector, but not by projection.
fn inside(set: &Set, v: &[f64]) -> Vec<f64> {
    let v = v.to_vec();
    match SetConfig::from(set.clone()) {
        SetConfig::Whole {} => v,
        SetConfig::NonNegative {} => v.iter().map(|v| v.abs()).collect(),
        SetConfig::Box { lower, upper } => {
            let mix = |((l, u), v): ((&f64, &f64), &f64)| l + (u - l) * v.abs().fract();
            lower.iter().zip(&upper).zip(&v).map(mix).collect()
        }
        SetConfig::Ball { centre, radius } => centre.plus(radius / (1.0 + v.norm()), &v),
        SetConfig::Simplex { total, .. } => {
            let sum: f64 = v.iter().map(|v| v.exp()).sum();
            v.iter().map(|v| total * v.exp() / sum).collect()
        }
        SetConfig::Halfspace { normal, offset } => {
            let excess = (normal.dot(&v) - offset).max(0.0);
            v.plus(-1.5 * excess / normal.dot(&normal), &normal)
        }
        SetConfig::Product { parts } => {
            let mut rest = v.as_slice();
            let mut point = Vec::new();
            for part in &parts {
                point.extend(inside(&part.set, &rest[..part.length]));
                rest = &rest[part.length..];
            }
            point
        }
    }
}

fn projected(set: &Set, v: &[f64]) -> Vec<f64> {
    let mut point = v.to_vec();
    set.project(&mut point);
    point
}

/// Coordinates are below 10 and sums of four: a few dozen roundings.
const ROUNDING: f64 = 1e-13;

proptest! {
    #[test]
    fn a_projection_is_feasible_and_stays_where_it_is(set in any_set(), v in vector()) {
        let once = projected(&set, &v);
        prop_assert!(set.contains(&once, ROUNDING));
        prop_assert!(projected(&set, &once).distance(&once) <= ROUNDING);
    }

    #[test]
    fn points_of_the_set_do_not_move(set in any_set(), v in vector()) {
        let member = inside(&set, &v);
        prop_assert!(projected(&set, &member).distance(&member) <= ROUNDING, "{member:?}");
        prop_assert!(set.distance(&member) <= ROUNDING);
    }

    #[test]
    fn projecting_two_points_never_moves_them_apart(set in any_set(), v in vector(), w in vector()) {
        prop_assert!(projected(&set, &v).distance(&projected(&set, &w)) <= v.distance(&w) + ROUNDING);
    }

    #[test]
    fn no_point_of_the_set_is_nearer(set in any_set(), v in vector(), w in vector()) {
        let nearest = projected(&set, &v);
        let member = inside(&set, &w);
        prop_assert!(set.distance(&v) <= v.distance(&member) + ROUNDING);
        // The variational inequality ⟨v − P(v), u − P(v)⟩ ≤ 0, which says the same for the whole set.
        prop_assert!(v.minus(&nearest).dot(&member.minus(&nearest)) <= 10.0 * ROUNDING);
    }

    #[test]
    fn sets_survive_a_round_trip(set in any_set()) {
        let text = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<Set>(&text).unwrap(), set);
    }
}

#[test]
fn projections_of_one_vector_onto_each_set() {
    let v = [0.8, -0.3, 0.6, 0.1];
    let tolerance = 1e-10; // the last digit written here
    assert_close(projected(&Set::simplex(4, 1.0).unwrap(), &v), [0.6, 0.0, 0.4, 0.0], 1e-15);
    let ball = Set::ball(vec![0.0; 4], 0.5).unwrap();
    let expected = [0.3813850357, -0.1430193884, 0.2860387768, 0.0476731295];
    assert_close(projected(&ball, &v), expected, tolerance);
    assert_close([ball.distance(&v)], [1.0488088482 - 0.5], tolerance);
    let bounds = Set::bounds(vec![0.0; 4], vec![0.5; 4]).unwrap();
    assert_eq!(projected(&bounds, &v), [0.5, 0.0, 0.5, 0.1]);
    // ⟨(1, 1, 1, 1), v⟩ = 1.2 is 0.2 too much: 0.05 of each coordinate, a distance of 0.1.
    let halfspace = Set::halfspace(vec![1.0; 4], 1.0).unwrap();
    assert_close(projected(&halfspace, &v), [0.75, -0.35, 0.55, 0.05], 1e-15);
    assert_close([halfspace.distance(&v)], [0.1], 1e-15);
    assert_eq!(projected(&Set::non_negative(), &v), [0.8, 0.0, 0.6, 0.1]);
    assert_eq!(projected(&Set::whole(), &v), v);
    let parts =
        vec![(2, Set::simplex(2, 1.0).unwrap()), (2, Set::bounds(vec![0.0; 2], vec![0.5; 2]).unwrap())];
    assert_eq!(projected(&Set::product(parts).unwrap(), &v), [1.0, 0.0, 0.5, 0.1]);
}

#[test]
fn corners_and_the_middle_of_the_simplex() {
    let simplex = Set::simplex(3, 1.0).unwrap();
    assert_close(projected(&simplex, &[0.5; 3]), [1.0 / 3.0; 3], 1e-15);
    assert_eq!(projected(&simplex, &[-5.0, -5.0, 3.0]), [0.0, 0.0, 1.0]);
    // Large numbers lose no more than their own rounding.
    let far = projected(&simplex, &[1e9, 1e9 - 0.5, -1e9]);
    assert_close(far, [0.75, 0.25, 0.0], 1e-6); // an f64 near 1e9 is known to 1e-7
    // A total of 0 leaves one point.
    assert_eq!(projected(&Set::simplex(2, 0.0).unwrap(), &[3.0, -1.0]), [0.0, 0.0]);
}

#[test]
fn a_bound_may_be_infinite() {
    let half_line = Set::bounds(vec![f64::NEG_INFINITY, 1.0], vec![2.0, f64::INFINITY]).unwrap();
    assert_eq!(projected(&half_line, &[-1e300, 0.0]), [-1e300, 1.0]);
    assert!(half_line.contains(&[2.0, 1e300], 0.0));
    assert!(!half_line.contains(&[2.1, 1.0], 0.05));
}

#[test]
fn stationarity_counts_only_what_the_set_lets_through() {
    let interval = Set::bounds(vec![-1.0], vec![1.0]).unwrap();
    for (x, gradient, expected) in [(1.0, -2.0, 0.0), (0.95, -2.0, 0.5), (0.2, 0.4, 0.4), (1.0, 2.0, 2.0)] {
        let found = stationarity(&vec![x], &vec![gradient], 0.1, |x| interval.project(x));
        assert_close([found], [expected], 1e-14);
    }
}

#[test]
fn recipes_describe_sets_and_are_checked_while_they_are_read() {
    let read = |text: &str| toml::from_str::<Set>(text);
    let set = read("kind = 'box'\nlower = [0.0, -inf]\nupper = [1.0, 2.0]").unwrap();
    assert_eq!(set, Set::bounds(vec![0.0, f64::NEG_INFINITY], vec![1.0, 2.0]).unwrap());
    let error = read("kind = 'box'\nlower = [2.0]\nupper = [1.0]").unwrap_err().to_string();
    assert!(error.contains("EmptySet: box has no feasible point (coordinate 0 from 2 to 1)"), "{error}");
    assert!(read("kind = 'whole'\nradius = 1.0").is_err());
}

#[test]
fn a_set_without_a_point_is_refused() {
    let message = |result: Result<Set, BilevelError>| result.unwrap_err().to_string();
    let nan = f64::NAN;
    assert_eq!(
        message(Set::bounds(vec![0.0, 2.0], vec![1.0, 1.0])),
        "EmptySet: box has no feasible point (coordinate 1 from 2 to 1)"
    );
    assert!(matches!(Set::bounds(vec![nan], vec![1.0]), Err(BilevelError::EmptySet { set: "box", .. })));
    assert!(Set::bounds(vec![f64::INFINITY], vec![f64::INFINITY]).is_err());
    assert_eq!(
        message(Set::bounds(vec![0.0], vec![1.0, 1.0])),
        "ShapeMismatch: expected 1, got 2 for the upper bounds of a box"
    );
    assert_eq!(
        message(Set::ball(vec![0.0], -1.0)),
        "EmptySet: ball has no feasible point (radius -1 around [0.0])"
    );
    assert!(Set::ball(vec![nan], 1.0).is_err());
    assert_eq!(
        message(Set::simplex(0, 1.0)),
        "EmptySet: simplex has no feasible point (0 coordinates that sum to 1)"
    );
    assert_eq!(
        message(Set::simplex(3, -1.0)),
        "EmptySet: simplex has no feasible point (3 coordinates that sum to -1)"
    );
    assert_eq!(
        message(Set::halfspace(vec![0.0, 0.0], -1.0)),
        "EmptySet: halfspace has no feasible point (product with [0.0, 0.0] at most -1)"
    );
    assert_eq!(projected(&Set::halfspace(vec![0.0, 0.0], 0.0).unwrap(), &[1.0, 2.0]), [1.0, 2.0]);
    assert_eq!(
        message(Set::product(vec![(3, Set::ball(vec![0.0; 2], 1.0).unwrap())])),
        "ShapeMismatch: expected 3, got 2 for a set of a product"
    );
}

#[test]
#[should_panic(expected = "a point of 3 numbers, projected onto a set of 2")]
fn a_point_of_another_length_is_a_bug() {
    Set::ball(vec![0.0; 2], 1.0).unwrap().project(&mut [0.0; 3]);
}

#[test]
fn sets_confine_any_problem() {
    let confined = Constrained {
        problem: Quadratic::vector(),
        x: Set::non_negative(),
        y: Set::ball(vec![0.0; 2], 1.0).unwrap(),
    };
    let (mut x, mut y) = (vec![-1.0, 2.0], vec![3.0, 4.0]);
    confined.project_x(&mut x);
    confined.project_y(&mut y);
    assert_eq!(x, [0.0, 2.0]);
    assert_close(y, [0.6, 0.8], 1e-15);
}
