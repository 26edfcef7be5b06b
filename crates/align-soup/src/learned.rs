//! Soups whose weights are learnt on held-out data.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};
use serde::{Deserialize, Serialize};

use crate::average::uniform;
use crate::error::SoupError;
use crate::parameters::{Parameters, Path};

/// Adam's decay of the mean gradient.
const BETA_1: f64 = 0.9;
/// Adam's decay of the mean squared gradient.
const BETA_2: f64 = 0.999;
/// Added to Adam's divisor.
const EPSILON: f64 = 1e-8;

/// What shares a set of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole model: one weight for each ingredient.
    #[default]
    Model,
    /// Each layer, and each module outside the layers, for itself.
    Layer,
}

/// Where weights may go. They sum to 1 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// w = softmax(z): none is negative, the soup stays between its ingredients.
    #[default]
    Simplex,
    /// w_k = 1/K + z_k − z̄: any may be negative, the soup may extrapolate.
    Affine,
}

/// How weights are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnedOptions {
    /// What shares a set of weights.
    pub by: Granularity,
    /// Where weights may go.
    pub region: Region,
    /// Steps of Adam, each with one loss and its gradient.
    pub steps: u64,
    /// Adam's step size on the parameters z.
    pub learning_rate: f64,
}

impl Default for LearnedOptions {
    /// 100 steps of 0.1: room to move z by 10, from equal weights to e¹⁰ : 1.
    fn default() -> Self {
        Self { by: Granularity::Model, region: Region::Simplex, steps: 100, learning_rate: 0.1 }
    }
}

/// Why weights were not learnt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnedError {
    /// One ingredient leaves no choice.
    #[error("a learned soup weighs ingredients: expected at least 2, found {found}")]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// Nothing to learn in.
    #[error("expected at least 1 step, found 0")]
    NoSteps,
    /// A step size that goes nowhere.
    #[error("the learning rate must be finite and above 0, found {found}")]
    LearningRate {
        /// The rate.
        found: f64,
    },
    /// The ingredients do not average.
    #[error(transparent)]
    Soup(#[from] SoupError),
    /// The loss was computed without the model's gradients.
    #[error("the loss of step {step} does not depend on the soup's parameters, or was cut off from them")]
    Untracked {
        /// The step, from 0.
        step: u64,
    },
    /// The loss says nothing.
    #[error("the loss of step {step} is {loss}, expected a finite number")]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// The gradient says nothing.
    #[error("the gradient of step {step} by the weights of `{group}` is not finite")]
    Gradient {
        /// The step, from 0.
        step: u64,
        /// What the weights are of.
        group: String,
    },
}

/// The weights of one part of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupWeights {
    /// The part: `model` for all of it, else the path of a layer or of a module outside the layers.
    pub group: String,
    /// One weight for each ingredient; they sum to 1.
    pub weights: Vec<f64>,
}

/// A soup with learnt weights.
#[derive(Clone, Debug)]
pub struct LearnedSoup<M> {
    /// The soup, on the plain device.
    pub module: M,
    /// Its weights, part by part in the module's order.
    pub weights: Vec<GroupWeights>,
    /// The loss before each step.
    pub losses: Vec<f64>,
}

