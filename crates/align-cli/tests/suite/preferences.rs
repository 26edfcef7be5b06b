//! Learning from preferences: pairs from a file, self-play on an oracle, and what all stages that do so share.

mod dpo;
mod oracles;
mod self_play;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use align_core::draws::{Draws, Purpose};
use align_data::synthetic::CyclicWorld;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::tiny::{ALIGN, Ended, align, command, folder, hashes, text, works};

/// The finished run of a recipe on some rows, its `$data`, made once for a build of the binary and shared by processes.
pub(crate) fn kept(name: &str, recipe: &str, data: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("align-cli");
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let [run, stamp, file, rows] =
        ["", ".stamp", ".toml", ".jsonl"].map(|end| home.join(format!("{name}{end}")));
    let age =
        fs::metadata(ALIGN).unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let expected = format!("{ALIGN} {}\n{recipe}{data}", age.as_nanos());
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&expected) {
        let _ = fs::remove_dir_all(&run);
        fs::write(&file, recipe).unwrap();
        fs::write(&rows, data).unwrap();
        let [output, input] = [("output_dir", &run), ("inputs.data", &rows)]
            .map(|(key, path)| format!("{key}={}", path.display()));
        works(&["run", file.to_str().unwrap(), &output, &input]);
        fs::write(&stamp, expected).unwrap();
    }
    run
}

/// The words of answers in the circle: what beats one another, and how well it is said.
const WORDS: [[&str; 3]; 2] = [["rock", "paper", "scissors"], ["good", "fair", "poor"]];

/// Pairs of answers to "north", labelled by draws from the circle's preferences. Two words before it say nothing; they make prompts
/// differ, so that some can be held out.
fn pairs(count: u64) -> Vec<Value> {
    let draws = Draws::new(1);
    let answer = |of: usize| format!("{} {}", WORDS[0][of / 3], WORDS[1][of % 3]);
    let pair = |row: u64| {
        let draw = |sample: u32| draws.token(Purpose::Synthesize, 0, row, sample, 0);
        let below = |sample: u32, count: usize| (draw(sample) * count as f64) as usize;
        let first = below(0, 9);
        let second = (first + 1 + below(1, 8)) % 9;
        let wins = draw(2) < CyclicWorld::preference(0, (first / 3, first % 3), (second / 3, second % 3));
        let (chosen, rejected) = if wins { (first, second) } else { (second, first) };
        let prompt = format!("<|bos|> {} {} north", WORDS[0][below(3, 3)], answer(below(4, 9)));
        json!({ "prompt": prompt, "chosen": answer(chosen), "rejected": answer(rejected) })
    };
    (0..count).map(pair).collect()
}

/// The circular world, a policy that answers as its demonstrator, and two models of its preferences.
fn circle() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let pairs: String = pairs(2048).iter().map(|row| format!("{row}\n")).collect();
        kept("circle", CIRCLE, &pairs)
    })
}

const CIRCLE: &str = r#"
title = "Circle"
output_dir = "unset"
[[stage]]
name = "world"
kind = "cyclic"
demonstrations = 1024
[[stage]]
name = "blank"
kind = "init"
tokenizer = "@world"
config = { model_type = "llama", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2, num_attention_heads = 2, max_position_embeddings = 16, initializer_range = 0.1 }
[[stage]]
name = "start"
kind = "sft"
model = "@blank"
data = { path = "@world/demonstrations.jsonl" }
training = { epochs = 3.0, minibatch = 128, microbatch = 128 }
optimizer = { learning_rate = 1e-2, schedule = { kind = "cosine", warmup = 4 } }
[[stage]]
name = "scores"
kind = "reward"
model = "@blank"
data = { path = "$data", held_out = 0.25 }
training = { epochs = 5.0, minibatch = 64, microbatch = 64 }
optimizer = { learning_rate = 3e-3, schedule = { kind = "cosine", warmup = 4 } }
[[stage]]
name = "pairwise"
kind = "reward"
pairwise = true
model = "@blank"
data = { path = "$data", held_out = 0.25 }
training = { epochs = 5.0, minibatch = 64, microbatch = 64 }
optimizer = { learning_rate = 3e-3, schedule = { kind = "cosine", warmup = 4 } }
"#;

