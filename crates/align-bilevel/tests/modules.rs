//! Burn modules as variables: points, gradients by automatic differentiation, files.

use std::ops::ControlFlow;

use align_bilevel::problems::Quadratic;
use align_bilevel::{
    BilevelError, Calls, DoubleLoop, DoubleLoopConfig, Level, ModuleProblem, Modules, Oracle, Parameters,
    Point, Problem, Sample, Schedule, Solver, run,
};
use align_testkit::{assert_all_close, assert_close, device, train_device};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Two layers, one bias that is not trained.
#[derive(Module, Debug)]
struct Net {
    first: Param<Tensor<2>>,
    second: Param<Tensor<1>>,
    fixed: Param<Tensor<1>>,
}

impl Net {
    fn new(dtype: DType, device: &Device, phase: f64) -> Self {
        let numbers =
            |n: usize, phase: f64| (0..n).map(|i| (1.3 * i as f64 + phase).sin()).collect::<Vec<_>>();
        let data = |n, shape: &[usize], phase| TensorData::new(numbers(n, phase), shape.to_vec());
        let fixed = Tensor::from_data(data(3, &[3], phase + 2.0), (device, dtype));
        Self {
            first: Param::from_tensor(Tensor::from_data(data(6, &[2, 3], phase), (device, dtype))),
            second: Param::from_tensor(Tensor::from_data(data(3, &[3], phase + 1.0), (device, dtype))),
            fixed: Param::from_tensor(fixed).set_require_grad(false),
        }
    }

    /// `[b]` from `[b, 2]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<1> {
        let [b, _] = x.dims();
        let hidden = (x.matmul(self.first.val()) + self.fixed.val().unsqueeze()).tanh();
        hidden.matmul(self.second.val().reshape([3, 1])).reshape([b])
    }
}

/// The lower net fits what the upper one says, weakly; the upper level wants something else. Four terms each.
struct Imitation {
    inputs: Tensor<2>,
}

impl Imitation {
    fn new() -> Self {
        let data = TensorData::new((0..8).map(|i| f64::from(i).cos()).collect::<Vec<_>>(), [4, 2]);
        Self { inputs: Tensor::from_data(data, (&device(), DType::F64)) }
    }

    fn rows(&self, sample: &Sample) -> Tensor<2> {
        match &sample.rows {
            None => self.inputs.clone(),
            Some(rows) => {
                let rows = rows.iter().map(|&row| row as i64).collect::<Vec<_>>();
                self.inputs.clone().select(0, Tensor::from_data(rows.as_slice(), &device()))
            }
        }
    }
}

impl ModuleProblem for Imitation {
    type Upper = Net;
    type Lower = Net;

    fn upper(&self, x: &Net, y: &Net, sample: &Sample) -> Tensor<1> {
        let inputs = self.rows(sample);
        let distance = (y.forward(inputs.clone()) - 0.3).square().mean();
        distance
            + x.second.val().square().sum() * 0.05
            + (y.forward(inputs.clone()) * x.forward(inputs)).mean()
    }

    fn lower(&self, x: &Net, y: &Net, sample: &Sample) -> Tensor<1> {
        let inputs = self.rows(sample);
        let ridge = y.first.val().square().sum() + y.second.val().square().sum();
        (y.forward(inputs.clone()) - x.forward(inputs)).square().mean() + ridge * 0.05
    }

    fn terms(&self, _: Level) -> usize {
        4
    }
}

fn problem() -> Modules<Imitation> {
    let net = |phase| Net::new(DType::F64, &train_device(), phase);
    Modules::new(Imitation::new(), net(0.4), net(1.7))
}

/// Adds `by` to number `index` of a point.
fn nudged(point: &Parameters, index: usize, by: f64) -> Parameters {
    let mut flat = point.to_vec();
    flat[index] += by;
    of_vec(point, &flat)
}

