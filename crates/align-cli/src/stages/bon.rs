//! Best-of-n: N answers a prompt, the best by every way of judging, and what the best of n is worth for all n up to N.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use align_core::draws::{Draws, Purpose};
use align_core::persist::replace_file;
use align_core::{Completions, Reward};
use align_models::{GenerateOptions, Generated, Prompt, SamplingConfig, generate};
use align_reward::best_of_n::{Ranking, kl, win_rate};
use align_reward::overoptimization::{Band, Bands, Fit, Form, drop};
use align_reward::{Aggregate, MemberScores, finite_scores};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answers::{completions, sampling_for};
use super::{read_json, write_json};
use crate::context::Context;
use crate::data;
use crate::judge::{Judge, judge};
use crate::language_model::OpenModel;
use crate::progress::rows_bar;
use crate::recipe::stage::BonStage;
use crate::table::table;

/// The curves, in the stage's folder.
pub(crate) const RESULTS: &str = "best_of_n.json";
/// Every score of every answer, a prompt a line.
const SCORES: &str = "scores.jsonl";
/// Every point of every curve.
const CURVES: &str = "curves.csv";
/// The answers that were best.
const BEST: &str = "best.jsonl";
/// What the mean over an ensemble's members, each on its own, is called.
const SINGLE: &str = "single";

/// What came of a sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BestOfN {
    /// How many prompts were answered.
    pub(crate) prompts: usize,
    /// How often each.
    pub(crate) answers: usize,
    /// Over how many seeds the figures are means; intervals are over them if there are several.
    #[serde(default = "one")]
    pub(crate) seeds: usize,
    /// One curve for each way of judging.
    pub(crate) selectors: Vec<Selector>,
}

fn one() -> usize {
    1
}

/// The curve of one way of judging.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Selector {
    /// `mean`, `WCO`, `UWO 0.5`, or `single`: the mean over members that judge alone.
    pub(crate) name: String,
    /// Points by rising n.
    pub(crate) points: Vec<Point>,
    /// How far gold has fallen at N from its highest point; none without gold.
    pub(crate) drop: Option<f64>,
    /// Where gold is highest.
    pub(crate) peak_n: Option<usize>,
    /// `d(α − βd)` through gold less its start, over d = √KL.
    pub(crate) fit: Option<Fit>,
    /// The share of answers whose score another answer has too, a mean over prompts.
    pub(crate) tied: f64,
    /// The chance that the best of N by this one has the higher gold than the best of N by one member, a mean over members
    /// and prompts.
    pub(crate) win_rate: Option<f64>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) n: usize,
    /// `log n − (n−1)/n`, nats.
    pub(crate) kl: f64,
    /// What is selected by.
    pub(crate) proxy: Band,
    /// What was meant.
    pub(crate) gold: Option<Band>,
}

/// All scores of the answers to one prompt: a line of the file of scores.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PromptScores {
    /// The prompt's text, for reading.
    #[serde(default)]
    prompt: String,
    /// One list a member, or one list alone.
    #[serde(alias = "proxy", deserialize_with = "one_or_many")]
    members: Vec<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gold: Option<Vec<f64>>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<f64>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Many(Vec<Vec<f64>>),
        One(Vec<f64>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Many(members) => members,
        Form::One(scores) => vec![scores],
    })
}

pub(super) fn run(name: &str, stage: &BonStage, folder: &Path, context: &Context) -> Result<Value> {
    let (path, own) = match (&stage.scores, &stage.sample) {
        (Some(scores), None) => (data::resolve(scores, context)?, None),
        (None, Some(sample)) => {
            let aggregate = sample_scores(name, stage, sample, folder, context)?;
            (folder.join(SCORES), aggregate)
        }
        _ => bail!(
            "`{name}` needs either `scores`, a file of scores, or `[sample]`, what to draw answers with"
        ),
    };
    let sweep = Sweep::read(&path, stage, own, context)?;
    let result = sweep.finish();
    write_json(&folder.join(RESULTS), &result)?;
    replace_file(&folder.join(CURVES), |file| write_curves(file, &sweep))?;
    println!("\n{}", result.table());
    let summary: BTreeMap<&str, Option<f64>> = result
        .selectors
        .iter()
        .map(|selector| (selector.name.as_str(), selector.points.last().and_then(|p| Some(p.gold?.mean))))
        .collect();
    Ok(json!({ "prompts": result.prompts, "answers": result.answers, "gold": summary }))
}

