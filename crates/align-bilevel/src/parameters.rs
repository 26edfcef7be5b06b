//! The trainable tensors of a Burn module as a point of a Euclidean space.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Point;

/// How many f32 products are summed on the device before the sum goes on in f64 on the host.
///
/// With 256 the sum of a million products is off by about 1e-7 of `Σ |aᵢ bᵢ|`, as a single product is; what crosses to
/// the host is a 256th of the numbers. Summed in one piece, in f32, the error would grow with their count.
const BLOCK: usize = 256;

/// The trainable tensors of a module, by path, untracked and on the module's device.
///
/// Numbers are held in f64 where the module's are, and in f32 otherwise: a module in half precision keeps its master
/// copy here, since steps of an optimiser are smaller than what half precision can add. Arithmetic stays on the device;
/// inner products are accumulated in f64.
///
/// Cloning is free: tensors share their storage until one is changed.
///
/// # Examples
/// ```
/// use align_bilevel::{Parameters, Point};
/// use align_testkit::{BigramLm, train_device};
///
/// let model = BigramLm::independent(&[3.0, 4.0], &train_device());
/// let mut point = Parameters::of(&model);
/// point.scale(2.0);
/// let doubled = Parameters::of(&point.put_into(model));
/// assert_eq!(doubled, point);
/// ```
#[derive(Clone, Debug)]
pub struct Parameters {
    /// In ascending order, one for each tensor.
    paths: Arc<Vec<String>>,
    /// `[N]` each.
    tensors: Vec<Tensor<1>>,
}

impl Parameters {
    /// The tensors of `module` that training would change, whether or not it records gradients just now.
    ///
    /// Lazy tensors are drawn on the way.
    pub fn of<M: Module>(module: &M) -> Self {
        let mut values = Values::default();
        module.visit(&mut values);
        // A module that does not record says nothing about what it would record; its training form does.
        let mut trained = Trained::default();
        module.clone().train().visit(&mut trained);
        let found = values.found.into_iter().filter(|(path, _)| trained.found.contains(path));
        let (paths, tensors): (Vec<_>, Vec<_>) = found.unzip();
        Self { paths: Arc::new(paths), tensors }
    }

    /// Gradients of a module as a point of the space of `self`; zero where nothing reached a tensor.
    pub fn from_gradients<M: Module>(&self, module: &M, gradients: GradientsParams) -> Self {
        let mut reached = Reached { path: Path::default(), gradients, found: BTreeMap::new() };
        module.visit(&mut reached);
        let mut found = reached.found;
        let gradient = |(path, like): (&String, &Tensor<1>)| match found.remove(path) {
            Some(gradient) => gradient.cast(like.dtype()),
            None => like.zeros_like(),
        };
        let tensors = self.paths.iter().zip(&self.tensors).map(gradient).collect();
        Self { paths: self.paths.clone(), tensors }
    }

    /// The module with these numbers in it: leaves with the same ids and types, recording where they did before.
    ///
    /// # Panics
    /// If the module lacks one of the tensors, or has it in another size.
    pub fn put_into<M: Module>(&self, module: M) -> M {
        self.insert(module, false)
    }

    /// [`put_into`](Self::put_into), but every tensor records, whatever it did before.
    pub(crate) fn put_into_recording<M: Module>(&self, module: M) -> M {
        self.insert(module, true)
    }

    /// The numbers, tensor by tensor in order of path.
    pub fn to_vec(&self) -> Vec<f64> {
        self.tensors.iter().flat_map(|tensor| tensor.to_data().iter::<f64>().collect::<Vec<_>>()).collect()
    }

    /// Paths and tensors, in order of path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.paths.iter().map(String::as_str).zip(&self.tensors)
    }

    /// Where the tensors live; the default device if there is none.
    pub fn device(&self) -> Device {
        self.tensors.first().map_or_else(Device::default, Tensor::device)
    }

    fn insert<M: Module>(&self, module: M, all_record: bool) -> M {
        let tensors = self.paths.iter().map(String::as_str).zip(self.tensors.iter().cloned()).collect();
        let mut mapper = Insert { path: Path::default(), tensors, all_record };
        let module = module.map(&mut mapper);
        let left: Vec<&str> = mapper.tensors.into_keys().collect();
        assert!(left.is_empty(), "the module has no tensors at {left:?}");
        module
    }
}

/// Equal paths, types and numbers.
impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Tensor<1>, &Tensor<1>)| a.to_data() == b.to_data();
        self.paths == other.paths && self.tensors.iter().zip(&other.tensors).all(same)
    }
}

impl Point for Parameters {
    // Tensors are taken out rather than cloned: one that nothing shares is then changed in place.
    fn add_scaled(&mut self, scale: f64, other: &Self) {
        self.scale_add(1.0, scale, other);
    }

    fn scale_add(&mut self, factor: f64, scale: f64, other: &Self) {
        let sum = |(own, other): (Tensor<1>, &Tensor<1>)| {
            // A point read from a file lies on the default device until it meets a gradient.
            align_kernels::axpby(factor, own.to_device(&other.device()), scale, other)
        };
        self.tensors = std::mem::take(&mut self.tensors).into_iter().zip(&other.tensors).map(sum).collect();
    }

    fn scale(&mut self, factor: f64) {
        self.tensors = std::mem::take(&mut self.tensors).into_iter().map(|tensor| tensor * factor).collect();
    }