/// A point of the same space with given numbers, by way of its written form.
fn of_vec(like: &Parameters, flat: &[f64]) -> Parameters {
    let mut json = serde_json::to_value(like).unwrap();
    let mut numbers = flat.iter();
    for tensor in json.as_object_mut().unwrap().values_mut() {
        let list = tensor.as_object_mut().unwrap().values_mut().next().unwrap();
        for entry in list.as_array_mut().unwrap() {
            *entry = (*numbers.next().unwrap()).into();
        }
    }
    serde_json::from_value(json).unwrap()
}

fn differences(at: &Parameters, value: impl Fn(&Parameters) -> f64) -> Vec<f64> {
    let step = 1e-5; // truncation about 1e-10, rounding about 1e-11
    (0..at.len())
        .map(|i| (value(&nudged(at, i, step)) - value(&nudged(at, i, -step))) / (2.0 * step))
        .collect()
}

#[test]
fn gradients_agree_with_differences_on_both_sides_of_both_levels() {
    let problem = problem();
    let (x, y) = (problem.x(), problem.y());
    for sample in [Sample::full(), Sample::of(vec![0, 2])] {
        for level in [Level::Upper, Level::Lower] {
            let by_x = problem.gradient_x(level, &x, &y, &sample).to_vec();
            assert_all_close(by_x, differences(&x, |x| problem.value(level, x, &y, &sample)), 1e-8, 1e-8);
            let by_y = problem.gradient_y(level, &x, &y, &sample).to_vec();
            assert_all_close(by_y, differences(&y, |y| problem.value(level, &x, y, &sample)), 1e-8, 1e-8);
        }
    }
}

#[test]
fn passes_over_sums_and_differences_equal_the_gradients_taken_apart() {
    let problem = problem();
    let (x, y) = (problem.x(), problem.y());
    let z = y.plus(0.1, &y.zeros().plus(1.0, &y));
    let (upper, lower) = (Sample::of(vec![1]), Sample::of(vec![0, 3]));
    let mut apart = problem.gradient_y(Level::Lower, &x, &y, &lower);
    apart.add_scaled(0.2, &problem.gradient_y(Level::Upper, &x, &y, &upper));
    let joint = problem.perturbed_gradient_y(0.2, &x, &y, &upper, &lower);
    assert_close(joint.to_vec(), apart.to_vec(), 1e-14); // sums of a few numbers in f64, in another order
    let apart = problem.gradient_x(Level::Lower, &x, &y, &lower).minus(&problem.gradient_x(
        Level::Lower,
        &x,
        &z,
        &lower,
    ));
    assert_close(problem.lower_difference_x(&x, &y, &z, &lower).to_vec(), apart.to_vec(), 1e-14);
}

/// f without y, as a regulariser of x alone would be.
struct Apart;

impl ModuleProblem for Apart {
    type Upper = Net;
    type Lower = Net;

    fn upper(&self, x: &Net, _: &Net, _: &Sample) -> Tensor<1> {
        x.second.val().sum()
    }

    fn lower(&self, _: &Net, y: &Net, _: &Sample) -> Tensor<1> {
        y.second.val().square().sum()
    }
}

#[test]
fn a_loss_that_does_not_know_a_side_has_no_gradient_there() {
    let net = || Net::new(DType::F32, &train_device(), 0.0);
    let problem = Modules::new(Apart, net(), net());
    let (x, y) = (problem.x(), problem.y());
    let full = Sample::full();
    assert_eq!(problem.gradient_y(Level::Upper, &x, &y, &full), y.zeros());
    assert_eq!(problem.gradient_x(Level::Lower, &x, &y, &full), x.zeros());
    // The first layer is reached by neither loss; ∂f/∂second = 1.
    assert_eq!(
        problem.gradient_x(Level::Upper, &x, &y, &full).to_vec(),
        [[0.0; 6].as_slice(), &[1.0; 3]].concat()
    );
}

#[derive(Module, Debug)]
struct Number {
    value: Param<Tensor<1>>,
}