/// Draws and scores the answers, a prompt at a time; gives the ensemble's own way of judging.
fn sample_scores(
    name: &str,
    stage: &BonStage,
    sample: &crate::recipe::stage::BonSample,
    folder: &Path,
    context: &Context,
) -> Result<Option<Aggregate>> {
    let model = context.language_model(&sample.model)?;
    let encoder = model.encoder(sample.encode.options(model.lm.context_length()))?;
    let prompts = data::prompts(&sample.prompts, &encoder, context)?;
    let reward = Judge::find(&sample.reward, None, &encoder, &prompts, context)?;
    let gold =
        sample.gold.as_deref().map(|gold| judge(gold, None, &encoder, &prompts, context)).transpose()?;
    let sampling = sampling_for(&sample.sampling, &encoder);
    let choice = match &reward {
        Judge::Many(ensemble) => Some(ensemble.aggregate()),
        Judge::One(_) | Judge::Remote(_) | Judge::Foreign(_) | Judge::World(_) => None,
    };
    let selector = stage.aggregates.first().copied().or(choice).unwrap_or_default();
    let bench = Bench {
        model: &model,
        sampling: &sampling,
        reward: &reward,
        gold: gold.as_deref(),
        microbatch: sample.microbatch.max(1),
        seed: stage.seed,
    };
    let (scores_path, best_path) = (folder.join(SCORES), folder.join(BEST));
    // A line is whole or is drawn again: prompts are keyed by their place.
    let done = match context.resume {
        true => whole_lines(&scores_path)?.min(whole_lines(&best_path)?),
        false => 0,
    };
    let (mut scores, mut best) = (append_after(&scores_path, done)?, append_after(&best_path, done)?);
    let bar = rows_bar(name, prompts.ids.len() * sample.n);
    bar.inc((done * sample.n) as u64);
    for (place, prompt) in prompts.ids.iter().enumerate().skip(done) {
        context.check_interrupt()?;
        let answers = bench.answers(place, prompt, sample.n)?;
        let found = bench.score(&answers, encoder.decode(prompt)?)?;
        let one = MemberScores::new(found.members.clone())?.aggregate(&selector);
        let winner = (0..one.len()).max_by(|&a, &b| one[a].total_cmp(&one[b])).expect("n is at least 1");
        let row = json!({
            "prompt": found.prompt,
            "completion": encoder.decode(&answers[winner].response)?,
            "score": one[winner],
            "gold": found.gold.as_ref().map(|gold| gold[winner]),
        });
        writeln!(best, "{row}")?;
        writeln!(scores, "{}", serde_json::to_string(&found)?)?;
        best.flush()?;
        scores.flush()?;
        bar.inc(sample.n as u64);
    }
    bar.finish_and_clear();
    Ok(choice)
}

/// How many whole lines a file has; a line that was cut off is none. 0 without a file.
fn whole_lines(path: &Path) -> Result<usize> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(text) => Ok(text.matches('\n').count()),
    }
}

/// Cuts a file after so many lines and opens it for more.
fn append_after(path: &Path, lines: usize) -> Result<BufWriter<File>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let kept: String = text.split_inclusive('\n').take(lines).collect();
    replace_file(path, |file| file.write_all(kept.as_bytes()))?;
    let file = OpenOptions::new().append(true).open(path);
    Ok(BufWriter::new(file.with_context(|| format!("cannot write {}", path.display()))?))
}

/// What answers are drawn and scored with.
struct Bench<'a> {
    model: &'a OpenModel,
    sampling: &'a SamplingConfig,
    reward: &'a Judge,
    gold: Option<&'a dyn Reward>,
    microbatch: usize,
    seed: u64,
}

