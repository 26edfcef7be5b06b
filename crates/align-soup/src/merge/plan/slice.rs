//! Slices of a configuration, with their models found and their layers counted.

use std::ops::Range;

use super::super::config::{OutputSlice, SliceSource};
use super::super::config_error::{ConfigError, Problem};
use super::super::folders_error::FolderMergeError;
use super::super::layers::Stack;
use super::super::reference::ModelReference;

/// A slice with its models by position and its layers counted.
pub(super) struct Slice<'a> {
    pub(super) config: &'a OutputSlice,
    pub(super) models: Vec<usize>,
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) base: Option<usize>,
}

impl Slice<'_> {
    pub(super) fn layers(&self) -> usize {
        self.ranges[0].len()
    }
}

/// Finds a slice's models and checks that its sources have as many layers as each other.
pub(super) fn slice_of<'a>(
    config: &'a OutputSlice,
    models: &[ModelReference],
    stacks: &[Stack],
) -> Result<Slice<'a>, FolderMergeError> {
    let refuse = |problem| ConfigError::At { place: Box::new(config.place.clone()), problem };
    let position =
        |model: &ModelReference| models.iter().position(|other| other == model).expect("all are listed");
    let positions: Vec<usize> = config.sources.iter().map(|source| position(&source.model)).collect();
    let range = |(source, &model): (&SliceSource, &usize)| {
        let layers = stacks[model].layers;
        let (first, end) = source.layers.unwrap_or((0, layers));
        match end <= layers {
            true => Ok(first..end),
            false => Err(refuse(Problem::LayersBeyond { end, layers, model: source.model.to_string() })),
        }
    };
    let ranges = config.sources.iter().zip(&positions).map(range).collect::<Result<Vec<_>, _>>()?;
    if let Some(other) = ranges.iter().position(|range| range.len() != ranges[0].len()) {
        return Err(refuse(Problem::LayerCounts {
            first: ranges[0].len(),
            other: ranges[other].len(),
            model: config.sources[other].model.to_string(),
        })
        .into());
    }
    let base = config.base.as_ref().map(position);
    Ok(Slice { config, base, models: positions, ranges })
}
