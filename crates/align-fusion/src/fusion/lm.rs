//! A fusion as a language model.

use align_core::{CausalLm, Completions, Decoder, NextTokens, TokenBatch, TokenLogProbs};
use align_models::raw_log_prob;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::decoder::FusionDecoder;
use crate::fusion::Fusion;
use crate::row_error::RowError;
use crate::scores::{MemberScores, Place, completions_on, entropy, on, places, table};
use crate::weighing::Step;

/// Scores of all members that are on the host at once while responses are scored: 64 MiB.
const SCORES_AT_ONCE: usize = 1 << 24;

impl CausalLm for Fusion<'_> {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let ([b, t], v) = (tokens.ids.dims(), self.vocabulary);
        if self.too_long(tokens.lengths().into_iter().enumerate()) {
            return self.nothing(b * t).reshape([b, t, v]);
        }
        let mut step_of: Vec<Option<usize>> = vec![None; b * t];
        for place in places(tokens) {
            step_of[place.row * t + place.column] = Some(place.step);
        }
        let scores = self.members.iter().map(|member| {
            let scores = member.logits(&on(tokens, &member.device()));
            let [_, _, width] = scores.dims();
            scores.reshape([b * t, width])
        });
        let scores = MemberScores::read(scores.collect(), v);
        let counts = |index: usize| step_of[index].is_some();
        self.fuse(&scores, counts, |index| (index / t, step_of[index].unwrap_or(0))).reshape([b, t, v])
    }

    fn vocab_size(&self) -> usize {
        self.vocabulary
    }

    fn device(&self) -> Device {
        self.members[0].device()
    }

    /// The shortest of the members'.
    fn context_length(&self) -> Option<usize> {
        self.members.iter().filter_map(|member| member.context_length()).min()
    }

    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(FusionDecoder::new(self))
    }

    /// Fused scores exist for one token at a time; nothing of size `[B, R, V]` is made.
    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> TokenLogProbs {
        let [b, r] = completions.response.ids.dims();
        let (mut log_probs, mut entropies) = (vec![0.0; b * r], vec![0.0; b * r]);
        if self.too_long(completions.joined().lengths().into_iter().enumerate()) {
            log_probs.fill(f32::NAN);
            entropies.fill(f32::NAN);
        } else {
            let found = self.weigh_each(completions, |place, fused, _| {
                (raw_log_prob(fused, place.id, temperature), entropy(fused, temperature))
            });
            for (place, found) in found {
                let (log_prob, entropy) = found.unwrap_or_else(|error| {
                    self.failure.keep(self.failed(place.row, place.step, error));
                    (f64::NAN, f64::NAN)
                });
                log_probs[place.row * r + place.column] = log_prob as f32;
                entropies[place.row * r + place.column] = entropy as f32;
            }
        }
        let device = self.device();
        TokenLogProbs { log_probs: table(log_probs, r, &device), entropies: table(entropies, r, &device) }
    }

    /// States of all members side by side, and where they stand, so that padding is not weighed and failures are named.
    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        let ([b, r], device) = (completions.response.ids.dims(), self.device().without_autodiff());
        if self.too_long(completions.joined().lengths().into_iter().enumerate()) {
            return NextTokens::of_scores(self.nothing(b * r).reshape([b, r, self.vocabulary]));
        }
        let mut of_members: Vec<NextTokens<'a>> = self
            .members
            .iter()
            .map(|member| member.next_tokens(&completions_on(completions, &member.device())))
            .collect();
        // One more than the row, 0 where nothing counts, and the step: whole numbers that f32 holds exactly.
        let mut marks = vec![0.0f32; b * r * 2];
        for place in places(&completions.response) {
            let at = 2 * (place.row * r + place.column);
            marks[at] = place.row as f32 + 1.0;
            marks[at + 1] = place.step as f32;
        }
        let mut parts = vec![Tensor::<3>::from_data(TensorData::new(marks, [b, r, 2]), &device)];
        let mut layouts = Vec::with_capacity(of_members.len());
        for next in &mut of_members {
            // The states move into the one tensor; what remains of each is its head, its width and its type.
            let states =
                std::mem::replace(&mut next.states, Tensor::zeros([1, 1, 1], &device)).without_autodiff();
            layouts.push((states.dims()[2], states.dtype(), states.device()));
            parts.push(states.to_device(&device).cast(DType::F32));
        }
        NextTokens::new(Tensor::cat(parts, 2), move |states| {
            let [b, c, _] = states.dims();
            let marks: Vec<f32> = states.clone().narrow(2, 0, 2).to_data().iter::<f32>().collect();
            let mut start = 2;
            let scores = of_members.iter().zip(&layouts).map(|(next, (width, dtype, device))| {
                let part = states.clone().narrow(2, start, *width);
                start += width;
                let scores = next.head(part.to_device(device).cast(*dtype));
                let [_, _, v] = scores.dims();
                scores.reshape([b * c, v])
            });
            let scores = MemberScores::read(scores.collect(), self.vocabulary);
            let at = |index: usize| (marks[2 * index] as usize - 1, marks[2 * index + 1] as usize);
            self.fuse(&scores, |index| marks[2 * index] > 0.0, at).reshape([b, c, self.vocabulary])
        })
    }
}

impl Fusion<'_> {
    /// Weighs the distribution before every response token that counts.
    pub(crate) fn weigh_each<T: Send>(
        &self,
        completions: &Completions,
        visit: impl Fn(&Place, &[f32], Step) -> T + Sync,
    ) -> Vec<(Place, Result<T, RowError>)> {
        self.chunks(completions, |places, scores| {
            scores.each(&self.weighing, |row, fused, step| visit(&places[row], fused, step))
        })
    }

    /// The members' scores before the response tokens that count, some at a time: padding is never scored, and of the whole
    /// vocabulary only so much exists at once as [`SCORES_AT_ONCE`] says, where members keep states below their heads.
    pub(crate) fn chunks<T>(
        &self,
        completions: &Completions,
        mut visit: impl FnMut(&[Place], &MemberScores) -> Vec<T>,
    ) -> Vec<(Place, T)> {
        let width = completions.response.width();
        let places = places(&completions.response);
        let of_members: Vec<NextTokens<'_>> = self
            .members
            .iter()
            .map(|member| member.next_tokens(&completions_on(completions, &member.device())))
            .collect();
        let at_once = (SCORES_AT_ONCE / (self.vocabulary * self.members.len())).max(1);
        let mut found = Vec::with_capacity(places.len());
        for places in places.chunks(at_once) {
            let rows: Vec<i64> =
                places.iter().map(|place| (place.row * width + place.column) as i64).collect();
            let scores = of_members.iter().map(|next| {
                let states = next.states.clone().without_autodiff();
                let [b, r, e] = states.dims();
                let rows = TensorData::new(rows.clone(), [rows.len()]);
                let rows = Tensor::<1, Int>::from_data(rows, &states.device());
                next.head(states.reshape([b * r, e]).select(0, rows).unsqueeze_dim(0)).squeeze_dim(0)
            });
            let scores = MemberScores::read(scores.collect(), self.vocabulary);
            found.extend(places.iter().copied().zip(visit(places, &scores)));
        }
        found
    }
}