impl Bench<'_> {
    /// n answers to one prompt.
    fn answers(&self, place: usize, prompt: &[u32], n: usize) -> Result<Vec<Generated>> {
        let options = GenerateOptions {
            purpose: Purpose::Evaluate,
            samples: n,
            slots: self.microbatch,
            ..GenerateOptions::new(self.sampling, Draws::new(self.seed))
        };
        let prompt = Prompt { key: place as u64, ids: prompt.to_vec() };
        let generation = generate(&*self.model.lm, std::slice::from_ref(&prompt), &options);
        let generation = self.model.explained(generation);
        Ok(generation.with_context(|| format!("cannot answer prompt {}", place + 1))?.rows)
    }

    /// Every score of every answer, in the answers' order.
    fn score(&self, answers: &[Generated], prompt: String) -> Result<PromptScores> {
        let device = self.model.lm.device();
        let batches: Vec<Completions> =
            answers.chunks(self.microbatch).map(|chunk| completions(chunk, &device)).collect();
        let members = match self.reward {
            Judge::Many(ensemble) => {
                let mut members = vec![Vec::new(); ensemble.members().members().len()];
                for batch in &batches {
                    let found = ensemble.member_scores(batch)?;
                    members.iter_mut().zip(found.members()).for_each(|(all, new)| all.extend(new));
                }
                members
            }
            one => match (finite_scores(one, &batches), one.take_failure()) {
                (Ok(scores), _) => vec![scores],
                (Err(error), None) => return Err(error.into()),
                (Err(_), Some(failure)) => bail!("{failure}"),
            },
        };
        let gold = self.gold.map(|gold| finite_scores(gold, &batches)).transpose()?;
        Ok(PromptScores { prompt, members, gold })
    }
}

/// Curves of every way of judging, summed over prompts as they are read.
struct Sweep {
    prompts: usize,
    answers: usize,
    selectors: Vec<Summed>,
}

struct Summed {
    name: String,
    proxy: Bands,
    gold: Bands,
    tied: f64,
    wins: f64,
}

/// How a selector picks.
enum Pick {
    Aggregate(Aggregate),
    /// Every member by itself, averaged.
    Single,
}

impl Sweep {
    /// Reads a file of scores a line at a time: memory is of the order of one prompt's answers.
    fn read(path: &Path, stage: &BonStage, own: Option<Aggregate>, context: &Context) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut sweep: Option<(Self, Vec<Pick>)> = None;
        let mut has_gold = None;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            context.check_interrupt()?;
            let place = || format!("cannot use row {} of {}", index + 1, path.display());
            let line = line.with_context(place)?;
            let row: PromptScores = serde_json::from_str(&line).with_context(place)?;
            let members = MemberScores::new(row.members).with_context(place)?;
            if let Some(gold) = &row.gold {
                if gold.len() != members.rows() {
                    bail!("{}: expected {} gold scores, found {}", place(), members.rows(), gold.len());
                }
                if let Some(at) = gold.iter().position(|score| !score.is_finite()) {
                    bail!("{}: gold score {at} is {}, expected a finite number", place(), gold[at]);
                }
            }
            if *has_gold.get_or_insert(row.gold.is_some()) != row.gold.is_some() {
                bail!("{}: expected gold scores in every row or in none", place());
            }
            let (sweep, picks) = sweep.get_or_insert_with(|| {
                let picks = picks(stage, own, members.members().len());
                (Self::new(&picks, members.rows()), picks)
            });
            if members.rows() != sweep.answers {
                bail!(
                    "{}: expected {} answers as in row 1, found {}",
                    place(),
                    sweep.answers,
                    members.rows()
                );
            }
            sweep.add(picks, &members, row.gold.as_deref()).with_context(place)?;
        }
        match sweep {
            Some((sweep, _)) => Ok(sweep),
            None => bail!("{} holds no scores, expected at least one row", path.display()),
        }
    }

    fn new(picks: &[Pick], answers: usize) -> Self {
        let summed = |pick: &Pick| Summed {
            name: match pick {
                Pick::Aggregate(aggregate) => aggregate.label(),
                Pick::Single => SINGLE.to_owned(),
            },
            proxy: Bands::default(),
            gold: Bands::default(),
            tied: 0.0,
            wins: 0.0,
        };
        Self { prompts: 0, answers, selectors: picks.iter().map(summed).collect() }
    }

    fn add(&mut self, picks: &[Pick], members: &MemberScores, gold: Option<&[f64]>) -> Result<()> {
        let alone: Vec<Ranking> =
            members.members().iter().map(|scores| Ranking::new(scores)).collect::<Result<_, _>>()?;
        let n = self.answers;
        for (summed, pick) in self.selectors.iter_mut().zip(picks) {
            match pick {
                Pick::Aggregate(aggregate) => {
                    let one = members.aggregate(aggregate);
                    let ranking = Ranking::new(&one)?;
                    summed.proxy.add(&ranking.curve(&one));
                    summed.tied += ranking.tied_share();
                    if let Some(gold) = gold {
                        summed.gold.add(&ranking.curve(gold));
                        let rates: Vec<f64> = alone
                            .iter()
                            .map(|member| win_rate(&ranking, member, gold, n))
                            .collect::<Result<_, _>>()?;
                        summed.wins += rates.iter().sum::<f64>() / rates.len() as f64;
                    }
                }
                Pick::Single => {
                    let own: Vec<_> =
                        alone.iter().zip(members.members()).map(|(r, scores)| r.curve(scores)).collect();
                    summed.proxy.add(&averaged(&own));
                    summed.tied += alone.iter().map(Ranking::tied_share).sum::<f64>() / alone.len() as f64;
                    if let Some(gold) = gold {
                        let own: Vec<_> = alone.iter().map(|ranking| ranking.curve(gold)).collect();
                        summed.gold.add(&averaged(&own));
                        summed.wins += 0.5;
                    }
                }
            }
        }
        self.prompts += 1;
        Ok(())
    }

    fn finish(&self) -> BestOfN {
        let ns = grid(self.answers);
        let selectors = self
            .selectors
            .iter()
            .map(|summed| {
                let (proxy, gold) = (summed.proxy.bands(), summed.gold.bands());
                let points: Vec<Point> = ns
                    .iter()
                    .map(|&n| Point { n, kl: kl(n), proxy: proxy[n - 1], gold: gold.get(n - 1).copied() })
                    .collect();
                let means: Vec<f64> = gold.iter().map(|band| band.mean).collect();
                let prompts = self.prompts as f64;
                Selector {
                    name: summed.name.clone(),
                    drop: (!means.is_empty()).then(|| drop(&means)),
                    peak_n: (0..means.len()).max_by(|&a, &b| means[a].total_cmp(&means[b])).map(|at| at + 1),
                    fit: fit(&points),
                    points,
                    tied: summed.tied / prompts,
                    win_rate: (!means.is_empty()).then(|| summed.wins / prompts),
                }
            })
            .collect();
        BestOfN { prompts: self.prompts, answers: self.answers, seeds: 1, selectors }
    }
}

