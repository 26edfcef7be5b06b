//! The experts' weights at every token of an answer: kept a line an answer, and summed up.

use std::path::Path;

use align_core::Completions;
use align_data::encode::Encoder;
use align_data::tokenizer::SpecialTokens;
use align_fusion::Step;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::language_model::OpenModel;
use crate::table::table;

/// The answers' file, in the folder of a stage or where `align fuse explain` is told to write.
pub(crate) const WEIGHTS: &str = "weights.jsonl";

/// An answer of a fusion, or one that it was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WeighedText {
    /// What the fusion is called.
    pub(crate) fusion: String,
    /// What was given.
    pub(crate) prompt: String,
    /// The experts' names, in the order of weights.
    pub(crate) experts: Vec<String>,
    /// What was said, token by token.
    pub(crate) tokens: Vec<WeighedToken>,
}

/// A token and how the experts' shifts were weighed for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WeighedToken {
    /// Its text; empty where it only begins a character.
    pub(crate) token: String,
    /// Its id.
    pub(crate) id: u32,
    /// One for each expert.
    pub(crate) weights: Vec<f64>,
    /// Whose shift alone was applied.
    pub(crate) expert: Option<usize>,
    /// f = KL(fused‖base), nats.
    pub(crate) f: f64,
    /// g = KL(base‖fused), nats; none where it is infinite.
    pub(crate) g: Option<f64>,
    /// a, what f was to be: how far the expert moved from the anchor.
    pub(crate) a: f64,
    /// b, what g was to be; none where it is infinite.
    pub(crate) b: Option<f64>,
    /// What is left of the objective.
    pub(crate) loss: Option<f64>,
    /// Whether the weight is at the bound of the search.
    pub(crate) saturated: bool,
    /// Whether no expert had moved, so that nothing was searched.
    pub(crate) skipped: bool,
}

impl WeighedToken {
    fn new(id: u32, token: String, step: &Step) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        Self {
            token,
            id,
            weights: step.weights.clone(),
            expert: step.expert,
            f: step.forward,
            g: finite(step.reverse),
            a: step.target_forward,
            b: finite(step.target_reverse),
            loss: finite(step.loss),
            saturated: step.saturated,
            skipped: step.skipped,
        }
    }

    /// The expert that is heard: the one whose shift alone was applied, or the one with the largest weight.
    pub(crate) fn heard(&self) -> Option<usize> {
        if self.skipped {
            return None;
        }
        let largest = || {
            let by_size = |&a: &usize, &b: &usize| self.weights[a].abs().total_cmp(&self.weights[b].abs());
            (0..self.weights.len()).rev().max_by(by_size)
        };
        self.expert.or_else(largest).filter(|&expert| self.weights[expert] != 0.0)
    }
}

/// The weights behind answers of a fusion, prompt and response each; `None` of a model that is none. Answers without tokens are
/// left out.
pub(crate) fn fusion_weights<'a>(
    model: &OpenModel,
    name: &str,
    answers: impl IntoIterator<Item = (&'a [u32], &'a [u32])>,
    encoder: &Encoder,
    microbatch: usize,
) -> Result<Option<Vec<WeighedText>>> {
    let Some(fusion) = model.fusion() else { return Ok(None) };
    let answers: Vec<(&[u32], &[u32])> =
        answers.into_iter().filter(|(_, response)| !response.is_empty()).collect();
    let device = model.lm.device();
    let mut texts = Vec::new();
    for chunk in answers.chunks(microbatch.max(1)) {
        let (prompts, responses): (Vec<_>, Vec<_>) =
            chunk.iter().map(|(prompt, response)| (prompt.to_vec(), response.to_vec())).unzip();
        let steps = fusion.explain(&Completions::from_rows(&prompts, &responses, &device))?;
        for ((prompt, response), steps) in chunk.iter().zip(steps) {
            let pieces = pieces(response, encoder)?;
            let tokens = response.iter().zip(pieces).zip(&steps);
            texts.push(WeighedText {
                fusion: name.to_owned(),
                prompt: encoder.tokenizer().decode(prompt, SpecialTokens::Keep)?,
                experts: fusion.experts().to_vec(),
                tokens: tokens.map(|((&id, piece), step)| WeighedToken::new(id, piece, step)).collect(),
            });
        }
    }
    Ok(Some(texts))
}

