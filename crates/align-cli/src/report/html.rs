//! The page: tables, charts and completions of one or several runs.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::seeds::{MANY, mean_curve};
use super::svg::{self, Series, escape};
use super::{bilevel, claims, factors, fusion, gaps, overoptimization, panel, soup};
use crate::results::{Run, Trace};
use crate::stages::Comparison;

/// What is drawn of a training, by metric and heading; whatever a training does not report is left out.
const CURVES: &[(&str, &str)] = &[
    ("loss", "loss (nats a token, or a pair)"),
    ("eval/loss", "held-out loss"),
    ("accuracy", "accuracy on pairs"),
    ("objective/scores", "proxy reward"),
    ("gold/score", "gold reward (logged, never trained on)"),
    ("nash/duality_gap", "duality gap, exact"),
    ("nash/win_rate_vs_reference", "win rate against the reference, held-out prompts"),
    ("nash/worst_win_rate", "worst win rate against reference and past policies"),
    ("rewards/accuracies", "share of pairs in the right order"),
    ("rewards/margins", "implicit reward: chosen minus rejected"),
    ("nash/h_over_target", "how far a step went: h over its target"),
    ("clean/hyper_gradient", "hyper-gradient of the weights, estimated"),
    ("clean/effective_sample_size", "effective sample size of the weights"),
    ("clean/auc", "AUC of the weights against flipped labels"),
    ("superhf/similarity", "METEOR between answers to different prompts"),
    ("objective/kl", "KL to the reference (nats a response)"),
    ("regularizer/sqrt_chi_squared", "√χ² of whole responses"),
    ("ensemble/mean", "mean of the reward's members"),
    ("ensemble/min", "the reward's worst member, answer by answer"),
    ("ensemble/variance", "variance between the reward's members"),
    ("occupancy/correlation", "correlation of proxy and gold"),
    ("objective/rlhf_reward", "reward minus penalty"),
    ("response_length/mean", "length (tokens)"),
    ("val/stop_token_rate", "share of responses that stop"),
    ("policy/entropy_avg", "entropy (nats a token)"),
    ("critic/vf_explained_var", "critic: explained variance"),
    ("policy/clipfrac_avg", "share of clipped ratios"),
    ("training/rollout_probs_diff_max", "largest gap of sampler and trainer"),
];

/// Colours there are in the style sheet.
pub(super) const COLORS: usize = 8;

const STYLE: &str = "
:root{--bg:#fbfaf8;--fg:#1d2126;--dim:#667080;--line:#dcdfe4;--card:#fff;
--c0:#2563a8;--c1:#c2571a;--c2:#2e7d4f;--c3:#8b3fa0;--c4:#a8912a;--c5:#c23b5c;--c6:#3a8f95;--c7:#6b6f76}
@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e8e9eb;--dim:#98a2af;--line:#323841;--card:#1c2026;
--c0:#6ea8e8;--c1:#f0935a;--c2:#6fc392;--c3:#c78adb;--c4:#d9c35f;--c5:#ef7f9a;--c6:#74c5cb;--c7:#a3a8b0}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:1.2rem 1rem 4rem}h1{font-size:1.6rem;margin:.2em 0}
h2{font-size:1.2rem;margin:2.2em 0 .6em;border-bottom:1px solid var(--line);padding-bottom:.3em}h3{font-size:1rem;margin:1.4em 0 .4em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35em .9em .35em 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:600}th:first-child,td:first-child{text-align:left}small,.note{color:var(--dim)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem}
figcaption{font-size:.9rem;font-weight:600;margin-bottom:.2rem}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}.tick,.name{fill:var(--dim);font-size:12px}
.band{opacity:.13}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.key{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em}
.legend span{display:inline-block;margin-right:1.2em}.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,260px),1fr));gap:.7rem}
.sample{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem;white-space:pre-wrap;overflow-wrap:anywhere}
.sample b{display:block}.prompt{white-space:pre-wrap;overflow-wrap:anywhere;font-weight:600}
details pre{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;font-size:.85rem}
";

/// The whole page.
pub(super) fn page(runs: &[Run]) -> String {
    let title = runs.iter().map(|run| run.title.as_str()).collect::<Vec<_>>().join(" · ");
    let mut body = gaps::section(runs);
    for run in runs {
        for (stage, comparison) in &run.comparisons {
            let heading = if runs.len() > 1 { format!("{}: {stage}", run.title) } else { stage.clone() };
            let _ = write!(body, "<h2>{}</h2>{}", escape(&heading), comparison_section(comparison));
        }
    }
    body.push_str(&soup::section(runs));
    body.push_str(&bilevel::section(runs));
    body.push_str(&factors::section(runs));
    body.push_str(&claims::section(runs));
    body.push_str(&overoptimization::section(runs));
    body.push_str(&panel::section(runs));
    body.push_str(&curves(runs));
    for run in runs {
        for (_, comparison) in &run.comparisons {
            body.push_str(&samples(comparison));
        }
    }
    body.push_str(&fusion::section(runs));
    for run in runs {
        body.push_str(&stages(run));
        if let Some(recipe) = &run.recipe {
            let _ = write!(
                body,
                "<details><summary>The recipe as it ran, defaults spelt out{}</summary><pre>{}</pre></details>",
                if runs.len() > 1 { format!(" ({})", escape(&run.title)) } else { String::new() },
                escape(recipe)
            );
        }
    }
    document(&title, &body)
}

