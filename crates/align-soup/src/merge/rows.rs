//! Tensors with one row for each token, rearranged for another vocabulary.

use rayon::prelude::*;

use super::Values;
use crate::error::SoupError;
use crate::mix::{FloatDtype, Source, mix};

/// Where a row comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowFrom {
    Zero,
    /// A row of a source, which need not be the one the row is for.
    Row {
        source: usize,
        row: usize,
    },
    /// The mean of rows of sources.
    Mean(Vec<(usize, usize)>),
}

/// For each source, where its rows come from.
#[derive(Clone, Debug)]
pub(crate) struct RowMap {
    of_source: Vec<Vec<RowFrom>>,
    /// Rows with more than tokens stand for: they hold the mean of the others, as if never trained.
    rows: usize,
}

impl RowMap {
    pub(crate) fn new(sources: usize, tokens: usize, rows: usize) -> Self {
        Self { of_source: (0..sources).map(|_| Vec::with_capacity(tokens)).collect(), rows }
    }

    /// Adds a source's next row.
    pub(crate) fn push(&mut self, source: usize, from: RowFrom) {
        self.of_source[source].push(from);
    }

    /// Rows of the result.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rearranged tensor of each source, in the type that holds all of theirs.
    ///
    /// # Source
    /// Rows without a token: Hewitt 2021, <https://nlp.stanford.edu/~johnhew/vocab-expansion.html>.
    pub(crate) fn gather(&self, sources: &[Values<'_>]) -> Result<Vec<(FloatDtype, Vec<u8>)>, SoupError> {
        let width: usize = sources[0].shape[1..].iter().product();
        let dtype = common(sources.iter().map(|source| source.dtype));
        self.of_source
            .iter()
            .map(|rows| {
                let stride = width * dtype.size();
                let mut out = vec![0u8; self.rows * stride];
                out.par_chunks_mut(stride)
                    .zip(rows)
                    .try_for_each(|(out, from)| write_row(out, dtype, from, sources))?;
                let (tokens, rest) = out.split_at_mut(rows.len() * stride);
                if !rest.is_empty() {
                    let mean = mean_row(tokens, dtype, width);
                    rest.chunks_mut(stride).for_each(|row| row.copy_from_slice(&mean));
                }
                Ok((dtype, out))
            })
            .collect()
    }
}

/// The type that holds the values of all.
fn common(mut dtypes: impl Iterator<Item = FloatDtype>) -> FloatDtype {
    let first = dtypes.next().expect("a tensor has a source");
    dtypes.fold(first, |a, b| match (a, b) {
        (a, b) if a == b => a,
        (FloatDtype::F64, _) | (_, FloatDtype::F64) => FloatDtype::F64,
        _ => FloatDtype::F32,
    })
}

fn write_row(
    out: &mut [u8],
    dtype: FloatDtype,
    from: &RowFrom,
    sources: &[Values<'_>],
) -> Result<(), SoupError> {
    let one;
    let places = match from {
        RowFrom::Zero => return Ok(()),
        RowFrom::Row { source, row } => {
            one = [(*source, *row)];
            &one[..]
        }
        RowFrom::Mean(rows) => rows,
    };
    let mut rooms = vec![Vec::new(); places.len()];
    let shares = places.iter().zip(&mut rooms).map(|(&(source, row), room)| {
        let width: usize = sources[source].shape[1..].iter().product();
        let part = sources[source].part(&(row * width..(row + 1) * width), room)?;
        Ok(Source { dtype: part.dtype, bytes: part.bytes, weight: 1.0 / places.len() as f64 })
    });
    match shares.collect::<Result<Vec<_>, SoupError>>()?.as_slice() {
        [only] if only.dtype == dtype => out.copy_from_slice(only.bytes),
        shares => {
            // Values that are not finite are found by the method, which sees all rows.
            mix(shares, dtype, out, &mut vec![0; shares.len()]);
        }
    }
    Ok(())
}

/// The mean of all rows.
fn mean_row(rows: &[u8], dtype: FloatDtype, width: usize) -> Vec<u8> {
    let stride = width * dtype.size();
    let mut sum = vec![0.0; width];
    let mut values = Vec::new();
    for row in rows.chunks(stride) {
        crate::mix::decode_into(dtype, row, &mut values);
        sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
    }
    let count = (rows.len() / stride) as f64;
    let bytes: Vec<u8> = sum.iter().flat_map(|sum| (sum / count).to_le_bytes()).collect();
    let mut mean = vec![0u8; stride];
    mix(&[Source { dtype: FloatDtype::F64, bytes: &bytes, weight: 1.0 }], dtype, &mut mean, &mut [0]);
    mean
}

#[cfg(test)]
mod tests {
    use super::super::Bytes;
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn rows_are_taken_averaged_emptied_and_filled_up() {
        let (a, b) = (bytes(&[1.0, 2.0, 3.0, 4.0]), bytes(&[5.0, 6.0]));
        let shapes: [&[usize]; 2] = [&[2, 2], &[1, 2]];
        let sources = [&a, &b]
            .into_iter()
            .zip(shapes)
            .map(|(bytes, shape)| Values { dtype: FloatDtype::F32, shape, bytes: Bytes::Memory(bytes) })
            .collect::<Vec<_>>();
        let mut map = RowMap::new(2, 3, 4);
        for source in 0..2 {
            map.push(source, RowFrom::Row { source, row: 0 });
            map.push(source, RowFrom::Mean(vec![(0, 1), (1, 0)]));
            map.push(source, RowFrom::Zero);
        }
        let gathered = map.gather(&sources).unwrap();
        // The last row is the mean of the three before: (1 + 4 + 0)/3 and (2 + 5 + 0)/3.
        let expected = [1.0, 2.0, 4.0, 5.0, 0.0, 0.0, 5.0 / 3.0, 7.0 / 3.0];
        assert_eq!(gathered[0], (FloatDtype::F32, bytes(&expected)));
        assert_eq!(gathered[1].1[..8], bytes(&[5.0, 6.0]));
    }
}
