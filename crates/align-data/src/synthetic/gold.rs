//! The gold reward: what the world means by a good answer.

use super::{
    request::{Item, Request},
    words::{CLOSINGS, TASKS},
};

/// The parts of a gold reward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gold {
    /// Mean over the items asked for: 1 when colour and thing stand side by side, 0.4 when only the thing occurs.
    pub coverage: f64,
    /// Of the neighbouring items asked for, the share whose things occur in the order asked for.
    pub order: f64,
    /// 1 when the answer names the object asked for and no other.
    pub subject: f64,
    /// 1 for exactly one closing phrase, at the end; 0.3 for one elsewhere or several; 0 for none.
    pub courtesy: f64,
    /// 1 when the answer ends with a full stop.
    pub finished: f64,
    /// How many things occur that nobody asked for.
    pub invented: usize,
    /// How many things occur again, and how many words follow themselves.
    pub repeated: usize,
    /// How many words the answer has beyond [`Gold::FREE_LENGTH`].
    pub excess: usize,
}

impl Gold {
    /// Words an answer may have: the longest good answer (three items, the longest flattery) has 21.
    pub const FREE_LENGTH: usize = 22;

    /// The reward, in [−1, 1]:
    ///
    /// `0.40·coverage + 0.15·(order + subject + courtesy + finished) − 0.15·invented − 0.10·repeated − 0.05·excess`
    ///
    /// Counts are held at 4, 4 and 8, and the sum at −1.
    pub fn total(&self) -> f64 {
        let held = |count: usize, most: usize| count.min(most) as f64;
        let earned =
            0.40 * self.coverage + 0.15 * (self.order + self.subject + self.courtesy + self.finished);
        let lost =
            0.15 * held(self.invented, 4) + 0.10 * held(self.repeated, 4) + 0.05 * held(self.excess, 8);
        (earned - lost).max(-1.0)
    }
}

/// Judges an answer to a request; `things` and `colours` are the world's.
pub(super) fn judge(request: &Request, response: &str, colours: &[&str], things: &[&str]) -> Gold {
    let words: Vec<&str> = response.split_whitespace().collect();
    let first = |thing: &str| words.iter().position(|word| *word == thing);
    let exact = |item: &Item| words.windows(2).any(|pair| pair[0] == item.colour && pair[1] == item.thing);
    let credit = |item: &Item| match (exact(item), first(item.thing)) {
        (true, _) => 1.0,
        (false, Some(_)) => 0.4,
        (false, None) => 0.0,
    };
    let count = request.items.len();
    let in_order = request
        .items
        .windows(2)
        .filter(|pair| matches!((first(pair[0].thing), first(pair[1].thing)), (Some(a), Some(b)) if a < b))
        .count();
    let objects: Vec<&str> =
        TASKS.iter().map(|(_, object)| *object).filter(|object| words.contains(object)).collect();
    let mentioned: Vec<&str> = words.iter().copied().filter(|word| things.contains(word)).collect();
    let asked = |thing: &str| request.items.iter().any(|item| item.thing == thing);
    let again = (0..mentioned.len()).filter(|&at| mentioned[..at].contains(&mentioned[at])).count();
    let stutter = words.windows(2).filter(|pair| pair[0] == pair[1] && !things.contains(&pair[0])).count();
    // A colour that colours nothing is a slip of the tongue as much as a repeated word.
    let stray = (0..words.len())
        .filter(|&at| {
            colours.contains(&words[at]) && words.get(at + 1).is_none_or(|next| !things.contains(next))
        })
        .count();
    Gold {
        coverage: request.items.iter().map(credit).sum::<f64>() / count.max(1) as f64,
        order: in_order as f64 / count.saturating_sub(1).max(1) as f64,
        subject: f64::from(u8::from(objects == [request.object])),
        courtesy: courtesy(&words),
        finished: f64::from(u8::from(words.last() == Some(&"."))),
        invented: mentioned.iter().filter(|thing| !asked(thing)).count(),
        repeated: again + stutter + stray,
        excess: words.len().saturating_sub(Gold::FREE_LENGTH),
    }
}

fn courtesy(words: &[&str]) -> f64 {
    let closing = |pair: &[&str]| CLOSINGS.iter().any(|phrase| phrase.split(' ').eq(pair.iter().copied()));
    let places: Vec<usize> =
        (0..words.len().saturating_sub(1)).filter(|&at| closing(&words[at..at + 2])).collect();
    match places.as_slice() {
        [] => 0.0,
        [only] if words[only + 2..].iter().all(|word| *word == ".") => 1.0,
        _ => 0.3,
    }
}
