use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use align_core::PersistError;
use align_core::persist::replace_file;
use align_testkit::train_device;
use align_train::checkpoint::{self, checkpoints, verify};
use align_train::{
    Algorithm, Best, CheckpointPlan, Control, FileHash, Goal, Interrupt, Learner, Metrics, ObserverFn,
    OnDamage, OptimizerConfig, RunPlan, TrainError, hash_all, resume, run,
};
use serde_json::{Value, json};

use crate::common::{Net, Squares, bits, brisk, fine_tuning, folder, learner, message, rows};

fn recipe() -> Value {
    json!({"seed": 7, "sft": {"learning_rate": 0.1, "batch": 8}})
}

fn plan(folder: &Path, every: u64) -> CheckpointPlan {
    CheckpointPlan { keep: 3, ..CheckpointPlan::new(folder, every, recipe()) }
}

fn hashes(folder: &Path, step: u64) -> Vec<(String, FileHash)> {
    hash_all(&folder.join(format!("checkpoint-{step}"))).unwrap().into_iter().collect()
}

#[test]
fn ten_steps_equal_five_and_five_to_the_last_bit() {
    let ((_a, whole), (_b, halves)) = (folder(), folder());
    run(&mut fine_tuning(10), &RunPlan::new(10).with_checkpoints(plan(&whole, 5)), &mut []).unwrap();

    let interrupt = Interrupt::default();
    let flag = interrupt.flag();
    let mut stopper = ObserverFn(|step, _: &Metrics| {
        flag.store(step == 5, std::sync::atomic::Ordering::Relaxed);
        Control::Continue
    });
    let first = RunPlan::new(10).with_checkpoints(plan(&halves, 5));
    let ended = run(&mut fine_tuning(10), &first, &mut [&mut stopper, &mut interrupt.clone()]).unwrap();
    assert_eq!(ended, align_train::Ended::Stopped { step: 5 });

    // Nothing of the first half is left but its files.
    let mut tuning = fine_tuning(10);
    let start = resume(&mut tuning, &plan(&halves, 5), OnDamage::Refuse).unwrap();
    assert_eq!(start, 5);
    run(&mut tuning, &RunPlan::new(10).from(start).with_checkpoints(plan(&halves, 5)), &mut []).unwrap();

    let files = hashes(&whole, 10);
    assert_eq!(files.len(), 4, "{files:?}");
    assert_eq!(files, hashes(&halves, 10));
    assert_ne!(hashes(&whole, 5), files);
}

#[test]
fn a_learner_of_matrices_vectors_and_frozen_tensors_resumes_bit_for_bit() {
    let (_guard, folder) = folder();
    let (mut whole, mut first) = (learner(brisk()), learner(brisk()));
    for _ in 0..4 {
        whole.step(&Squares, &[rows()]).unwrap();
    }
    for _ in 0..2 {
        first.step(&Squares, &[rows()]).unwrap();
    }
    first.save(&folder).unwrap();
    // A fresh model with other weights and other parameter ids.
    let mut second = Learner::new(Net::new(8, &train_device()), brisk(), 10).unwrap();
    second.restore(&folder).unwrap();
    assert_eq!(second.steps(), 2);
    for _ in 0..2 {
        second.step(&Squares, &[rows()]).unwrap();
    }
    assert_eq!(bits(second.model()), bits(whole.model()));
}

const CHILD: &str = "ALIGN_TRAIN_KILLED_RUN";
const KILLED_STEPS: u64 = 40;

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "run by `a_killed_run_resumes_to_the_same_bits`"]
fn runs_until_killed() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let mut slow = ObserverFn(|_, _: &Metrics| {
            std::thread::sleep(Duration::from_millis(2));
            Control::Continue
        });
        let plan = RunPlan::new(KILLED_STEPS).with_checkpoints(plan(&PathBuf::from(folder), 1));
        run(&mut fine_tuning(KILLED_STEPS), &plan, &mut [&mut slow]).unwrap();
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let ((_a, whole), (_b, killed)) = (folder(), folder());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["resume::runs_until_killed", "--exact", "--ignored"])
        .env(CHILD, &killed)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while checkpoints(&killed).last().is_none_or(|(step, _)| *step < 5) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child saves its fifth step within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();

    let mut tuning = fine_tuning(KILLED_STEPS);
    let start = resume(&mut tuning, &plan(&killed, 1), OnDamage::Refuse).unwrap();
    assert!((5..KILLED_STEPS).contains(&start), "killed on the way, at {start}");
    let rest = RunPlan::new(KILLED_STEPS).from(start).with_checkpoints(plan(&killed, 1));
    run(&mut tuning, &rest, &mut []).unwrap();
    run(
        &mut fine_tuning(KILLED_STEPS),
        &RunPlan::new(KILLED_STEPS).with_checkpoints(plan(&whole, 0)),
        &mut [],
    )
    .unwrap();
    assert_eq!(hashes(&killed, KILLED_STEPS), hashes(&whole, KILLED_STEPS));
}

