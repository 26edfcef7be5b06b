//! Decoding with the caches of all members.

use align_core::{Decoder, TokenBatch};
use burn::tensor::Tensor;

use crate::fusion::Fusion;
use crate::scores::{MemberScores, on};

/// A decoding in progress: every member's own, kept in step.
///
/// The same token goes to every member; each has its own cache, positions and padding. The weights of a step depend on the
/// scores of its row alone, so a row decodes alike in any company.
pub(crate) struct FusionDecoder<'a, 'm> {
    fusion: &'a Fusion<'m>,
    members: Vec<Box<dyn Decoder + 'a>>,
    rows: Vec<Progress>,
    admitted: usize,
}

/// Where a row is, to name it should it fail.
#[derive(Clone, Copy)]
struct Progress {
    /// The how-manyeth that was admitted.
    number: usize,
    /// How many tokens it has, prompt included.
    length: usize,
    /// How many of them are the response's.
    step: usize,
}

impl<'a, 'm> FusionDecoder<'a, 'm> {
    pub(crate) fn new(fusion: &'a Fusion<'m>) -> Self {
        let members = fusion.members().iter().map(|member| member.decoder()).collect();
        Self { fusion, members, rows: Vec::new(), admitted: 0 }
    }

    /// Fuses what the members say about the given rows.
    fn fuse(&self, scores: Vec<Tensor<2>>, rows: &[Progress]) -> Tensor<2> {
        let scores = MemberScores::read(scores, self.fusion.vocabulary());
        assert_eq!(scores.rows(), rows.len(), "scores for each row");
        self.fusion.fuse(&scores, |_| true, |row| (rows[row].number, rows[row].step))
    }
}

impl Decoder for FusionDecoder<'_, '_> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        let number = self.admitted..;
        let new: Vec<Progress> = number
            .zip(prompts.lengths())
            .map(|(number, length)| Progress { number, length, step: 0 })
            .collect();
        self.admitted += new.len();
        let first = self.rows.len();
        self.rows.extend_from_slice(&new);
        if self.fusion.too_long(new.iter().map(|row| (row.number, row.length))) {
            return self.fusion.nothing(new.len());
        }
        let fusion = self.fusion;
        let scores = self.members.iter_mut().zip(fusion.members());
        let scores = scores.map(|(decoder, member)| decoder.admit(&on(prompts, &member.device()))).collect();
        self.fuse(scores, &self.rows[first..])
    }

    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        assert_eq!(next.len(), self.rows.len(), "one token for each row");
        for row in &mut self.rows {
            row.length += 1;
            row.step += 1;
        }
        if self.fusion.too_long(self.rows.iter().map(|row| (row.number, row.length))) {
            return self.fusion.nothing(self.rows.len());
        }
        let scores = self.members.iter_mut().map(|decoder| decoder.advance(next)).collect();
        self.fuse(scores, &self.rows)
    }

    fn keep(&mut self, rows: &[usize]) {
        self.members.iter_mut().for_each(|decoder| decoder.keep(rows));
        self.rows = rows.iter().map(|&row| self.rows[row]).collect();
    }
}