/// A page from its title and what stands below it.
pub(super) fn document(title: &str, body: &str) -> String {
    let colors: String = (0..COLORS)
        .map(|c| format!(".line.c{c}{{stroke:var(--c{c})}}.band.c{c}{{fill:var(--c{c})}}.dot.c{c}{{fill:var(--c{c})}}.key.c{c}{{background:var(--c{c})}}\n"))
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{0}</title>\
         <style>{STYLE}{colors}{2}{3}{4}{5}{6}</style></head><body><main><h1>{0}</h1>\
         <p class=\"note\">align {1}</p>{body}</main></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION"),
        fusion::STYLE,
        gaps::STYLE,
        soup::STYLE,
        factors::STYLE,
        bilevel::STYLE
    )
}

/// A row of a table, of headings (`th`) or of cells (`td`).
pub(super) fn row(kind: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<{kind}>{}</{kind}>", escape(cell))).collect();
    format!("<tr>{cells}</tr>")
}

/// The table of a comparison, and its rewards against the distances travelled.
fn comparison_section(comparison: &Comparison) -> String {
    let columns = comparison.columns();
    let arms = comparison.by_arm();
    let mut out = String::from("<div class=\"scroll\"><table><tr><th>arm</th><th>seeds</th>");
    for (_, heading) in &columns {
        let _ = write!(out, "<th>{}</th>", escape(heading));
    }
    out.push_str("</tr>");
    for (arm, results) in &arms {
        let _ = write!(out, "<tr><td>{}</td><td>{}</td>", escape(arm), results.len());
        for (name, _) in &columns {
            match comparison.figure(results, name) {
                Some(spread) => {
                    let text = spread.show(comparison.z);
                    let (mean, interval) = text.split_once(' ').unwrap_or((&text, ""));
                    let _ = write!(out, "<td>{mean} <small>{interval}</small></td>");
                }
                None => out.push_str("<td>–</td>"),
            }
        }
        out.push_str("</tr>");
    }
    let _ = write!(
        out,
        "</table></div><p class=\"note\">{} held-out prompts; ± is {} standard errors, over seeds where there are several, \
         else over prompts. Computed from the final weights; KL in nats a response, exact over the vocabulary at every token drawn{}.</p>",
        comparison.prompts,
        comparison.z,
        if columns.iter().any(|(name, _)| name == "nll") {
            "; nll in nats a token of the right answers"
        } else {
            ""
        }
    );
    let rewards = [("gold", "gold reward"), ("reward", "proxy reward")];
    let mut charts = String::new();
    for anchor in &comparison.anchors {
        let kl = format!("kl/{anchor}");
        for (reward, heading) in rewards {
            let series = frontier(comparison, &arms, &kl, reward);
            if series.iter().any(|series| !series.points.is_empty()) {
                let x = format!("KL to {anchor} (nats a response)");
                charts.push_str(&svg::scatter(
                    &format!("{heading} against KL to {anchor}"),
                    &x,
                    heading,
                    &series,
                ));
            }
        }
    }
    if !charts.is_empty() {
        let names: Vec<_> =
            arms.iter().enumerate().map(|(index, (arm, _))| ((*arm).to_owned(), index % COLORS)).collect();
        let _ = write!(out, "{}<div class=\"charts\">{charts}</div>", svg::legend(&names));
    }
    out
}

/// One point per model.
fn frontier(
    comparison: &Comparison,
    arms: &[(&str, Vec<&crate::stages::ArmResult>)],
    kl: &str,
    reward: &str,
) -> Vec<Series> {
    arms.iter()
        .enumerate()
        .map(|(index, (arm, results))| Series {
            name: (*arm).to_owned(),
            color: index % COLORS,
            points: results
                .iter()
                .filter_map(|result| {
                    let half = comparison.z * result.errors.get(reward)?;
                    Some((*result.means.get(kl)?, *result.means.get(reward)?, half))
                })
                .collect(),
        })
        .collect()
}

