//! Pairs of answers of which one was preferred.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Dialogue, FromRow, Message, RowProblem, demonstration::alike, dialogue::messages,
    dialogue::parse_hh_dialogue, fields, prompt,
};

/// A question and two answers, of which one was preferred.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreferenceRow {
    /// What was asked; given, or the shared beginning of both sides.
    pub prompt: Dialogue,
    /// The preferred answer.
    pub chosen: Dialogue,
    /// The other one.
    pub rejected: Dialogue,
    /// By how much, in units of reward; zero where the data does not say.
    pub margin: f64,
}

impl FromRow for PreferenceRow {
    const KIND: &'static str = "preference";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        const EXPECTED: &str = "a preference (`chosen` and `rejected`)";
        if !row.contains_key("chosen") && row.contains_key("context") && row.contains_key("completions") {
            return ranked(row);
        }
        let side = |field: &str| {
            let side = Dialogue::from_value(field, fields::required(row, field, EXPECTED)?)?;
            match side.is_empty() {
                true => Err(RowProblem::EmptyField { field: field.to_string() }),
                false => Ok(side),
            }
        };
        let (chosen, rejected) = (side("chosen")?, side("rejected")?);
        if chosen == rejected {
            return Err(RowProblem::SameSides {
                found: format!("{:?}", fields::beginning(&chosen.plain_text())),
            });
        }
        let margin = match fields::present(row, "margin") {
            None => 0.0,
            Some(value) => match value.as_f64() {
                Some(margin) if margin.is_finite() => margin,
                _ => return Err(fields::wrong("margin", "a finite number", value)),
            },
        };
        let (prompt, chosen, rejected) = match fields::present(row, "prompt") {
            Some(value) => with_prompt(prompt::prompt(value)?, chosen, rejected),
            None => shared_prompt(chosen, rejected)?,
        };
        for (field, side) in [("chosen", &chosen), ("rejected", &rejected)] {
            if side.is_empty() {
                return Err(RowProblem::EmptyField { field: format!("{field} (after the prompt)") });
            }
        }
        Ok(Self { prompt, chosen, rejected, margin })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}

/// Some files give a prompt and repeat it at the beginning of both sides; it is taken away there.
fn with_prompt(prompt: Dialogue, chosen: Dialogue, rejected: Dialogue) -> (Dialogue, Dialogue, Dialogue) {
    let (prompt, chosen) = alike(prompt, chosen);
    let (prompt, rejected) = alike(prompt, rejected);
    let (prompt, chosen) = alike(prompt, chosen);
    if let (Dialogue::Messages(asked), Dialogue::Messages(first), Dialogue::Messages(second)) =
        (&prompt, &chosen, &rejected)
        && first.len() > asked.len()
        && second.len() > asked.len()
        && first.starts_with(asked)
        && second.starts_with(asked)
    {
        let without = |side: &[Message]| Dialogue::Messages(side[asked.len()..].to_vec());
        return (prompt.clone(), without(first), without(second));
    }
    (prompt, chosen, rejected)
}

/// Splits the shared beginning off both sides.
fn shared_prompt(chosen: Dialogue, rejected: Dialogue) -> Result<(Dialogue, Dialogue, Dialogue), RowProblem> {
    let as_turns = |side: &Dialogue| match side {
        Dialogue::Text(text) => parse_hh_dialogue(text),
        Dialogue::Messages(messages) => Some(messages.clone()),
    };
    match (as_turns(&chosen), as_turns(&rejected)) {
        (Some(chosen), Some(rejected)) => shared_turns(&chosen, &rejected),
        _ => shared_text(&chosen.plain_text(), &rejected.plain_text()),
    }
}

