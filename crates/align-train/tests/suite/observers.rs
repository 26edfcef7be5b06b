use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use align_train::{
    CheckpointPlan, Console, Control, Ended, Interrupt, JsonLines, Metrics, Observer, ObserverFn, RunPlan,
    TensorBoard, run,
};
use serde_json::{Value, json};

use crate::common::{fine_tuning, folder};

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn steps(path: &Path) -> Vec<u64> {
    lines(path).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn json_lines_hold_each_step_once_across_a_resume() {
    let (_guard, folder) = folder();
    let path = folder.join("metrics.jsonl");
    run(&mut fine_tuning(4), &RunPlan::new(4), &mut [&mut JsonLines::new(&path)]).unwrap();
    assert_eq!(steps(&path), [1, 2, 3, 4]);
    let third = lines(&path)[1].clone();
    // A crash cut the last line; the checkpoint was made after step 2.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 5]).unwrap();
    run(&mut fine_tuning(4), &RunPlan::new(4).from(2), &mut [&mut JsonLines::new(&path)]).unwrap();
    assert_eq!(steps(&path), [1, 2, 3, 4]);
    assert_eq!(lines(&path)[1], third);
}

#[test]
fn json_lines_start_over_with_a_run_that_starts_over() {
    let (_guard, folder) = folder();
    let path = folder.join("metrics.jsonl");
    for _ in 0..2 {
        run(&mut fine_tuning(2), &RunPlan::new(2), &mut [&mut JsonLines::new(&path)]).unwrap();
    }
    assert_eq!(steps(&path), [1, 2]);
}

#[test]
fn json_lines_write_what_json_cannot_say_as_null() {
    let (_guard, folder) = folder();
    let path = folder.join("metrics.jsonl");
    let mut observer = JsonLines::new(&path);
    observer.started(0, 1).unwrap();
    observer.iterated(1, &Metrics::new().with("a", f64::NAN).with("b", 0.1)).unwrap();
    assert_eq!(lines(&path), [json!({"step": 1, "a": null, "b": 0.1})]);
}

#[test]
fn json_lines_that_cannot_be_written_end_the_run_with_the_path() {
    let (_guard, folder) = folder();
    let path = folder.join("nowhere").join("metrics.jsonl");
    let error = run(&mut fine_tuning(2), &RunPlan::new(2), &mut [&mut JsonLines::new(&path)]).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot write {}", path.display())), "{error}");
}

/// One scalar of an event file.
#[derive(Debug, PartialEq)]
struct Scalar(u64, String, f32);

/// Reads records and events as the format's description says, apart from the code that writes them.
fn read_events(bytes: &[u8]) -> (Vec<Scalar>, Vec<String>) {
    let (mut scalars, mut versions, mut rest) = (Vec::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let data = &rest[12..12 + length];
        assert_eq!(rest[8..12], masked(&rest[..8]), "checksum of the length");
        assert_eq!(rest[12 + length..16 + length], masked(data), "checksum of the data");
        rest = &rest[16 + length..];
        let mut step = 0;
        for (number, field) in fields(data) {
            match (number, field) {
                (2, Field::Varint(value)) => step = value,
                (3, Field::Bytes(text)) => versions.push(String::from_utf8(text).unwrap()),
                (5, Field::Bytes(summary)) => {
                    for (_, value) in fields(&summary) {
                        let Field::Bytes(value) = value else { panic!("a Summary.Value") };
                        let mut parts = fields(&value).into_iter();
                        let (Some((1, Field::Bytes(tag))), Some((2, Field::Fixed32(x)))) =
                            (parts.next(), parts.next())
                        else {
                            panic!("a tag and a simple value")
                        };
                        scalars.push(Scalar(step, String::from_utf8(tag).unwrap(), f32::from_le_bytes(x)));
                    }
                }
                _ => {}
            }
        }
    }
    (scalars, versions)
}

enum Field {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(Vec<u8>),
}

fn fields(mut data: &[u8]) -> Vec<(u64, Field)> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut data)),
            1 => {
                data = &data[8..];
                Field::Fixed64
            }
            2 => {
                let length = varint(&mut data) as usize;
                let (bytes, rest) = data.split_at(length);
                data = rest;
                Field::Bytes(bytes.to_vec())
            }
            5 => {
                let (bytes, rest) = data.split_at(4);
                data = rest;
                Field::Fixed32(bytes.try_into().unwrap())
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = data[0];
        *data = &data[1..];
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// CRC-32C by table, masked as TFRecord does.
fn masked(data: &[u8]) -> [u8; 4] {
    let table: Vec<u32> = (0..256u32)
        .map(|i| (0..8).fold(i, |c, _| if c & 1 == 1 { 0x82F6_3B78 ^ (c >> 1) } else { c >> 1 }))
        .collect();
    let crc =
        !data.iter().fold(!0u32, |crc, &byte| table[((crc ^ u32::from(byte)) & 0xFF) as usize] ^ (crc >> 8));
    crc.rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

#[test]
fn event_files_read_back_as_what_was_reported() {
    let (_guard, folder) = folder();
    let mut reported = Vec::new();
    let mut watch = ObserverFn(|step, metrics: &Metrics| {
        reported.extend(metrics.iter().map(|(name, value)| Scalar(step, name.to_owned(), value as f32)));
        Control::Continue
    });
    run(
        &mut fine_tuning(200),
        &RunPlan::new(200).from(195),
        &mut [&mut watch, &mut TensorBoard::new(&folder)],
    )
    .unwrap();
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert!(files[0].file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    let (scalars, versions) = read_events(&fs::read(&files[0]).unwrap());
    assert_eq!(versions, ["brain.Event:2"]);
    assert!(reported.iter().any(|Scalar(step, name, _)| *step == 200 && name == "loss"));
    assert_eq!(scalars, reported);
}

#[test]
fn a_resumed_run_writes_another_event_file() {
    let (_guard, folder) = folder();
    run(&mut fine_tuning(4), &RunPlan::new(2), &mut [&mut TensorBoard::new(&folder)]).unwrap();
    run(&mut fine_tuning(4), &RunPlan::new(4).from(2), &mut [&mut TensorBoard::new(&folder)]).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn the_console_shows_four_digits_and_only_what_is_asked() {
    let mut console = Console::every(10).only(&["loss", "lr", "absent", "episodes"]);
    console.started(0, 200).unwrap();
    let metrics =
        Metrics::new().with("lr", 2e-5).with("loss", 1.23456).with("x", 1.0).with("episodes", 12345.0);
    assert_eq!(console.line(20, &metrics), "step 20/200 · loss 1.235 · lr 2.00e-5 · episodes 12345");
}

#[test]
fn an_interrupt_saves_and_ends_after_the_present_iteration() {
    let (_guard, folder) = folder();
    let mut interrupt = Interrupt::default();
    let flag = interrupt.flag();
    let mut press = ObserverFn(|step, _: &Metrics| {
        flag.store(step == 3, Ordering::Relaxed);
        Control::Continue
    });
    struct Saves(Vec<u64>);
    impl Observer for Saves {
        fn iterated(&mut self, _: u64, _: &Metrics) -> Result<Control, align_train::TrainError> {
            Ok(Control::Continue)
        }
        fn saved(&mut self, step: u64, folder: &Path) -> Result<(), align_train::TrainError> {
            assert!(folder.ends_with(format!("checkpoint-{step}")));
            self.0.push(step);
            Ok(())
        }
    }
    let mut saves = Saves(Vec::new());
    let plan = RunPlan::new(9).with_checkpoints(CheckpointPlan::new(&folder, 2, Value::Null));
    let ended = run(&mut fine_tuning(9), &plan, &mut [&mut press, &mut interrupt, &mut saves]).unwrap();
    assert_eq!(ended, Ended::Stopped { step: 3 });
    assert_eq!(saves.0, [2, 3]);
}

#[test]
fn every_iteration_is_timed() {
    let mut seconds = Vec::new();
    let mut watch = ObserverFn(|_, metrics: &Metrics| {
        seconds.extend(metrics.get("timing_s/step"));
        Control::Continue
    });
    run(&mut fine_tuning(3), &RunPlan::new(3), &mut [&mut watch]).unwrap();
    assert_eq!(seconds.len(), 3);
    assert!(seconds.iter().all(|&time| time > 0.0 && time < 60.0), "{seconds:?}");
}

#[test]
#[cfg(feature = "progress")]
fn the_bar_stands_where_the_run_stands() {
    let mut progress = align_train::Progress::new("sft", &["loss", "absent"]);
    run(&mut fine_tuning(9), &RunPlan::new(6).from(4), &mut [&mut progress]).unwrap();
    let bar = progress.bar();
    assert_eq!((bar.position(), bar.length()), (6, Some(6)));
    assert!(bar.message().starts_with(" · loss ") && !bar.message().contains("absent"), "{}", bar.message());
}
