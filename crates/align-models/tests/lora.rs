//! Adapters: what they compute, what they train, and PEFT's files.

use std::fs;
use std::path::Path;

use align_core::{CausalLm, Completions, Draws, Persist, TokenBatch};
use align_models::checkpoint::SafetensorsFile;
use align_models::{LoraConfig, LoraTarget, Normalization, RewardModel, Transformer};
use align_testkit::{assert_close, device, fixtures, train_device};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};

fn base(device: &Device) -> Transformer {
    Transformer::from_pretrained(&fixtures::path("models/llama"), device).unwrap()
}

fn tokens() -> TokenBatch {
    TokenBatch::left_padded(&[vec![5, 17, 40, 3, 22], vec![9, 8]], &device())
}

fn scores(model: &Transformer) -> TensorData {
    model.logits(&tokens()).without_autodiff().to_data()
}

/// B starts at zero; a test needs adapters that do something.
fn stirred(model: Transformer) -> Transformer {
    struct Stir(u64);
    impl ModuleMapper for Stir {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let zero: f32 = param.val().without_autodiff().abs().max().into_scalar();
            if zero != 0.0 {
                return param;
            }
            self.0 += 1;
            let draws = Draws::new(self.0);
            param.map(|tensor| {
                let count = tensor.shape().num_elements() as u64;
                let values: Vec<f32> = (0..count)
                    .map(|at| draws.token(align_core::draws::Purpose::Initialize, 0, at, 0, 0) as f32 - 0.5)
                    .collect();
                let (records, device) = (tensor.is_autodiff(), tensor.device().without_autodiff());
                let fresh = Tensor::from_data(TensorData::new(values, tensor.shape()), &device);
                if records { fresh.autodiff().require_grad() } else { fresh }
            })
        }
    }
    model.map(&mut Stir(0))
}

/// Ids and paths of parameters that require gradients.
fn trained(model: &Transformer) -> Vec<(ParamId, String)> {
    struct Find {
        path: Vec<String>,
        found: Vec<(ParamId, String)>,
    }
    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.found.push((param.id, self.path.join(".")));
            }
        }
    }
    let mut find = Find { path: Vec::new(), found: Vec::new() };
    model.visit(&mut find);
    find.found
}

fn all_targets() -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets: LoraTarget::ALL.to_vec(), ..LoraConfig::default() }
}

#[test]
fn fresh_adapters_change_nothing() {
    let model = base(&device());
    let adapted = model.clone().with_adapters(&all_targets(), &Draws::new(1));
    assert!(adapted.has_adapters() && !model.has_adapters());
    assert_eq!(scores(&adapted), scores(&model));
}

#[test]
fn merging_and_taking_off_say_what_adapters_do() {
    let model = base(&device());
    let adapted = stirred(model.clone().with_adapters(&all_targets(), &Draws::new(1)));
    let merged = adapted.merged();
    assert!(!merged.has_adapters());
    // The same update summed in another order; scores of size ten.
    assert_close(
        Tensor::<3>::from_data(scores(&merged), &device()),
        Tensor::<3>::from_data(scores(&adapted), &device()),
        1e-4,
    );
    assert_ne!(scores(&adapted), scores(&model));
    assert_eq!(
        scores(&adapted.without_adapters()),
        scores(&model),
        "the reference is the policy with adapters off"
    );
}

#[test]
fn only_adapters_are_trained_and_all_of_them() {
    let adapted = stirred(base(&train_device()).with_adapters(&all_targets(), &Draws::new(1)));
    let loss = adapted.logits(&tokens()).powf_scalar(2.0).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &adapted);
    let trained = trained(&adapted);
    assert_eq!(trained.len(), 2 * 7 * 2, "two matrices, seven projections, two layers");
    assert!(trained.iter().all(|(_, path)| path.contains("adapter")), "{trained:?}");
    assert_eq!(gradients.len(), trained.len());
    for (id, path) in trained {
        let gradient = gradients.get::<2>(id).unwrap_or_else(|| panic!("{path} has no gradient"));
        let size: f32 = gradient.abs().max().into_scalar();
        assert!(size.is_finite() && size > 0.0, "{path}: {size}");
    }
    // Out of training and back, it is still the adapters that train.
    assert_eq!(self::trained(&adapted.valid().train()).len(), 28);
    // A merged model is an ordinary one again.
    assert_eq!(self::trained(&adapted.merged()).len(), burn::module::list_param_ids(&adapted.merged()).len());
}

