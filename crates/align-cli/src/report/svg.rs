//! Charts as SVG that scales with the page; colours come from the page's style sheet.

use std::fmt::Write;

/// One line or cloud of a chart.
pub(super) struct Series {
    /// What the legend says; series of one name share it.
    pub(super) name: String,
    /// The index of its colour.
    pub(super) color: usize,
    /// x, y and the half-width of y's interval (0 draws none).
    pub(super) points: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Where data lands on the page.
pub(super) struct Frame {
    /// What is shown of x, from left to right.
    pub(super) x: (f64, f64),
    /// What is shown of y, from bottom to top.
    pub(super) y: (f64, f64),
}

impl Frame {
    fn around(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|series| &series.points);
        let range = |low: f64, high: f64| {
            let margin = if high > low { (high - low) * 0.06 } else { low.abs().max(1.0) * 0.1 };
            (low - margin, high + margin)
        };
        let x = bounds(points().map(|&(x, _, _)| (x, x)));
        let y = bounds(points().map(|&(_, y, half)| (y - half, y + half)));
        Self { x: range(x.0, x.1), y: range(y.0, y.1) }
    }

    /// Where x is.
    pub(super) fn px(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    /// Where y is.
    pub(super) fn py(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }
}

fn bounds(values: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (a, b)| (low.min(a), high.max(b)))
}

/// Round numbers that divide a range into about `count` parts.
pub(super) fn ticks((low, high): (f64, f64), count: f64) -> Vec<f64> {
    let raw = (high - low) / count;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= raw)
        .unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// A number beside an axis.
pub(super) fn label(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 || (size > 0.0 && size < 0.001) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Lines, with their intervals as shaded bands where they have any.
pub(super) fn bands(title: &str, x_label: &str, series: &[Series]) -> String {
    chart(title, x_label, "", series, |frame, series, out| {
        let corner = |&(x, y): &(f64, f64)| format!("{:.1},{:.1}", frame.px(x), frame.py(y));
        let along: Vec<String> = series.points.iter().map(|&(x, y, _)| corner(&(x, y))).collect();
        let color = series.color;
        if series.points.iter().any(|&(_, _, half)| half > 0.0) {
            let upper = series.points.iter().map(|&(x, y, half)| (x, y + half));
            let lower = series.points.iter().rev().map(|&(x, y, half)| (x, y - half));
            let around: Vec<String> = upper.chain(lower).map(|point| corner(&point)).collect();
            let _ = write!(out, r#"<polygon class="band c{color}" points="{}"/>"#, around.join(" "));
        }
        let _ = write!(out, r#"<polyline class="line c{color}" points="{}"/>"#, along.join(" "));
    })
}

/// Points with intervals.
pub(super) fn scatter(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    chart(title, x_label, y_label, series, |frame, series, out| {
        for &(x, y, half) in &series.points {
            let (px, py) = (frame.px(x), frame.py(y));
            if half > 0.0 {
                let (top, bottom) = (frame.py(y + half), frame.py(y - half));
                let _ = write!(
                    out,
                    r#"<path class="line c{}" d="M{px:.1} {top:.1}V{bottom:.1}"/>"#,
                    series.color
                );
            }
            let _ = write!(
                out,
                r#"<circle class="dot c{}" cx="{px:.1}" cy="{py:.1}" r="4.5"><title>{}: {} at {}</title></circle>"#,
                series.color,
                escape(&series.name),
                label(y),
                label(x)
            );
        }
    })
}

fn chart(
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    draw: impl Fn(&Frame, &Series, &mut String),
) -> String {
    let frame = Frame::around(series);
    framed(title, x_label, y_label, &frame, |out| series.iter().for_each(|series| draw(&frame, series, out)))
}

/// Axes, and what is drawn between them.
pub(super) fn framed(
    title: &str,
    x_label: &str,
    y_label: &str,
    frame: &Frame,
    draw: impl FnOnce(&mut String),
) -> String {
    let mut out = format!(
        r#"<figure><figcaption>{}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        escape(title),
        escape(title)
    );
    for tick in ticks(frame.y, 5.0) {
        let y = frame.py(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{LEFT} {y:.1}H{:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            label(tick)
        );
    }
    for tick in ticks(frame.x, 5.0) {
        let x = frame.px(tick);
        let _ = write!(
            out,
            r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            HEIGHT - BOTTOM + 16.0,
            label(tick)
        );
    }
    let _ = write!(
        out,
        r#"<path class="axis" d="M{LEFT} {:.1}H{:.1}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        HEIGHT - BOTTOM,
        WIDTH - RIGHT,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(x_label)
    );
    if !y_label.is_empty() {
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            out,
            r#"<text class="name" transform="rotate(-90 11 {middle:.1})" x="11" y="{middle:.1}" text-anchor="middle">{}</text>"#,
            escape(y_label)
        );
    }
    draw(&mut out);
    out.push_str("</svg></figure>");
    out
}

/// Names with their colours.
pub(super) fn legend(names: &[(String, usize)]) -> String {
    let items: String = names
        .iter()
        .map(|(name, color)| format!(r#"<span><i class="key c{color}"></i>{}</span>"#, escape(name)))
        .collect();
    format!(r#"<p class="legend">{items}</p>"#)
}

/// Text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((-0.1, 1.1), 5.0), vec![0.0, 0.5, 1.0]);
        assert_eq!(ticks((0.0, 10.0), 5.0), vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert!(ticks((3.2, 3.9), 5.0).iter().all(|tick| (3.2..=3.9).contains(tick)));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(label(0.5), "0.5");
        assert_eq!(label(-0.0), "0");
        assert_eq!(label(20_000.0), "2e4");
    }

    #[test]
    fn text_from_models_cannot_leave_its_place() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }

    #[test]
    fn a_chart_of_one_point_has_finite_coordinates() {
        let series = [Series { name: "a".into(), color: 0, points: vec![(0.0, 0.0, 0.0)] }];
        let svg = scatter("t", "x", "y", &series);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
