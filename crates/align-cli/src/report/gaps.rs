//! How much of the way from a base to a tuned model others go: tables, and a chart with a row for each of them.

use std::fmt::Write;

use super::html::{COLORS, row};
use super::svg::{escape, label, legend, ticks};
use crate::results::Run;
use crate::stages::{ArmGap, Gaps, Over};

const WIDTH: f64 = 760.0;
/// Between the rows of two arms.
const ROW: f64 = 16.0;
/// Between the dots of an arm.
const STEP: f64 = 11.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;
const RIGHT: f64 = 18.0;
/// Of a letter of the names, about.
const LETTER: f64 = 7.5;

pub(super) const STYLE: &str = "
.wide{max-width:760px}.arm{fill:var(--fg);font-size:13px}.goal{stroke:var(--dim);stroke-width:1.2;stroke-dasharray:4 3}
.mean{fill:var(--fg);stroke:var(--fg)}.whisker{stroke-width:1.6}.open{fill:var(--card);stroke-width:2}.key.mean{background:var(--fg);border-radius:0;transform:rotate(45deg) scale(.8)}
";

/// A table, a chart and notes for each stage of gaps.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        for (stage, gaps) in &run.gaps {
            let heading = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.clone() };
            let (header, rows) = gaps.rows();
            let _ = write!(out, "<h2>Closure of the gap: {}</h2>", escape(&heading));
            out.push_str(&chart(gaps));
            let _ = write!(out, "<div class=\"scroll\"><table>{}", row("th", &header));
            rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
            out.push_str("</table></div>");
            for note in gaps.notes() {
                let _ = write!(out, "<p class=\"note\">{}.</p>", escape(&note));
            }
        }
    }
    out
}

/// A dot of an arm: a task that is averaged, one that is not, or the average.
struct Dot<'a> {
    /// What it is about.
    of: &'a str,
    mark: Mark,
    closure: &'a Over,
}

#[derive(Clone, Copy)]
enum Mark {
    /// A task, by its colour.
    Task(usize),
    /// The same of an unseen one.
    Unseen(usize),
    /// The average over tasks.
    Mean,
}

/// The dots of an arm, from top to bottom.
fn dots<'a>(gaps: &'a Gaps, at: usize) -> Vec<Dot<'a>> {
    let one = |mark, of: &'a str, arm: &'a ArmGap| Some(Dot { of, mark, closure: arm.closure.as_ref()? });
    let seen = gaps.tasks.len();
    let tasks = gaps.tasks.iter().enumerate();
    let tasks = tasks.filter_map(|(color, task)| one(Mark::Task(color % COLORS), &task.task, task.arm(at)));
    let mean = gaps.averages[at].closure.as_ref().filter(|_| seen > 1);
    let mean = mean.map(|closure| Dot { of: "mean over tasks", mark: Mark::Mean, closure });
    let unseen = gaps.unseen.iter().enumerate();
    let unseen = unseen
        .filter_map(|(color, task)| one(Mark::Unseen((seen + color) % COLORS), &task.task, task.arm(at)));
    tasks.chain(mean).chain(unseen).collect()
}

