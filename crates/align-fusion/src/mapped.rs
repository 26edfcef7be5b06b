//! A model of another tokenizer, seen through the base's vocabulary.

use align_core::{CausalLm, Completions, Decoder, NextTokens, TokenBatch, TokenLogProbs, log_probs};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::log_softmax};

use crate::error::{FirstFailure, VocabularyError};
use crate::vocabulary::VocabularyMap;

/// The score of a token without partner: a probability of 0 in every sum, and yet a finite number.
///
/// Small base and expert are mapped alike, so their difference, the shift of that token, is exactly 0, where −∞ − (−∞)
/// would be NaN. In the log-probabilities that this stands beside, a shift of 0 says: the expert finds the token as likely
/// as its base does.
const UNPAIRED: f32 = -1e4;

/// A model that takes the base's ids and gives scores by the base's ids.
///
/// Its scores are the model's own log-probabilities of the tokens that both vocabularies have, so they need not sum to 1.
/// Wrap the small base *and* its experts, with the same map. Where a token cannot be read ([`VocabularyMap::check`]), or the
/// pieces are longer than the model's context, the row's scores are NaN from there on, and [`take_failure`](Self::take_failure)
/// says why.
///
/// # Examples
/// ```
/// use align_core::{CausalLm, TokenBatch};
/// use align_fusion::{MapOptions, Mapped, Vocabulary, VocabularyMap};
/// use align_testkit::{BigramLm, device};
///
/// let base = Vocabulary::from_tokens(["a", "b"])?;
/// let member = Vocabulary::from_tokens(["b", "c", "a"])?;
/// let map = VocabularyMap::by_strings(&base, &member, &MapOptions::default())?;
/// let model = BigramLm::independent(&[0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()], &device());
/// let mapped = Mapped::new(model, map)?;
///
/// let scores = mapped.logits(&TokenBatch::left_padded(&[vec![0]], &device()));
/// let probabilities: Vec<f32> = scores.exp().to_data().iter::<f32>().collect();
/// assert!((probabilities[0] - 0.25).abs() < 1e-6 && (probabilities[1] - 0.5).abs() < 1e-6);
/// # Ok::<(), align_fusion::VocabularyError>(())
/// ```
#[derive(Debug)]
pub struct Mapped<M> {
    model: M,
    map: VocabularyMap,
    /// For every id of the base its partner, 0 where there is none. `[V]`.
    partners: Tensor<1, Int>,
    /// True where there is none. `[1, V]`.
    unpaired: Tensor<2, Bool>,
    failure: FirstFailure<VocabularyError>,
}

impl<M: CausalLm> Mapped<M> {
    /// Sees `model` through `map`.
    ///
    /// # Errors
    /// If the map reaches ids that the model does not have.
    pub fn new(model: M, map: VocabularyMap) -> Result<Self, VocabularyError> {
        let (id, vocabulary) = (map.reach(), model.vocab_size());
        if id as usize >= vocabulary {
            return Err(VocabularyError::MapOutsideModel { id, vocabulary });
        }
        let device = model.device().without_autodiff();
        let partners = map.partners().iter().map(|partner| partner.map_or(0, i64::from)).collect::<Vec<_>>();
        let unpaired = map.partners().iter().map(Option::is_none).collect::<Vec<_>>();
        let v = map.size();
        Ok(Self {
            partners: Tensor::from_data(TensorData::new(partners, [v]), &device),
            unpaired: Tensor::from_data(TensorData::new(unpaired, [1, v]), &device),
            model,
            map,
            failure: FirstFailure::default(),
        })
    }

    /// The map.
    pub fn map(&self) -> &VocabularyMap {
        &self.map
    }

    /// The first row that could not be read since this was last asked.
    pub fn take_failure(&self) -> Option<VocabularyError> {
        self.failure.take()
    }

    /// The model's scores by the base's ids: `[N, V of the model]` → `[N, V]`.
    fn to_base(&self, scores: Tensor<2>) -> Tensor<2> {
        let log_probs = log_softmax(scores.without_autodiff(), 1);
        let [n, _] = log_probs.dims();
        log_probs
            .select(1, self.partners.clone())
            .mask_fill(self.unpaired.clone().expand([n, self.map.size()]), UNPAIRED)
    }

    /// Reads a row of the base's ids; what cannot be read is kept in mind as the failure.
    fn read(&self, row: &[u32]) -> Reading {
        let mut reading = Reading { pieces: Vec::new(), ends: Vec::new(), dead_from: usize::MAX };
        for (position, &id) in row.iter().enumerate() {
            let pieces = self.map.reading(id);
            if pieces.is_empty() {
                self.failure.keep(self.map.unreadable(position, id));
                reading.dead_from = reading.dead_from.min(position);
                reading.pieces.push(PLACEHOLDER);
            }
            reading.pieces.extend_from_slice(pieces);
            reading.ends.push(reading.pieces.len());
        }
        if self.too_long(reading.pieces.len()) {
            let n = row.len();
            return Reading { pieces: vec![PLACEHOLDER; n], ends: (1..=n).collect(), dead_from: 0 };
        }
        reading
    }