/// Learns the weights of a soup θ = Σ_k w_k θ_k: Adam on their parameters z, from equal weights, to a low loss.
///
/// `loss` is given the step, from 0, and the soup as it is then, on the recording device; it returns a `[1]` loss of that soup, on
/// whatever batch belongs to that step. Use data that the ingredients were *not* trained on: on their training data the weights
/// say which ingredient fits it closest.
///
/// # Gradient
/// ∂L/∂w_k = ⟨∇_θ L, θ_k⟩, so that one backward pass through the soup gives the gradient by all weights. It is taken as
/// b_k = ⟨∇_θ L, θ_k − θ⟩, which differs by a number that is the same for all k and loses no digits to what the ingredients have in
/// common. With a softmax ∂L/∂z_k = w_k (b_k − Σ_j w_j b_j), where the sum is 0 by construction; affine ∂L/∂z_k = b_k − b̄.
///
/// # Errors
/// If there are fewer than two ingredients, they do not average, or a loss or gradient is not finite; and whatever `loss` fails
/// with.
///
/// # Source
/// Wortsman et al. 2022, section 3.3 and appendix I ("learned soup"), <https://arxiv.org/abs/2203.05482>. We learn no temperature:
/// it belongs to classifiers.
///
/// # Examples
/// The point nearest to 1.5 between 1 and 3, whose weights are ¾ and ¼:
/// ```
/// use align_soup::{LearnedError, LearnedOptions, learned};
/// use burn::module::{Module, Param};
/// use burn::tensor::Tensor;
///
/// #[derive(Module, Debug)]
/// struct Number {
///     value: Param<Tensor<1>>,
/// }
///
/// let device = align_testkit::device();
/// let number = |value: f32| Number { value: Param::from_tensor(Tensor::from_data([value], &device)) };
/// let soup = learned(&[number(1.0), number(3.0)], &LearnedOptions::default(), |_step, soup: &Number| {
///     Ok::<_, LearnedError>((soup.value.val() - 1.5).square())
/// })?;
/// assert!((soup.weights[0].weights[0] - 0.75).abs() < 0.01);
/// # Ok::<(), LearnedError>(())
/// ```
pub fn learned<M: Module, E: From<LearnedError>>(
    ingredients: &[M],
    options: &LearnedOptions,
    mut loss: impl FnMut(u64, &M) -> Result<Tensor<1>, E>,
) -> Result<LearnedSoup<M>, E> {
    check(ingredients.len(), options)?;
    // Checks everything that can be wrong with ingredients, and is where the weights begin.
    let template = uniform(ingredients).map_err(LearnedError::from)?;
    let parameters: Vec<Parameters> = ingredients.iter().map(Parameters::of).collect();
    let mut groups = Groups::of(&template, options, ingredients.len());
    let mut losses = Vec::new();
    for step in 0..options.steps {
        let soup = groups.blend(&template, &parameters, Leaves::Recorded);
        let loss = loss(step, &soup)?;
        if !loss.is_tracked() {
            return Err(LearnedError::Untracked { step }.into());
        }
        let gradients = loss.backward();
        let value = loss.into_data().iter::<f64>().sum();
        if !f64::is_finite(value) {
            return Err(LearnedError::NotFinite { step, loss: value }.into());
        }
        losses.push(value);
        let products = groups.products(&soup, &parameters, gradients);
        groups.step(step, &products)?;
    }
    let module = groups.blend(&template, &parameters, Leaves::Plain);
    Ok(LearnedSoup { module, weights: groups.weights(), losses })
}

fn check(ingredients: usize, options: &LearnedOptions) -> Result<(), LearnedError> {
    if ingredients < 2 {
        return Err(LearnedError::TooFew { found: ingredients });
    }
    if options.steps == 0 {
        return Err(LearnedError::NoSteps);
    }
    if !(options.learning_rate.is_finite() && options.learning_rate > 0.0) {
        return Err(LearnedError::LearningRate { found: options.learning_rate });
    }
    Ok(())
}

/// What shares weights with the parameter at `path`: everything up to the first number in it, which counts layers, or the module
/// that holds it if that holds no layers too.
fn group_of(path: &str, by: Granularity, paths: &[String]) -> String {
    if by == Granularity::Model {
        return "model".to_owned();
    }
    if let Some(layer) = layer_of(path) {
        return layer.to_owned();
    }
    match path.rsplit_once('.') {
        Some((holder, _))
            if !paths.iter().any(|other| is_inside(other, holder) && layer_of(other).is_some()) =>
        {
            holder.to_owned()
        }
        _ => path.to_owned(),
    }
}

/// The path of the layer that a parameter belongs to.
fn layer_of(path: &str) -> Option<&str> {
    let mut end = 0;
    for name in path.split('.') {
        end += name.len();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(&path[..end]);
        }
        end += 1;
    }
    None
}

fn is_inside(path: &str, holder: &str) -> bool {
    path.strip_prefix(holder).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a soup's parameters record gradients.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    Recorded,
    Plain,
}

/// One set of weights with its state in Adam.
struct Group {
    name: String,
    z: Vec<f64>,
    mean: Vec<f64>,
    square: Vec<f64>,
}

/// All sets of weights.
struct Groups {
    options: LearnedOptions,
    all: Vec<Group>,
    /// The group of each float parameter, by path.
    by_path: BTreeMap<String, usize>,
}

impl Groups {
    fn of<M: Module>(module: &M, options: &LearnedOptions, ingredients: usize) -> Self {
        let mut list = List::default();
        module.visit(&mut list);
        let mut groups = Self { options: *options, all: Vec::new(), by_path: BTreeMap::new() };
        for path in &list.found {
            let name = group_of(path, options.by, &list.found);
            let at = groups.all.iter().position(|group| group.name == name).unwrap_or_else(|| {
                let zeros = vec![0.0; ingredients];
                groups.all.push(Group { name, z: zeros.clone(), mean: zeros.clone(), square: zeros });
                groups.all.len() - 1
            });
            groups.by_path.insert(path.clone(), at);
        }
        groups
    }

    fn weights(&self) -> Vec<GroupWeights> {
        let weights = |group: &Group| weights_of(&group.z, self.options.region);
        self.all
            .iter()
            .map(|group| GroupWeights { group: group.name.clone(), weights: weights(group) })
            .collect()
    }