#[test]
fn each_option_of_the_configuration_matters() {
    let default = LoraConfig { targets: vec![LoraTarget::Query], ..all_targets() };
    let make = |config: &LoraConfig, seed| {
        scores(&stirred(base(&device()).with_adapters(config, &Draws::new(seed))))
    };
    let reference = make(&default, 1);
    assert_eq!(reference, make(&default, 1));
    assert_ne!(reference, make(&default, 2), "the draws of A");
    for other in [
        LoraConfig { rank: 4, ..default.clone() },
        LoraConfig { alpha: 7.0, ..default.clone() },
        LoraConfig { rank_stabilized: true, ..default.clone() },
        LoraConfig { targets: vec![LoraTarget::Down], ..default.clone() },
    ] {
        assert_ne!(reference, make(&other, 1), "{other:?}");
    }
}

#[test]
fn dropout_is_keyed_and_off_outside_training() {
    let config = LoraConfig { dropout: 0.5, ..all_targets() };
    let adapted = stirred(base(&train_device()).with_adapters(&config, &Draws::new(1)));
    let plain = scores(&adapted);
    let draws = Draws::new(5);
    let at = |step| adapted.clone().with_dropout(&draws, step);
    assert_ne!(scores(&at(0)), plain);
    assert_eq!(scores(&at(0)), scores(&at(0)));
    assert_ne!(scores(&at(0)), scores(&at(1)));
    assert_eq!(scores(&at(0).valid()), scores(&adapted.valid()), "a model out of training drops nothing");
}

/// What PEFT computed with the adapters in `name`, the bound of all parity tests apart.
fn assert_as_in_peft(name: &str, adapted: &Transformer) {
    let expected = fixtures::tensors(&format!("models/{name}/expected.safetensors"));
    let row: Vec<u32> = expected["row"].iter::<i64>().map(|id| id as u32).collect();
    let completions = Completions::from_rows(&[row[..1].to_vec()], &[row[1..].to_vec()], &device());
    let log_probs: Vec<f32> = expected["log_probs"].iter::<f32>().collect();
    assert_close(adapted.token_log_probs(&completions, 1.0).log_probs, &log_probs[..], 1e-4);
    let off = adapted.without_adapters().token_log_probs(&completions, 1.0).log_probs;
    let off: Vec<f32> = off.to_data().iter::<f32>().collect();
    let furthest = off.iter().zip(&log_probs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest > 0.1, "the adapters of {name} matter: {furthest}");
}

