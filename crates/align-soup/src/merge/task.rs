//! One tensor to be merged: the interface between methods and what holds the tensors.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::error::{Member, MergeError, MergeWarning};
use super::gram::{Gram, Vectors};
use super::karcher::karcher;
use super::method::Method;
use super::model_stock::interpolation;
use super::parameters::{MergeParameters, Parameter};
use super::pass::{CHUNK, Part, Store};
use super::span::{combine, fixed};
use super::spherical::{Arc, multislerp, nuslerp, slerp};
use super::{consensus, sce};
use crate::checkpoint::open::{Folder, TensorEntry};
use crate::error::SoupError;
use crate::mix::FloatDtype;

/// The values of one tensor of one model, as they are stored.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) dtype: FloatDtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: Bytes<'a>,
}

/// Where the bytes of a tensor are.
#[derive(Clone, Copy)]
pub(crate) enum Bytes<'a> {
    Memory(&'a [u8]),
    /// In a checkpoint, read where they are needed.
    Folder(&'a Folder, &'a TensorEntry),
}

/// One tensor of a merge. Inputs of different types may be mixed: arithmetic is in f64, with one rounding at the end.
#[derive(Clone, Copy)]
pub(crate) struct TensorTask<'a> {
    /// Names the tensor in errors and, with the seed, addresses the draws of random methods.
    pub(crate) name: &'a str,
    /// The shape all members must have.
    pub(crate) shape: &'a [usize],
    /// `None` for methods whose base is [`BaseRule::Counted`](super::BaseRule::Counted): it is one of the models there.
    pub(crate) base: Option<Values<'a>>,
    /// In the order of the parameters.
    pub(crate) models: &'a [Values<'a>],
    pub(crate) parameters: &'a MergeParameters,
    pub(crate) seed: u64,
}

impl<'a> Values<'a> {
    /// The values in `range`; those of a file are read into `room`.
    pub(super) fn part<'r>(&self, range: &Range<usize>, room: &'r mut Vec<u8>) -> Result<Part<'r>, SoupError>
    where
        'a: 'r,
    {
        let (dtype, size) = (self.dtype, self.dtype.size());
        let bytes = match self.bytes {
            Bytes::Memory(bytes) => &bytes[range.start * size..range.end * size],
            Bytes::Folder(folder, tensor) => {
                room.resize(range.len() * size, 0);
                folder.read(tensor, (range.start * size) as u64, room)?;
                room
            }
        };
        Ok(Part { dtype, bytes })
    }

    /// How many bytes there are.
    fn len(&self) -> usize {
        match self.bytes {
            Bytes::Memory(bytes) => bytes.len(),
            Bytes::Folder(_, tensor) => tensor.bytes as usize,
        }
    }
}

impl<'a> TensorTask<'a> {
    /// Merges the tensor, as `dtype`, on the threads of the current pool, and hands it to `store` chunk by chunk.
    ///
    /// # Errors
    /// If the parameters are incomplete, a shape differs, a value is not finite, the result overflows `dtype`, or a chunk
    /// cannot be read or stored.
    ///
    /// # Panics
    /// If the length of a member's bytes does not fit its shape.
    pub(crate) fn merge(
        &self,
        dtype: FloatDtype,
        store: &Store<'_>,
    ) -> Result<Vec<MergeWarning>, MergeError> {
        self.check()?;
        let parameters = self.parameters;
        match parameters.method() {
            Method::Linear | Method::Passthrough | Method::TaskArithmetic => {
                let coefficients = fixed(parameters).expect("their coefficients are fixed");
                combine(self, Vectors::Whole, &[coefficients], dtype, store)?;
                Ok(Vec::new())
            }
            Method::Slerp => {
                let t = parameters.number(Parameter::T);
                // The base is one end of the arc, not its origin.
                let ends = [self.base.expect("the base was checked"), self.models[0]];
                let arc = TensorTask { base: None, models: &ends, ..*self };
                arc.interpolate(Vectors::Whole, |gram| slerp(gram, t), dtype, store).map_err(named_by_ends)
            }
            Method::NuSlerp => {
                let t = parameters.normalized_weights()[1];
                let vectors = match (parameters.flag(Parameter::Flatten), parameters.flag(Parameter::RowWise))
                {
                    (true, _) => Vectors::Whole,
                    (false, false) => Vectors::along_last(self.shape),
                    (false, true) => Vectors::along_first(self.shape),
                };
                self.interpolate(vectors, |gram| nuslerp(gram, t), dtype, store)
            }
            Method::MultiSlerp => {
                let coefficients = match self.models.len() {
                    // One model is passed through, as it is.
                    1 => vec![1.0],
                    _ => {
                        let gram = &Gram::of(self, Vectors::Whole)?[0];
                        let epsilon = parameters.number(Parameter::Eps);
                        multislerp(gram, &parameters.normalized_weights(), epsilon)
                            .ok_or_else(|| MergeError::NoDirection { tensor: self.name.to_owned() })?
                    }
                };
                combine(self, Vectors::Whole, &[coefficients], dtype, store)?;
                Ok(Vec::new())
            }
            Method::Karcher => {
                let gram = &Gram::of(self, Vectors::Whole)?[0];
                let mean =
                    karcher(gram, parameters.count(Parameter::MaxIter), parameters.number(Parameter::Tol));
                combine(self, Vectors::Whole, &[mean], dtype, store)?;
                Ok(Vec::new())
            }
            Method::ModelStock => self.model_stock(dtype, store),
            Method::Sce => {
                sce::merge(self, dtype, store)?;
                Ok(Vec::new())
            }
            _ => {
                consensus::merge(self, dtype, store)?;
                Ok(Vec::new())
            }
        }
    }

