//! Writes every fixture again, for `fixtures/models/check_saved.py` to load in transformers.

use std::path::PathBuf;

use align_models::{RewardModel, Transformer};
use align_testkit::{device, fixtures};

#[test]
#[ignore = "writes folders for check_saved.py into $ALIGN_SAVED"]
fn every_fixture_is_written_again() {
    let target = PathBuf::from(std::env::var_os("ALIGN_SAVED").expect("ALIGN_SAVED names a folder"));
    std::fs::create_dir_all(&target).unwrap();
    for entry in std::fs::read_dir(fixtures::path("models")).unwrap() {
        let source = entry.unwrap().path();
        let name = source.file_name().unwrap().to_string_lossy().into_owned();
        if !source.is_dir() || name.contains("16") {
            continue;
        }
        let folder = target.join(&name);
        if let Some(base) = name.strip_suffix("-lora") {
            let beneath = fixtures::path(&format!("models/{base}"));
            if base.ends_with("reward") {
                let base = RewardModel::from_pretrained(&beneath, &device(), None).unwrap();
                base.load_adapters(&source).unwrap().save_adapters(&folder).unwrap();
            } else {
                let base = Transformer::from_pretrained(&beneath, &device()).unwrap();
                base.load_adapters(&source).unwrap().save_adapters(&folder).unwrap();
            }
        } else if name.ends_with("reward") {
            RewardModel::from_pretrained(&source, &device(), None).unwrap().save_pretrained(&folder).unwrap();
        } else {
            Transformer::from_pretrained(&source, &device()).unwrap().save_pretrained(&folder).unwrap();
        }
        assert!(folder.is_dir());
    }
}
