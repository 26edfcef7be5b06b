//! A model of a recipe: its name, and its kind with the settings of that kind.

use align_factors::NetworkConfig;
use align_factors::guide::PoolModel;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::super::source::nearest_of;
use super::{typed, written};

/// Networks, which are trained step by step and may be guided.
const NETWORKS: [&str; 4] = ["linear", "factorization_machine", "mlp", "ft_transformer"];
/// Models that are found at once.
const FITTED: [&str; 4] = ["ridge", "logistic", "boosted_stumps", "boosted_trees"];

/// A model that is fitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub(crate) struct FactorModel {
    /// Its folder.
    pub(crate) name: String,
    /// Which, and how large.
    pub(crate) kind: ModelKind,
}

/// Which model, and its settings.
#[derive(Clone, Debug)]
pub(crate) enum ModelKind {
    /// Trained by gradients; it may be guided.
    Network(NetworkConfig),
    /// Fitted as a whole.
    Fitted(PoolModel),
}

impl TryFrom<Table> for FactorModel {
    type Error = String;

    fn try_from(mut table: Table) -> Result<Self, String> {
        let name = match table.remove("name") {
            Some(Value::String(name)) => name,
            Some(other) => return Err(format!("`name`: expected a string, found {}", other.type_str())),
            None => return Err("missing field `name`".to_owned()),
        };
        let Some(kind) = table.get("kind").and_then(Value::as_str).map(str::to_owned) else {
            return Err("missing field `kind`".to_owned());
        };
        let kind = match kind.as_str() {
            kind if NETWORKS.contains(&kind) => ModelKind::Network(typed(table.into())?),
            kind if FITTED.contains(&kind) => ModelKind::Fitted(typed(table.into())?),
            other => {
                let known: Vec<String> =
                    NETWORKS.iter().chain(&FITTED).map(|kind| (*kind).to_owned()).collect();
                let hint = nearest_of(other, &known).map(|kind| format!("did you mean `{kind}`?"));
                let hint = hint.unwrap_or_else(|| format!("kinds are {}", known.join(", ")));
                return Err(format!("no kind of model is called `{other}`; {hint}"));
            }
        };
        Ok(Self { name, kind })
    }
}

impl From<FactorModel> for Table {
    fn from(model: FactorModel) -> Self {
        let kind = match &model.kind {
            ModelKind::Network(config) => written(config),
            ModelKind::Fitted(config) => written(config),
        };
        let Value::Table(mut table) = kind else { unreachable!("a model's settings are a table") };
        table.insert("name".to_owned(), model.name.into());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FactorModel, String> {
        FactorModel::try_from(text.parse::<Table>().unwrap())
    }

    #[test]
    fn every_kind_can_be_read_and_comes_back_with_its_defaults() {
        for kind in NETWORKS.iter().chain(&FITTED) {
            let ridge = if *kind == "logistic" { "ridge = 1.0" } else { "" };
            let model = read(&format!("name = \"m\"\nkind = \"{kind}\"\n{ridge}")).unwrap();
            let table = Table::from(model);
            assert_eq!(table["kind"].as_str(), Some(*kind));
            assert!(FactorModel::try_from(table).is_ok());
        }
    }

    #[test]
    fn what_is_mistyped_is_named() {
        assert!(read("kind = \"mlp\"").unwrap_err().contains("`name`"));
        assert_eq!(
            read("name = \"m\"\nkind = \"mlpp\"").unwrap_err(),
            "no kind of model is called `mlpp`; did you mean `mlp`?"
        );
        assert!(
            read("name = \"m\"\nkind = \"mlp\"\nhiden = [3]").unwrap_err().contains("unknown field `hiden`")
        );
    }
}