/// The longest shared run of turns after which the assistant speaks on both sides.
fn shared_turns(
    chosen: &[Message],
    rejected: &[Message],
) -> Result<(Dialogue, Dialogue, Dialogue), RowProblem> {
    if chosen == rejected {
        let found = chosen.last().map(|turn| fields::beginning(&turn.content)).unwrap_or_default();
        return Err(RowProblem::SameSides { found: format!("{found:?}") });
    }
    let alike = chosen.iter().zip(rejected).take_while(|(first, second)| first == second).count();
    let answers = |at: usize| {
        chosen.get(at).is_some_and(Message::is_assistant)
            && rejected.get(at).is_some_and(Message::is_assistant)
    };
    let Some(at) = (1..=alike).rev().find(|&at| answers(at)) else {
        return Err(RowProblem::EmptyPrompt {
            hint: ", shared by `chosen` and `rejected` and followed by the assistant on both sides",
        });
    };
    let prompt = Dialogue::Messages(chosen[..at].to_vec());
    if prompt.is_empty() {
        return Err(RowProblem::EmptyPrompt { hint: "" });
    }
    Ok((prompt, Dialogue::Messages(chosen[at..].to_vec()), Dialogue::Messages(rejected[at..].to_vec())))
}

/// The longest shared text, cut back to the end of a word; the white space belongs to the responses.
fn shared_text(chosen: &str, rejected: &str) -> Result<(Dialogue, Dialogue, Dialogue), RowProblem> {
    let alike: usize = chosen
        .chars()
        .zip(rejected.chars())
        .take_while(|(first, second)| first == second)
        .map(|(first, _)| first.len_utf8())
        .sum();
    let at_word = |text: &str| text[alike..].chars().next().is_none_or(char::is_whitespace);
    let end = match at_word(chosen) && at_word(rejected) {
        true => alike,
        false => chosen[..alike].rfind(char::is_whitespace).unwrap_or(0),
    };
    let end = chosen[..end].trim_end().len();
    if end == 0 {
        return Err(RowProblem::EmptyPrompt {
            hint: " in `prompt`, or a shared beginning of `chosen` and `rejected`",
        });
    }
    let text = |side: &str| Dialogue::Text(side.to_string());
    Ok((text(&chosen[..end]), text(&chosen[end..]), text(&rejected[end..])))
}

/// NeMo's form: `context` and ranked `completions`; rank 0 is best. The best is set against the worst.
fn ranked(row: &Map<String, Value>) -> Result<PreferenceRow, RowProblem> {
    let context = Dialogue::from_value("context", &row["context"])?;
    if context.is_empty() {
        return Err(RowProblem::EmptyPrompt { hint: " in `context`" });
    }
    let Value::Array(list) = &row["completions"] else {
        return Err(fields::wrong("completions", "a list of `{rank, completion}`", &row["completions"]));
    };
    let mut completions = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let field = format!("completions[{index}]");
        let (Some(rank), Some(completion)) =
            (entry.get("rank").and_then(Value::as_f64), entry.get("completion"))
        else {
            return Err(fields::wrong(&field, "an object with `rank` and `completion`", entry));
        };
        let field = format!("{field}.completion");
        let completion = match completion {
            Value::Array(_) => Dialogue::Messages(messages(&field, completion)?),
            other => Dialogue::from_value(&field, other)?,
        };
        if completion.is_empty() {
            return Err(RowProblem::EmptyField { field });
        }
        completions.push((rank, completion));
    }
    completions.sort_by(|first, second| first.0.total_cmp(&second.0));
    let (Some((best, chosen)), Some((worst, rejected))) = (completions.first(), completions.last()) else {
        return Err(RowProblem::EmptyField { field: "completions".to_string() });
    };
    if best == worst {
        return Err(fields::wrong("completions", "at least two different ranks", &row["completions"]));
    }
    if chosen == rejected {
        return Err(RowProblem::SameSides {
            found: format!("{:?}", fields::beginning(&chosen.plain_text())),
        });
    }
    let (prompt, chosen, rejected) = with_prompt(context, chosen.clone(), rejected.clone());
    Ok(PreferenceRow { prompt, chosen, rejected, margin: 0.0 })
}