    /// Σ_k w_k θ_k on the ingredients' device.
    fn blend<M: Module>(&self, template: &M, parameters: &[Parameters], leaves: Leaves) -> M {
        let weights = self.weights();
        let mut blend = Blend { path: Path::default(), groups: self, weights: &weights, parameters, leaves };
        template.clone().map(&mut blend)
    }

    /// b_k = ⟨∇_θ L, θ_k − θ⟩ for every group and ingredient.
    fn products<M: Module>(
        &self,
        soup: &M,
        parameters: &[Parameters],
        gradients: Gradients,
    ) -> Vec<Vec<f64>> {
        let sums = vec![vec![None; parameters.len()]; self.all.len()];
        let mut products = Products { path: Path::default(), groups: self, parameters, gradients, sums };
        soup.visit(&mut products);
        let read = |sum: Option<Tensor<1>>| sum.map_or(0.0, |sum| sum.into_data().iter::<f64>().sum());
        products.sums.into_iter().map(|sums| sums.into_iter().map(read).collect()).collect()
    }

    /// One step of Adam on z.
    fn step(&mut self, step: u64, products: &[Vec<f64>]) -> Result<(), LearnedError> {
        let LearnedOptions { region, learning_rate, .. } = self.options;
        let unbias = |beta: f64| 1.0 - beta.powf((step + 1) as f64);
        for (group, b) in self.all.iter_mut().zip(products) {
            let weights = weights_of(&group.z, region);
            for (k, slope) in slopes(&weights, b, region).into_iter().enumerate() {
                if !slope.is_finite() {
                    return Err(LearnedError::Gradient { step, group: group.name.clone() });
                }
                group.mean[k] = BETA_1 * group.mean[k] + (1.0 - BETA_1) * slope;
                group.square[k] = BETA_2 * group.square[k] + (1.0 - BETA_2) * slope * slope;
                let (mean, square) = (group.mean[k] / unbias(BETA_1), group.square[k] / unbias(BETA_2));
                group.z[k] -= learning_rate * mean / (square.sqrt() + EPSILON);
            }
        }
        Ok(())
    }
}

fn weights_of(z: &[f64], region: Region) -> Vec<f64> {
    let count = z.len() as f64;
    match region {
        Region::Simplex => {
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exp: Vec<f64> = z.iter().map(|z| (z - largest).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|exp| exp / sum).collect()
        }
        Region::Affine => {
            let mean = z.iter().sum::<f64>() / count;
            z.iter().map(|z| 1.0 / count + z - mean).collect()
        }
    }
}

/// ∂L/∂z from b.
fn slopes(weights: &[f64], b: &[f64], region: Region) -> Vec<f64> {
    match region {
        Region::Simplex => {
            let mean: f64 = weights.iter().zip(b).map(|(w, b)| w * b).sum();
            weights.iter().zip(b).map(|(w, b)| w * (b - mean)).collect()
        }
        Region::Affine => {
            let mean = b.iter().sum::<f64>() / b.len() as f64;
            b.iter().map(|b| b - mean).collect()
        }
    }
}

macro_rules! follow_the_path {
    () => {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }
    };
}

#[derive(Default)]
struct List {
    path: Path,
    found: Vec<String>,
}

impl ModuleVisitor for List {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.found.push(self.path.join());
    }
}

struct Blend<'a> {
    path: Path,
    groups: &'a Groups,
    weights: &'a [GroupWeights],
    parameters: &'a [Parameters],
    leaves: Leaves,
}

impl ModuleMapper for Blend<'_> {
    follow_the_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join();
        let weights = &self.weights[self.groups.by_path[&path]].weights;
        let (id, old, mapper) = param.consume();
        let device = old.device();
        let terms = self.parameters.iter().zip(weights).map(|(parameters, &weight)| {
            widened(parameters.tensor::<Tensor<D>>(&path)).to_device(&device) * weight
        });
        let soup = terms.reduce(|sum, term| sum + term).expect("there are ingredients").cast(old.dtype());
        let soup = match self.leaves {
            Leaves::Recorded => soup.autodiff().require_grad(),
            Leaves::Plain => soup,
        };
        Param::from_mapped_value(id, soup, mapper)
    }
}

struct Products<'a> {
    path: Path,
    groups: &'a Groups,
    parameters: &'a [Parameters],
    gradients: Gradients,
    sums: Vec<Vec<Option<Tensor<1>>>>,
}

impl ModuleVisitor for Products<'_> {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let Some(gradient) = tensor.grad_remove(&mut self.gradients) else { return };
        let (gradient, soup) = (widened(gradient), widened(tensor.without_autodiff()));
        let path = self.path.join();
        let sums = &mut self.sums[self.groups.by_path[&path]];
        for (parameters, sum) in self.parameters.iter().zip(sums) {
            let ingredient = widened(parameters.tensor::<Tensor<D>>(&path)).to_device(&soup.device());
            let product = (gradient.clone() * (ingredient - soup.clone())).sum();
            *sum = Some(match sum.take() {
                Some(sum) => {
                    let device = sum.device();
                    sum + product.to_device(&device)
                }
                None => product,
            });
        }
    }
}

