//! A moving average of a model under training.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::container::TensorContainer;
use burn::tensor::{DType, Tensor, TensorData};

use crate::average::uniform;
use crate::error::SoupError;
use crate::parameters::{Parameters, Path, plain};
use crate::state::{Tensors, read_tensors, write_tensors};

/// Exponential moving average s ← d·s + (1−d)·θ of a model's float parameters, on its device, in f32 or wider.
///
/// As a moving reference: hand `Frozen::new(&ema.model())` to the algorithm between iterations. There is no bias
/// correction; the average starts at the model it was made from.
///
/// Memory: one more copy of the model, in f32 at least.
///
/// # Source
/// As reference of an RLHF run: Ramé et al. 2024 (WARP), section 3.1, <https://arxiv.org/abs/2406.16768>.
#[derive(Debug)]
pub struct Ema<M> {
    decay: f64,
    template: M,
    average: TensorContainer<String>,
}

impl<M: Module> Ema<M> {
    /// The file inside the folder that [`Ema::save`] writes to.
    pub const FILE: &'static str = "ema.safetensors";

    /// Starts the average at `model`.
    ///
    /// # Errors
    /// If `decay` is outside [0, 1), or a parameter is quantised or not finite.
    pub fn new(model: &M, decay: f64) -> Result<Self, SoupError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(SoupError::InvalidDecay { decay });
        }
        // A soup of one: checked, on the plain device, with identifiers of its own.
        let template = uniform(std::slice::from_ref(model))?;
        let mut start = Start { path: Path::default(), average: TensorContainer::new() };
        template.visit(&mut start);
        Ok(Self { decay, template, average: start.average })
    }

    /// Moves the average by one step: s ← d·s + (1−d)·θ.
    ///
    /// # Errors
    /// If `model` has other parameters or shapes than the model the average was made from.
    pub fn update(&mut self, model: &M) -> Result<(), SoupError> {
        Parameters::of(&self.template).expect_same(&Parameters::of(model), 1)?;
        let mut step = Step { path: Path::default(), average: &mut self.average, decay: self.decay };
        plain(model).visit(&mut step);
        Ok(())
    }

    /// The averaged model, in the types of the original, on the plain device.
    pub fn model(&self) -> M {
        self.template.clone().map(&mut Put { path: Path::default(), average: &self.average })
    }

    /// The decay d.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// Writes the average into an existing folder, in the width it is kept in.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, folder: &FilePath) -> Result<(), SoupError> {
        let mut gather = Gather { path: Path::default(), average: &self.average, found: Tensors::new() };
        self.template.visit(&mut gather);
        write_tensors(&folder.join(Self::FILE), &gather.found)
    }

    /// Takes over what [`Ema::save`] wrote, bit for bit.
    ///
    /// # Errors
    /// If the file is missing, damaged or of another model; the average is then as it was.
    pub fn restore(&mut self, folder: &FilePath) -> Result<(), SoupError> {
        let mut describe = Describe { path: Path::default(), found: BTreeMap::new() };
        self.template.visit(&mut describe);
        let tensors = read_tensors(&folder.join(Self::FILE), &describe.found)?;
        let mut fill = Fill { path: Path::default(), tensors, average: TensorContainer::new() };
        self.template.visit(&mut fill);
        self.average = fill.average;
        Ok(())
    }
}

/// The type an average is kept in. Sixteen bits would lose most steps: with d = 0.999 a change is a thousandth of the
/// difference.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
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
pub(crate) use follow_the_path;

struct Start {
    path: Path,
    average: TensorContainer<String>,
}

impl ModuleVisitor for Start {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let dtype = wide(tensor.dtype());
        self.average.register(self.path.join(), tensor.cast(dtype));
    }
}

struct Step<'a> {
    path: Path,
    average: &'a mut TensorContainer<String>,
    decay: f64,
}

impl ModuleVisitor for Step<'_> {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        let old: Tensor<D> = self.average.remove(&path).expect("paths and shapes were compared");
        let new = param.val().without_autodiff().to_device(&old.device());
        let dtype = wide(new.dtype());
        self.average.register(path, old * self.decay + new.cast(dtype) * (1.0 - self.decay));
    }
}

struct Put<'a> {
    path: Path,
    average: &'a TensorContainer<String>,
}

impl ModuleMapper for Put<'_> {
    follow_the_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let average: Tensor<D> =
            self.average.get(&self.path.join()).expect("the average has the template's paths");
        let (id, old, mapper): (ParamId, Tensor<D>, _) = param.consume();
        Param::from_mapped_value(id, average.cast(old.dtype()), mapper)
    }
}

struct Gather<'a> {
    path: Path,
    average: &'a TensorContainer<String>,
    found: Tensors,
}

impl ModuleVisitor for Gather<'_> {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        let path = self.path.join();
        let average: Tensor<D> = self.average.get(&path).expect("the average has the template's paths");
        self.found.insert(path, average.into_data());
    }
}

struct Describe {
    path: Path,
    found: BTreeMap<String, (Vec<usize>, DType)>,
}

impl ModuleVisitor for Describe {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        self.found.insert(self.path.join(), (tensor.dims().to_vec(), wide(tensor.dtype())));
    }
}

struct Fill {
    path: Path,
    tensors: Tensors,
    average: TensorContainer<String>,
}

impl ModuleVisitor for Fill {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        let data: TensorData = self.tensors.remove(&path).expect("names were compared");
        let dtype = data.dtype();
        let tensor: Tensor<D> = Tensor::from_data(data, (&param.val().device(), dtype));
        self.average.register(path, tensor);
    }
}
