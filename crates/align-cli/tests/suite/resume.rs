//! Going on after any end gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tiny::{ALIGN, Ended, RECIPE, align, at, command, ended, folder, hashes, path, text, works};

/// Ten steps with a checkpoint after every fifth, of `sft`, `reward` or `ppo`.
fn recipe(files: &TempDir, kind: &str, out: &str, extra: &str) -> String {
    let (model, world) = (at("sft-a/model"), at("world"));
    let supervised = |data: &str| {
        format!(
            "model = \"{model}\"\ndata = {{ path = \"{world}/{data}\", held_out = 0.2 }}\noptimizer = {{ learning_rate = 1e-3 }}\n\
             training = {{ max_steps = 10, minibatch = 8, microbatch = 4, checkpoint_every = 5, evaluate_every = 5 }}\n"
        )
    };
    let body = match kind {
        "sft" => supervised("demonstrations.jsonl"),
        "reward" => supervised("preferences.jsonl"),
        _ => format!(
            "policy = \"{model}\"\nreference = \"{}\"\nreward = \"{}\"\nprompts = {{ path = \"{world}/prompts.jsonl\" }}\n\
             checkpoint_every = 5\n[ppo]\ntotal_episodes = 80\nrollout_batch = 8\nmicrobatch = 8\nresponse_length = 6\n\
             running_reward_std = true\n",
            at("soup/model"),
            at("reward/model")
        ),
    };
    let text_of = format!("output_dir = \"{}\"\n{extra}{body}", files.path().join(out).display());
    text(files, &format!("{out}.toml"), &text_of)
}

/// The folder with checkpoints and model.
fn training(files: &TempDir, kind: &str, out: &str) -> PathBuf {
    let folder = files.path().join(out);
    if kind == "ppo" { folder.join("seed-0") } else { folder }
}

