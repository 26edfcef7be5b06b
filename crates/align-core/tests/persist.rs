//! Saving loses nothing, restoring changes nothing, and damaged files are refused by name.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use align_core::persist::{
    read_json, read_module, recover_folder, replace_file, replace_folder, write_json, write_module,
};
use align_core::{Draws, Persist, PersistError};
use align_testkit::{BigramCritic, BigramLm, Values, device, train_device};
use burn::module::{Module, Param};
use burn::tensor::{Bool, DType, Int, Tensor};
use proptest::prelude::*;

/// Every kind of parameter, nested, in several types.
#[derive(Module, Debug)]
struct Mixed {
    inner: BigramLm,
    layers: Vec<BigramCritic>,
    half: Param<Tensor<1>>,
    counts: Param<Tensor<1, Int>>,
    flags: Param<Tensor<1, Bool>>,
}

fn mixed(seed: u64) -> Mixed {
    let device = train_device();
    let value = seed as f32;
    Mixed {
        inner: BigramLm::random(3, &Draws::new(seed), &device),
        layers: vec![BigramCritic::from_values(&[value, 1.0], &device), BigramCritic::zeros(1, &device)],
        half: Param::from_tensor(
            Tensor::<1>::from_floats([value, 0.1, -3.0], &align_testkit::device())
                .cast(DType::BF16)
                .autodiff(),
        ),
        counts: Param::initialized(Default::default(), Tensor::from_ints([seed as i64, -7], &device)),
        flags: Param::initialized(Default::default(), Tensor::from_bool([seed == 1, true, false], &device)),
    }
}

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_module_survives_the_round_trip_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixed.safetensors");
    let (first, second) = (mixed(1), mixed(2));
    write_module(&first, &file).unwrap();
    let (table, half) = (second.inner.table.id, second.half.id);
    let read = read_module(second, &file).unwrap();

    assert_eq!(read.inner.table.val().to_data(), first.inner.table.val().to_data());
    assert_eq!(read.layers[0].table.val().to_data(), first.layers[0].table.val().to_data());
    assert_eq!(read.half.val().to_data(), first.half.val().to_data());
    assert_eq!(read.half.val().dtype(), DType::BF16);
    assert_eq!(read.counts.val().to_data(), first.counts.val().to_data());
    assert_eq!(read.flags.val().to_data(), first.flags.val().to_data());
    // Ids are the module's own, so an optimizer's state still finds its parameters.
    assert_eq!((read.inner.table.id, read.half.id), (table, half));
    // Written again, the same bytes.
    let again = folder.path().join("again.safetensors");
    write_module(&read, &again).unwrap();
    assert_eq!(bytes(folder.path(), "again.safetensors"), bytes(folder.path(), "mixed.safetensors"));
}

#[test]
fn special_bits_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bits.safetensors");
    let bits = [0x7fc0_dead, 0xff80_0000, 0x8000_0000, 0x0000_0001].map(f32::from_bits);
    let critic = BigramCritic::from_values(&bits, &device());
    write_module(&critic, &file).unwrap();
    let read = read_module(BigramCritic::zeros(4, &device()), &file).unwrap();
    let found: Vec<u32> = read.table.val().to_data().iter::<f32>().map(f32::to_bits).collect();
    assert_eq!(found, bits.map(f32::to_bits));
}

#[test]
fn restored_parameters_stay_trainable_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let saved = BigramLm::random(3, &Draws::new(1), &train_device());
    saved.save(folder.path()).unwrap();
    let trained = BigramLm::random(3, &Draws::new(2), &train_device()).restore(folder.path()).unwrap();
    assert!(trained.table.val().is_autodiff() && trained.table.val().is_require_grad());
    // A leaf gets a gradient; a tensor computed from one would silently not.
    let table = trained.table.val();
    assert_eq!(align_testkit::gradient(&(table.clone() * 3.0).sum(), &table), vec![3.0; 9]);

    let frozen =
        BigramLm::random(3, &Draws::new(2), &train_device()).no_grad().restore(folder.path()).unwrap();
    assert!(frozen.table.val().is_autodiff() && !frozen.table.val().is_require_grad());
    let plain = BigramLm::random(3, &Draws::new(2), &device()).restore(folder.path()).unwrap();
    assert!(!plain.table.val().is_autodiff());
    assert_eq!(plain.table.val().values(), saved.table.val().values());
}

fn refusal(expected: &BigramLm, file: &Path) -> String {
    read_module(expected.clone(), file).unwrap_err().to_string()
}

#[test]
fn another_structure_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let expected = BigramLm::random(3, &Draws::new(1), &device());

    write_module(&mixed(1), &file).unwrap();
    let message = refusal(&expected, &file);
    assert!(message.contains("missing [\"table\"]"), "{message}");
    assert!(message.contains("\"inner.table\"") && message.contains("\"layers.1.table\""), "{message}");

    write_module(&BigramLm::random(4, &Draws::new(1), &device()), &file).unwrap();
    let message = refusal(&expected, &file);
    assert!(message.ends_with("tensor `table` has shape [4, 4], expected [3, 3]"), "{message}");

    write_module(&expected.to_double(), &file).unwrap();
    let message = refusal(&expected, &file);
    assert!(message.ends_with("tensor `table` has type F64, expected F32"), "{message}");
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = BigramLm::random(3, &Draws::new(1), &device()).restore(folder.path()).unwrap_err();
    assert!(
        matches!(&error, PersistError::Read { path, source }
        if path.ends_with("bigram.safetensors") && source.kind() == io::ErrorKind::NotFound),
        "{error}"
    );
}