/// What each token adds to the text: tokens alone would lose their spaces, and a character may span several.
fn pieces(ids: &[u32], encoder: &Encoder) -> Result<Vec<String>> {
    let (mut shown, mut pieces) = (String::new(), Vec::new());
    for end in 1..=ids.len() {
        let text = encoder.tokenizer().decode(&ids[..end], SpecialTokens::Keep)?;
        // A character that is not whole yet decodes to the replacement character.
        let whole = if end < ids.len() { text.trim_end_matches('\u{FFFD}') } else { &text };
        let same = shown.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
        pieces.push(whole[same.sum::<usize>()..].to_owned());
        shown = whole.to_owned();
    }
    Ok(pieces)
}

/// Writes a line an answer, as a whole.
pub(crate) fn write(folder: &Path, texts: &[WeighedText]) -> Result<()> {
    align_core::persist::replace_file(&folder.join(WEIGHTS), |file| {
        for text in texts {
            serde_json::to_writer(&mut *file, text)?;
            std::io::Write::write_all(file, b"\n")?;
        }
        Ok(())
    })?;
    Ok(())
}

/// What a folder holds of weights; nothing if it has no such file.
pub(crate) fn read(folder: &Path) -> Result<Vec<WeighedText>> {
    let path = folder.join(WEIGHTS);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let one = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}:{} is damaged", path.display(), number + 1))
    };
    text.lines().enumerate().map(one).collect()
}

/// What the tokens of one fusion's answers say together.
pub(crate) struct Summary {
    /// The fusion.
    pub(crate) fusion: String,
    /// How many answers.
    pub(crate) answers: usize,
    /// How many tokens.
    pub(crate) tokens: usize,
    /// By expert.
    pub(crate) experts: Vec<Heard>,
    /// The share of tokens whose weight is at its bound.
    pub(crate) saturated: f64,
    /// The share of tokens for which no expert had moved.
    pub(crate) skipped: f64,
    /// Mean f: how far the fusion is from its base, nats a token.
    pub(crate) moved: f64,
}

/// How one expert was heard.
pub(crate) struct Heard {
    /// The expert.
    pub(crate) name: String,
    /// The share of tokens at which it is the one that is heard.
    pub(crate) share: f64,
    /// Its mean weight at those; none if there are none.
    pub(crate) weight: Option<f64>,
}

impl Summary {
    /// One for each fusion, in the order of their first answers.
    pub(crate) fn of(texts: &[WeighedText]) -> Vec<Self> {
        let mut groups: Vec<(&str, Vec<&WeighedText>)> = Vec::new();
        for text in texts {
            match groups.iter_mut().find(|(name, _)| *name == text.fusion) {
                Some((_, group)) => group.push(text),
                None => groups.push((&text.fusion, vec![text])),
            }
        }
        groups.into_iter().map(|(name, group)| Self::of_one(name, &group)).collect()
    }

    fn of_one(fusion: &str, texts: &[&WeighedText]) -> Self {
        let tokens: Vec<&WeighedToken> = texts.iter().flat_map(|text| &text.tokens).collect();
        let share = |holds: &dyn Fn(&WeighedToken) -> bool| {
            tokens.iter().filter(|token| holds(token)).count() as f64 / tokens.len().max(1) as f64
        };
        let heard = |(at, name): (usize, &String)| {
            let own = tokens.iter().filter(|token| token.heard() == Some(at));
            let weights: Vec<f64> = own.map(|token| token.weights[at]).collect();
            let mean = weights.iter().sum::<f64>() / weights.len() as f64;
            Heard {
                name: name.clone(),
                share: share(&|token| token.heard() == Some(at)),
                weight: (!weights.is_empty()).then_some(mean),
            }
        };
        Self {
            fusion: fusion.to_owned(),
            answers: texts.len(),
            tokens: tokens.len(),
            experts: texts[0].experts.iter().enumerate().map(heard).collect(),
            saturated: share(&|token| token.saturated),
            skipped: share(&|token| token.skipped),
            moved: tokens.iter().map(|token| token.f).sum::<f64>() / tokens.len().max(1) as f64,
        }
    }