/// `d(α − βd)` through gold less its start.
fn fit(points: &[Point]) -> Option<Fit> {
    let start = points.first()?.gold?.mean;
    let from_start: Option<Vec<(f64, f64)>> =
        points.iter().map(|point| Some((point.kl.sqrt(), point.gold?.mean - start))).collect();
    Form::BestOfN.fit(&from_start?)
}

/// The recipe's ways of judging, or the ensemble's own; of several members each alone as well, to compare with.
fn picks(stage: &BonStage, own: Option<Aggregate>, members: usize) -> Vec<Pick> {
    let mut aggregates = stage.aggregates.clone();
    if aggregates.is_empty() {
        aggregates.push(own.unwrap_or_default());
    }
    let mut picks: Vec<Pick> = if members > 1 { vec![Pick::Single] } else { Vec::new() };
    // One judge is the same by every aggregate.
    let count = if members > 1 { aggregates.len() } else { 1 };
    picks.extend(aggregates.into_iter().take(count).map(Pick::Aggregate));
    picks
}

/// The mean of curves.
fn averaged(curves: &[Vec<f64>]) -> Vec<f64> {
    (0..curves[0].len()).map(|at| curves.iter().map(|c| c[at]).sum::<f64>() / curves.len() as f64).collect()
}

/// Numbers from 1 to `last` about evenly spaced on a logarithmic scale, powers of two and their middles.
fn grid(last: usize) -> Vec<usize> {
    let mut ns: Vec<usize> = (0..usize::BITS)
        .flat_map(|power| {
            let base = 1_usize << power;
            [base, base + base / 4, base + base / 2, base + base / 4 * 3]
        })
        .take_while(|n| *n < last)
        .chain([last])
        .collect();
    ns.sort_unstable();
    ns.dedup();
    ns
}

/// Every n, one line a selector and n.
fn write_curves(file: &mut impl Write, sweep: &Sweep) -> std::io::Result<()> {
    writeln!(file, "selector,n,kl,proxy,proxy_low,proxy_high,gold,gold_low,gold_high")?;
    for summed in &sweep.selectors {
        let (proxy, gold) = (summed.proxy.bands(), summed.gold.bands());
        for (at, band) in proxy.iter().enumerate() {
            write!(file, "{},{},{}", summed.name, at + 1, kl(at + 1))?;
            write!(file, ",{},{},{}", band.mean, band.low, band.high)?;
            match gold.get(at) {
                Some(gold) => writeln!(file, ",{},{},{}", gold.mean, gold.low, gold.high)?,
                None => writeln!(file, ",,,")?,
            }
        }
    }
    Ok(())
}