    /// Whether so many pieces exceed the model's context, which then is the failure.
    fn too_long(&self, found: usize) -> bool {
        let context = self.model.context_length().filter(|&context| found > context);
        if let Some(context) = context {
            self.failure.keep(VocabularyError::TooLong { found, context });
        }
        context.is_some()
    }

    /// `[N, V of the model]` → `[N, V]`, NaN in the rows that are dead.
    fn to_base_or_nan(&self, scores: Tensor<2>, dead: Vec<bool>) -> Tensor<2> {
        nan_where(self.to_base(scores), dead)
    }
}

fn nan_where(x: Tensor<2>, dead: Vec<bool>) -> Tensor<2> {
    if !dead.contains(&true) {
        return x;
    }
    let [n, width] = x.dims();
    let dead = Tensor::<2, Bool>::from_data(TensorData::new(dead, [n, 1]), &x.device());
    x.mask_fill(dead.expand([n, width]), f32::NAN)
}

fn select_rows(x: Tensor<3>, index: Vec<i64>) -> Tensor<2> {
    let ([b, t, width], n) = (x.dims(), index.len());
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n]), &x.device().without_autodiff());
    x.without_autodiff().reshape([b * t, width]).select(0, index)
}

/// A row of the base's tokens in the model's.
struct Reading {
    pieces: Vec<u32>,
    /// How many pieces each token and those before it have together.
    ends: Vec<usize>,
    /// The first token whose scores are none, and all after it.
    dead_from: usize,
}

/// Read where nothing can be read, so that every token has a place; no score that follows it is used.
const PLACEHOLDER: u32 = 0;

impl<M: CausalLm> CausalLm for Mapped<M> {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let [b, t] = tokens.ids.dims();
        let readings: Vec<Reading> = tokens.rows().iter().map(|row| self.read(row)).collect();
        let pieces: Vec<Vec<u32>> = readings.iter().map(|reading| reading.pieces.clone()).collect();
        let batch = TokenBatch::left_padded(&pieces, &self.model.device());
        let width = batch.width();

        let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
        let (mut index, mut dead) = (Vec::with_capacity(b * t), Vec::with_capacity(b * t));
        for (row, (reading, mask)) in readings.iter().zip(mask.chunks(t)).enumerate() {
            let padding = width - reading.pieces.len();
            let mut token = 0;
            for &counts in mask {
                // The scores after a token are those after its last piece; what is not counted gets any.
                let column = if counts { padding + reading.ends[token] - 1 } else { 0 };
                index.push((row * width + column) as i64);
                dead.push(counts && token >= reading.dead_from);
                token += usize::from(counts);
            }
        }
        let scores = select_rows(self.model.logits(&batch), index);
        self.to_base_or_nan(scores, dead).reshape([b, t, self.map.size()])
    }

    fn vocab_size(&self) -> usize {
        self.map.size()
    }

    fn device(&self) -> Device {
        self.model.device()
    }

    /// The model's. A row of fewer tokens may be too long still, if its tokens are read as several.
    fn context_length(&self) -> Option<usize> {
        self.model.context_length()
    }

    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(MappedDecoder { of: self, inner: self.model.decoder(), rows: Vec::new() })
    }

    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> TokenLogProbs {
        let scores = self.next_tokens(completions).scores(0..completions.response.width());
        log_probs::from_logits(scores, &completions.response, temperature)
    }

    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        let [b, r] = completions.response.ids.dims();
        let mask: Vec<bool> = completions.response.mask.to_data().iter::<bool>().collect();
        let (mut prompts, mut responses) = (Vec::with_capacity(b), Vec::with_capacity(b));
        let (mut before, mut dead) = (Vec::with_capacity(b * r), Vec::with_capacity(b * r));
        let rows = completions.prompt.rows().into_iter().zip(completions.response.rows());
        for ((prompt, response), mask) in rows.zip(mask.chunks(r)) {
            let given = prompt.len();
            // Nothing is predicted from the last token, so it need not be read; its place remains.
            let read = response.len().saturating_sub(1);
            let mut reading = self.read(&[&prompt[..], &response[..read]].concat());
            reading.pieces.push(PLACEHOLDER);
            let start = |token: usize| if token == 0 { 0 } else { reading.ends[token - 1] };
            let split = start(given);
            let mut token = given;
            for &counts in mask {
                before.push(if counts { start(token) - split } else { 0 });
                dead.push(counts && token > reading.dead_from);
                token += usize::from(counts);
            }
            responses.push(reading.pieces.split_off(split));
            prompts.push(reading.pieces);
        }
        let spelt = Completions::from_rows(&prompts, &responses, &self.model.device());
        let width = spelt.response.width();
        let index = before.iter().enumerate().map(|(at, column)| (at / r * width + column) as i64).collect();

        let mut inner = self.model.next_tokens(&spelt);
        let states = nan_where(select_rows(inner.states, index), dead);
        let [_, e] = states.dims();
        let states = states.reshape([b, r, e]);
        // The head stays, the states of single pieces go.
        inner.states = states.clone();
        NextTokens::new(states, move |states| {
            let [b, c, _] = states.dims();
            let scores = inner.head(states);
            let [_, _, v] = scores.dims();
            self.to_base(scores.reshape([b * c, v])).reshape([b, c, self.map.size()])
        })
    }
}