/// `f = (y − 1)²/2`, `g = (y − 2x)²/2`, as the vector problem of the same name.
struct Scalar;

impl ModuleProblem for Scalar {
    type Upper = Number;
    type Lower = Number;

    fn upper(&self, _: &Number, y: &Number, _: &Sample) -> Tensor<1> {
        (y.value.val() - 1.0).square() / 2.0
    }

    fn lower(&self, x: &Number, y: &Number, _: &Sample) -> Tensor<1> {
        (y.value.val() - x.value.val() * 2.0).square() / 2.0
    }

    fn project_x(&self, x: &mut Parameters) {
        let limit = 2.0 / x.norm();
        if limit < 1.0 {
            x.scale(limit);
        }
    }
}

/// Ten steps of the double loop from x = 0.3 and y = z = 0.
fn ten_steps<P: Problem>(problem: &P, x: P::X, y: P::Y) -> (P::X, P::Y, Calls) {
    let config = DoubleLoopConfig { outer_steps: 10, alpha: Schedule::constant(0.3), ..Default::default() };
    let mut solver = DoubleLoop::new(config, problem, x, y.clone(), y).unwrap();
    let calls = run(&mut solver, &Oracle::new(problem), 10, |_, _, _| ControlFlow::Continue(())).unwrap();
    (Solver::<P>::x(&solver).clone(), Solver::<P>::y(&solver).clone(), calls)
}

#[test]
fn a_solver_does_not_see_whether_variables_are_modules() {
    let number = |value: f64| {
        let data = TensorData::new(vec![value], [1]);
        Number { value: Param::from_tensor(Tensor::from_data(data, (&train_device(), DType::F64))) }
    };
    let modules = Modules::new(Scalar, number(0.3), number(0.0));
    let found = ten_steps(&modules, modules.x(), modules.y());
    let expected = ten_steps(&Quadratic::scalar(), vec![0.3], vec![0.0]);
    assert_close(found.0.to_vec(), &expected.0, 1e-14); // the same operations in f64, in another order
    assert_close(found.1.to_vec(), &expected.1, 1e-14);
    assert_eq!(found.2, expected.2);
    assert_close(modules.upper_module(&found.0).value.val(), found.0.to_vec(), 0.0);
    // Projections are the problem's.
    let error = DoubleLoop::new(
        DoubleLoopConfig::default(),
        &modules,
        Parameters::of(&number(2.1)),
        modules.y(),
        modules.y(),
    )
    .unwrap_err();
    assert!(matches!(error, BilevelError::Infeasible { which: "x", .. }), "{error}");
}

#[test]
fn a_point_holds_what_is_trained_and_comes_back_as_leaves() {
    let net = Net::new(DType::F32, &train_device(), 0.0);
    let point = Parameters::of(&net);
    let paths: Vec<&str> = point.iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["first", "second"]);
    assert_eq!(point.len(), 9);
    // The same tensors count, whether the module records just now or not.
    assert_eq!(Parameters::of(&net.valid()), point);

    let doubled = point.plus(1.0, &point).put_into(net.clone());
    assert_eq!(ids(&doubled), ids(&net));
    assert!(doubled.first.is_require_grad() && !doubled.fixed.is_require_grad());
    assert_eq!(doubled.fixed.val().to_data(), net.fixed.val().to_data());
    let loss = doubled.forward(Tensor::ones([1, 2], &device()));
    let gradients = loss.backward();
    assert!(doubled.first.val().grad(&gradients).is_some(), "a leaf gets a gradient");
    assert!(!point.put_into(net.valid()).first.is_require_grad());
}

fn ids(net: &Net) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut ids = Ids(Vec::new());
    net.visit(&mut ids);
    ids.0
}

