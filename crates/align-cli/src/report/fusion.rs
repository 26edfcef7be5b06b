//! Where the experts of a fusion speak: their weights drawn over the text, and how the weights are distributed.
//!
//! A token's hue is the expert that is heard there; its strength is the expert's weight, or on request how far the fused
//! distribution is from the base's. A weight says how much of an expert's shift is taken, not how large the shift is: where the
//! experts agree with their base both readings differ.

use std::fmt::Write;

use super::histogram::histogram;
use super::html::{document, row};
use super::svg::escape;
use crate::expert_weights::{Summary, WeighedText, WeighedToken};
use crate::results::Run;

/// Hues there are, told apart by colour-blind eyes too: Okabe and Ito 2008, without black and with the yellow last.
const HUES: usize = 7;

/// Answers drawn for each fusion.
const SHOWN: usize = 12;

/// How far the fused distribution is from the base's when a token has full strength, nats.
const FAR: f64 = 2.0;

pub(super) const STYLE: &str = "
:root{--x0:#0072b2;--x1:#d55e00;--x2:#009e73;--x3:#cc79a7;--x4:#e69f00;--x5:#56b4e9;--x6:#c9b800;--most:.62}
@media(prefers-color-scheme:dark){:root{--x0:#3d9fe0;--x1:#ea7a2c;--x2:#1fb58c;--x3:#d98bb6;--x4:#dd9c1f;--x5:#6fbcea;--x6:#c4b92e;--most:.5}}
.x0{--x:var(--x0)}.x1{--x:var(--x1)}.x2{--x:var(--x2)}.x3{--x:var(--x3)}.x4{--x:var(--x4)}.x5{--x:var(--x5)}.x6{--x:var(--x6)}
.weighed{display:grid;gap:.7rem;max-width:46rem}.answer{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem}
.given{color:var(--dim);font-size:.9rem}.given,.said{white-space:pre-wrap;overflow-wrap:anywhere}.said{line-height:2}
.t{--s:var(--w);border-radius:3px;padding:.18em 0;background:color-mix(in srgb,var(--x,transparent) calc(var(--s)*var(--most)*100%),transparent)}
.experts:has(.by-move:checked) .t{--s:var(--m)}
.t.bound{box-shadow:inset 0 -2px var(--x)}.t.against{text-decoration:underline wavy var(--x);text-underline-offset:.3em}
.t.skip{text-decoration:underline dotted var(--dim);text-underline-offset:.3em}
.keys{display:flex;flex-wrap:wrap;gap:.4rem 1.4rem;align-items:center;margin:.6rem 0 .9rem;font-size:.9rem}
.keys .ramp{display:inline-block;width:5.5em;height:.95em;border-radius:3px;vertical-align:-.1em;margin-right:.5em;border:1px solid var(--line);
background:linear-gradient(90deg,transparent,color-mix(in srgb,var(--x) calc(var(--most)*100%),transparent))}
.keys label{cursor:pointer;white-space:nowrap}.keys label+label{margin-left:.9em}.bar{fill:var(--x)}
";

/// A page of its own.
pub(crate) fn page(title: &str, texts: &[WeighedText]) -> String {
    document(title, &experts(texts, "explained"))
}

/// What the stages of runs kept of their fusions.
pub(super) fn section(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        for (stage, texts) in &run.weighed {
            let name = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.clone() };
            let _ =
                write!(out, "<h2>Where the experts speak: {}</h2>{}", escape(&name), experts(texts, &name));
        }
    }
    out
}

/// The table, the distribution of weights, the legend and the texts; `name` keeps the switches of several sections apart.
fn experts(texts: &[WeighedText], name: &str) -> String {
    let summaries = Summary::of(texts);
    let (header, rows) = Summary::rows(&summaries);
    let mut out = format!("<div class=\"scroll\"><table>{}", row("th", &header));
    rows.iter().for_each(|cells| out.push_str(&row("td", cells)));
    out.push_str(
        "</table></div><p class=\"note\">Heard: the share of tokens at which the expert's shift is the one applied, or has the \
         largest weight. At bound: the search would have gone on. Skipped: no expert had moved from its base, so that the base's \
         distribution stands. KL in nats a token.</p>",
    );
    // One hue an expert, whichever fusions it is part of.
    let mut names: Vec<&str> = Vec::new();
    for expert in texts.iter().flat_map(|text| &text.experts) {
        if !names.contains(&expert.as_str()) {
            names.push(expert);
        }
    }
    let hue = |expert: &str| names.iter().position(|known| *known == expert).unwrap_or(0) % HUES;
    let most = texts.iter().flat_map(|text| &text.tokens).flat_map(|token| &token.weights);
    let most = most.fold(0.0f64, |most, weight| most.max(weight.abs()));
    out.push_str(&histograms(&summaries, texts, &hue));
    let _ = write!(out, "<div class=\"experts\">{}", keys(&names, most, name));
    for summary in &summaries {
        if summaries.len() > 1 {
            let _ = write!(out, "<h3>{}</h3>", escape(&summary.fusion));
        }
        out.push_str("<div class=\"weighed\">");
        let own = texts.iter().filter(|text| text.fusion == summary.fusion);
        for text in own.take(SHOWN) {
            let _ = write!(
                out,
                "<div class=\"answer\"><div class=\"given\">{}</div><div class=\"said\">",
                escape(text.prompt.trim())
            );
            text.tokens.iter().for_each(|token| out.push_str(&said(token, &text.experts, &hue, most)));
            out.push_str("</div></div>");
        }
        out.push_str("</div>");
        if summary.answers > SHOWN {
            let _ = write!(out, "<p class=\"note\">The first {SHOWN} of {} answers.</p>", summary.answers);
        }
    }
    out.push_str("</div>");
    out
}

/// What hues and marks mean, and the switch between the two strengths.
fn keys(names: &[&str], most: f64, name: &str) -> String {
    let mut out = String::from("<div class=\"keys\">");
    for (at, expert) in names.iter().enumerate() {
        let _ = write!(
            out,
            "<span class=\"x{}\"><span class=\"ramp\"></span>{}</span>",
            at % HUES,
            escape(expert)
        );
    }
    let name = escape(name);
    let _ = write!(
        out,
        "<span><label><input type=\"radio\" name=\"{name}\" checked> weight, 0 to {}</label>\
         <label><input type=\"radio\" name=\"{name}\" class=\"by-move\"> KL to the base, 0 to {FAR} nats</label></span>\
         <span><span class=\"t bound\" style=\"--w:0;--m:0;--x:var(--dim)\">at the bound</span></span>\
         <span><span class=\"t skip\" style=\"--w:0;--m:0\">skipped</span></span>",
        number(most)
    );
    out.push_str("</div>");
    out
}

/// One token with its background and its numbers.
fn said(token: &WeighedToken, experts: &[String], hue: &dyn Fn(&str) -> usize, most: f64) -> String {
    let heard = token.heard();
    let mut classes = vec!["t".to_owned()];
    classes.extend(heard.map(|expert| format!("x{}", hue(&experts[expert]))));
    let weight = heard.map_or(0.0, |expert| token.weights[expert]);
    classes.extend(token.saturated.then(|| "bound".to_owned()));
    classes.extend(token.skipped.then(|| "skip".to_owned()));
    classes.extend((weight < 0.0).then(|| "against".to_owned()));
    let strength = |of: f64| (of.clamp(0.0, 1.0) * 100.0).round() / 100.0;
    let by_move = if heard.is_some() { token.f / FAR } else { 0.0 };
    format!(
        "<span class=\"{}\" style=\"--w:{};--m:{}\" title=\"{}\">{}</span>",
        classes.join(" "),
        strength(if most > 0.0 { weight.abs() / most } else { 0.0 }),
        strength(by_move),
        escape(&numbers(token, experts)),
        escape(&token.token)
    )
}

/// What a token shows under the pointer.
fn numbers(token: &WeighedToken, experts: &[String]) -> String {
    let weights: Vec<String> = experts
        .iter()
        .zip(&token.weights)
        .map(|(expert, weight)| format!("{expert} {}", number(*weight)))
        .collect();
    let known = |value: Option<f64>| value.map_or("∞".to_owned(), number);
    let mut lines = vec![format!("{:?}, token {}", token.token, token.id), weights.join(", ")];
    if token.skipped {
        lines.push("skipped: no expert had moved".into());
        return lines.join("\n");
    }
    lines.push(format!("from base to fusion {} nats, wanted {}", number(token.f), number(token.a)));
    lines.push(format!("and back {}, wanted {}", known(token.g), known(token.b)));
    lines.push(format!("loss {}{}", known(token.loss), if token.saturated { ", at the bound" } else { "" }));
    lines.join("\n")
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let text = match value.abs() {
        0.0 => return "0".into(),
        size if size < 0.001 => return format!("{value:.0e}"),
        size if size < 10.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The distribution of the weights that are heard, one chart a fusion, experts on top of one another.
fn histograms(summaries: &[Summary], texts: &[WeighedText], hue: &dyn Fn(&str) -> usize) -> String {
    let mut charts = String::new();
    for summary in summaries {
        let own = texts.iter().filter(|text| text.fusion == summary.fusion);
        let heard = own.flat_map(|text| {
            text.tokens.iter().filter_map(|token| Some((token.heard()?, token.weights[token.heard()?])))
        });
        let heard: Vec<(usize, f64)> = heard.collect();
        if heard.is_empty() {
            continue;
        }
        let classes: Vec<(String, String)> = summary
            .experts
            .iter()
            .map(|expert| (format!("x{}", hue(&expert.name)), expert.name.clone()))
            .collect();
        let title = match summaries.len() {
            1 => "weights that are heard".to_owned(),
            _ => format!("{}: weights that are heard", summary.fusion),
        };
        charts.push_str(&histogram(&title, "weight", "tokens", &heard, &classes));
    }
    format!("<div class=\"charts\">{charts}</div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expert_weights::tests::{text, token};

    #[test]
    fn strength_is_the_weight_and_hue_the_expert() {
        let page =
            page("t", &[text(vec![token("one", &[2.0, 0.0], Some(0)), token("two", &[0.0, 0.5], Some(1))])]);
        assert!(page.contains("class=\"t x0\" style=\"--w:1;--m:0.25\""), "{page}");
        assert!(page.contains("class=\"t x1\" style=\"--w:0.25;--m:0.25\""), "{page}");
        assert!(page.contains("sums 0, facts 0.5"), "{page}");
        assert!(page.contains("weight, 0 to 2<"), "{page}");
    }

    #[test]
    fn what_is_at_its_bound_skipped_or_against_an_expert_is_marked() {
        let bound = WeighedToken { saturated: true, ..token("a", &[2.0, 0.0], Some(0)) };
        let skipped = WeighedToken { skipped: true, ..token("b", &[1.0, 0.0], Some(0)) };
        let against = token("<c>", &[0.0, -1.0], None);
        let page = page("t", &[text(vec![bound, skipped, against])]);
        for part in [
            "\"t x0 bound\"",
            "\"t skip\" style=\"--w:0;--m:0\" title",
            "\"t x1 against\"",
            "&lt;c&gt;</span>",
        ] {
            assert!(page.contains(part), "expected `{part}` in:\n{page}");
        }
        assert!(!page.contains("NaN") && !page.contains("<c>"), "{page}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1.5, 0.1234, -2.0, 12.345, 0.00001].map(number);
        assert_eq!(shown, ["0", "1.5", "0.123", "-2", "12.3", "1e-5"]);
    }
}