/// A path inside the circular world's run, as text.
fn around(path: &str) -> String {
    circle().join(path).display().to_string()
}

/// A file of JSON.
pub(crate) fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// What a finished stage says of itself.
pub(crate) fn summary(folder: &Path) -> Value {
    read(&folder.join("stage.json"))["summary"].clone()
}

/// The log of a training, what the clock decides left out.
pub(crate) fn metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
        line.retain(|name, _| !name.starts_with("timing_s/") && name != "perf/throughput" && name != "eps");
        line
    };
    text.lines().map(line).collect()
}

/// A metric, at the steps that report it.
pub(crate) fn curve(folder: &Path, metric: &str) -> Vec<f64> {
    metrics(folder).iter().filter_map(|line| line.get(metric)?.as_f64()).collect()
}

/// A recipe of one stage with a folder of its own.
pub(crate) struct Single {
    kind: &'static str,
    files: TempDir,
    recipe: String,
}

impl Single {
    pub(crate) fn new(kind: &'static str, recipe: &str) -> Self {
        let files = folder();
        let recipe = text(&files, "r.toml", recipe);
        Self { kind, files, recipe }
    }

    /// Where a run of that name goes.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn args(&self, name: &str, overrides: &[&str]) -> Vec<String> {
        let out = format!("output_dir={}", self.out(name).display());
        let first = [self.kind.to_owned(), self.recipe.clone(), out];
        first.into_iter().chain(overrides.iter().map(|&text| text.to_owned())).collect()
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn run(&self, name: &str, overrides: &[&str]) -> Ended {
        let args = self.args(name, overrides);
        align(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs it to a good end and gives its folder.
    #[track_caller]
    pub(crate) fn works(&self, name: &str, overrides: &[&str]) -> PathBuf {
        let ended = self.run(name, overrides);
        assert_eq!(ended.code, Some(0), "{overrides:?}:\n{}", ended.err);
        self.out(name)
    }

    /// Runs it and expects this refusal.
    #[track_caller]
    pub(crate) fn refuses(&self, overrides: &[&str], parts: &[&str]) {
        self.run("refused", &[overrides, &["--overwrite"]].concat()).refuses(parts);
    }

    /// Kills a run, as kill −9 does, some steps after a checkpoint, goes on, and compares with a run that was left alone.
    pub(crate) fn resumes_bit_for_bit(&self, overrides: &[&str]) {
        let straight = self.works("straight", overrides);
        let broken = self.out("broken");
        let mut child = {
            let args = self.args("broken", overrides);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let (begun, mut at_checkpoint) = (Instant::now(), None);
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint");
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            let steps =
                fs::read_to_string(broken.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
            let saved = fs::read_dir(broken.join("checkpoints")).is_ok_and(|found| {
                found.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-"))
            });
            if saved && steps > *at_checkpoint.get_or_insert(steps) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!broken.join("model").exists(), "it was killed before its end");

        let resumed = self.run("broken", &[overrides, &["--resume"]].concat());
        assert_eq!(resumed.code, Some(0), "{}", resumed.err);
        resumed.says(&["going on after step"]);
        assert_eq!(hashes(&broken.join("model")), hashes(&straight.join("model")));
        assert_eq!(metrics(&broken), metrics(&straight));
    }
}

#[test]
fn every_new_sub_command_has_help_with_an_example() {
    assert!(works(&["--help"]).out.contains("Begin with `align run quickstart`"));
    for word in ["dpo", "nash", "online", "superhf"] {
        let help = works(&[word, "--help"]).out;
        let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("no example: {help}"));
        // The built-in recipe of that name, with what has to be given.
        assert!(examples.contains(&format!("align {word} {word} ")), "{help}");
        let listed = works(&["recipes", "ls"]).out;
        assert!(listed.lines().any(|line| line.split_whitespace().next() == Some(word)), "{listed}");
    }
}
