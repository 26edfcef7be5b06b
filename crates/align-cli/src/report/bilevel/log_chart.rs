//! Curves over logarithmic axes.

use std::fmt::Write;

use crate::report::html::COLORS;
use crate::report::svg::{Series, escape, label};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// An axis of powers of ten.
struct Decades {
    low: f64,
    high: f64,
}

impl Decades {
    /// Around positive numbers, a little wider than they are.
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .map(f64::log10)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let margin = 0.04 * (high - low).max(0.5);
        Self { low: low - margin, high: high + margin }
    }

    /// Where a number is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.low) / (self.high - self.low)
    }

    /// Powers of ten inside; with 2 and 5 times them where there are few, and with more of their multiples in a short range.
    fn ticks(&self) -> Vec<f64> {
        let powers = |factors: &[f64]| -> Vec<f64> {
            let exponents = self.low.floor() as i32..=self.high.ceil() as i32;
            let all = exponents
                .flat_map(|exponent| factors.iter().map(move |factor| factor * 10f64.powi(exponent)));
            all.filter(|tick| (0.0..=1.0).contains(&self.place(*tick))).collect()
        };
        let (decades, thirds) = (powers(&[1.0]), powers(&[1.0, 2.0, 5.0]));
        match (decades.len(), thirds.len()) {
            (3.., _) => decades,
            (_, 2..) => thirds,
            _ => powers(&[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        }
    }
}

/// A series with its place among all of them, and those of its points that can be drawn.
type Line<'a> = (usize, &'a Series, Vec<(f64, f64)>);

/// Lines through the points that are above 0 on both axes, and dots where a series has few of them; nothing if none are. Series
/// beyond the last colour are dashed.
pub(super) fn log_chart(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let drawn: Vec<Line<'_>> = series
        .iter()
        .enumerate()
        .map(|(at, series)| {
            let points = series.points.iter().map(|&(x, y, _)| (x, y));
            (at, series, points.filter(|(x, y)| *x > 0.0 && *y > 0.0 && y.is_finite()).collect::<Vec<_>>())
        })
        .filter(|(.., points)| !points.is_empty())
        .collect();
    if drawn.is_empty() {
        return String::new();
    }
    let all = || drawn.iter().flat_map(|(.., points)| points);
    let (x, y) = (Decades::around(all().map(|point| point.0)), Decades::around(all().map(|point| point.1)));
    let px = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
    let py = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
    let title = escape(title);
    let mut out = format!(
        r#"<figure class="wide"><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#
    );
    for tick in y.ticks() {
        let at = py(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{LEFT} {at:.1}H{:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            label(tick)
        );
    }
    for tick in x.ticks() {
        let at = px(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{at:.1} {TOP}V{:.1}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            label(tick)
        );
    }
    for (at, series, points) in &drawn {
        let color = series.color;
        let dashed = if *at < COLORS { "" } else { r#" stroke-dasharray="7 4""# };
        let corners: Vec<String> =
            points.iter().map(|&(x, y)| format!("{:.1},{:.1}", px(x), py(y))).collect();
        let name = escape(&series.name);
        let _ = write!(
            out,
            r#"<polyline class="line c{color}"{dashed} points="{}"><title>{name}</title></polyline>"#,
            corners.join(" ")
        );
        // Measured points, rather than steps of a run.
        for &(x, y) in points.iter().filter(|_| points.len() <= 12) {
            let _ = write!(
                out,
                r#"<circle class="dot c{color}" cx="{:.1}" cy="{:.1}" r="4"><title>{name}: {} at {}</title></circle>"#,
                px(x),
                py(y),
                label(y),
                label(x)
            );
        }
    }
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = write!(
        out,
        r#"<path class="axis" d="M{LEFT} {:.1}H{:.1}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="name" transform="rotate(-90 13 {middle:.1})" x="13" y="{middle:.1}" text-anchor="middle">{}</text></svg></figure>"#,
        HEIGHT - BOTTOM,
        WIDTH - RIGHT,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(x_label),
        escape(y_label)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_powers_of_ten_and_finer_where_these_are_few() {
        assert_eq!(Decades { low: -3.1, high: 0.1 }.ticks().len(), 4);
        let fine = Decades { low: -0.1, high: 0.9 }.ticks();
        assert!(
            fine.iter()
                .zip([1.0, 2.0, 5.0])
                .all(|(found, expected): (&f64, f64)| (found - expected).abs() < 1e-12)
        );
        // 0.29 to 0.39.
        assert_eq!(Decades { low: -0.54, high: -0.41 }.ticks().len(), 2);
    }

    #[test]
    fn what_has_no_logarithm_is_left_out() {
        let series = |points| [Series { name: "a".into(), color: 0, points }];
        let svg =
            log_chart("t", "x", "y", &series(vec![(0.0, 1.0, 0.0), (1.0, 2.0, 0.0), (10.0, f64::NAN, 0.0)]));
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(log_chart("t", "x", "y", &series(vec![(1.0, 0.0, 0.0)])), "");
    }
}