/// Starts a command and waits until something is there; the command must not have ended by then.
fn start_until(args: &[&str], there: impl Fn() -> bool) -> Child {
    let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{args:?} did not get there");
        assert!(child.try_wait().unwrap().is_none(), "{args:?} ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Starts a command and kills it, as kill −9 does, once something is there.
pub(crate) fn kill_when(args: &[&str], there: impl Fn() -> bool) {
    let mut child = start_until(args, there);
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Weights, optimiser and whatever else the last checkpoint, the model and the average, if there is one, hold.
fn results(folder: &Path) -> [std::collections::BTreeMap<String, String>; 3] {
    let mut last = hashes(&folder.join("checkpoints/checkpoint-10"));
    // It names the output folder.
    for name in ["trainer_state.json", "manifest.json"] {
        assert!(last.remove(name).is_some());
    }
    let state = ["optimizer.safetensors", "policy/optimizer.safetensors"];
    assert!(state.iter().any(|name| last.contains_key(*name)), "{last:?}");
    let average = folder.join("average");
    let average = if average.exists() { hashes(&average) } else { Default::default() };
    [last, hashes(&folder.join("model")), average]
}

fn killed_and_resumed_gives_the_same_bytes(kind: &str, extra: &str) {
    let files = folder();
    let straight = recipe(&files, kind, "straight", extra);
    works(&[kind, &straight]);

    let broken = recipe(&files, kind, "broken", extra);
    let run = training(&files, kind, "broken");
    // In the middle of the second half: the checkpoint is there, and later steps are that it does not know.
    let there = || run.join("checkpoints/checkpoint-5").exists() && lines(&run.join("metrics.jsonl")) >= 6;
    kill_when(&[kind, &broken], there);
    assert!(!run.join("model").exists(), "it was killed before its end");

    let resumed = works(&[kind, &broken, "--resume"]);
    resumed.says(&["going on after step 5 of 10"]);
    let found = results(&run);
    assert_eq!(found[2].is_empty(), !extra.contains("average"), "{:?}", found[2]);
    assert_eq!(found, results(&training(&files, kind, "straight")));
    assert_eq!(lines(&run.join("metrics.jsonl")), 10, "each step stands in the log once");
}

#[test]
fn fine_tuning_resumes_bit_for_bit_after_a_kill() {
    killed_and_resumed_gives_the_same_bytes("sft", "");
}

#[test]
fn fine_tuning_of_adapters_on_a_stream_resumes_bit_for_bit_after_a_kill() {
    killed_and_resumed_gives_the_same_bytes(
        "sft",
        "shuffle_window = 20\nlora = { rank = 2, dropout = 0.2 }\n",
    );
}

#[test]
fn a_reward_model_resumes_bit_for_bit_after_a_kill() {
    killed_and_resumed_gives_the_same_bytes("reward", "");
}

#[test]
fn a_reward_model_of_adapters_on_a_stream_resumes_bit_for_bit_after_a_kill() {
    killed_and_resumed_gives_the_same_bytes(
        "reward",
        "shuffle_window = 20\nnormalize = false\nlora = { rank = 2, dropout = 0.2 }\n",
    );
}

#[test]
fn ppo_resumes_bit_for_bit_after_a_kill() {
    killed_and_resumed_gives_the_same_bytes("ppo", "");
}

#[test]
fn ppo_resumes_bit_for_bit_with_its_average() {
    killed_and_resumed_gives_the_same_bytes("ppo", "average = { kind = \"ema\", decay = 0.5 }\n");
}

/// Sends Ctrl-C.
fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn ctrl_c_saves_says_how_to_go_on_and_going_on_ends_the_same() {
    let files = folder();
    works(&["sft", &recipe(&files, "sft", "straight", "")]);
    let broken = recipe(&files, "sft", "broken", "");
    let run = files.path().join("broken");
    let child = start_until(&["sft", &broken], || lines(&run.join("metrics.jsonl")) >= 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    let resume = format!("go on with: {} sft {broken} --resume", ALIGN);
    for part in ["everything up to here is saved in", run.to_str().unwrap(), &resume] {
        assert!(err.contains(part), "expected `{part}` in:\n{err}");
    }
    works(&["sft", &broken, "--resume"]).says(&["going on after step"]);
    assert_eq!(results(&run), results(&files.path().join("straight")));
}

#[test]
fn a_killed_run_skips_what_is_done_and_ends_the_same() {
    let files = folder();
    let out = files.path().join("run");
    let into = format!("output_dir={}", out.display());
    let slower = "salsa.ppo.total_episodes=80";
    let there = || lines(&out.join("salsa/seed-1/metrics.jsonl")) >= 1;
    kill_when(&["run", RECIPE, &into, slower], there);
    // What a crash may leave behind at other moments.
    fs::remove_file(out.join("soup/stage.json")).unwrap();
    fs::create_dir(out.join("soup/.model.partial-1")).unwrap();
    fs::create_dir_all(out.join("compare")).unwrap();
    fs::write(out.join("compare/comparison.json.align-new"), "{").unwrap();
    let resumed = works(&["run", RECIPE, &into, slower, "--resume"]);
    resumed.says(&["world: done already", "reward: done already", "salsa seed 0: done already"]);
    assert!(
        !resumed.err.contains("soup: done already") && !resumed.err.contains("salsa seed 1: done already")
    );
    assert!(!out.join("soup/.model.partial-1").exists());

    let whole = files.path().join("whole");
    works(&["run", RECIPE, &format!("output_dir={}", whole.display()), slower]);
    for stage in ["sft-b", "soup", "reward", "salsa/seed-0", "salsa/seed-1"] {
        let [a, b] = [&out, &whole].map(|run| hashes(&run.join(stage).join("model")));
        assert_eq!(a, b, "{stage}");
    }
    let [a, b] = [&out, &whole].map(|run| hashes(&run.join("compare"))["comparison.json"].clone());
    assert_eq!(a, b);
}

#[test]
fn another_recipe_is_refused_with_the_keys_that_differ() {
    let files = folder();
    let recipe = recipe(&files, "sft", "out", "");
    let run = files.path().join("out");
    kill_when(&["sft", &recipe], || run.join("checkpoints/checkpoint-5").exists());
    let before = hashes(&run);
    align(&["sft", &recipe, "--resume", "optimizer.learning_rate=0.5", "seed=9"]).refuses(&[
        "was begun with another recipe",
        "`optimizer.learning_rate` was 0.001 and is 0.5",
        "`seed` was 0 and is 9",
        "resume with the old one, or give --overwrite",
    ]);
    assert_eq!(hashes(&run), before);

    let whole = at("");
    let into = format!("output_dir={}", whole.trim_end_matches('/'));
    let recorded = fs::read(Path::new(&whole).join("recipe.toml")).unwrap();
    align(&["run", RECIPE, &into, "--resume", "sft-b.seed=9"])
        .refuses(&["`sft-b` in", "`seed` was 2 and is 9"]);
    assert_eq!(
        fs::read(Path::new(&whole).join("recipe.toml")).unwrap(),
        recorded,
        "the run's recipe still stands"
    );
}

/// Runs the command with a limit on the size of files, as a full disk would have it.
fn with_full_disk(args: &[&str]) -> Ended {
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "bash", ALIGN]).args(args);
    shell.env("HF_HUB_OFFLINE", "1");
    ended(shell)
}

#[test]
fn on_a_full_disk_the_old_checkpoint_survives() {
    let files = folder();
    works(&["sft", &recipe(&files, "sft", "straight", "")]);
    let broken = recipe(&files, "sft", "out", "");
    let run = files.path().join("out");
    kill_when(&["sft", &broken], || run.join("checkpoints/checkpoint-5").exists());
    let before = hashes(&run.join("checkpoints/checkpoint-5"));
    with_full_disk(&["sft", &broken, "--resume"]).refuses(&[
        "cannot write",
        "what was saved before is untouched",
        "File too large",
    ]);
    assert_eq!(hashes(&run.join("checkpoints/checkpoint-5")), before);
    works(&["sft", &broken, "--resume"]).says(&["going on after step 5"]);
    assert_eq!(results(&run), results(&files.path().join("straight")));
}

#[test]
fn on_a_full_disk_the_old_soup_survives() {
    let files = folder();
    let soup = files.path().join("soup");
    let (a, b) = (at("sft-a/model"), at("sft-b/model"));
    let args = ["soup", "--overwrite", "--out", soup.to_str().unwrap(), &a, &b];
    works(&args);
    let before = hashes(&soup);
    let again = ["soup", "--overwrite", "--weights", "0.9,0.1", "--out", soup.to_str().unwrap(), &a, &b];
    with_full_disk(&again).refuses(&["cannot write", "soup", "File too large"]);
    assert_eq!(hashes(&soup), before);
    let left: Vec<_> = fs::read_dir(path(&files)).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["soup"], "nothing half-made is left");
}
