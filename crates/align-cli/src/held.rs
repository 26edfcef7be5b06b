//! Models that a policy is held to: read and never trained, so that a fusion will do.

use std::path::PathBuf;

use align_core::CausalLm;
use align_data::encode::Encoder;
use anyhow::Result;

use crate::context::Context;
use crate::fusion::{FusionFile, fusion_file};
use crate::judge::same_tokens;
use crate::language_model::{Failures, tokenizer_folder};

/// References that were opened, and what to ask when a training fails.
#[derive(Default)]
pub(crate) struct Held {
    failures: Vec<Failures>,
}

impl Held {
    /// Opens a model folder, a hub id, a stage or a fusion, whose tokens must be the policy's.
    pub(crate) fn open(
        &mut self,
        reference: &str,
        encoder: &Encoder,
        context: &Context,
    ) -> Result<Box<dyn CausalLm>> {
        let path = context.model_to_read(reference)?;
        same_tokens(encoder, &tokenizer_folder(&path)?)?;
        let (model, failures) = context.open(&path)?.into_parts();
        self.failures.push(failures);
        Ok(model)
    }

    /// A result of training against them, with their own failure before what followed from it.
    pub(crate) fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.failures.iter().find_map(Failures::take) {
            Some(failure) => failure.context(format!("{error:#}")),
            None => error,
        })
    }
}

impl Context {
    /// The files that a model which is read depends on: its folder, or a fusion's file and its members' folders.
    pub(crate) fn read_inputs(&self, reference: &str) -> Result<Vec<PathBuf>> {
        let path = self.model_to_read(reference)?;
        Ok(match fusion_file(&path) {
            None => vec![path],
            Some(file) => {
                let members = FusionFile::read(&file)?.folders();
                std::iter::once(file).chain(members).collect()
            }
        })
    }
}
