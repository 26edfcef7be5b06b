//! Files of answers as rows of numbers: read, divided, encoded.

use std::path::{Path, PathBuf};

use align_factors::{
    Design, Encoder, EncoderConfig, Grid, Part, Rows, Schema, Split, Table, TableError, Test, Train,
    Validation, read_table,
};
use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::progress::working;
use crate::recipe::factors::{AnswersConfig, SchemaSource};
use crate::recipe::source::Source;

/// Everything models are fitted to and judged on.
pub(super) struct Answers {
    pub(super) train: Design<Train>,
    /// None without a share or a file for it.
    pub(super) validation: Option<Design<Validation>>,
    pub(super) test: Design<Test>,
    pub(super) encoder: Encoder,
    pub(super) schema: Schema,
    /// The column that is predicted.
    pub(super) label: String,
    /// Its scale, if it has one.
    pub(super) grid: Option<Grid>,
    /// What somebody who reads figures should know of the data.
    pub(super) notes: Vec<String>,
}

/// Reads, divides and encodes.
pub(super) fn answers(
    config: &AnswersConfig,
    encoder: &EncoderConfig,
    seed: u64,
    context: &Context,
) -> Result<Answers> {
    let schema = schema(&config.schema, context)?;
    let _working = working("reading answers");
    let open = |reference: &String| -> Result<(PathBuf, Table)> {
        let path = context.path(reference)?;
        let table = read_table(&path, &schema)?;
        Ok((path, table))
    };
    let whole = open(&config.path)?;
    let (validation, test) =
        (config.validation.as_ref().map(open).transpose()?, config.test.as_ref().map(open).transpose()?);
    let label =
        whole.1.label().ok_or(TableError::NoLabel).context("`data.schema.label` is not given")?.clone();
    let mut tables = vec![&whole.1];
    let parts = match (&validation, &test) {
        (None, None) => {
            let split = match config.stratified {
                true => Split::stratified(&label.values, config.split, seed),
                false => Split::random(whole.1.len(), config.split, seed),
            };
            let Split { train, validation, test } = split.context("`data.split`")?;
            if test.is_empty() {
                bail!("`data.split.test` is 0: figures need rows that nothing is chosen on");
            }
            Parts { train, validation: Some((&whole.1, validation)), test: (&whole.1, test) }
        }
        (Some(_), None) => unreachable!("the recipe was checked"),
        (validation, Some((_, test))) => {
            tables.push(test);
            tables.extend(validation.as_ref().map(|(_, table)| table));
            Parts {
                train: Rows::all(&whole.1),
                validation: validation.as_ref().map(|(_, table)| (table, Rows::all(table))),
                test: (test, Rows::all(test)),
            }
        }
    };
    let encoder =
        Encoder::fit(&whole.1, &parts.train, encoder).with_context(|| whole.0.display().to_string())?;
    let mut notes = Vec::new();
    for table in &tables {
        if table.dropped() > 0 {
            notes.push(format!("{} rows without a label were left out", table.dropped()));
        }
    }
    for column in encoder.constant() {
        notes.push(format!("column `{column}` is constant in the training rows and was left out"));
    }
    Ok(Answers {
        train: encoded(&encoder, &whole.1, &parts.train)?,
        validation: parts
            .validation
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(table, rows)| encoded(&encoder, table, &rows))
            .transpose()?,
        test: encoded(&encoder, parts.test.0, &parts.test.1)?,
        grid: common_grid(&tables),
        label: label.name,
        encoder,
        schema,
        notes,
    })
}

/// Which rows of which table are what.
struct Parts<'a> {
    train: Rows<Train>,
    validation: Option<(&'a Table, Rows<Validation>)>,
    test: (&'a Table, Rows<Test>),
}

fn encoded<P: Part>(encoder: &Encoder, table: &Table, rows: &Rows<P>) -> Result<Design<P>> {
    encoder.encode(table, rows).with_context(|| format!("cannot encode the {} rows", P::NAME))
}

/// The scale that holds those of all tables: where it is inferred, a file may lack an end of it.
fn common_grid(tables: &[&Table]) -> Option<Grid> {
    let grids: Option<Vec<Grid>> = tables.iter().map(|table| table.label()?.grid).collect();
    let grids = grids?;
    let low = grids.iter().map(|grid| grid.low()).min()?;
    Some(Grid::new(low, grids.iter().map(|grid| grid.high()).max()?))
}

/// The schema of a recipe, or of the file it names.
fn schema(source: &SchemaSource, context: &Context) -> Result<Schema> {
    match source {
        SchemaSource::File(reference) => toml_file(&context.path(reference)?, "schema"),
        SchemaSource::Table(schema) => Ok(schema.clone()),
    }
}

/// A TOML file of a type; errors name the line.
pub(super) fn toml_file<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the {what} {}", path.display()))?;
    Ok(Source::parse(&path.display().to_string(), &text)?.deserialize()?)
}

/// A table whose rows need no label: what a model was fitted to predict is left out, if it is there at all.
pub(super) fn unlabelled(path: &Path, schema: &Schema) -> Result<Table> {
    let label = schema.label.clone().unwrap_or_default();
    let mut schema = Schema { label: None, ..schema.clone() };
    schema.columns.remove(&label);
    let without = schema.clone();
    schema.ignore.push(label.clone());
    match read_table(path, &schema) {
        Err(TableError::MissingColumn { name, .. }) if name == label => Ok(read_table(path, &without)?),
        table => Ok(table?),
    }
}