    /// Headings and rows: one an expert.
    pub(crate) fn rows(summaries: &[Self]) -> (Vec<String>, Vec<Vec<String>>) {
        let header = [
            "expert",
            "of",
            "answers",
            "tokens",
            "heard",
            "mean weight",
            "at bound",
            "skipped",
            "KL to base",
        ];
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let rows = summaries.iter().flat_map(|summary| {
            summary.experts.iter().map(move |expert| {
                vec![
                    expert.name.clone(),
                    summary.fusion.clone(),
                    summary.answers.to_string(),
                    summary.tokens.to_string(),
                    percent(expert.share),
                    expert.weight.map_or("–".to_owned(), |weight| format!("{weight:.3}")),
                    percent(summary.saturated),
                    percent(summary.skipped),
                    format!("{:.3}", summary.moved),
                ]
            })
        });
        (header.map(str::to_owned).to_vec(), rows.collect())
    }

    /// For a terminal.
    pub(crate) fn table(summaries: &[Self]) -> String {
        let (header, rows) = Self::rows(summaries);
        table(&header, rows)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A token whose shift is one expert's.
    pub(crate) fn token(text: &str, weights: &[f64], expert: Option<usize>) -> WeighedToken {
        WeighedToken {
            token: text.to_owned(),
            id: 7,
            weights: weights.to_vec(),
            expert,
            f: 0.5,
            g: Some(0.4),
            a: 0.5,
            b: None,
            loss: Some(0.0),
            saturated: false,
            skipped: false,
        }
    }

    /// An answer of a fusion of two experts.
    pub(crate) fn text(tokens: Vec<WeighedToken>) -> WeighedText {
        let experts = ["sums", "facts"].map(str::to_owned).to_vec();
        WeighedText { fusion: "both".into(), prompt: "1 + 1 =".into(), experts, tokens }
    }

    #[test]
    fn the_one_expert_is_heard_or_the_one_with_the_largest_weight() {
        assert_eq!(token("a", &[0.5, 0.0], Some(0)).heard(), Some(0));
        assert_eq!(token("a", &[0.5, -1.0], None).heard(), Some(1), "an anti-expert is heard too");
        assert_eq!(token("a", &[1.0, 1.0], None).heard(), Some(0), "the first of equals");
        assert_eq!(token("a", &[0.0, 0.0], Some(1)).heard(), None);
        let skipped = WeighedToken { skipped: true, ..token("a", &[1.0, 0.0], Some(0)) };
        assert_eq!(skipped.heard(), None);
    }

    #[test]
    fn a_summary_counts_tokens_and_averages_weights_where_an_expert_is_heard() {
        let saturated = WeighedToken { saturated: true, ..token("b", &[0.0, 2.0], Some(1)) };
        let skipped = WeighedToken { skipped: true, f: 0.0, ..token("d", &[1.0, 0.0], Some(0)) };
        let texts = [
            text(vec![token("a", &[1.0, 0.0], Some(0)), saturated]),
            text(vec![token("c", &[1.5, 0.0], Some(0)), skipped]),
        ];
        let summaries = Summary::of(&texts);
        let [summary] = summaries.as_slice() else { panic!("one fusion") };
        assert_eq!((summary.answers, summary.tokens), (2, 4));
        assert_eq!((summary.saturated, summary.skipped, summary.moved), (0.25, 0.25, 0.375));
        let heard: Vec<_> = summary.experts.iter().map(|expert| (expert.share, expert.weight)).collect();
        assert_eq!(heard, [(0.5, Some(1.25)), (0.25, Some(2.0))]);
        assert!(Summary::table(&summaries).contains("50.0 %"), "{}", Summary::table(&summaries));
    }

    #[test]
    fn answers_survive_their_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let texts = [text(vec![token("é", &[1.0, 0.0], Some(0))]), text(vec![])];
        write(folder.path(), &texts).unwrap();
        assert_eq!(read(folder.path()).unwrap(), texts);
    }
}