/// Reports given values and saves one number.
struct Reports(Vec<f64>);

impl Algorithm for Reports {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        Ok(Metrics::new().with("eval/loss", self.0[step as usize]))
    }
    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        Ok(replace_file(&folder.join("state"), |file| io::Write::write_all(file, b"something"))?)
    }
    fn restore(&mut self, _: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

fn steps(folder: &Path) -> Vec<u64> {
    checkpoints(folder).into_iter().map(|(step, _)| step).collect()
}

#[test]
fn rotation_keeps_the_newest_and_the_best() {
    let values = vec![3.0, 1.0, 2.0, 5.0, 0.5, 4.0, 6.0];
    let (_guard, folder) = folder();
    let best = Best { metric: "eval/loss".into(), goal: Goal::Lowest, keep: 2 };
    let plan = CheckpointPlan { keep: 1, best: Some(best.clone()), ..plan(&folder, 1) };
    run(&mut Reports(values), &RunPlan::new(7).with_checkpoints(plan), &mut []).unwrap();
    assert_eq!(steps(&folder), [2, 5, 7]);
    assert_eq!(checkpoint::best(&folder, &best).unwrap().state.step, 5);
    let highest = Best { goal: Goal::Highest, ..best };
    assert_eq!(checkpoint::best(&folder, &highest).unwrap().state.step, 7);
}

#[test]
fn at_least_the_newest_stays_and_the_last_step_is_saved() {
    let (_guard, folder) = folder();
    let plan = CheckpointPlan { keep: 0, ..plan(&folder, 2) };
    run(&mut Reports(vec![0.0; 5]), &RunPlan::new(5).with_checkpoints(plan), &mut []).unwrap();
    assert_eq!(steps(&folder), [5]);
}

#[test]
fn a_damaged_newest_checkpoint_is_refused_and_the_one_before_offered() {
    let (_guard, folder) = folder();
    let plan = plan(&folder, 1);
    run(&mut Reports(vec![0.0; 3]), &RunPlan::new(3).with_checkpoints(plan.clone()), &mut []).unwrap();
    fs::write(folder.join("checkpoint-3/state"), b"some").unwrap();
    let error = resume(&mut Reports(vec![]), &plan, OnDamage::Refuse).unwrap_err();
    let shown = |step| folder.join(format!("checkpoint-{step}")).display().to_string();
    assert_eq!(
        error.to_string(),
        format!(
            "checkpoint {} is damaged: expected 9 bytes in `state`, found 4; the newest whole one is {}",
            shown(3),
            shown(2)
        )
    );
    assert_eq!(resume(&mut Reports(vec![]), &plan, OnDamage::UsePrevious).unwrap(), 2);

    // Of the same length, but altered; and one without its manifest.
    fs::write(folder.join("checkpoint-2/state"), b"somethinG").unwrap();
    assert!(verify(&folder.join("checkpoint-2")).unwrap_err().to_string().contains("sha256"));
    fs::remove_file(folder.join("checkpoint-1/manifest.json")).unwrap();
    let error = resume(&mut Reports(vec![]), &plan, OnDamage::UsePrevious).unwrap_err();
    assert!(error.to_string().ends_with("; no other checkpoint is whole"), "{error}");
}

#[test]
fn resuming_without_a_checkpoint_says_so() {
    let (_guard, folder) = folder();
    let error = resume(&mut Reports(vec![]), &plan(&folder, 1), OnDamage::Refuse).unwrap_err();
    assert_eq!(error.to_string(), format!("expected a checkpoint in {}, found none", folder.display()));
}

#[test]
fn resuming_with_another_recipe_says_which_keys_differ() {
    let (_guard, folder) = folder();
    let plan = plan(&folder, 1);
    run(&mut Reports(vec![0.0]), &RunPlan::new(1).with_checkpoints(plan.clone()), &mut []).unwrap();
    let other = json!({"seed": 8, "sft": {"learning_rate": 0.1, "epochs": 2}});
    let mut changed = CheckpointPlan { recipe: other, ..plan };
    let error = resume(&mut Reports(vec![]), &changed, OnDamage::Refuse).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "checkpoint {} was made with another recipe: `seed` was 7 and is 8; `sft.batch` was 8 and is gone; \
             `sft.epochs` is new",
            folder.join("checkpoint-1").display()
        )
    );
    changed.may_differ = vec!["seed".into(), "sft".into()];
    assert_eq!(resume(&mut Reports(vec![]), &changed, OnDamage::Refuse).unwrap(), 1);
}

