//! Which factors are primary to which in all models, as a graph from the most important down.

use std::fmt::Write;

use align_factors::Relations;

use super::svg::escape;
use crate::stages::Consistency;

const WIDTH: f64 = 760.0;
const LAYER: f64 = 54.0;
const NODE: f64 = 26.0;
const TOP: f64 = 8.0;
/// Of a letter of the names, about.
const LETTER: f64 = 6.4;
/// Of a node beside its name, and between two nodes.
const BESIDE: f64 = 16.0;
const BETWEEN: f64 = 4.0;
/// Longer names are cut.
const LONGEST: usize = 22;

/// An arrowless graph read downwards: an edge leads from a factor to the next ones that are secondary to it in every model of every
/// seed. It is drawn through where the order is certified for every two models.
pub(super) fn graph(compared: &[&Consistency]) -> String {
    let first = compared[0];
    let shares: Vec<&Vec<f64>> = compared.iter().flat_map(|found| &found.shares).collect();
    let relations = Relations::shared(&shares);
    let certified = |pair: &(usize, usize)| {
        compared
            .iter()
            .all(|found| found.certified.as_ref().is_some_and(|certified| certified.contains(pair)))
    };
    let title = "factors above those that are secondary to them in all models";
    if relations.pairs().is_empty() {
        return "<p class=\"note\">No order of factors is shared by all models.</p>".to_owned();
    }
    let places = places(&relations);
    let layers = places.iter().map(|place| place.layer).max().unwrap_or(0) + 1;
    let height = TOP * 2.0 + layers as f64 * LAYER - (LAYER - NODE);
    let at = |factor: usize| {
        let place = &places[factor];
        let x = WIDTH * (place.position as f64 + 0.5) / place.of as f64;
        (x, TOP + place.layer as f64 * LAYER)
    };
    let mut out = format!(
        r#"<figure class="wide reasons"><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">"#
    );
    for pair in relations.reduction() {
        let ((x, y), (to_x, to_y)) = (at(pair.0), at(pair.1));
        let bend = (to_y - y - NODE) / 2.0;
        let style = if certified(&pair) { "edge" } else { "edge open" };
        let _ = write!(
            out,
            r#"<path class="{style}" d="M{x:.1} {0:.1}C{x:.1} {1:.1} {to_x:.1} {2:.1} {to_x:.1} {to_y:.1}"><title>{3} over {4}</title></path>"#,
            y + NODE,
            y + NODE + bend,
            to_y - bend,
            escape(&first.factors[pair.0]),
            escape(&first.factors[pair.1])
        );
    }
    for (factor, name) in first.factors.iter().enumerate() {
        let (x, y) = at(factor);
        let shown = shortened(name, places[factor].of);
        let width = shown.chars().count() as f64 * LETTER + BESIDE;
        let _ = write!(
            out,
            r#"<rect class="node" x="{:.1}" y="{y:.1}" width="{width:.1}" height="{NODE}" rx="6"><title>{}</title></rect><text class="cell" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            x - width / 2.0,
            escape(name),
            y + NODE / 2.0 + 4.0,
            escape(&shown)
        );
    }
    let edges = match first.certified {
        Some(_) => {
            "Lines are drawn through where the margin lemma certifies the order for every two models, and broken elsewhere"
        }
        None => "Lines are broken, since no order is certified without rows to explain all models on",
    };
    let _ = write!(
        out,
        "</svg></figure><p class=\"note\">{edges}. {:.0} % of all pairs of factors have one order in all models.</p>",
        100.0 * relations.share()
    );
    out
}

/// Where a factor is drawn.
struct Place {
    layer: usize,
    position: usize,
    /// How many factors its layer has.
    of: usize,
}

/// Layers by the longest way from the top; in a layer, factors lie under the middle of what is right above them.
fn places(relations: &Relations) -> Vec<Place> {
    let count = relations.factors();
    let above = |factor: usize| (0..count).filter(move |&other| relations.holds(other, factor));
    // Whoever has fewer above is done first: all of those above have fewer still.
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&factor| above(factor).count());
    let mut layers = vec![0; count];
    for &factor in &order {
        layers[factor] = above(factor).map(|other| layers[other] + 1).max().unwrap_or(0);
    }
    let mut x = vec![0.5; count];
    let mut places: Vec<Place> = layers.iter().map(|&layer| Place { layer, position: 0, of: 1 }).collect();
    for layer in 0..=layers.iter().copied().max().unwrap_or(0) {
        let mut inside: Vec<usize> = (0..count).filter(|&factor| layers[factor] == layer).collect();
        let middle = |factor: usize| {
            let near: Vec<f64> = above(factor).filter(|&o| layers[o] + 1 == layer).map(|o| x[o]).collect();
            if near.is_empty() { factor as f64 } else { near.iter().sum::<f64>() / near.len() as f64 }
        };
        let keys: Vec<f64> = (0..count).map(middle).collect();
        inside.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        for (position, &factor) in inside.iter().enumerate() {
            places[factor] = Place { layer, position, of: inside.len() };
            x[factor] = (position as f64 + 0.5) / inside.len() as f64;
        }
    }
    places
}

/// A name that fits beside as many others.
fn shortened(name: &str, of: usize) -> String {
    let most = ((WIDTH / of as f64 - BETWEEN - BESIDE) / LETTER).max(2.0) as usize;
    let most = most.min(LONGEST);
    match name.chars().count() <= most {
        true => name.to_owned(),
        false => name.chars().take(most - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_lies_below_all_that_are_primary_to_it() {
        // x over y and z, which two models order differently; all over w.
        let relations = Relations::shared(&[[0.5, 0.25, 0.2, 0.05], [0.5, 0.2, 0.25, 0.05]]);
        let found = places(&relations);
        assert_eq!(found.iter().map(|place| place.layer).collect::<Vec<_>>(), [0, 1, 1, 2]);
        assert_eq!(found.iter().map(|place| place.of).collect::<Vec<_>>(), [1, 2, 2, 1]);
        assert_ne!(found[1].position, found[2].position);
    }

    #[test]
    fn names_are_cut_to_the_room_there_is() {
        assert_eq!(shortened("health", 1), "health");
        assert_eq!(shortened("satisfaction with the economy", 1), "satisfaction with the…");
        // Eight in a row have 95 units each.
        assert_eq!(shortened("secondary 1", 8), "secondary 1");
        assert_eq!(shortened("secondary 12", 8), "secondary …");
        assert_eq!(shortened("nuisance", 40), "n…");
    }
}
