//! The mean of the latest snapshots of a model under training.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path as FilePath;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use crate::average::uniform;
use crate::ema::follow_the_path;
use crate::error::SoupError;
use crate::parameters::Path;
use crate::state::{Tensors, read_tensors, write_tensors};

/// Latest-weight averaging (LAWA): the mean of the last K snapshots that were [taken](Lawa::take).
///
/// Snapshots share what they can with the model. A parameter that is not trained is never copied, neither in memory nor on
/// disk, so that of a model with low-rank adapters a snapshot is the adapters alone.
///
/// Memory: K copies of the trained parameters. [`Lawa::model`] makes one model more.
///
/// # Source
/// Kaddour 2022, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
/// <https://arxiv.org/abs/2209.14981>: the K latest checkpoints, each from the end of an epoch.
#[derive(Debug)]
pub struct Lawa<M> {
    last: usize,
    /// What snapshots are read into: the model it began with.
    template: M,
    /// The parameters that are trained.
    trained: Vec<String>,
    snapshots: VecDeque<M>,
}

impl<M: Module> Lawa<M> {
    /// Keeps at most the `last` snapshots of models like this one; it takes none itself. Parameters that require no gradient in
    /// `model` are taken to stay as they are, unless none requires one, as in a model that records nothing.
    ///
    /// # Errors
    /// If `last` is 0.
    pub fn new(model: &M, last: usize) -> Result<Self, SoupError> {
        if last == 0 {
            return Err(SoupError::InvalidLast { last });
        }
        let mut list = Trained { path: Path::default(), trained: Vec::new(), all: Vec::new() };
        model.visit(&mut list);
        let trained = if list.trained.is_empty() { list.all } else { list.trained };
        Ok(Self { last, template: model.valid(), trained, snapshots: VecDeque::new() })
    }

    /// Takes a snapshot; beyond `last` the oldest goes.
    pub fn take(&mut self, model: &M) {
        if self.snapshots.len() == self.last {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back(model.valid());
    }

    /// The snapshots, oldest first. Of models whose adapters are of a kind of their own, merge each before the average: the
    /// mean of factors is not the mean of updates.
    pub fn snapshots(&self) -> impl ExactSizeIterator<Item = &M> {
        self.snapshots.iter()
    }

    /// The mean of the snapshots, in the model's own types, on the plain device.
    ///
    /// # Errors
    /// If there is none yet, or a parameter is quantised, not finite or of another shape.
    pub fn model(&self) -> Result<M, SoupError> {
        let snapshots: Vec<M> = self.snapshots.iter().cloned().collect();
        uniform(&snapshots)
    }

    /// How many snapshots are kept at most.
    pub fn last(&self) -> usize {
        self.last
    }

    /// Writes the snapshots into an existing folder, each in a file of its own.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &FilePath) -> Result<(), SoupError> {
        for (number, snapshot) in self.snapshots.iter().enumerate() {
            let mut gather = Gather { path: Path::default(), trained: &self.trained, found: Tensors::new() };
            snapshot.visit(&mut gather);
            write_tensors(&folder.join(file_name(number)), &gather.found)?;
        }
        Ok(())
    }

    /// Takes over the snapshots that [`Lawa::save`] wrote, bit for bit.
    ///
    /// # Errors
    /// If a file is damaged, or there are more than are kept; the snapshots are then as they were.
    pub fn restore(&mut self, folder: &FilePath) -> Result<(), SoupError> {
        let mut describe = Describe { path: Path::default(), trained: &self.trained, found: BTreeMap::new() };
        self.template.visit(&mut describe);
        let count = (0..).take_while(|number| folder.join(file_name(*number)).exists()).count();
        if count > self.last {
            return Err(SoupError::DamagedAverage {
                path: folder.to_owned(),
                expected: format!("at most {} snapshots", self.last),
                found: count.to_string(),
            });
        }
        self.snapshots = (0..count)
            .map(|number| {
                let tensors = read_tensors(&folder.join(file_name(number)), &describe.found)?;
                Ok(self.template.clone().map(&mut Put { path: Path::default(), tensors }))
            })
            .collect::<Result<_, SoupError>>()?;
        Ok(())
    }
}

fn file_name(number: usize) -> String {
    format!("snapshot-{number}.safetensors")
}

struct Trained {
    path: Path,
    trained: Vec<String>,
    all: Vec<String>,
}

impl ModuleVisitor for Trained {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.all.push(self.path.join());
        if param.is_require_grad() {
            self.trained.push(self.path.join());
        }
    }
}

struct Gather<'a> {
    path: Path,
    trained: &'a [String],
    found: Tensors,
}

impl ModuleVisitor for Gather<'_> {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.trained.contains(&path) {
            self.found.insert(path, param.val().without_autodiff().into_data());
        }
    }
}

struct Describe<'a> {
    path: Path,
    trained: &'a [String],
    found: BTreeMap<String, (Vec<usize>, DType)>,
}

impl ModuleVisitor for Describe<'_> {
    follow_the_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.trained.contains(&path) {
            let tensor = param.val();
            self.found.insert(path, (tensor.dims().to_vec(), tensor.dtype()));
        }
    }
}

/// Gives a plain module the tensors of a snapshot; the others stay.
struct Put {
    path: Path,
    tensors: Tensors,
}

impl ModuleMapper for Put {
    follow_the_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.tensors.remove(&self.path.join()) {
            None => param,
            Some(data) => param.map(|old| {
                let dtype = data.dtype();
                Tensor::from_data(data, (&old.device(), dtype))
            }),
        }
    }
}
