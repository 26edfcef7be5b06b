//! Folders survive a round trip, in every family, type and number of files.

use std::fs;
use std::path::Path;

use align_core::{CausalLm, Draws, Persist, TokenBatch};
use align_models::checkpoint::{Dtype, SafetensorsFile, SaveOptions, copy_companions};
use align_models::{Transformer, TransformerConfig};
use align_testkit::{device, fixtures};
use burn::tensor::TensorData;
use serde_json::Value;

const MODELS: [&str; 12] = [
    "llama",
    "llama-mha-bias-tied",
    "llama3-scaled",
    "llama-yarn",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3",
    "qwen2",
    "qwen3",
    "gpt-neox",
    "gpt2",
];

fn load(folder: &Path) -> Transformer {
    Transformer::from_pretrained(folder, &device()).unwrap()
}

fn scores(model: &Transformer) -> TensorData {
    model.logits(&TokenBatch::left_padded(&[vec![5, 17, 40, 3], vec![9, 8]], &device())).to_data()
}

/// The tensors of a folder by name, as bits.
fn tensors(folder: &Path) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "safetensors")
            && !path.ends_with("expected.safetensors")
    });
    let mut all = Vec::new();
    for file in files {
        let file = SafetensorsFile::open(&file).unwrap();
        for (name, entry) in file.entries() {
            let bits = file.numbers(name).unwrap().iter().map(|number| number.to_bits()).collect();
            all.push((name.clone(), entry.shape.clone(), bits));
        }
    }
    all.sort();
    all
}

#[test]
fn what_is_saved_holds_the_tensors_that_transformers_wrote() {
    for name in MODELS {
        let source = fixtures::path(&format!("models/{name}"));
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let model = load(&source);
        model.save_pretrained(&target).unwrap();
        assert_eq!(tensors(&source), tensors(&target), "{name}");
        let again = load(&target);
        assert_eq!(model.config(), again.config(), "{name}");
        assert_eq!(scores(&model), scores(&again), "{name}");
    }
}

#[test]
fn both_generations_of_config_json_mean_the_same() {
    for (name, rope_type) in
        [("llama3-scaled", "rope_type"), ("llama-linear", "type"), ("llama-yarn", "rope_type")]
    {
        let text = fs::read_to_string(fixtures::path(&format!("models/{name}/config.json"))).unwrap();
        let new = TransformerConfig::from_json(&text).unwrap();
        let mut map: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let mut rope = map.remove("rope_parameters").unwrap();
        let rope = rope.as_object_mut().unwrap();
        map.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
        let kind = rope.remove("rope_type").unwrap();
        rope.insert(rope_type.into(), kind);
        map.insert("rope_scaling".into(), Value::Object(rope.clone()));
        let dtype = map.remove("dtype").unwrap();
        map.insert("torch_dtype".into(), dtype);
        let old = TransformerConfig::from_json(&Value::Object(map).to_string()).unwrap();
        assert_eq!(new, old, "{name}");
    }
    let new = fs::read_to_string(fixtures::path("models/gemma3/config.json")).unwrap();
    let mut map: serde_json::Map<String, Value> = serde_json::from_str(&new).unwrap();
    map.remove("rope_parameters");
    map.remove("layer_types");
    map.insert("rope_theta".into(), 1e6.into());
    map.insert("rope_local_base_freq".into(), 1e4.into());
    map.insert("rope_scaling".into(), serde_json::json!({ "rope_type": "linear", "factor": 8.0 }));
    map.insert("sliding_window_pattern".into(), 2.into());
    let old = TransformerConfig::from_json(&Value::Object(map).to_string()).unwrap();
    assert_eq!(TransformerConfig::from_json(&new).unwrap(), old);
}

#[test]
fn shards_hold_what_one_file_holds() {
    let model = load(&fixtures::path("models/llama"));
    let folder = tempfile::tempdir().unwrap();
    let options = SaveOptions { max_shard_bytes: 30_000, ..SaveOptions::default() };
    model.save_into(folder.path(), &options).unwrap();
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let shards = names.iter().filter(|name| name.to_string_lossy().starts_with("model-0")).count();
    assert!(shards >= 3, "{names:?}");
    assert!(!folder.path().join("model.safetensors").exists());
    assert_eq!(tensors(folder.path()), tensors(&fixtures::path("models/llama")));
    assert_eq!(scores(&load(folder.path())), scores(&model));
    // Saved whole again, the index of the shards must not be read instead.
    model.save_into(folder.path(), &SaveOptions::default()).unwrap();
    assert!(!folder.path().join("model.safetensors.index.json").exists());
    assert_eq!(scores(&load(folder.path())), scores(&model));
}

#[test]
fn half_precision_files_keep_what_they_rounded_to() {
    for (name, dtype) in [("llama-bf16", Dtype::Bf16), ("llama-f16", Dtype::F16)] {
        let source = fixtures::path(&format!("models/{name}"));
        let model = load(&source);
        let folder = tempfile::tempdir().unwrap();
        let options = SaveOptions { dtype: Some(dtype), ..SaveOptions::default() };
        model.save_into(folder.path(), &options).unwrap();
        // Numbers that were in half precision already survive it.
        assert_eq!(tensors(&source), tensors(folder.path()), "{name}");
        let file = SafetensorsFile::open(&folder.path().join("model.safetensors")).unwrap();
        assert!(file.entries().values().all(|entry| entry.dtype == dtype.name()));
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        assert!(config.contains(&format!("\"dtype\": \"{}\"", dtype.config_name())), "{config}");
    }
}