#[test]
#[should_panic(expected = "the module has no tensors at [\"first\", \"second\"]")]
fn a_module_of_another_kind_is_refused() {
    #[derive(Module, Debug)]
    struct Other {
        third: Param<Tensor<1>>,
    }
    let other = Other { third: Param::from_tensor(Tensor::zeros([3], &train_device())) };
    let _ = Parameters::of(&Net::new(DType::F32, &train_device(), 0.0)).put_into(other);
}

#[test]
fn arithmetic_is_that_of_the_flattened_vector() {
    for (dtype, tolerance) in [(DType::F64, 1e-15), (DType::F32, 1e-6)] {
        let [a, b] = [0.2, 0.9].map(|phase| Parameters::of(&Net::new(dtype, &train_device(), phase)));
        let [u, v] = [a.to_vec(), b.to_vec()];
        assert_close(a.plus(0.7, &b).to_vec(), u.plus(0.7, &v), tolerance);
        assert_close(
            [a.dot(&b), a.norm(), a.distance(&b)],
            [u.dot(&v), u.norm(), u.distance(&v)],
            4.0 * tolerance,
        );
        let mut moved = a.clone();
        moved.move_towards(0.25, &b);
        assert_close(moved.to_vec(), u.plus(-0.25, &u).plus(0.25, &v), tolerance);
        assert_eq!(a.to_vec(), u, "the original of a clone is not touched");
        assert_eq!(a.zeros().norm(), 0.0);
        let roundoff = if dtype == DType::F64 { 2f64.powi(-53) } else { 2f64.powi(-24) };
        assert_eq!(a.unit_roundoff(), roundoff);
    }
}

#[derive(Module, Debug)]
struct Long {
    values: Param<Tensor<1>>,
}

#[test]
fn a_million_numbers_in_f32_keep_their_inner_product() {
    // 0.1 in f32, and n no multiple of the block: summed in one go in f32 the norm would be off by about 1e-4.
    let n = 1_000_003;
    let values = Tensor::full([n], 0.1f32, &train_device());
    let point = Parameters::of(&Long { values: Param::from_tensor(values) });
    let exact = n as f64 * f64::from(0.1f32).powi(2);
    // One rounding of each product, 6e-8, and those of sums of 256.
    assert!((point.dot(&point) / exact - 1.0).abs() < 1e-6, "{} against {exact}", point.dot(&point));
    // Terms that cancel: the error is small against the sum of absolute values.
    let signs: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let signs = Tensor::from_data(TensorData::new(signs, [n]), &train_device());
    let signs = Parameters::of(&Long { values: Param::from_tensor(signs) });
    assert!((point.dot(&signs) - f64::from(0.1f32)).abs() < 1e-6 * 0.1 * n as f64);
}

#[test]
fn half_precision_has_a_master_copy_in_f32() {
    let net = Net::new(DType::BF16, &train_device(), 0.3);
    let mut point = Parameters::of(&net);
    assert_eq!(point.unit_roundoff(), 2f64.powi(-24));
    // A step too small for bf16 adds up in the point.
    let before = point.to_vec();
    for _ in 0..100 {
        let step = point.clone();
        point.add_scaled(1e-4, &step);
    }
    assert_all_close(
        point.to_vec(),
        before.iter().map(|v| v * 1.0001f64.powi(100)).collect::<Vec<_>>(),
        1e-5,
        0.0,
    );
    assert_eq!(point.put_into(net).first.val().dtype(), DType::BF16);
}

#[test]
fn what_is_written_comes_back_bit_for_bit() {
    for dtype in [DType::F32, DType::F64] {
        let mut point = Parameters::of(&Net::new(dtype, &train_device(), 0.6));
        point.scale(1e-7 / 3.0);
        let json = serde_json::to_string(&point).unwrap();
        let back: Parameters = serde_json::from_str(&json).unwrap();
        assert_eq!(back, point);
        assert_eq!(back.unit_roundoff(), point.unit_roundoff());
        assert_eq!(back.put_into(Net::new(dtype, &train_device(), 0.0)).first.val().dtype(), dtype);
    }
}