impl BestOfN {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// The sweeps of several seeds as one: means over seeds, intervals over them. Selectors that not all have are left out.
    pub(crate) fn over_seeds(seeds: &[Self]) -> Option<Self> {
        let first = seeds.first()?;
        if seeds.len() == 1 {
            return Some(first.clone());
        }
        let merged = |selector: &Selector| {
            let same: Vec<&Selector> =
                seeds.iter().filter_map(|sweep| sweep.selector(&selector.name)).collect();
            let ends = same.iter().map(|s| s.points.len()).min()?;
            let complete = same.len() == seeds.len();
            let points: Vec<Point> = (0..ends)
                .map(|at| {
                    let of = |value: &dyn Fn(&Point) -> Option<f64>| -> Option<Band> {
                        let values: Option<Vec<f64>> = same.iter().map(|s| value(&s.points[at])).collect();
                        values.map(|values| Band::of(&values))
                    };
                    let proxy = of(&|point| Some(point.proxy.mean))?;
                    Some(Point { proxy, gold: of(&|point| Some(point.gold?.mean)), ..selector.points[at] })
                })
                .collect::<Option<_>>()?;
            let gold: Vec<f64> = points.iter().filter_map(|point| Some(point.gold?.mean)).collect();
            let mean = |value: &dyn Fn(&Selector) -> Option<f64>| -> Option<f64> {
                let values: Option<Vec<f64>> = same.iter().map(|s| value(s)).collect();
                values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
            };
            let peak = (0..gold.len()).max_by(|&a, &b| gold[a].total_cmp(&gold[b]));
            complete.then(|| Selector {
                name: selector.name.clone(),
                drop: (!gold.is_empty()).then(|| drop(&gold)),
                peak_n: peak.map(|at| points[at].n),
                fit: fit(&points),
                tied: mean(&|s| Some(s.tied)).unwrap_or_default(),
                win_rate: mean(&|s| s.win_rate),
                points,
            })
        };
        Some(Self {
            prompts: first.prompts,
            answers: first.answers,
            seeds: seeds.len(),
            selectors: first.selectors.iter().filter_map(merged).collect(),
        })
    }

    /// The curve of one way of judging.
    pub(crate) fn selector(&self, name: &str) -> Option<&Selector> {
        self.selectors.iter().find(|selector| selector.name == name)
    }

    /// What the intervals are about.
    pub(crate) fn note(&self) -> String {
        let over = match self.seeds {
            1 => "prompts".to_owned(),
            seeds => format!("{seeds} seeds"),
        };
        format!("{} prompts, {} answers each; ± is a 95 % interval over {over}", self.prompts, self.answers)
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let has_gold = self.selectors.iter().any(|selector| selector.drop.is_some());
        let mut header = vec!["best by".to_owned(), format!("proxy at {}", self.answers)];
        if has_gold {
            header.extend(["gold at 1", "highest gold", "at n"].map(str::to_owned));
            header.extend([format!("gold at {}", self.answers), "drop".into(), "wins over one".into()]);
        }
        let band = |band: Band| format!("{:.3} ±{:.3}", band.mean, band.high - band.mean);
        let rows = self.selectors.iter().map(|selector| {
            let (first, last) = (selector.points[0], selector.points[selector.points.len() - 1]);
            let mut row = vec![selector.name.clone(), band(last.proxy)];
            if let (Some(start), Some(end), Some(drop), Some(peak)) =
                (first.gold, last.gold, selector.drop, selector.peak_n)
            {
                row.extend([band(start), format!("{:.3}", end.mean + drop), peak.to_string(), band(end)]);
                row.extend([
                    format!("{drop:.3}"),
                    format!("{:.1} %", 100.0 * selector.win_rate.unwrap_or(0.5)),
                ]);
            }
            row
        });
        (header, rows.collect())
    }

    fn table(&self) -> String {
        let (header, rows) = self.rows();
        format!("{}\n{}", table(&header, rows), self.note())
    }
}