/// Sixteen bits would lose small weights.
fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.dtype() == DType::F64 { tensor } else { tensor.cast(DType::F32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        layers: Vec<Param<Tensor<2>>>,
        head: Param<Tensor<1>>,
    }

    fn net(seed: f64) -> Net {
        let device = align_testkit::device();
        let values =
            |n: usize, seed: f64| (0..n).map(|i| (seed + 1.7 * i as f64).sin()).collect::<Vec<f64>>();
        let matrix = |seed| {
            let data = burn::tensor::TensorData::new(values(6, seed), [2, 3]);
            Param::from_tensor(Tensor::from_data(data, (&device, DType::F64)))
        };
        let head = burn::tensor::TensorData::new(values(3, seed + 0.3), [3]);
        Net {
            layers: vec![matrix(seed), matrix(seed + 0.9)],
            head: Param::from_tensor(Tensor::from_data(head, (&device, DType::F64))),
        }
    }

    /// Nothing about it is linear or quadratic.
    fn loss(net: &Net) -> Tensor<1> {
        let hidden = net.layers[0].val().tanh() + net.layers[1].val().square() * 0.5;
        (hidden * net.head.val().exp().unsqueeze()).sum().square()
    }

    #[test]
    fn gradients_by_weights_agree_with_finite_differences_through_the_soup() {
        let nets: Vec<Net> = [0.1, 1.3, 2.9].map(net).into();
        let parameters: Vec<Parameters> = nets.iter().map(Parameters::of).collect();
        for by in [Granularity::Model, Granularity::Layer] {
            for region in [Region::Simplex, Region::Affine] {
                let options = LearnedOptions { by, region, ..LearnedOptions::default() };
                let mut groups = Groups::of(&nets[0], &options, 3);
                for (at, group) in groups.all.iter_mut().enumerate() {
                    group.z = vec![0.2 + at as f64, -0.4, 0.7 - 0.5 * at as f64];
                }
                let soup = groups.blend(&nets[0], &parameters, Leaves::Recorded);
                let products = groups.products(&soup, &parameters, loss(&soup).backward());
                let value = |groups: &Groups| -> f64 {
                    loss(&groups.blend(&nets[0], &parameters, Leaves::Plain)).into_data().iter::<f64>().sum()
                };
                assert_eq!(groups.all.len(), if by == Granularity::Model { 1 } else { 3 });
                assert_eq!(products.len(), groups.all.len());
                for (at, products) in products.iter().enumerate() {
                    let weights = weights_of(&groups.all[at].z, region);
                    let slopes = slopes(&weights, products, region);
                    for (k, &slope) in slopes.iter().enumerate() {
                        let z = groups.all[at].z[k];
                        let mut moved = |step: f64| {
                            groups.all[at].z[k] = z + step;
                            value(&groups)
                        };
                        let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                        groups.all[at].z[k] = z;
                        // Central differences in f64: h² and rounding over h, both near 1e-10 of the loss.
                        assert!(
                            (slope - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                            "{slope} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn layers_and_the_modules_around_them_are_groups() {
        let paths = [
            "backbone.embedding",
            "backbone.layers.0.mlp.up",
            "backbone.layers.11.mlp.up",
            "backbone.norm.gamma",
            "head",
        ]
        .map(String::from);
        let groups = paths.each_ref().map(|path| group_of(path, Granularity::Layer, &paths));
        let expected =
            ["backbone.embedding", "backbone.layers.0", "backbone.layers.11", "backbone.norm", "head"];
        assert_eq!(groups, expected);
        assert_eq!(group_of("head", Granularity::Model, &paths), "model");
    }

    #[test]
    fn slopes_agree_with_finite_differences_of_a_linear_loss() {
        // L(w) = Σ_k w_k a_k, whose b_k = a_k − L.
        let (z, a) = ([0.3, -0.7, 1.1], [2.0, -1.0, 0.5]);
        for region in [Region::Simplex, Region::Affine] {
            let loss = |z: &[f64]| -> f64 { weights_of(z, region).iter().zip(a).map(|(w, a)| w * a).sum() };
            let b: Vec<f64> = a.iter().map(|a| a - loss(&z)).collect();
            let found = slopes(&weights_of(&z, region), &b, region);
            for k in 0..3 {
                let mut up = z;
                let mut down = z;
                up[k] += 1e-5;
                down[k] -= 1e-5;
                let expected = (loss(&up) - loss(&down)) / 2e-5;
                assert!((found[k] - expected).abs() < 1e-9, "{region:?} {k}: {} {expected}", found[k]); // h² and rounding/h
            }
        }
    }
}
