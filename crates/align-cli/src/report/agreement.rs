//! The agreement of every two models as a heat map with numbers.

use std::fmt::Write;

use super::svg::escape;
use crate::stages::{Consistency, PairAgreement};

const CELL: f64 = 46.0;
const ROW: f64 = 28.0;
const TOP: f64 = 30.0;
const MARGIN: f64 = 10.0;
/// Of a letter of the names, about.
const LETTER: f64 = 7.3;
/// A cell is never darker: the numbers in it stay legible on light and on dark pages.
const DARKEST: f64 = 0.55;

/// Above the diagonal Kendall's τ; below it the share of orders that are certified, or without certificates of orders alike. Means
/// over seeds.
pub(super) fn matrix(compared: &[&Consistency]) -> String {
    let first = compared[0];
    let count = first.models.len();
    let certified = first.certified.is_some();
    let longest = first.models.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let left = (longest + 3.0) * LETTER + MARGIN;
    let (width, height) = (left + count as f64 * CELL + MARGIN, TOP + count as f64 * ROW + MARGIN);
    let below =
        if certified { "the share of orders that are certified" } else { "the share of orders alike" };
    let title = format!("agreement: above the diagonal Kendall's τ, below {below}");
    let mut out = format!(
        r#"<figure class="wide half reasons" style="max-width:{:.0}px"><figcaption>{title}</figcaption><svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{title}">"#,
        width.max(420.0)
    );
    for (at, name) in first.models.iter().enumerate() {
        let _ = write!(
            out,
            r#"<text class="arm" x="{:.1}" y="{:.1}" text-anchor="end">{} {}</text><text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            left - 8.0,
            TOP + (at as f64 + 0.5) * ROW + 4.5,
            escape(name),
            at + 1,
            left + (at as f64 + 0.5) * CELL,
            TOP - 9.0,
            at + 1
        );
    }
    for one in 0..count {
        for other in (0..count).filter(|other| *other != one) {
            let measure: fn(&PairAgreement) -> Option<f64> = match (one < other, certified) {
                (true, _) => |pair| pair.tau,
                (false, true) => |pair| pair.certified,
                (false, false) => |pair| Some(pair.order_agreement),
            };
            let values: Vec<f64> =
                compared.iter().filter_map(|found| measure(found.between(one, other)?)).collect();
            let value = values.iter().sum::<f64>() / values.len() as f64;
            let (x, y) = (left + other as f64 * CELL, TOP + one as f64 * ROW);
            let color = match (one < other, value < 0.0) {
                (false, _) => 2,
                (true, false) => 0,
                (true, true) => 1,
            };
            let text = if values.is_empty() { "–".to_owned() } else { format!("{value:.2}") };
            let strength = if values.is_empty() { 0.0 } else { DARKEST * value.abs().min(1.0) };
            let _ = write!(
                out,
                r#"<rect class="dot c{color}" fill-opacity="{strength:.2}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"><title>{} and {}: {text}</title></rect><text class="cell" x="{:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                x + 1.0,
                y + 1.0,
                CELL - 2.0,
                ROW - 2.0,
                escape(&first.models[one]),
                escape(&first.models[other]),
                x + CELL / 2.0,
                y + ROW / 2.0 + 4.0
            );
        }
    }
    out.push_str("</svg></figure>");
    out
}