/// Closures with their intervals, an arm a row, between the floor at 0 and the ceiling at 1; nothing if nothing was divided.
fn chart(gaps: &Gaps) -> String {
    let between = 1..gaps.averages.len().saturating_sub(1);
    let arms: Vec<(&str, Vec<Dot<'_>>)> =
        between.map(|at| (gaps.averages[at].arm.as_str(), dots(gaps, at))).collect();
    let all = || arms.iter().flat_map(|(_, dots)| dots);
    if all().next().is_none() {
        return String::new();
    }
    let most = arms.iter().map(|(_, dots)| dots.len()).max().unwrap_or(1) as f64;
    let height_of_row = ROW + STEP * most;
    let longest = arms.iter().map(|(arm, _)| arm.chars().count()).max().unwrap_or(0) as f64;
    let left = (longest * LETTER + 14.0).min(WIDTH / 2.0);
    let bottom = TOP + arms.len() as f64 * height_of_row;
    let height = bottom + BOTTOM;
    let (low, high) = all().fold((0.0f64, 1.0f64), |(low, high), dot| {
        (low.min(dot.closure.band.low), high.max(dot.closure.band.high))
    });
    let range = (low - 0.04 * (high - low), high + 0.04 * (high - low));
    let px = |x: f64| left + (x - range.0) / (range.1 - range.0) * (WIDTH - left - RIGHT);
    let title = format!("share of the gap from {} to {} that is closed", gaps.floor, gaps.ceiling);
    let title = escape(&title);
    let mut out = format!(
        r#"{}<figure class="wide"><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">"#,
        keys(gaps)
    );
    for tick in ticks(range, 6.0) {
        let x = px(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{x:.1} {TOP}V{bottom:.1}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            label(tick)
        );
    }
    for (x, name) in [(0.0, &gaps.floor), (1.0, &gaps.ceiling)] {
        let _ = write!(
            out,
            r#"<path class="goal" d="M{0:.1} {TOP}V{bottom:.1}"/><text class="name" x="{0:.1}" y="{1:.1}" text-anchor="middle">{2}</text>"#,
            px(x),
            TOP - 9.0,
            escape(name)
        );
    }
    for (place, (arm, dots)) in arms.iter().enumerate() {
        let middle = TOP + (place as f64 + 0.5) * height_of_row;
        let _ = write!(
            out,
            r#"<text class="arm" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 10.0,
            middle + 4.5,
            escape(arm)
        );
        for (index, dot) in dots.iter().enumerate() {
            let y = middle + (index as f64 - (dots.len() - 1) as f64 / 2.0) * STEP;
            out.push_str(&drawn(arm, dot, y, &px));
        }
    }
    let _ = write!(
        out,
        r#"<path class="axis" d="M{left:.1} {bottom:.1}H{:.1}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">share closed, {}</text></svg></figure>"#,
        WIDTH - RIGHT,
        (left + WIDTH - RIGHT) / 2.0,
        height - 6.0,
        match gaps.seeds.len() {
            1 => "one seed".to_owned(),
            seeds => format!("means over {seeds} seeds with 95 % intervals"),
        }
    );
    out
}

/// A mark with its interval.
fn drawn(arm: &str, dot: &Dot<'_>, y: f64, px: &dyn Fn(f64) -> f64) -> String {
    let band = dot.closure.band;
    let (low, x, high) = (px(band.low), px(band.mean), px(band.high));
    let title = format!("{}, {}: {:.3} ({:.3} to {:.3})", arm, dot.of, band.mean, band.low, band.high);
    let title = escape(&title);
    let (whisker, mark) = match dot.mark {
        Mark::Task(color) => (
            format!("line c{color}"),
            format!(
                r#"<circle class="dot c{color}" cx="{x:.1}" cy="{y:.1}" r="4.5"><title>{title}</title></circle>"#
            ),
        ),
        Mark::Unseen(color) => (
            format!("line c{color}"),
            format!(
                r#"<circle class="open line c{color}" cx="{x:.1}" cy="{y:.1}" r="4"><title>{title}</title></circle>"#
            ),
        ),
        Mark::Mean => (
            "mean".to_owned(),
            format!(
                r#"<path class="mean" d="M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"><title>{title}</title></path>"#,
                y - 5.5
            ),
        ),
    };
    format!(r#"<path class="whisker {whisker}" d="M{low:.1} {y:.1}H{high:.1}"/>{mark}"#)
}

/// What the marks mean.
fn keys(gaps: &Gaps) -> String {
    let seen = gaps.tasks.len();
    let mut names: Vec<(String, usize)> =
        gaps.tasks.iter().enumerate().map(|(at, task)| (task.task.clone(), at % COLORS)).collect();
    let unseen = gaps.unseen.iter().enumerate();
    names.extend(unseen.map(|(at, task)| (format!("{} (unseen, hollow)", task.task), (seen + at) % COLORS)));
    let mean = match seen {
        1 => "",
        _ => "<span><i class=\"key mean\"></i>mean over tasks</span>",
    };
    legend(&names).replace("</p>", &format!("{mean}</p>"))
}
