//! An oracle whose answers are kept: nothing is asked twice, nothing said is lost, and a broken file is named.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use align_core::{Completions, OracleError, Preference, PreferenceFn, checked_preferences};
use align_reward::{RecordError, Recorded};
use align_testkit::{Values, device};
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;

/// A pair of one-token answers to one prompt of one token: prompt, first, second.
type Asked = (u32, u32, u32);

fn sides(pairs: &[Asked]) -> (Completions, Completions) {
    let rows = |pick: fn(&Asked) -> u32| pairs.iter().map(|pair| vec![pick(pair)]).collect::<Vec<_>>();
    let prompts = rows(|pair| pair.0);
    let side = |answers: Vec<Vec<u32>>| Completions::from_rows(&prompts, &answers, &device());
    (side(rows(|pair| pair.1)), side(rows(|pair| pair.2)))
}

fn ask(oracle: &dyn Preference, pairs: &[Asked]) -> Vec<f64> {
    let (first, second) = sides(pairs);
    oracle.prefer(&first, &second).values()
}

/// Answers by a function, and remembers what it was asked.
#[derive(Clone)]
struct Oracle<F> {
    answer: F,
    asked: Arc<Mutex<Vec<Asked>>>,
    reason: Option<&'static str>,
}

impl<F: Fn(Asked) -> f32> Oracle<F> {
    fn new(answer: F) -> Self {
        Self { answer, asked: Arc::default(), reason: None }
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl<F: Fn(Asked) -> f32 + Send + Sync> Preference for Oracle<F> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let (prompts, a, b) = (first.prompt.rows(), first.response.rows(), second.response.rows());
        let pairs: Vec<Asked> = (0..a.len()).map(|row| (prompts[row][0], a[row][0], b[row][0])).collect();
        self.asked.lock().unwrap().extend(&pairs);
        let answers: Vec<f32> = pairs.into_iter().map(&self.answer).collect();
        let rows = answers.len();
        Tensor::from_data(TensorData::new(answers, [rows]), &device())
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        vec![("inner".into(), 1.0)]
    }

    fn take_failure(&self) -> Option<String> {
        self.reason.map(str::to_owned)
    }
}

