//! The networks as one type, and any network as a scorer.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Activation, FactorizationMachine, FtConfig, FtTransformer, Linear, Mlp};
use crate::attribution::{Precision, Structure, Terms, network_gradients};
use crate::{Factors, Matrix, Network, Scorer};

/// One of the networks of this crate, decided by a file.
// There are few of them at a time, and a module's variants cannot be boxed.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum AnyNetwork {
    /// A weighted sum.
    Linear(Linear),
    /// And all pairs.
    FactorizationMachine(FactorizationMachine),
    /// Layers.
    Mlp(Mlp),
    /// Attention over factors.
    FtTransformer(FtTransformer),
}

/// Which network, and how large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum NetworkConfig {
    /// [`Linear`].
    Linear {},
    /// [`FactorizationMachine`].
    FactorizationMachine {
        /// Latent numbers of each column. Default 8.
        #[serde(default = "eight")]
        rank: usize,
    },
    /// [`Mlp`].
    Mlp {
        /// The widths of the hidden layers. Default one of 32.
        #[serde(default = "one_of_32")]
        hidden: Vec<usize>,
        /// What bends them. Default tanh.
        #[serde(default = "tanh")]
        activation: Activation,
    },
    /// [`FtTransformer`].
    FtTransformer(FtConfig),
}

fn eight() -> usize {
    8
}

fn one_of_32() -> Vec<usize> {
    vec![32]
}

fn tanh() -> Activation {
    Activation::Tanh
}

impl Default for NetworkConfig {
    /// A perceptron with 32 hidden units.
    fn default() -> Self {
        Self::Mlp { hidden: one_of_32(), activation: tanh() }
    }
}

impl NetworkConfig {
    /// The network with seeded weights, in f32, for rows whose columns form these factors. `center` is the score of a network
    /// that has learned nothing: the mean label.
    ///
    /// # Panics
    /// If a size is 0.
    pub fn build(&self, factors: &Factors, center: f64, seed: u64, device: &Device) -> AnyNetwork {
        let columns = factors.width();
        match self {
            Self::Linear {} => AnyNetwork::Linear(Linear::new(columns, center, seed, device)),
            &Self::FactorizationMachine { rank } => AnyNetwork::FactorizationMachine(
                FactorizationMachine::new(columns, rank, center, seed, device),
            ),
            Self::Mlp { hidden, activation } => {
                AnyNetwork::Mlp(Mlp::new(columns, hidden, *activation, center, seed, device))
            }
            &Self::FtTransformer(config) => {
                AnyNetwork::FtTransformer(FtTransformer::new(factors, config, center, seed, device))
            }
        }
    }
}

impl AnyNetwork {
    /// Which it is, and how large.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Self::Linear(_) => NetworkConfig::Linear {},
            Self::FactorizationMachine(network) => {
                NetworkConfig::FactorizationMachine { rank: network.latent.val().dims()[1] }
            }
            Self::Mlp(network) => {
                NetworkConfig::Mlp { hidden: network.hidden(), activation: network.activation() }
            }
            Self::FtTransformer(network) => NetworkConfig::FtTransformer(network.config()),
        }
    }
}

impl Network for AnyNetwork {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        match self {
            Self::Linear(network) => network.forward(rows),
            Self::FactorizationMachine(network) => network.forward(rows),
            Self::Mlp(network) => network.forward(rows),
            Self::FtTransformer(network) => network.forward(rows),
        }
    }

    fn terms(&self) -> Option<Terms<'_>> {
        match self {
            Self::Linear(network) => network.terms(),
            Self::FactorizationMachine(network) => network.terms(),
            Self::Mlp(_) | Self::FtTransformer(_) => None,
        }
    }
}

/// A network as a scorer: rows go to its device in its own precision, a few thousand at a time, and nothing is recorded.
#[derive(Clone, Debug)]
pub struct Net<N> {
    network: N,
    device: Device,
    dtype: DType,
}

impl<N: Network> Net<N> {
    /// Takes the network as it is now; what is trained on afterwards is another one.
    pub fn new(network: &N) -> Self {
        let network = network.valid();
        let Some((device, dtype)) = first_parameter(&network) else {
            panic!("Net: a network has parameters");
        };
        Self { network, device, dtype }
    }

    /// The network, without gradients.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// The score of every row; [`Scorer::scores`] for networks that cannot be shared between threads.
    pub fn run(&self, rows: &Matrix) -> Vec<f64> {
        let batch = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), [values.len() / rows.width(), rows.width()]);
            let rows = Tensor::from_data(data, (&self.device, self.dtype));
            self.network.forward(rows).to_data().iter::<f64>().collect::<Vec<_>>()
        };
        rows.values().chunks(BATCH * rows.width().max(1)).flat_map(batch).collect()
    }
}

/// How many rows are scored at once.
const BATCH: usize = 4096;

impl<N: Network + Sync> Scorer for Net<N> {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        self.run(rows)
    }

    fn structure(&self) -> Structure<'_> {
        self.network.terms().map_or(Structure::Opaque, Structure::Terms)
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        Some(network_gradients(&self.network, rows))
    }

    fn precision(&self) -> Precision {
        if self.dtype == DType::F64 { Precision::F64 } else { Precision::F32 }
    }
}

/// Where the parameters of a module are, and in which precision.
pub(crate) fn first_parameter<M: Module>(module: &M) -> Option<(Device, DType)> {
    struct First(Option<(Device, DType)>);
    impl ModuleVisitor for First {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.is_none() {
                let tensor = param.base();
                self.0 = Some((tensor.device().without_autodiff(), tensor.dtype()));
            }
        }
    }
    let mut first = First(None);
    module.visit(&mut first);
    first.0
}

/// The same module in another precision, with parameters that are new leaves on the plain device.
pub(crate) fn cast<M: Module>(module: &M, dtype: DType) -> M {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let dtype = self.0;
            param.map(|tensor| tensor.cast(dtype))
        }
    }
    module.valid().map(&mut Cast(dtype))
}

/// The same network in f64, for figures that need more digits than f32 has. It does not record gradients.
pub fn to_double<N: Network>(network: &N) -> N {
    cast(network, DType::F64)
}