    fn dot(&self, other: &Self) -> f64 {
        let product = |(a, b): (&Tensor<1>, &Tensor<1>)| sum(a.clone() * b.clone().to_device(&a.device()));
        self.tensors.iter().zip(&other.tensors).map(product).sum()
    }

    fn norm(&self) -> f64 {
        let sums = align_kernels::square_sums(&self.tensors.iter().collect::<Vec<_>>());
        sums.into_iter().sum::<f64>().sqrt()
    }

    fn is_finite(&self) -> bool {
        self.norm().is_finite()
    }

    fn distance(&self, other: &Self) -> f64 {
        let apart = |(a, b): (&Tensor<1>, &Tensor<1>)| a.clone() - b.clone().to_device(&a.device());
        let tensors = self.tensors.iter().zip(&other.tensors).map(apart).collect();
        Self { paths: self.paths.clone(), tensors }.norm()
    }

    fn len(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.dims()[0]).sum()
    }

    fn zeros(&self) -> Self {
        Self { paths: self.paths.clone(), tensors: self.tensors.iter().map(Tensor::zeros_like).collect() }
    }

    fn unit_roundoff(&self) -> f64 {
        let double = self.tensors.iter().all(|tensor| tensor.dtype() == DType::F64);
        if double { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
    }
}

/// `Σ x`, in blocks on the device and in f64 across them.
fn sum(x: Tensor<1>) -> f64 {
    let [n] = x.dims();
    let whole = n - n % BLOCK;
    let blocks = (whole > 0).then(|| {
        x.clone().narrow(0, 0, whole).reshape([whole / BLOCK, BLOCK]).sum_dim(1).reshape([whole / BLOCK])
    });
    let rest = (whole < n).then(|| x.narrow(0, whole, n - whole));
    [blocks, rest]
        .into_iter()
        .flatten()
        .flat_map(|part| part.into_data().iter::<f64>().collect::<Vec<_>>())
        .sum()
}

/// Names from the root of a module to where a walk stands.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    fn joined(&self) -> String {
        self.0.join(".")
    }
}

/// `[N]`, untracked, in f64 or f32.
fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let tensor = tensor.without_autodiff();
    let (n, dtype) = (tensor.shape().num_elements(), tensor.dtype());
    tensor.reshape([n]).cast(if dtype == DType::F64 { DType::F64 } else { DType::F32 })
}

/// Every float tensor.
#[derive(Default)]
struct Values {
    path: Path,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(self.path.joined(), flat(param.base()));
    }
}

/// The paths of tensors that record.
#[derive(Default)]
struct Trained {
    path: Path,
    found: BTreeSet<String>,
}

impl ModuleVisitor for Trained {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.found.insert(self.path.joined());
        }
    }
}

/// Gradients, by path.
struct Reached {
    path: Path,
    gradients: GradientsParams,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Reached {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.found.insert(self.path.joined(), flat(gradient));
        }
    }
}

/// Puts numbers into a module.
struct Insert<'a> {
    path: Path,
    tensors: BTreeMap<&'a str, Tensor<1>>,
    all_record: bool,
}

impl ModuleMapper for Insert<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.joined();
        let Some(new) = self.tensors.remove(path.as_str()) else {
            return param;
        };
        let (id, old, mapper) = param.consume();
        let (shape, dtype, device) = (old.dims(), old.dtype(), old.device().without_autodiff());
        assert_eq!(new.dims()[0], shape.iter().product::<usize>(), "tensor `{path}` has the shape {shape:?}");
        // Made without recording and only then a leaf: whatever is computed from a tracked tensor is not a leaf, and
        // never gets a gradient.
        let mut new = new.to_device(&device).cast(dtype).reshape(shape);
        if let Some(strategy) = old.gradient_checkpointing_strategy() {
            new = new.autodiff().with_gradient_checkpointing_strategy(strategy);
        }
        if self.all_record || old.is_require_grad() {
            new = new.autodiff().require_grad();
        }
        Param::from_mapped_value(id, new, mapper)
    }
}

/// One tensor as it is written: half precision never occurs in a [`Parameters`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Numbers by path, in the fewest digits that give the same bits back.
impl Serialize for Parameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(path, tensor)| {
            let data = tensor.to_data();
            let numbers = match tensor.dtype() {
                DType::F64 => Numbers::F64(data.iter::<f64>().collect()),
                _ => Numbers::F32(data.iter::<f32>().collect()),
            };
            (path, numbers)
        }))
    }
}

/// On the default device, from where a point moves to that of the first gradient added to it.
impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = BTreeMap::<String, Numbers>::deserialize(deserializer)?;
        let device = Device::default();
        let tensor = |numbers| match numbers {
            Numbers::F32(numbers) => of_numbers(numbers, DType::F32, &device),
            Numbers::F64(numbers) => of_numbers(numbers, DType::F64, &device),
        };
        let (paths, tensors): (Vec<_>, Vec<_>) =
            found.into_iter().map(|(path, numbers)| (path, tensor(numbers))).unzip();
        Ok(Self { paths: Arc::new(paths), tensors })
    }
}

fn of_numbers<E: burn::tensor::Element>(numbers: Vec<E>, dtype: DType, device: &Device) -> Tensor<1> {
    let n = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [n]), (device, dtype))
}