#[test]
fn a_header_that_promises_more_than_the_file_holds_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    // Eight petabytes of f32, of which none is there; and a header longer than any file.
    let header =
        br#"{"table":{"dtype":"F32","shape":[2000000000000000],"data_offsets":[0,8000000000000000]}}"#;
    for length in [header.len() as u64, u64::MAX] {
        fs::write(&file, [&length.to_le_bytes()[..], header].concat()).unwrap();
        let message = refusal(&BigramLm::random(3, &Draws::new(1), &device()), &file);
        assert!(message.contains("is damaged: expected a safetensors file"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens to the bytes, reading gives the values written or a typed error, and never panics.
    #[test]
    fn damage_never_panics(cut in 0usize..200, at in 0usize..200, byte in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let model = BigramLm::random(3, &Draws::new(1), &device());
        write_module(&model, &file).unwrap();
        let whole = fs::read(&file).unwrap();
        let truncated = &whole[..cut.min(whole.len() - 1)];
        fs::write(&file, truncated).unwrap();
        let found = read_module(model.clone(), &file);
        prop_assert!(matches!(found, Err(PersistError::Damaged { .. })), "a truncated file was accepted");

        let mut flipped = whole.clone();
        let at = at % whole.len();
        flipped[at] = byte;
        fs::write(&file, &flipped).unwrap();
        if let Ok(read) = read_module(model.clone(), &file) {
            prop_assert_eq!(read.table.val().dims(), [3, 3]);
        }
    }
}

/// A disk that is full after some bytes.
fn full_disk(output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"half of the new st")?;
    output.flush()?;
    Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    replace_file(&path, |output| output.write_all(b"old")).unwrap();
    let error = replace_file(&path, full_disk).unwrap_err();
    assert!(
        matches!(&error, PersistError::Write { path: named, source }
        if *named == path && source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
    assert!(error.to_string().ends_with("what was saved before is untouched"), "{error}");
    assert_eq!(bytes(folder.path(), "state"), b"old");
    assert_eq!(names(folder.path()), ["state"]);
}

/// A folder with one file that says which version it is.
fn fill(version: &'static [u8]) -> impl FnOnce(&Path) -> Result<(), PersistError> {
    move |folder| replace_file(&folder.join("version"), |output| output.write_all(version))
}

#[test]
fn a_full_disk_leaves_the_old_folder() {
    let folder = tempfile::tempdir().unwrap();
    // A name with dots: nothing of it may be taken for an extension.
    let path = folder.path().join("step-0.5");
    replace_folder(&path, fill(b"old")).unwrap();
    let error = replace_folder(&path, |beside| {
        fs::write(beside.join("first"), b"written").map_err(PersistError::write(beside))?;
        replace_file(&beside.join("second"), full_disk)
    });
    assert!(matches!(error, Err(PersistError::Write { .. })));
    assert_eq!(bytes(&path, "version"), b"old");
    assert_eq!((names(&path), names(folder.path())), (vec!["version".into()], vec!["step-0.5".into()]));
}

#[test]
fn a_replaced_folder_holds_nothing_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    replace_folder(&path, |beside| {
        fs::write(beside.join("only in the old"), b"").map_err(PersistError::write(beside))
    })
    .unwrap();
    replace_folder(&path, fill(b"new")).unwrap();
    assert_eq!((names(&path), names(folder.path())), (vec!["version".into()], vec!["run".into()]));
}

/// The states a crash can leave, and what recovery makes of them.
#[test]
fn recovery_finds_a_whole_folder_after_every_crash() {
    for (left, expected) in [
        (&["run", "run.align-new"][..], Some("run")), // while filling, or after the exchange
        (&["run.align-old", "run.align-new"], Some("run.align-new")), // between the two renames
        (&["run", "run.align-old"], Some("run")),     // before the old one was removed
        (&["run.align-old"], Some("run.align-old")),  // the new one was lost from outside
        (&["run.align-new"], None),                   // while filling the first
        (&[], None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in left {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("came from"), name).unwrap();
        }
        let path = folder.path().join("run");
        recover_folder(&path).unwrap();
        let found = path.exists().then(|| String::from_utf8(bytes(&path, "came from")).unwrap());
        assert_eq!(found.as_deref(), expected, "after a crash that left {left:?}");
        assert_eq!(names(folder.path()).len(), usize::from(expected.is_some()), "{left:?}");
        // And the next save goes through.
        replace_folder(&path, fill(b"next")).unwrap();
        assert_eq!(bytes(&path, "version"), b"next");
    }
}

#[test]
fn a_path_without_a_name_is_refused() {
    let error = replace_folder(Path::new("/"), fill(b"anywhere")).unwrap_err();
    assert!(
        matches!(&error, PersistError::Write { source, .. } if source.kind() == io::ErrorKind::InvalidInput)
    );
}

#[test]
fn the_file_is_plain_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    write_module(&mixed(1), &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0, "tensors start aligned");
    let text = std::str::from_utf8(&bytes[8..8 + header]).unwrap();
    assert!(text.contains(r#""half":{"dtype":"BF16","shape":[3]"#), "{text}");
    assert!(text.contains(r#""flags":{"dtype":"BOOL","shape":[3]"#), "{text}");
}

#[test]
fn json_comes_back_and_something_else_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    write_json(&path, &[1.5, -0.0]).unwrap();
    assert_eq!(read_json::<[f64; 2]>(&path, "two numbers").unwrap(), [1.5, -0.0]);
    let message = read_json::<[f64; 3]>(&path, "three numbers").unwrap_err().to_string();
    assert!(
        message.contains("state.json is damaged: expected three numbers, found invalid length 2"),
        "{message}"
    );
    let missing = read_json::<f64>(&folder.path().join("none.json"), "a number").unwrap_err();
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");
}
