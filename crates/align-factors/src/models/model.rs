//! Any model, on disk.

use std::path::Path;

use align_core::PersistError;
use align_core::persist::{read_json, read_module, write_json, write_module};
use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use super::network::{cast, first_parameter};
use super::{AnyNetwork, BoostedStumps, Forest, Logistic, Net, NetworkConfig, Ridge};
use crate::attribution::{Precision, Structure};
use crate::{Factors, Matrix, Scorer};

/// A fitted model of any kind.
///
/// On disk it is `model.json`, whose `kind` says which, and for networks the weights in `network.safetensors` beside it.
/// Reading back gives the same scores, bit for bit.
#[derive(Clone, Debug)]
pub enum Model {
    /// Ridge regression, with pair terms or without.
    Ridge(Ridge),
    /// Logistic regression.
    Logistic(Logistic),
    /// An additive model.
    BoostedStumps(BoostedStumps),
    /// Trees.
    Forest(Forest),
    /// A network, and the factors of its rows.
    Network(Box<Net<AnyNetwork>>, Factors),
}

const MODEL_FILE: &str = "model.json";
const NETWORK_FILE: &str = "network.safetensors";

/// What `model.json` holds.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Stored {
    Ridge(Ridge),
    Logistic(Logistic),
    BoostedStumps(BoostedStumps),
    Forest(Forest),
    Network { network: NetworkConfig, factors: Factors, double: bool },
}

impl Model {
    /// Writes the model into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), PersistError> {
        let stored = match self.clone() {
            Self::Ridge(model) => Stored::Ridge(model),
            Self::Logistic(model) => Stored::Logistic(model),
            Self::BoostedStumps(model) => Stored::BoostedStumps(model),
            Self::Forest(model) => Stored::Forest(model),
            Self::Network(net, factors) => {
                write_module(net.network(), &folder.join(NETWORK_FILE))?;
                let double = first_parameter(net.network()).is_some_and(|(_, dtype)| dtype == DType::F64);
                Stored::Network { network: net.network().config(), factors, double }
            }
        };
        write_json(&folder.join(MODEL_FILE), &stored)
    }

    /// Reads what [`Model::save`] wrote; a network goes to the given device.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights are those of another network.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, PersistError> {
        Ok(match read_json(&folder.join(MODEL_FILE), "a model")? {
            Stored::Ridge(model) => Self::Ridge(model),
            Stored::Logistic(model) => Self::Logistic(model),
            Stored::BoostedStumps(model) => Self::BoostedStumps(model),
            Stored::Forest(model) => Self::Forest(model),
            Stored::Network { network, factors, double } => {
                let blank = network.build(&factors, 0.0, 0, device);
                let blank = if double { cast(&blank, DType::F64) } else { blank };
                let network = read_module(blank, &folder.join(NETWORK_FILE))?;
                Self::Network(Box::new(Net::new(&network)), factors)
            }
        })
    }

    /// What it is called in reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ridge(model) if model.pairs.is_empty() => "ridge",
            Self::Ridge(_) => "pairwise ridge",
            Self::Logistic(_) => "logistic regression",
            Self::BoostedStumps(_) => "boosted stumps",
            Self::Forest(_) => "boosted trees",
            Self::Network(net, _) => match net.network() {
                AnyNetwork::Linear(_) => "linear network",
                AnyNetwork::FactorizationMachine(_) => "factorisation machine",
                AnyNetwork::Mlp(_) => "perceptron",
                AnyNetwork::FtTransformer(_) => "FT-Transformer",
            },
        }
    }

    fn scorer(&self) -> &dyn Scorer {
        match self {
            Self::Ridge(model) => model,
            Self::Logistic(model) => model,
            Self::BoostedStumps(model) => model,
            Self::Forest(model) => model,
            Self::Network(net, _) => &**net,
        }
    }
}

impl Scorer for Model {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        self.scorer().scores(rows)
    }

    fn structure(&self) -> Structure<'_> {
        self.scorer().structure()
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        self.scorer().gradients(rows)
    }

    fn precision(&self) -> Precision {
        self.scorer().precision()
    }
}
