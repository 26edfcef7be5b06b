//! How a greedy soup was found, and what is around a soup: a figure on the plane through three models.

use std::fmt::Write;

use align_soup::{Better, Point};

use super::contour::Field;
use super::html::row;
use super::svg::{Series, bands, escape, label, ticks};
use crate::results::Run;
use crate::stages::{GreedySearch, LearnedWeights, Map};

pub(super) const STYLE: &str = "
.soups{display:grid;gap:1rem}.soups figure{max-width:46rem}.soups .kept{fill:var(--c0);stroke:var(--c0)}
.soups .out{fill:var(--card);stroke:var(--c1)}.soups .kept,.soups .out,.soups .alone{stroke-width:2}.soups .alone{stroke:var(--dim)}
.soups .held{fill:none;stroke:var(--c0);stroke-width:1.8}.soups .who{fill:var(--fg);font-size:13px}.soups .who.lost{fill:var(--dim)}
.soups .contour{stroke:#000;stroke-opacity:.28;stroke-width:.7}.soups .place{fill:#fff;stroke:#111;stroke-width:1.8}
.soups .side{fill:none;stroke:#fff;stroke-opacity:.8;stroke-width:1.2;stroke-dasharray:4 3}
.soups .on-map{fill:#111;font-size:13px;font-weight:600;stroke:#fff;stroke-opacity:.85;stroke-width:3.2px;paint-order:stroke;stroke-linejoin:round}
";

/// From worst to best: viridis, whose lightness rises evenly and which is told apart by colour-blind eyes and in print.
const RAMP: [(u8, u8, u8); 9] = [
    (68, 1, 84),
    (71, 45, 123),
    (59, 82, 139),
    (44, 114, 142),
    (33, 145, 140),
    (40, 174, 128),
    (94, 201, 98),
    (173, 220, 48),
    (253, 231, 37),
];
/// Levels a map is drawn with, about.
const LEVELS: usize = 10;

/// The searches and maps of runs.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        let heading = |stage: &str, what: &str| {
            let name = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.to_owned() };
            format!("<h2>{}: {what}</h2>", escape(&name))
        };
        for (stage, search) in &run.searches {
            let _ = write!(
                out,
                "{}<div class=\"soups\">{}</div>",
                heading(stage, "the way of a greedy soup"),
                path(search)
            );
        }
        for (stage, learned) in &run.learned {
            let _ = write!(out, "{}{}", heading(stage, "learnt weights"), weights(learned));
        }
        for (stage, map) in &run.maps {
            let _ = write!(
                out,
                "{}<div class=\"soups\">{}</div>",
                heading(stage, "the plane through three models"),
                neighbourhood(map)
            );
        }
    }
    out
}

const WIDTH: f64 = 640.0;
/// Between the trials of a search.
const ROW: f64 = 30.0;
/// Text of 13 pixels takes about so much a letter.
const LETTER: f64 = 7.0;

