//! Soups whose weights are learnt on held-out rows, in memory. It takes minutes, so a search that was interrupted starts again.

use std::path::Path;

use align_core::persist::replace_folder;
use align_data::Batches as Order;
use align_data::encode::Example;
use align_data::rows::DemonstrationRow;
use align_models::Transformer;
use align_models::checkpoint::copy_companions;
use align_soup::{Granularity, GroupWeights, LearnedError, LearnedSoup, Weights, learned, uniform};
use align_train::{NextToken, Objective, evaluate};
use anyhow::{Context as _, Result};
use burn::tensor::Tensor;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Ingredient;
use super::measure::identities;
use crate::context::{Context, encoder, transformer};
use crate::data;
use crate::judge::same_tokens;
use crate::progress::rows_bar;
use crate::recipe::parts::MODEL;
use crate::recipe::soup::LearnedConfig;
use crate::stages::sft::batches_of;
use crate::stages::{read_json, write_json};
use crate::table::table;

/// The result's file in the stage's folder.
const WEIGHTS: &str = "weights.json";

/// What was learnt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LearnedWeights {
    /// The ingredients, in the order of their weights.
    names: Vec<String>,
    /// The weights, part by part of the model.
    groups: Vec<GroupWeights>,
    /// The loss on all rows with these weights, nats a token.
    pub(crate) loss: f64,
    /// The same with equal weights.
    pub(crate) equal_loss: f64,
    /// The loss of each step's batch.
    pub(crate) losses: Vec<f64>,
}

impl LearnedWeights {
    /// Reads a stage's weights, if it has learnt any.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(WEIGHTS))
    }

    /// A table: heading and rows.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["weights".to_owned()].into_iter().chain(self.names.iter().cloned());
        let row = |group: &GroupWeights| {
            let weights = group.weights.iter().map(|weight| format!("{weight:.4}"));
            [group.group.clone()].into_iter().chain(weights).collect()
        };
        (header.collect(), self.groups.iter().map(row).collect())
    }
}

/// Learns weights and writes them down. Those of whole models are returned, for a soup of the files; by layer the soup is written here.
pub(super) fn learn(
    name: &str,
    config: &LearnedConfig,
    ingredients: &[Ingredient],
    folder: &Path,
    context: &Context,
) -> Result<Option<Weights>> {
    let first = &ingredients[0].folder;
    let models: Vec<Transformer> =
        ingredients.iter().map(|one| transformer(&one.folder, &context.device)).collect::<Result<_>>()?;
    let shape = models[0].config();
    let options = config.encode.options(Some(shape.context_length));
    let encoder = encoder(first, Some(shape.vocab_size), options)?;
    for other in &ingredients[1..] {
        same_tokens(&encoder, &other.folder)?;
    }
    let rows = data::rows::<DemonstrationRow>(&config.data, context)?;
    let examples = rows.encode("demonstrations", &encoder, |encoder, row| encoder.encode_sft(row))?;
    let bar = rows_bar(&format!("{name}: learning weights"), config.steps as usize * config.minibatch);
    let soup = minimise(config, &models, &examples, &bar, context);
    bar.finish_and_clear();
    let LearnedSoup { module, weights: groups, losses } = soup?;
    let names = ingredients.iter().map(|one| one.name.clone()).collect();
    let loss = |model: &Transformer| -> Result<f64> {
        let metrics = evaluate(model, &NextToken, &batches_of(&examples, config.minibatch, &context.device))?;
        metrics.get("loss").context("an evaluation reports its loss")
    };
    let equal_loss = loss(&uniform(&models)?)?;
    let learnt = LearnedWeights { names, groups, loss: loss(&module)?, equal_loss, losses };
    let (header, rows) = learnt.rows();
    println!("{}", table(&header, rows));
    eprintln!("{name}: loss {:.4} nats a token, with equal weights {equal_loss:.4}", learnt.loss);
    write_json(&folder.join(WEIGHTS), &learnt)?;
    match config.by {
        Granularity::Model => Ok(Some(Weights::extrapolating(&learnt.groups[0].weights)?)),
        Granularity::Layer => {
            save(&module, ingredients, &learnt.groups, &folder.join(MODEL))?;
            Ok(None)
        }
    }
}

/// The next-token loss of one batch a step.
fn minimise(
    config: &LearnedConfig,
    models: &[Transformer],
    examples: &[Example],
    bar: &ProgressBar,
    context: &Context,
) -> Result<LearnedSoup<Transformer>> {
    let mut order = Order::new(examples.len(), config.minibatch, config.seed);
    learned(models, &config.options(), |step, soup: &Transformer| -> Result<Tensor<1>> {
        context.check_interrupt()?;
        let chosen: Vec<Example> = order.batch(step).into_iter().map(|row| examples[row].clone()).collect();
        let batch = batches_of(&chosen, chosen.len(), &context.device).remove(0);
        let loss = NextToken.loss(soup, &batch);
        bar.inc(chosen.len() as u64);
        if loss.weight <= 0.0 {
            return Err(LearnedError::Untracked { step }).context("no token of the batch is predicted");
        }
        Ok(loss.value / loss.weight)
    })
}

/// Writes a soup whose layers have weights of their own, with its recipe.
fn save(soup: &Transformer, ingredients: &[Ingredient], groups: &[GroupWeights], out: &Path) -> Result<()> {
    let ids = identities(ingredients)?;
    let mut ancestors = Vec::new();
    for one in ingredients {
        let origin: Option<Value> = read_json(&one.folder.join("align.json"))?;
        ancestors.push(origin.and_then(|origin| origin["ancestor"].as_str().map(str::to_owned)));
    }
    ancestors.dedup();
    let ancestor = if let [one] = ancestors.as_slice() { one.clone() } else { None };
    let members: Vec<Value> =
        ingredients.iter().zip(ids).map(|(one, id)| json!({ "name": one.name, "id": id })).collect();
    let recipe = json!({ "method": "learned", "ingredients": members, "weights": groups });
    replace_folder(out, |folder| -> Result<()> {
        soup.save_into(folder, &Default::default())?;
        copy_companions(&ingredients[0].folder, folder)?;
        write_json(&folder.join("align.json"), &json!({ "ancestor": ancestor, "soup": recipe }))?;
        Ok(())
    })
}