    /// Each vector on the arc between the two models' (or their task vectors').
    fn interpolate(
        &self,
        vectors: Vectors,
        arc: impl Fn(&Gram) -> Arc,
        dtype: FloatDtype,
        store: &Store<'_>,
    ) -> Result<Vec<MergeWarning>, MergeError> {
        let arcs: Vec<Arc> = Gram::of(self, vectors)?.iter().map(arc).collect();
        let coefficients: Vec<Vec<f64>> = arcs.iter().map(|arc| arc.coefficients.to_vec()).collect();
        combine(self, vectors, &coefficients, dtype, store)?;
        let opposite = arcs.iter().filter_map(|arc| arc.antipodal).reduce(f64::min);
        Ok(opposite
            .map(|cosine| MergeWarning::Antipodal { tensor: self.name.to_owned(), cosine })
            .into_iter()
            .collect())
    }

    fn model_stock(&self, dtype: FloatDtype, store: &Store<'_>) -> Result<Vec<MergeWarning>, MergeError> {
        let parameters = self.parameters;
        let vectors = match parameters.flag(Parameter::FilterWise) {
            true => Vectors::along_last(self.shape),
            false => Vectors::Whole,
        };
        let clamped = parameters.flag(Parameter::Clamp);
        let share = 1.0 / self.models.len() as f64;
        let found: Vec<f64> = Gram::of(self, vectors)?.iter().map(interpolation).collect();
        let coefficients: Vec<Vec<f64>> = found
            .iter()
            .map(|&t| vec![share * if clamped { t.clamp(0.0, 1.0) } else { t }; self.models.len()])
            .collect();
        combine(self, vectors, &coefficients, dtype, store)?;
        let distance = |t: f64| (t - 0.5).abs();
        let outside = found.into_iter().filter(|&t| distance(t) > 0.5);
        let farthest = outside.reduce(|a, b| if distance(b) > distance(a) { b } else { a });
        let warning = |t| MergeWarning::StockOutside { tensor: self.name.to_owned(), t, clamped };
        Ok(farthest.map(warning).into_iter().collect())
    }

    fn check(&self) -> Result<(), MergeError> {
        self.parameters.check()?;
        self.parameters.check_base(self.base.is_some())?;
        self.parameters.check_models(self.models.len())?;
        let base = self.base.iter().map(|base| (Member::Base, base));
        let models = self.models.iter().enumerate().map(|(index, model)| (Member::Model(index), model));
        for (member, values) in base.chain(models) {
            if values.shape != self.shape {
                let (expected, found) = (self.shape.to_vec(), values.shape.to_vec());
                return Err(MergeError::Shape { tensor: self.name.to_owned(), member, expected, found });
            }
            assert_eq!(values.len(), self.values() * values.dtype.size(), "merge: bytes of `{}`", self.name);
        }
        Ok(())
    }

    /// [`TensorTask::merge`] into memory.
    pub(crate) fn merged(&self, dtype: FloatDtype) -> Result<(Vec<u8>, Vec<MergeWarning>), MergeError> {
        let mut out = vec![0; self.values() * dtype.size()];
        let chunks: Vec<Mutex<&mut [u8]>> = out.chunks_mut(CHUNK * dtype.size()).map(Mutex::new).collect();
        let warnings = self.merge(dtype, &|range, _, merged| {
            let mut chunk = chunks[range.start / CHUNK].lock().unwrap_or_else(PoisonError::into_inner);
            chunk.copy_from_slice(merged);
            Ok(())
        })?;
        drop(chunks);
        Ok((out, warnings))
    }

    /// The base, where there is one, and the models.
    pub(super) fn members(&self) -> Vec<Values<'a>> {
        self.base.iter().chain(self.models).copied().collect()
    }

    /// Number of values.
    pub(super) fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same with one of the models.
    pub(super) fn model(&self, index: usize) -> Self {
        Self { models: &self.models[index..=index], ..*self }
    }
}

/// In an error about the two ends of an arc, the first is the base.
fn named_by_ends(error: MergeError) -> MergeError {
    match error {
        MergeError::NonFinite { tensor, member: Member::Model(end), count } => {
            let member = if end == 0 { Member::Base } else { Member::Model(end - 1) };
            MergeError::NonFinite { tensor, member, count }
        }
        other => other,
    }
}