/// Saves for real until its disk is full.
struct FillsTheDisk {
    learner: Learner<Net>,
    full_at: u64,
}

impl Algorithm for FillsTheDisk {
    fn iterate(&mut self, _: u64) -> Result<Metrics, TrainError> {
        self.learner.step(&Squares, &[rows()])
    }
    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        if self.learner.steps() == self.full_at {
            // The device that is always full stands where the optimizer's state is being written.
            std::os::unix::fs::symlink("/dev/full", folder.join("optimizer.safetensors.align-new")).unwrap();
        }
        self.learner.save(folder)
    }
    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.learner.restore(folder)
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_the_old_checkpoint_whole() {
    let (_guard, folder) = folder();
    let mut algorithm = FillsTheDisk { learner: learner(brisk()), full_at: 2 };
    let plan = CheckpointPlan { keep: 1, ..plan(&folder, 1) };
    let error = run(&mut algorithm, &RunPlan::new(3).with_checkpoints(plan.clone()), &mut []).unwrap_err();
    let text = message(&error);
    assert!(text.contains("cannot write") && text.contains("optimizer.safetensors"), "{text}");
    assert!(text.contains("what was saved before is untouched: No space left on device"), "{text}");
    assert_eq!(steps(&folder), [1]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing half written is left");
    let mut again = FillsTheDisk { learner: learner(brisk()), full_at: 99 };
    assert_eq!(resume(&mut again, &plan, OnDamage::Refuse).unwrap(), 1);
    assert_eq!(again.learner.steps(), 1);
}

#[test]
fn an_optimizer_file_of_another_model_is_refused_and_the_learner_unchanged() {
    use burn::module::{Module, ParamGroup};
    let (_guard, folder) = folder();
    let mut other = learner(brisk());
    other.step(&Squares, &[rows()]).unwrap();
    other.save(&folder).unwrap();
    let frozen = Net::new(3, &train_device()).freeze_group(ParamGroup::from_predicate("bias"));
    let mut learner = Learner::new(frozen, OptimizerConfig::default(), 1).unwrap();
    let before = bits(learner.model());
    let error = learner.restore(&folder).unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("is damaged: expected moments of the model's trainable tensors, found `bias`"),
        "{text}"
    );
    assert_eq!(bits(learner.model()), before);
}

#[test]
fn a_truncated_optimizer_file_is_refused_by_name() {
    let (_guard, folder) = folder();
    let mut learner = learner(brisk());
    learner.step(&Squares, &[rows()]).unwrap();
    learner.save(&folder).unwrap();
    let path = folder.join(align_train::OPTIMIZER_FILE);
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = learner.restore(&folder).unwrap_err();
        assert!(matches!(&error, TrainError::Persist(PersistError::Damaged { .. })), "{error}");
        assert!(error.to_string().contains("optimizer.safetensors"), "{error}");
    }
}

#[test]
fn the_optimizer_file_is_readable_safetensors_in_the_parameters_shapes() {
    let (_guard, folder) = folder();
    let mut learner = learner(brisk());
    learner.step(&Squares, &[rows()]).unwrap();
    learner.save(&folder).unwrap();
    let bytes = fs::read(folder.join(align_train::OPTIMIZER_FILE)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort();
    assert_eq!(
        names,
        ["bias.first", "bias.second", "first.first", "first.second", "second.first", "second.second"]
    );
    assert_eq!(file.tensor("first.second").unwrap().shape(), [3, 4]);
}
