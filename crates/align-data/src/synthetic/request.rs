//! Requests: what a prompt asks for.

use rand::{Rng, RngExt, seq::IndexedRandom};

use super::words::TASKS;

/// A thing with its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub colour: &'static str,
    pub thing: &'static str,
}

/// What a prompt asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub verb: &'static str,
    pub object: &'static str,
    pub items: Vec<Item>,
    pub polite: bool,
}

impl Request {
    /// Two items (three in ten requests: three), all different.
    pub(super) fn draw(colours: &[&'static str], things: &[&'static str], rng: &mut impl Rng) -> Self {
        let (verb, object) = TASKS[rng.random_range(0..TASKS.len())];
        let count = if rng.random::<f64>() < 0.3 { 3 } else { 2 };
        let items = things
            .sample(rng, count)
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thing| Item { colour: colours[rng.random_range(0..colours.len())], thing })
            .collect();
        Self { verb, object, items, polite: rng.random::<f64>() < 0.5 }
    }

    /// As the prompt says it.
    pub(super) fn text(&self) -> String {
        let please = if self.polite { "please " } else { "" };
        format!("{please}{} a {} with {}", self.verb, self.object, listing(&self.items))
    }

    /// Reads a prompt; what it does not understand is not asked for.
    pub(super) fn parse(prompt: &str, colours: &[&'static str], things: &[&'static str]) -> Option<Self> {
        let words: Vec<&str> = prompt.split_whitespace().collect();
        let (verb, object) = *TASKS.iter().find(|(_, object)| words.contains(object))?;
        let known = |list: &[&'static str], word: &str| list.iter().copied().find(|known| *known == word);
        let items: Vec<Item> = words
            .windows(2)
            .filter_map(|pair| {
                Some(Item { colour: known(colours, pair[0])?, thing: known(things, pair[1])? })
            })
            .collect();
        (!items.is_empty()).then(|| Self { verb, object, items, polite: words.contains(&"please") })
    }
}

/// `red rice`, `red rice and blue tea`, `red rice , blue tea and pink oak`.
pub(super) fn listing(items: &[Item]) -> String {
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        match (index, index + 1 == items.len()) {
            (0, _) => {}
            (_, true) => out.push_str(" and "),
            (_, false) => out.push_str(" , "),
        }
        out.push_str(item.colour);
        out.push(' ');
        out.push_str(item.thing);
    }
    out
}