/// Curves per step: charts for every form of training and for everything that varies between stages.
fn curves(runs: &[Run]) -> String {
    let mut out = String::new();
    let reinforcement = |trace: &Trace| {
        ["objective/scores", "nash/h", "oracle/calls"].iter().any(|name| trace.series.contains_key(*name))
    };
    for (heading, rl) in
        [("Learning from own answers, step by step", true), ("Learning from data, step by step", false)]
    {
        let mut groups: Vec<(&str, Vec<(String, &Trace)>)> = Vec::new();
        for run in runs {
            for trace in run.traces.iter().filter(|trace| reinforcement(trace) == rl) {
                let name = if runs.len() > 1 {
                    format!("{}: {}", run.title, trace.stage)
                } else {
                    trace.stage.clone()
                };
                let varied = run.varied.get(&trace.stage).map_or("", String::as_str);
                match groups.iter_mut().find(|(known, _)| *known == varied) {
                    Some((_, traces)) => traces.push((name, trace)),
                    None => groups.push((varied, vec![(name, trace)])),
                }
            }
        }
        if groups.is_empty() {
            continue;
        }
        let _ = write!(out, "<h2>{heading}</h2>");
        let folded = groups.len() > 1;
        for (varied, traces) in &groups {
            let charts = step_charts(traces);
            // What does not vary is what the rest is held against: it stays open.
            let _ = match folded && !varied.is_empty() {
                true => write!(out, "<details><summary>{}</summary>{charts}</details>", escape(varied)),
                false => write!(out, "{charts}"),
            };
        }
    }
    out
}

/// Trainings on the same charts. One keeps its colour through all of them; seeds of a stage share one.
fn step_charts(traces: &[(String, &Trace)]) -> String {
    let mut stages: Vec<(String, Vec<&Trace>)> = Vec::new();
    for (name, trace) in traces {
        match stages.iter_mut().find(|(known, _)| known == name) {
            Some((_, seeds)) => seeds.push(trace),
            None => stages.push((name.clone(), vec![trace])),
        }
    }
    let names: Vec<(String, usize)> =
        stages.iter().enumerate().map(|(at, (name, _))| (name.clone(), at % COLORS)).collect();
    let charts: String =
        CURVES.iter().filter_map(|(metric, heading)| curve(metric, heading, &stages)).collect();
    let note = match stages.iter().map(|(_, seeds)| seeds.len()).max().unwrap_or(1) {
        1 => "",
        seeds if seeds < MANY => "<p class=\"note\">One line per seed.</p>",
        _ => "<p class=\"note\">Means over seeds with 95 % intervals.</p>",
    };
    format!("{}{note}<div class=\"charts\">{charts}</div>", svg::legend(&names))
}

fn curve(metric: &str, heading: &str, stages: &[(String, Vec<&Trace>)]) -> Option<String> {
    let mut series: Vec<Series> = Vec::new();
    for (at, (name, seeds)) in stages.iter().enumerate() {
        let color = at % COLORS;
        let curves: Vec<Vec<(f64, f64)>> =
            seeds.iter().filter_map(|trace| trace.series.get(metric).cloned()).collect();
        match curves.len() {
            0 => {}
            MANY.. => series.push(Series { name: name.clone(), color, points: mean_curve(&curves) }),
            _ => series.extend(seeds.iter().zip(curves).map(|(trace, points)| {
                let seed = trace.seed.as_ref().map(|seed| format!(" seed {seed}")).unwrap_or_default();
                Series {
                    name: format!("{}{seed}", trace.stage),
                    color,
                    points: points.into_iter().map(|(step, value)| (step, value, 0.0)).collect(),
                }
            })),
        }
    }
    let drawable = series.iter().any(|series| series.points.len() > 1);
    drawable.then(|| svg::bands(heading, "step", &series))
}

fn samples(comparison: &Comparison) -> String {
    if comparison.samples.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h2>Completions side by side</h2>");
    for sample in &comparison.samples {
        let _ =
            write!(out, "<h3 class=\"prompt\">{}</h3><div class=\"samples\">", escape(sample.prompt.trim()));
        for (arm, completion, gold, reward) in &sample.completions {
            let figures: BTreeMap<&str, f64> = [("gold", *gold), ("proxy", *reward)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let figures: Vec<String> =
                figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
            let _ = write!(
                out,
                "<div class=\"sample\"><b>{} <small>{}</small></b>{}</div>",
                escape(arm),
                figures.join(", "),
                escape(completion.trim())
            );
        }
        out.push_str("</div>");
    }
    out
}

fn stages(run: &Run) -> String {
    if run.stages.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<h2>Stages{}</h2><div class=\"scroll\"><table><tr><th>stage</th><th>kind</th><th>seconds</th><th></th></tr>",
        if run.title.is_empty() { String::new() } else { format!(" of {}", escape(&run.title)) }
    );
    for (name, done) in &run.stages {
        let figures: Vec<String> = done
            .summary
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some(format!("{} {}", name.replace('_', " "), short(value)?)))
            .collect();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td></tr>",
            escape(name),
            escape(&done.kind),
            done.seconds,
            escape(&figures.join(", "))
        );
    }
    out.push_str("</table></div>");
    out
}

fn short(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => Some(format!("{:.3}", number.as_f64()?)),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(values) => {
            Some(values.iter().map(short).collect::<Option<Vec<_>>>()?.join("/"))
        }
        _ => None,
    }
}
