//! The plane through three models: geometry by hand and as laws, modules and folders, bad input.

mod common;

use align_soup::{
    Plane, PlaneError, Point, SoupError, TaskVectors, Weights, average, plane, plane_of_folders, soup_folders,
};
use common::{Net, assert_close, checkpoint, floats, message, net, raw, read, tensors, values};
use proptest::prelude::*;
use safetensors::Dtype;

fn triangle() -> [Net; 3] {
    [
        net([1.0, 0.0, -1.0, 0.5], &[0.2]),
        net([2.0, -0.5, 0.0, 0.5], &[0.1]),
        net([0.5, 1.5, -0.5, 1.0], &[0.7]),
    ]
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn a_right_angle_has_its_catheti_as_axes() {
    let plane = Plane::of(TaskVectors { norms: [3.0, 4.0], cosine: Some(0.0) }).unwrap();
    assert_eq!(plane.models(), [(0.0, 0.0), (3.0, 0.0), (0.0, 4.0)].map(|(x, y)| Point { x, y }));
    assert_eq!(plane.weights_at(Point { x: 6.0, y: 0.0 }).as_slice(), [-1.0, 2.0, 0.0]);
    assert_eq!(plane.weights_at(Point { x: 3.0, y: 4.0 }).as_slice(), [-1.0, 1.0, 1.0]);
}

#[test]
fn sixty_degrees_make_an_equilateral_triangle() {
    let plane = Plane::of(TaskVectors { norms: [2.0, 2.0], cosine: Some(0.5) }).unwrap();
    let [a, b, c] = plane.models();
    let distance = |p: Point, q: Point| (p.x - q.x).hypot(p.y - q.y);
    assert_close(&[distance(a, b), distance(b, c), distance(a, c)], &[2.0; 3], 1e-12); // rounding
    let middle = plane.point_of([1.0 / 3.0; 3]);
    assert_close(&[middle.x, middle.y], &[1.0, 1.0 / 3.0f64.sqrt()], 1e-12); // the centroid
}

#[test]
fn distances_on_the_plane_are_distances_between_the_models() {
    let nets = triangle();
    let [a, b, c] = &nets;
    let plane = plane(a, b, c).unwrap();
    let theta: Vec<Vec<f64>> = nets.iter().map(floats).collect();
    let (to_b, to_c) = (difference(&theta[1], &theta[0]), difference(&theta[2], &theta[0]));
    // The axes of the definition, written out.
    let u: Vec<f64> = to_b.iter().map(|x| x / dot(&to_b, &to_b).sqrt()).collect();
    let along = dot(&to_c, &u);
    let rest: Vec<f64> = to_c.iter().zip(&u).map(|(c, u)| c - along * u).collect();
    let v: Vec<f64> = rest.iter().map(|x| x / dot(&rest, &rest).sqrt()).collect();
    for point in plane.grid(5, 0.3).unwrap().points() {
        let soup = floats(&average(&nets, plane.weights_at(point)).unwrap());
        let from_a = difference(&soup, &theta[0]);
        let expected: Vec<f64> = u.iter().zip(&v).map(|(u, v)| point.x * u + point.y * v).collect();
        assert_close(&from_a, &expected, 1e-12); // f64 over five values
    }
}

#[test]
fn folders_span_the_plane_of_their_modules() {
    let root = tempfile::tempdir().unwrap();
    let nets = triangle();
    let folders = [0, 1, 2].map(|k| {
        let values = floats(&nets[k]);
        let tensors = tensors(&[
            ("w", raw(&values[..4], &[2, 2], Dtype::F64)),
            ("b", raw(&values[4..], &[1], Dtype::F64)),
        ]);
        checkpoint(root.path(), ["a", "b", "c"][k], &tensors)
    });
    let of_folders = plane_of_folders(&folders[0], &folders[1], &folders[2]).unwrap();
    let of_modules = plane(&nets[0], &nets[1], &nets[2]).unwrap();
    for (ours, theirs) in of_folders.models().iter().zip(of_modules.models()) {
        assert_close(&[ours.x, ours.y], &[theirs.x, theirs.y], 1e-12); // another order of summation
    }
    // A point outside the triangle is a soup that extrapolates.
    let weights = of_folders.weights_at(Point { x: -0.5, y: 0.25 });
    assert!(weights.as_slice().iter().any(|&weight| weight < 0.0));
    let out = root.path().join("out");
    soup_folders(&folders, &weights, &Default::default(), &out).unwrap();
    let expected = floats(&average(&nets, weights).unwrap());
    let found = read(&out);
    assert_close(&[values(&found["w"]), values(&found["b"])].concat(), &expected, 1e-12);
}

#[test]
fn a_grid_has_square_cells_around_all_three() {
    let plane = Plane::of(TaskVectors { norms: [2.0, 1.0], cosine: Some(-0.5) }).unwrap();
    let grid = plane.grid(9, 0.25).unwrap();
    let steps = |axis: &[f64]| -> Vec<f64> { axis.windows(2).map(|pair| pair[1] - pair[0]).collect() };
    let step = steps(&grid.x)[0];
    let all = [steps(&grid.x), steps(&grid.y)].concat();
    assert_close(&all, &vec![step; all.len()], 1e-12);
    assert_eq!(grid.x.len(), 9); // the longer side
    assert_eq!(grid.points().count(), grid.x.len() * grid.y.len());
    // From −0.5 to 2, wider by a quarter of the longer side on either side.
    assert_close(&[grid.x[0], grid.x[8]], &[-0.5 - 0.625, 2.0 + 0.625], 1e-12);
    let (low, high) = (grid.y[0], grid.y[grid.y.len() - 1]);
    assert!(low <= -0.625 + 1e-12 && high >= 0.75f64.sqrt() + 0.625 - 1e-12, "{low}..{high}");
    assert!((low + high - 0.75f64.sqrt()).abs() < 1e-12, "centred");
}

#[test]
fn models_that_span_no_plane() {
    let [a, b, c] = &triangle();
    let refused = |a: &Net, b: &Net, c: &Net| plane(a, b, c).unwrap_err();
    assert!(matches!(refused(a, a, c), PlaneError::Coincide { pair: [0, 1] }));
    assert!(matches!(refused(a, b, a), PlaneError::Coincide { pair: [0, 2] }));
    assert!(matches!(refused(a, b, b), PlaneError::Coincide { pair: [1, 2] }));
    let pair = [a.clone(), b.clone()];
    for alpha in [-1.0, 0.25, 3.0] {
        let between = average(&pair, Weights::extrapolating(&[alpha, 1.0 - alpha]).unwrap()).unwrap();
        let error = refused(a, b, &between);
        assert!(matches!(error, PlaneError::Collinear { sine } if sine < 1e-3), "{alpha}: {error}");
    }
    let broken = net([f64::NAN, 0.0, 0.0, 0.0], &[0.0]);
    let error = refused(a, b, &broken);
    assert_eq!(message(&error), "the distance between models 0 and 2 is NaN, expected a finite number");
    let other = net([0.0; 4], &[0.0, 1.0]);
    assert!(matches!(refused(a, b, &other), PlaneError::Soup(SoupError::ShapeMismatch { .. })));
}

#[test]
fn grids_that_are_none() {
    let plane = Plane::of(TaskVectors { norms: [1.0, 1.0], cosine: Some(0.0) }).unwrap();
    assert!(matches!(plane.grid(1, 0.2), Err(PlaneError::Points { points: 1 })));
    assert!(matches!(plane.grid(5, -0.1), Err(PlaneError::Margin { .. })));
    assert!(matches!(plane.grid(5, f64::NAN), Err(PlaneError::Margin { .. })));
}

proptest! {
    #[test]
    fn points_and_weights_are_each_others_inverse(
        b in 0.1..10.0f64, c in 0.1..10.0f64, cosine in -0.99..0.99f64, x in -20.0..20.0f64, y in -20.0..20.0f64,
    ) {
        let plane = Plane::of(TaskVectors { norms: [b, c], cosine: Some(cosine) }).unwrap();
        let weights = plane.weights_at(Point { x, y });
        let weights: [f64; 3] = weights.as_slice().try_into().unwrap();
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let back = plane.point_of(weights);
        // Weights reach 20 / (0.1 · sin) ≈ 1500; their rounding comes back multiplied by the distances.
        prop_assert!((back.x - x).abs() < 1e-9 && (back.y - y).abs() < 1e-9, "{back:?} against {x}, {y}");
    }
}
