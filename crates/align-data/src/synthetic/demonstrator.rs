//! The demonstrator: answers of a given quality.

use rand::{Rng, RngExt, seq::SliceRandom};

use super::{
    request::{Item, Request, listing},
    words::{CLOSINGS, FILLERS, FLATTERY, OPENINGS, TASKS},
};

/// No demonstration has more words; a longer one is cut off there, as people are.
const MOST_WORDS: usize = 26;

/// Answers a request.
///
/// With error e = 1 − quality: each item is dropped with probability 0.4e, takes another colour with 0.35e and turns into
/// another thing with 0.15e; the order is lost with 0.5e; something is added with 0.4e, said again with 0.25e; the object
/// is mistaken with 0.3e; a filler sentence is added with 0.3e; the closing is missing with 0.05 + 0.5e and said twice with
/// 0.25e; the last full stop is missing with 0.3e. Flattery comes with probability 0.2 + 0.6·quality, which the gold
/// reward ignores: a judge that learns from such answers will like it.
pub(super) fn answer(
    request: &Request,
    quality: f64,
    colours: &[&'static str],
    things: &[&'static str],
    rng: &mut impl Rng,
) -> String {
    let error = 1.0 - quality;
    let mut happens = |probability: f64| rng.random::<f64>() < probability;
    let flattered = happens(0.2 + 0.6 * quality);
    let mistaken = happens(0.3 * error);
    let disordered = happens(0.5 * error);
    let added = happens(0.4 * error);
    let repeated = happens(0.25 * error);
    let rambling = happens(0.3 * error);
    let closed = happens(0.95 - 0.5 * error);
    let twice = happens(0.25 * error);
    let stopped = !happens(0.3 * error);

    let any = |list: &[&'static str], rng: &mut dyn Rng| list[rng.random_range(0..list.len())];
    let mut items: Vec<Item> = Vec::new();
    for item in &request.items {
        if rng.random::<f64>() < 0.4 * error {
            continue;
        }
        let colour = if rng.random::<f64>() < 0.35 * error { any(colours, rng) } else { item.colour };
        let thing = if rng.random::<f64>() < 0.15 * error { any(things, rng) } else { item.thing };
        items.push(Item { colour, thing });
    }
    if items.is_empty() {
        items.push(request.items[rng.random_range(0..request.items.len())]);
    }
    if disordered {
        items.shuffle(rng);
    }
    if added {
        let at = rng.random_range(0..=items.len());
        items.insert(at, Item { colour: any(colours, rng), thing: any(things, rng) });
    }
    if repeated {
        items.push(items[rng.random_range(0..items.len())]);
    }
    let object = match mistaken {
        true => TASKS[rng.random_range(0..TASKS.len())].1,
        false => request.object,
    };

    let mut words = Vec::new();
    if flattered {
        words.push(any(&FLATTERY, rng).to_string());
    }
    words.push(format!("{} {object} : {}", any(&OPENINGS, rng), listing(&items)));
    let mut sentences = Vec::new();
    if rambling {
        sentences.push(any(&FILLERS, rng));
    }
    if closed {
        sentences.push(any(&CLOSINGS, rng));
    }
    if twice {
        sentences.push(any(&CLOSINGS, rng));
    }
    for sentence in sentences {
        words.push(format!(". {sentence}"));
    }
    if stopped {
        words.push(".".to_string());
    }
    words.join(" ").split(' ').take(MOST_WORDS).collect::<Vec<_>>().join(" ")
}