/// A row for each trial, its score along the way.
fn path(search: &GreedySearch) -> String {
    let trials = search.path.trials();
    let alone = search.path.alone();
    let Some(first) = trials.first() else { return String::new() };
    let names: Vec<String> = trials
        .iter()
        .map(|trial| {
            format!("{}{}", if trial.members.len() > 1 { "+ " } else { "" }, search.names[trial.added])
        })
        .collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let left = (longest as f64 * LETTER + 24.0).min(WIDTH / 2.0);
    let (top, bottom) = (10.0, 10.0 + ROW * trials.len() as f64);
    let shown = || trials.iter().map(|trial| trial.score).chain(alone.iter().copied());
    let range = widened(shown().fold(f64::INFINITY, f64::min), shown().fold(f64::NEG_INFINITY, f64::max));
    let px = |score: f64| left + (score - range.0) / (range.1 - range.0) * (WIDTH - left - 16.0);
    let py = |row: usize| top + ROW * (row as f64 + 0.5);
    let metric = search.path.metric();
    let mut out = format!(
        r#"<figure><figcaption>{} of every soup that was tried ({})</figcaption><svg viewBox="0 0 {WIDTH} {}" role="img" aria-label="the trials of a greedy soup">"#,
        escape(metric),
        search.path.better(),
        bottom + 40.0
    );
    for tick in ticks(range, 5.0) {
        let x = px(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{x:.1} {top}V{bottom}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            label(tick)
        );
    }
    // The soup's score: down through the trials, aside where one is kept.
    let mut held = format!("M{:.1} {:.1}", px(first.score), py(0));
    for (row, trial) in trials.iter().enumerate().skip(1) {
        let _ = write!(held, "V{:.1}", py(row));
        if trial.accepted {
            let _ = write!(held, "H{:.1}", px(trial.score));
        }
    }
    let _ = write!(out, r#"<path class="held" d="{held}"/>"#);
    for (row, (trial, name)) in trials.iter().zip(&names).enumerate() {
        let (y, x) = (py(row), px(trial.score));
        let (class, verdict) = if trial.accepted { ("kept", "kept") } else { ("out", "left out") };
        let _ = write!(
            out,
            r#"<text class="who{}" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            if trial.accepted { "" } else { " lost" },
            left - 12.0,
            y + 4.5,
            escape(name)
        );
        let own = alone[trial.added];
        let _ = write!(
            out,
            r#"<path class="alone" d="M{:.1} {:.1}v12"><title>{} alone: {own:.5}</title></path><circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="6"><title>{}: {:.5}, {verdict}</title></circle>"#,
            px(own),
            y - 6.0,
            escape(&search.names[trial.added]),
            escape(&search.members(trial)),
            trial.score
        );
    }
    let _ = write!(
        out,
        r#"<text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text></svg></figure>"#,
        (left + WIDTH) / 2.0,
        bottom + 34.0,
        escape(metric)
    );
    out.push_str(
        "<p class=\"note\">From top to bottom: the model that is best alone, then the others in the order of their own figures. A filled \
         dot is a soup that was kept, a hollow one a soup that was worse than the line, which is the soup so far. A dash is the \
         model that is added, alone.</p>",
    );
    out
}

/// The table of weights, and the loss they were learnt by.
fn weights(learned: &LearnedWeights) -> String {
    let (header, rows) = learned.rows();
    let mut out = format!("<div class=\"scroll\"><table>{}", row("th", &header));
    rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
    let points = learned.losses.iter().enumerate().map(|(step, loss)| (step as f64, *loss, 0.0)).collect();
    let series = [Series { name: "loss".to_owned(), color: 0, points }];
    let _ = write!(
        out,
        "</table></div><div class=\"charts\">{}</div><p class=\"note\">On all rows the soup has a loss of {:.4} nats a token, \
         with equal weights {:.4}. Every step has a batch of its own.</p>",
        bands("loss of the soup, batch by batch (nats a token)", "step", &series),
        learned.loss,
        learned.equal_loss
    );
    out
}

fn widened(low: f64, high: f64) -> (f64, f64) {
    let margin = if high > low { (high - low) * 0.06 } else { low.abs().max(1.0) * 0.1 };
    (low - margin, high + margin)
}

/// Where the map lies in its picture.
struct Sheet {
    corner: Point,
    scale: f64,
    width: f64,
    height: f64,
}

const MAP: f64 = 480.0;
const MAP_LEFT: f64 = 58.0;
const MAP_TOP: f64 = 12.0;

impl Sheet {
    /// The same scale on both axes: it is a plane with distances.
    fn of(map: &Map) -> Self {
        let (x, y) = (&map.grid.x, &map.grid.y);
        let extent = |axis: &[f64]| axis.last().unwrap_or(&0.0) - axis.first().unwrap_or(&0.0);
        let scale = MAP / extent(x).max(extent(y));
        let corner = Point { x: x[0], y: y[0] };
        Self { corner, scale, width: extent(x) * scale, height: extent(y) * scale }
    }

    fn px(&self, x: f64) -> f64 {
        MAP_LEFT + (x - self.corner.x) * self.scale
    }

    fn py(&self, y: f64) -> f64 {
        MAP_TOP + self.height - (y - self.corner.y) * self.scale
    }
}

fn neighbourhood(map: &Map) -> String {
    let surface = map.surface();
    let points = map.grid.x.len() * map.grid.y.len();
    if surface.len() < points {
        return format!(
            "<p class=\"note\">The map of {} has {} of {points} points; --resume goes on with it.</p>",
            escape(&map.metric),
            surface.len()
        );
    }
    let sheet = Sheet::of(map);
    let levels = levels(surface, map.better);
    let bottom = MAP_TOP + sheet.height;
    let key = MAP_LEFT + sheet.width + 22.0;
    let [a, b, _] = [0, 1, 2].map(|at| map.names[at].as_str());
    let mut out = format!(
        r#"<figure><figcaption>{} on the plane through {} ({})</figcaption><svg viewBox="0 0 {:.0} {:.0}" role="img" aria-label="a map of {}">"#,
        escape(&map.metric),
        escape(&map.names.join(", ")),
        map.better,
        key + 92.0,
        bottom + 44.0,
        escape(&map.metric)
    );
    out.push_str(&regions(map, &sheet, &levels));
    out.push_str(&axes(
        &sheet,
        &format!("distance in weights, from {a} towards {b}"),
        "distance at right angles to it",
    ));
    out.push_str(&marks(map, &sheet));
    out.push_str(&legend(&levels, map.better, key, sheet.height));
    out.push_str("</svg></figure>");
    let _ = write!(
        out,
        "<p class=\"note\">Every point is a weighted sum of the three models whose weights sum to 1, some of them negative outside the \
         triangle; {points} points were evaluated, lines between them are interpolated. The cross is the best of them. Distances \
         are Euclidean over all weights.</p>"
    );
    out
}

/// Levels from worst to best: round numbers, or, where a few points are far worse than most, levels that crowd towards the best.
fn levels(values: &[f64], better: Better) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| match better {
        Better::Higher => b.total_cmp(a),
        Better::Lower => a.total_cmp(b),
    });
    let best = sorted[0];
    let behind = |at: usize| (sorted[at] - best).abs();
    let (typical, most) = (behind(sorted.len() / 2), behind(sorted.len() - 1));
    let mut levels = if most <= 4.0 * typical || typical == 0.0 {
        let (low, high) = (best.min(sorted[sorted.len() - 1]), best.max(sorted[sorted.len() - 1]));
        if high > low { ticks((low, high), LEVELS as f64) } else { Vec::new() }
    } else {
        let least = behind(sorted.len() / 20).max(most / 1000.0);
        let ratio = (most / least).powf(1.0 / LEVELS as f64);
        let sign = if better == Better::Lower { 1.0 } else { -1.0 };
        (0..LEVELS).map(|level| best + sign * least * ratio.powi(level as i32)).collect()
    };
    levels.sort_by(|a, b| if better == Better::Lower { b.total_cmp(a) } else { a.total_cmp(b) });
    levels
}