#[test]
fn initial_weights_depend_on_seed_and_place_alone() {
    let config = TransformerConfig::llama(50, 32, 2, 4);
    let [first, again, other] =
        [1, 1, 2].map(|seed| Transformer::init(&config, &Draws::new(seed), &device()));
    assert_eq!(scores(&first), scores(&again));
    assert_ne!(scores(&first), scores(&other));
    // 50 · 32 numbers of standard deviation 0.02: its estimate has a standard error of 0.02/√3200; five of them.
    let folder = tempfile::tempdir().unwrap();
    first.save_into(folder.path(), &SaveOptions::default()).unwrap();
    let file = SafetensorsFile::open(&folder.path().join("model.safetensors")).unwrap();
    let embedding = file.numbers("model.embed_tokens.weight").unwrap();
    let deviation = (embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1600.0).sqrt();
    assert!((deviation - 0.02).abs() < 5.0 * 0.02 / 3200f64.sqrt(), "{deviation}");
    assert!(file.numbers("model.norm.weight").unwrap().iter().all(|&one| one == 1.0));
    // A longer model starts as the shorter one does.
    let longer = TransformerConfig { num_layers: 3, windows: vec![None; 3], ..config };
    let longer_folder = tempfile::tempdir().unwrap();
    Transformer::init(&longer, &Draws::new(1), &device())
        .save_into(longer_folder.path(), &SaveOptions::default())
        .unwrap();
    let longer = SafetensorsFile::open(&longer_folder.path().join("model.safetensors")).unwrap();
    assert_eq!(embedding, longer.numbers("model.embed_tokens.weight").unwrap());
}

#[test]
fn restoring_gives_every_bit_back_and_keeps_ids() {
    use burn::module::list_param_ids;
    let folder = tempfile::tempdir().unwrap();
    let model = load(&fixtures::path("models/gemma2"));
    Persist::save(&model, folder.path()).unwrap();
    let other = Transformer::init(model.config(), &Draws::new(3), &device());
    let ids = list_param_ids(&other);
    assert_ne!(scores(&other), scores(&model));
    let restored = other.restore(folder.path()).unwrap();
    assert_eq!(scores(&restored), scores(&model));
    assert_eq!(list_param_ids(&restored), ids, "optimizer state is kept by id");
    let stranger = Transformer::init(&TransformerConfig::llama(97, 32, 2, 4), &Draws::new(3), &device());
    let message = stranger.restore(folder.path()).unwrap_err().to_string();
    for part in [
        "config.json is damaged: expected architectures [\"LlamaForCausalLM\"], ",
        "found architectures [\"Gemma2ForCausalLM\"], ",
        "sliding_window 6, ",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_model_restored_for_training_still_gets_gradients() {
    use align_testkit::train_device;
    use burn::optim::GradientsParams;
    let folder = tempfile::tempdir().unwrap();
    let source = fixtures::path("models/llama");
    let model = Transformer::from_pretrained(&source, &train_device()).unwrap();
    Persist::save(&model, folder.path()).unwrap();
    let model = model.restore(folder.path()).unwrap();
    let loss = model.logits(&TokenBatch::left_padded(&[vec![5, 17, 40]], &device())).powf_scalar(2.0).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    assert_eq!(gradients.len(), model.num_params_listed(), "every parameter has a gradient");
}

trait Listed {
    fn num_params_listed(&self) -> usize;
}

impl Listed for Transformer {
    fn num_params_listed(&self) -> usize {
        burn::module::list_param_ids(self).len()
    }
}

#[test]
fn an_option_that_the_family_cannot_express_is_not_saved_silently() {
    let mut config = TransformerConfig::llama(50, 32, 2, 4);
    config.final_softcap = Some(30.0);
    let model = Transformer::init(&config, &Draws::new(1), &device());
    let folder = tempfile::tempdir().unwrap();
    let message = model.save_pretrained(&folder.path().join("model")).unwrap_err().to_string();
    assert!(message.starts_with("config.json of a llama cannot express this model"), "{message}");
    assert!(!folder.path().join("model").exists());
}

#[test]
fn companions_are_copied_and_nothing_else() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "chat_template.jinja", "notes.txt"] {
        fs::write(from.path().join(name), name).unwrap();
    }
    copy_companions(from.path(), to.path()).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["chat_template.jinja", "tokenizer.json"]);
}

#[test]
fn files_of_a_bare_decoder_and_old_buffers_are_read() {
    // GPT-2's own files have no prefix and carry causal masks.
    let source = fixtures::path("models/gpt2");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    let file = fs::read(source.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let end = file.len() - 8 - length;
    let mut bare: serde_json::Map<String, Value> = header
        .into_iter()
        .map(|(name, value)| (name.strip_prefix("transformer.").unwrap_or(&name).to_owned(), value))
        .collect();
    for (at, name) in ["h.0.attn.bias", "h.1.attn.masked_bias"].into_iter().enumerate() {
        let offsets = [end + 4 * at, end + 4 * at + 4];
        bare.insert(name.into(), serde_json::json!({ "dtype": "U8", "shape": [4], "data_offsets": offsets }));
    }
    let header = Value::Object(bare).to_string().into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(&header);
    bytes.extend(&file[8 + length..]);
    bytes.extend([0; 8]);
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    assert_eq!(scores(&load(folder.path())), scores(&load(&source)));
}