#[test]
fn adapters_of_peft_compute_what_they_compute_there_and_after_being_written_again() {
    // GPT-2's and GPT-NeoX's queries, keys and values are one module there; ranks differ in GPT-2's.
    for name in ["llama-lora", "gpt2-lora", "gpt-neox-lora"] {
        let beneath = fixtures::path(&format!("models/{}", name.trim_end_matches("-lora")));
        let base = || Transformer::from_pretrained(&beneath, &device()).unwrap();
        let source = fixtures::path(&format!("models/{name}"));
        let adapted = base().load_adapters(&source).unwrap();
        assert_as_in_peft(name, &adapted);

        let folder = tempfile::tempdir().unwrap();
        let again = folder.path().join("again");
        adapted.save_adapters(&again).unwrap();
        assert_as_in_peft(name, &base().load_adapters(&again).unwrap());
        // The same numbers under the same names: a fused module read as three is one again.
        let tensors = |folder: &Path| {
            let file = SafetensorsFile::open(&folder.join("adapter_model.safetensors")).unwrap();
            file.entries().keys().map(|name| (name.clone(), file.numbers(name).unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(tensors(&source), tensors(&again), "{name}");
    }
}

#[test]
fn adapters_trained_apart_become_one_of_a_fused_module() {
    for family in ["gpt2", "gpt-neox"] {
        let path = fixtures::path(&format!("models/{family}"));
        let base = || Transformer::from_pretrained(&path, &device()).unwrap();
        for targets in [vec![LoraTarget::Query, LoraTarget::Value, LoraTarget::Output], vec![LoraTarget::Key]]
        {
            let config = LoraConfig { targets, ..LoraConfig::default() };
            let adapted = stirred(base().with_adapters(&config, &Draws::new(1)));
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("adapter");
            adapted.save_adapters(&target).unwrap();
            let again = base().load_adapters(&target).unwrap();
            // The sums of the products have more terms, which are zero.
            let expected: Vec<f32> = scores(&adapted).iter::<f32>().collect();
            let found: Vec<f32> = scores(&again).iter::<f32>().collect();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{family}: {found} and {expected}");
            }
        }
    }
}

#[test]
fn a_reward_model_s_adapters_come_and_go_with_its_head_and_scale() {
    let base =
        || RewardModel::from_pretrained(&fixtures::path("models/llama-reward"), &device(), None).unwrap();
    let adapted = base().load_adapters(&fixtures::path("models/llama-reward-lora")).unwrap();
    let expected = fixtures::tensors("models/llama-reward-lora/expected.safetensors");
    let row: Vec<u32> = expected["row"].iter::<i64>().map(|id| id as u32).collect();
    let score =
        |model: &RewardModel| -> f32 { model.raw_scores_of_rows(std::slice::from_ref(&row)).into_scalar() };
    let theirs: f32 = expected["score"].iter::<f32>().next().unwrap();
    assert!((score(&adapted) - theirs).abs() < 1e-4, "{} and {theirs}", score(&adapted));
    assert!((score(&base()) - theirs).abs() > 0.1, "the adapters matter");

    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("adapter");
    let normalization = Normalization { gain: 0.5, bias: -1.25 };
    adapted.clone().with_normalization(normalization).save_adapters(&target).unwrap();
    let again = base().load_adapters(&target).unwrap();
    assert_eq!(score(&again), score(&adapted));
    assert_eq!(again.normalization(), normalization);
    // A language model has no place for the head, but lends its decoder to it.
    let llama = fixtures::path("models/llama");
    let lent = RewardModel::from_pretrained_adapted(&llama, &target, &device(), DType::F32).unwrap();
    assert_eq!(lent.normalization(), normalization);
    let headless = fixtures::path("models/llama-lora");
    let error = RewardModel::from_pretrained_adapted(&llama, &headless, &device(), DType::F32).unwrap_err();
    assert!(error.to_string().contains("score.weight"), "{error}");
    let model = Transformer::from_pretrained(&fixtures::path("models/llama"), &device()).unwrap();
    let error = model.load_adapters(&target).unwrap_err();
    assert!(format!("{:?}", error).contains("modules_to_save"), "{error:?}");
}

#[test]
fn adapters_survive_peft_files_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("adapter");
    let adapted = stirred(base(&device()).with_adapters(&all_targets(), &Draws::new(1)));
    adapted.save_adapters(&target).unwrap();
    assert_eq!(scores(&base(&device()).load_adapters(&target).unwrap()), scores(&adapted));

    let folder = tempfile::tempdir().unwrap();
    Persist::save(&adapted, folder.path()).unwrap();
    let restored =
        base(&device()).with_adapters(&all_targets(), &Draws::new(9)).restore(folder.path()).unwrap();
    assert_eq!(scores(&restored), scores(&adapted));
    // The folder itself is a model with the adapters merged.
    let merged = Transformer::from_pretrained(folder.path(), &device()).unwrap();
    assert_eq!(scores(&merged), scores(&adapted.merged()));
}

#[test]
fn what_adapters_cannot_mean_is_refused() {
    let source = fixtures::path("models/llama-lora");
    let change = |key: &str, value: serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(source.join(name), folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("adapter_config.json");
        let mut map: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        map[key] = value;
        fs::write(&path, map.to_string()).unwrap();
        let error = base(&device()).load_adapters(folder.path()).unwrap_err();
        let cause = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
        format!("{error}: {cause}")
    };
    for (key, value, part) in [
        ("use_dora", true.into(), "`use_dora` is true"),
        ("peft_type", "IA3".into(), "`peft_type` is \"IA3\""),
        ("bias", "all".into(), "`bias` is \"all\""),
        ("r", 0.into(), "`r` is 0, expected a rank"),
        (
            "rank_pattern",
            serde_json::json!({ "q_.*": 2 }),
            "`rank_pattern` is \"q_.*\", which is not supported; expected names of modules",
        ),
        ("rank_pattern", serde_json::json!({ "q_proj": 0.5 }), "`rank_pattern` is 0.5, expected a rank"),
        ("modules_to_save", serde_json::json!(["score"]), "`modules_to_save` is [\"score\"]"),
        ("r", 5.into(), "of the wrong shape: base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"),
    ] {
        let message = change(key, value);
        assert!(message.contains(part), "expected {part} in {message}");
    }
}