struct MappedDecoder<'a, M> {
    of: &'a Mapped<M>,
    inner: Box<dyn Decoder + 'a>,
    rows: Vec<Row>,
}

/// What a row in decoding has read.
#[derive(Clone)]
struct Row {
    tokens: usize,
    pieces: Vec<u32>,
    dead: bool,
}

/// How a row takes its next token.
enum Next {
    /// By one more piece.
    One(u32),
    /// By several, or none: it is read again from its start.
    Again,
}

impl<M: CausalLm> MappedDecoder<'_, M> {
    fn take(&mut self, row: usize, id: u32) -> Next {
        let (of, row) = (self.of, &mut self.rows[row]);
        let pieces = of.map.reading(id);
        row.tokens += 1;
        if !row.dead && pieces.is_empty() {
            of.failure.keep(of.map.unreadable(row.tokens - 1, id));
            row.dead = true;
        } else if !row.dead && of.too_long(row.pieces.len() + pieces.len()) {
            row.dead = true;
        }
        if row.dead {
            // Short, so that a dead row never runs out of context.
            row.pieces = vec![PLACEHOLDER];
            return Next::Again;
        }
        row.pieces.extend_from_slice(pieces);
        match pieces {
            [piece] => Next::One(*piece),
            _ => Next::Again,
        }
    }

    fn scores(&self, scores: Tensor<2>, rows: &[Row]) -> Tensor<2> {
        self.of.to_base_or_nan(scores, rows.iter().map(|row| row.dead).collect())
    }

    fn admit_pieces(&mut self, pieces: &[Vec<u32>]) -> Tensor<2> {
        self.inner.admit(&TokenBatch::left_padded(pieces, &self.of.model.device()))
    }
}

impl<M: CausalLm> Decoder for MappedDecoder<'_, M> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        let rows = prompts.rows().into_iter().map(|ids| {
            let reading = self.of.read(&ids);
            let dead = reading.dead_from < ids.len();
            let pieces = if dead { vec![PLACEHOLDER] } else { reading.pieces };
            Row { tokens: ids.len(), pieces, dead }
        });
        let rows: Vec<Row> = rows.collect();
        let pieces: Vec<Vec<u32>> = rows.iter().map(|row| row.pieces.clone()).collect();
        let scores = self.admit_pieces(&pieces);
        let scores = self.scores(scores, &rows);
        self.rows.extend(rows);
        scores
    }

    /// Rows whose token is one piece go on; the others leave, are read anew as a whole, and come back to their places.
    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        assert_eq!(next.len(), self.rows.len(), "one token for each row");
        let (mut going, mut pieces, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &id) in next.iter().enumerate() {
            match self.take(row, id) {
                Next::One(piece) => {
                    going.push(row);
                    pieces.push(piece);
                }
                Next::Again => again.push(row),
            }
        }
        let scores = if again.is_empty() {
            self.inner.advance(&pieces)
        } else {
            let mut parts = Vec::new();
            if going.is_empty() {
                self.inner = self.of.model.decoder();
            } else {
                self.inner.keep(&going);
                parts.push(self.inner.advance(&pieces));
            }
            let whole: Vec<Vec<u32>> = again.iter().map(|&row| self.rows[row].pieces.clone()).collect();
            parts.push(self.admit_pieces(&whole));
            let order: Vec<usize> = going.into_iter().chain(again).collect();
            let mut places = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, &row)| places[row] = place);
            self.inner.keep(&places);
            let index = places.iter().map(|&place| place as i64).collect();
            select_rows(Tensor::cat(parts, 0).unsqueeze_dim(0), index)
        };
        self.scores(scores, &self.rows)
    }

    fn keep(&mut self, rows: &[usize]) {
        self.inner.keep(rows);
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
    }
}