/// The colour of what is better than `passed` of `levels`.
fn color(passed: usize, levels: usize) -> String {
    let place = passed as f64 / levels.max(1) as f64 * (RAMP.len() - 1) as f64;
    let at = (place as usize).min(RAMP.len() - 2);
    let share = place - at as f64;
    let mixed =
        |from: u8, to: u8| (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8;
    let ((r, g, b), (r_2, g_2, b_2)) = (RAMP[at], RAMP[at + 1]);
    format!("#{:02x}{:02x}{:02x}", mixed(r, r_2), mixed(g, g_2), mixed(b, b_2))
}

/// The worst colour everywhere, then what is better than each level over it.
fn regions(map: &Map, sheet: &Sheet, levels: &[f64]) -> String {
    let turn = if map.better == Better::Lower { -1.0 } else { 1.0 };
    let values: Vec<f64> = map.surface().iter().map(|value| turn * value).collect();
    let field = Field { x: &map.grid.x, y: &map.grid.y, values: &values };
    let mut out = format!(
        r#"<rect x="{MAP_LEFT}" y="{MAP_TOP}" width="{:.1}" height="{:.1}" fill="{}"/>"#,
        sheet.width,
        sheet.height,
        color(0, levels.len())
    );
    for (passed, level) in levels.iter().enumerate() {
        let mut lines = String::new();
        for line in field.at_least(turn * level) {
            for (at, (x, y)) in line.iter().enumerate() {
                let _ = write!(
                    lines,
                    "{}{:.1} {:.1}",
                    if at == 0 { "M" } else { "L" },
                    sheet.px(*x),
                    sheet.py(*y)
                );
            }
            lines.push('Z');
        }
        if !lines.is_empty() {
            let fill = color(passed + 1, levels.len());
            let _ = write!(out, r#"<path class="contour" fill="{fill}" fill-rule="evenodd" d="{lines}"/>"#);
        }
    }
    out
}

fn axes(sheet: &Sheet, x_label: &str, y_label: &str) -> String {
    let (right, bottom) = (MAP_LEFT + sheet.width, MAP_TOP + sheet.height);
    let mut out = String::new();
    let ends = |from: f64, length: f64| (from, from + length / sheet.scale);
    for tick in ticks(ends(sheet.corner.x, sheet.width), 6.0) {
        let x = sheet.px(tick);
        let _ = write!(
            out,
            r#"<path class="axis" d="M{x:.1} {bottom:.1}v5"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            label(tick)
        );
    }
    for tick in ticks(ends(sheet.corner.y, sheet.height), 6.0) {
        let y = sheet.py(tick);
        let _ = write!(
            out,
            r#"<path class="axis" d="M{MAP_LEFT} {y:.1}h-5"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            MAP_LEFT - 8.0,
            y + 4.0,
            label(tick)
        );
    }
    let (middle_x, middle_y) = ((MAP_LEFT + right) / 2.0, (MAP_TOP + bottom) / 2.0);
    let _ = write!(
        out,
        r#"<rect class="axis" fill="none" x="{MAP_LEFT}" y="{MAP_TOP}" width="{:.1}" height="{:.1}"/><text class="name" x="{middle_x:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="name" transform="rotate(-90 13 {middle_y:.1})" x="13" y="{middle_y:.1}" text-anchor="middle">{}</text>"#,
        sheet.width,
        sheet.height,
        bottom + 38.0,
        escape(x_label),
        escape(y_label)
    );
    out
}

/// The triangle of the models, the soup, and the best point of the grid.
fn marks(map: &Map, sheet: &Sheet) -> String {
    let marked = map.marked();
    let place = |point: &Point| (sheet.px(point.x), sheet.py(point.y));
    let corners: Vec<String> =
        marked[..3].iter().map(|(_, point, _)| place(point)).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let mut out = format!(r#"<path class="side" d="M{}Z"/>"#, corners.join("L"));
    let best = map.surface().iter().zip(map.grid.points()).reduce(|best, other| {
        if best.0 != other.0 && map.better.no_worse(*other.0, *best.0) { other } else { best }
    });
    let flat = map.surface().iter().all(|figure| Some(figure) == map.surface().first());
    if let Some((figure, point)) = best.filter(|_| !flat) {
        let (x, y) = place(&point);
        let _ = write!(
            out,
            r##"<path d="M{:.1} {:.1}l10 10m0 -10l-10 10" stroke="#fff" stroke-width="5"/><path d="M{:.1} {:.1}l10 10m0 -10l-10 10" stroke="#111" stroke-width="2.2"><title>best point of the grid: {figure:.5}</title></path>"##,
            x - 5.0,
            y - 5.0,
            x - 5.0,
            y - 5.0
        );
    }
    let middle = MAP_LEFT + sheet.width / 2.0;
    for (at, (name, point, figure)) in marked.iter().enumerate() {
        let (x, y) = place(point);
        let text = match figure {
            Some(figure) => format!("{name} {figure:.0$}", if figure.abs() < 100.0 { 3 } else { 1 }),
            None => (*name).to_owned(),
        };
        match at < 3 {
            true => {
                let _ = write!(out, r#"<circle class="place" cx="{x:.1}" cy="{y:.1}" r="5.5"/>"#);
            }
            false => {
                let _ = write!(
                    out,
                    r#"<path class="place" d="M{x:.1} {:.1}l7.5 7.5l-7.5 7.5l-7.5 -7.5Z"/>"#,
                    y - 7.5
                );
            }
        }
        // Towards the middle, where there is room.
        let (anchor, shift) = if x > middle { ("end", -11.0) } else { ("start", 11.0) };
        let _ = write!(
            out,
            r#"<text class="on-map" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            x + shift,
            y - 9.0,
            escape(&text)
        );
    }
    out
}

/// The colours with the levels between them, the best on top.
fn legend(levels: &[f64], better: Better, x: f64, height: f64) -> String {
    let step = (height / (levels.len() + 1) as f64).min(30.0);
    let mut out = String::new();
    for passed in 0..=levels.len() {
        let y = MAP_TOP + step * (levels.len() - passed) as f64;
        let _ = write!(
            out,
            r#"<rect x="{x:.1}" y="{y:.1}" width="18" height="{step:.1}" fill="{}"/>"#,
            color(passed, levels.len())
        );
        if let Some(level) = levels.get(passed) {
            let _ = write!(
                out,
                r#"<path class="axis" d="M{:.1} {y:.1}h5"/><text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
                x + 18.0,
                x + 27.0,
                y + 4.0,
                label(*level)
            );
        }
    }
    let _ = write!(
        out,
        r#"<rect class="axis" fill="none" x="{x:.1}" y="{MAP_TOP}" width="18" height="{:.1}"/><text class="tick" x="{x:.1}" y="{:.1}">{}</text>"#,
        step * (levels.len() + 1) as f64,
        MAP_TOP + step * (levels.len() + 1) as f64 + 16.0,
        match better {
            Better::Higher => "high is best",
            Better::Lower => "low is best",
        }
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_run_from_worst_to_best() {
        let even: Vec<f64> = (0..100).map(|at| at as f64 / 100.0).collect();
        let higher = levels(&even, Better::Higher);
        assert!(higher.windows(2).all(|pair| pair[0] < pair[1]) && higher.len() >= 8, "{higher:?}");
        let lower = levels(&even, Better::Lower);
        assert!(lower.windows(2).all(|pair| pair[0] > pair[1]), "{lower:?}");
        // A few points far off do not take all the levels.
        let steep: Vec<f64> = (0..100).map(|at| 2.0 + (f64::from(at) / 10.0).exp()).collect();
        let levels = levels(&steep, Better::Lower);
        let near = levels.iter().filter(|level| **level < steep[50]).count();
        assert!(near >= 3, "{levels:?}");
        assert!(levels.iter().all(|level| (steep[0]..=steep[99]).contains(level)), "{levels:?}");
    }

    #[test]
    fn a_flat_map_has_one_colour() {
        assert!(levels(&[1.0; 9], Better::Lower).is_empty());
        assert_eq!(color(0, 0), "#440154");
    }

    #[test]
    fn the_best_is_yellow_and_the_worst_violet() {
        assert_eq!(color(0, 10), "#440154");
        assert_eq!(color(10, 10), "#fde725");
    }
}