/// Eighths, which f32 holds exactly: 1/2 + (a − b)/8.
fn eighths((_, a, b): Asked) -> f32 {
    0.5 + (a as f32 - b as f32) / 8.0
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    (folder, file)
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_pair_is_asked_once_in_whichever_order_and_batch_it_comes() {
    let (_folder, file) = file();
    let oracle = Oracle::new(eighths);
    let recorded = Recorded::open(&file, oracle.clone()).unwrap();
    // Twice the same, once exchanged, the same answers to another prompt, and an answer against itself.
    let batch = [(9, 1, 2), (9, 3, 1), (9, 1, 2), (9, 2, 1), (8, 1, 2), (9, 4, 4)];
    let expected = [0.375, 0.75, 0.375, 0.625, 0.375, 0.5];
    assert_eq!(ask(&recorded, &batch), expected);
    assert_eq!(oracle.asked(), [(9, 1, 2), (9, 3, 1), (8, 1, 2)]);
    assert_eq!(
        lines(&file),
        [
            r#"{"prompt":[9],"first":[1],"second":[2],"preference":0.375}"#,
            r#"{"prompt":[9],"first":[3],"second":[1],"preference":0.75}"#,
            r#"{"prompt":[8],"first":[1],"second":[2],"preference":0.375}"#,
        ]
    );
    assert_eq!(ask(&recorded, &[(9, 1, 3), (9, 3, 1), (8, 2, 1)]), [0.25, 0.75, 0.625]);
    assert_eq!(oracle.asked(), []);
    assert_eq!((recorded.known(), recorded.cut_off()), (3, None));
    let told = recorded.take_metrics();
    let named = |name: &str, value| (name.to_owned(), value);
    assert_eq!(told, [named("inner", 1.0), named("recorded/asked", 3.0), named("recorded/recalled", 6.0)]);
    assert_eq!(recorded.take_metrics(), [named("inner", 1.0)]);

    // The next run, and a table without an oracle.
    drop(recorded);
    let oracle = Oracle::new(eighths);
    let recorded = Recorded::open(&file, oracle.clone()).unwrap();
    assert_eq!(ask(&recorded, &[(9, 2, 1), (9, 5, 1), (9, 1, 3)]), [0.625, 1.0, 0.25]);
    assert_eq!(oracle.asked(), [(9, 5, 1)]);
    assert_eq!(ask(&Recorded::table(&file).unwrap(), &batch), expected);
}

#[test]
fn a_pair_without_an_answer_is_named_where_nobody_can_be_asked() {
    let (_folder, file) = file();
    ask(&Recorded::open(&file, Oracle::new(eighths)).unwrap(), &[(9, 1, 2)]);
    let table = Recorded::table(&file).unwrap();
    let found = ask(&table, &[(9, 2, 1), (9, 1, 3), (7, 1, 2)]);
    assert_eq!(found[0], 0.625);
    assert!(found[1].is_nan() && found[2].is_nan(), "{found:?}");
    let error = table.take_error().unwrap();
    assert!(matches!(&error, RecordError::Missing { row: 1, prompt, .. } if prompt == &[9]), "{error}");
    let (first, second) = sides(&[(9, 2, 1), (7, 1, 2)]);
    let error = checked_preferences(&table, &first, &second, 8).unwrap_err();
    let OracleError::Failed { row: 1, reason, .. } = error else { panic!("{error}") };
    assert!(
        reason.ends_with("answers.jsonl has no preference between the answers of row 1, to the prompt [7]"),
        "{reason}"
    );
    assert_eq!(table.take_failure(), None);
    // A long prompt is not printed whole.
    let long: Vec<u32> = (0..40).collect();
    let side = |answer: u32| Completions::from_rows(std::slice::from_ref(&long), &[vec![answer]], &device());
    table.prefer(&side(1), &side(2));
    let reason = table.take_failure().unwrap();
    assert!(reason.ends_with("30, 31] and 8 tokens more"), "{reason}");
    let error = Recorded::table(&file.with_extension("gone")).err().unwrap();
    assert!(matches!(error, RecordError::Read { .. }), "{error}");
}

#[test]
fn what_a_failing_oracle_did_answer_is_kept_and_the_rest_asked_next_time() {
    let (_folder, file) = file();
    let batch: Vec<Asked> = (1..=7).map(|answer| (9, answer, 0)).collect();
    // Fails on the fourth pair, which stands in the second batch of three.
    let failing = |pair: Asked| if pair.1 == 4 { f32::NAN } else { 0.25 };
    let oracle = Oracle { reason: Some("the server is gone"), ..Oracle::new(failing) };
    let recorded = Recorded::open(&file, oracle.clone()).unwrap().asking_at_once(3);
    let found = ask(&recorded, &batch);
    assert_eq!(oracle.asked().len(), 6, "it is not asked on");
    let finite: Vec<usize> = (0..7).filter(|&row| found[row].is_finite()).collect();
    assert_eq!(finite, [0, 1, 2, 4, 5]);
    assert_eq!(recorded.take_failure().as_deref(), Some("the server is gone"));
    assert_eq!(lines(&file).len(), 5);
    drop(recorded);
    let oracle = Oracle::new(|_| 0.25);
    let recorded = Recorded::open(&file, oracle.clone()).unwrap();
    assert_eq!(ask(&recorded, &batch), [0.25; 7]);
    assert_eq!(oracle.asked(), [(9, 4, 0), (9, 7, 0)]);
}

#[test]
fn a_run_that_is_killed_loses_the_batch_it_was_asking_about() {
    let (_folder, file) = file();
    let batch: Vec<Asked> = (1..=6).map(|answer| (9, answer, 0)).collect();
    let dying = Oracle::new(|pair: Asked| if pair.1 == 6 { panic!("killed") } else { 0.25 });
    let recorded = Recorded::open(&file, dying).unwrap().asking_at_once(2);
    let ended = catch_unwind(AssertUnwindSafe(|| ask(&recorded, &batch)));
    assert!(ended.is_err());
    assert_eq!(lines(&file).len(), 4);
    // Even in this process what is known stays usable.
    assert_eq!(ask(&recorded, &batch[..4]), [0.25; 4]);
    drop(recorded);
    let oracle = Oracle::new(|_| 0.25);
    assert_eq!(ask(&Recorded::open(&file, oracle.clone()).unwrap(), &batch), [0.25; 6]);
    assert_eq!(oracle.asked(), [(9, 5, 0), (9, 6, 0)]);
}

#[test]
fn an_answer_that_is_no_probability_is_passed_on_and_not_kept() {
    let (_folder, file) = file();
    let oracle = Oracle::new(|pair: Asked| if pair.1 == 2 { 1.5 } else { 1.0 + f32::EPSILON });
    let recorded = Recorded::open(&file, oracle).unwrap();
    let (first, second) = sides(&[(9, 1, 0), (9, 2, 0)]);
    let error = checked_preferences(&recorded, &first, &second, 2).unwrap_err();
    assert_eq!(error, OracleError::NotAProbability { row: 1, found: 1.5 });
    // Rounding is brought to 1, as everywhere.
    assert_eq!(lines(&file), [r#"{"prompt":[9],"first":[1],"second":[0],"preference":1.0}"#]);
    assert_eq!(ask(&Recorded::table(&file).unwrap(), &[(9, 1, 0), (9, 0, 1)]), [1.0, 0.0]);
}

#[test]
fn an_oracle_that_answers_about_other_rows_is_refused() {
    let (_folder, file) = file();
    let oracle =
        PreferenceFn(|_: &Completions, _: &Completions| Tensor::<1>::from_floats([0.5, 0.5], &device()));
    let recorded = Recorded::open(&file, oracle).unwrap();
    assert!(ask(&recorded, &[(9, 1, 0)])[0].is_nan());
    assert_eq!(recorded.take_failure().unwrap(), "the oracle gave 2 preferences, expected 1, one a row");
    assert_eq!(lines(&file).len(), 0);
}

#[test]
fn wherever_a_crash_cuts_the_last_line_the_others_stay_and_writing_goes_on() {
    let (_folder, file) = file();
    let batch = [(9, 1, 0), (9, 2, 0), (9, 3, 0)];
    ask(&Recorded::open(&file, Oracle::new(eighths)).unwrap(), &batch);
    let whole = fs::read(&file).unwrap();
    let two: usize = lines(&file)[..2].iter().map(|line| line.len() + 1).sum();
    for end in two..=whole.len() {
        // Without its last character the third line is whole, but for the line's end.
        let (known, cut_off) = match end {
            _ if end + 1 >= whole.len() => (3, None),
            _ if end == two => (2, None),
            _ => (2, Some(end - two)),
        };
        fs::write(&file, &whole[..end]).unwrap();
        let table = Recorded::table(&file).unwrap();
        assert_eq!((table.known(), table.cut_off()), (known, cut_off), "{end} bytes");
        assert_eq!(fs::read(&file).unwrap(), whole[..end], "a table is only read");
        let recorded = Recorded::open(&file, Oracle::new(eighths)).unwrap();
        assert_eq!((recorded.known(), recorded.cut_off()), (known, cut_off), "{end} bytes");
        assert_eq!(ask(&recorded, &batch), [0.625, 0.75, 0.875]);
        drop(recorded);
        assert_eq!(fs::read(&file).unwrap(), whole, "{end} bytes");
    }
}

#[test]
fn a_broken_line_that_no_crash_explains_is_named() {
    let (_folder, file) = file();
    let good = r#"{"prompt": [9], "first": [1], "second": [0], "preference": 0.5}"#;
    for (broken, part) in [
        (r#"{"prompt": [9], "first": [1]"#, "token ids"),
        (r#"{"prompt": [9], "first": [1], "second": [0]}"#, "token ids"),
        (r#"{"prompt": "text", "first": "a", "second": "b", "preference": 0.5}"#, "token ids"),
        (r#"{"prompt": [9], "first": [-1], "second": [0], "preference": 0.5}"#, "token ids"),
        (r#"{"prompt": [9], "first": [1], "second": [0], "preference": 0.5, "by": "me"}"#, "token ids"),
        (r#"{"prompt": [9], "first": [1], "second": [0], "preference": 1.5}"#, "preference 1.5"),
        (r#"{"prompt": [9], "first": [1], "second": [0], "preference": -0.1}"#, "preference -0.1"),
        ("nothing of the kind", "token ids"),
    ] {
        // Lines that only hold blanks are passed over, and counted.
        fs::write(&file, format!("{good}\n \n{broken}\n{good}\n")).unwrap();
        for error in [
            Recorded::table(&file).err().unwrap(),
            Recorded::open(&file, Oracle::new(eighths)).err().unwrap(),
        ] {
            let message = error.to_string();
            assert!(message.starts_with("line 3 of ") && message.contains(part), "{broken}: {message}");
        }
    }
    // A last line that is finished and wrong was not cut off.
    fs::write(&file, format!("{good}\n[1]")).unwrap();
    let error = Recorded::table(&file).err().unwrap();
    assert!(matches!(error, RecordError::Damaged { line: 2, .. }), "{error}");
}

#[test]
fn of_two_lines_about_a_pair_the_first_counts() {
    let (_folder, file) = file();
    let line = |first, second, preference| {
        format!(r#"{{"prompt": [9], "first": [{first}], "second": [{second}], "preference": {preference}}}"#)
    };
    fs::write(&file, [line(1, 2, 0.25), line(2, 1, 0.25), line(1, 2, 0.5)].join("\n")).unwrap();
    let table = Recorded::table(&file).unwrap();
    assert_eq!(ask(&table, &[(9, 1, 2), (9, 2, 1)]), [0.25, 0.75]);
    assert_eq!(table.known(), 1);
}

#[test]
fn a_file_has_one_writer() {
    let (_folder, file) = file();
    let first = Recorded::open(&file, Oracle::new(eighths)).unwrap();
    let error = Recorded::open(&file, Oracle::new(eighths)).err().unwrap();
    assert!(error.to_string().ends_with("answers.jsonl is in use, expected that no other run writes to it"));
    drop(first);
    Recorded::open(&file, Oracle::new(eighths)).unwrap();
    let error = Recorded::open(&file.join("below"), Oracle::new(eighths)).err().unwrap();
    assert!(matches!(error, RecordError::Write { .. }), "{error}");
}

#[test]
#[should_panic(expected = "Recorded: the prompts of row 0 differ: [1] and [2]")]
fn answers_to_different_prompts_are_a_bug() {
    let (_folder, file) = file();
    let side = |prompt| Completions::from_rows(&[vec![prompt]], &[vec![3]], &device());
    Recorded::open(&file, Oracle::new(eighths)).unwrap().prefer(&side(1), &side(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_file_gives_back_what_was_said_bit_for_bit(
        rows in prop::collection::btree_map((1u32..200, 1u32..200), prop_oneof![0.0f32..=1.0, 0.0f32..1e-30], 1..20),
    ) {
        let (_folder, file) = file();
        // Answers of a pair and its exchange would be one.
        let rows: Vec<((u32, u32), f32)> = rows.into_iter().filter(|((a, b), _)| a < b).collect();
        prop_assume!(!rows.is_empty());
        let said = rows.clone();
        let oracle = Oracle::new(move |(_, a, b)| {
            said.iter().find(|(pair, _)| *pair == (a.min(b), a.max(b))).unwrap().1
        });
        // Every other pair is asked about with the higher answer first.
        let exchanged = |at: usize, (a, b): (u32, u32)| if at.is_multiple_of(2) { (9, a, b) } else { (9, b, a) };
        let asked: Vec<Asked> = rows.iter().enumerate().map(|(at, row)| exchanged(at, row.0)).collect();
        let back: Vec<Asked> = asked.iter().map(|&(prompt, a, b)| (prompt, b, a)).collect();
        ask(&Recorded::open(&file, oracle).unwrap(), &asked);
        let table = Recorded::table(&file).unwrap();
        let bits = |values: Vec<f64>| values.into_iter().map(|value| (value as f32).to_bits()).collect::<Vec<_>>();
        let expected = |f: fn(f32) -> f32| rows.iter().map(|row| f(row.1).to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(ask(&table, &asked)), expected(|p| p));
        prop_assert_eq!(bits(ask(&table, &back)), expected(|p| 1.0 - p));
    }
}
