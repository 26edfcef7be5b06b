//! Reward models and critics.

use std::fs;

use align_core::{Completions, Critic, Draws, Persist, Reward};
use align_models::{
    LoraConfig, Normalization, RewardModel, SharedRewardModels, Transformer, TransformerConfig, ValueModel,
};
use align_testkit::{assert_close, device, fixtures, train_device};
use burn::module::{Module, ModuleMapper, Param, list_param_ids};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

fn language_model() -> Transformer {
    Transformer::from_pretrained(&fixtures::path("models/llama"), &device()).unwrap()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

#[test]
fn reward_models_of_transformers_score_as_there() {
    for name in ["llama-reward", "gpt2-reward"] {
        let expected = fixtures::tensors(&format!("models/{name}/expected.safetensors"));
        let folder = fixtures::path(&format!("models/{name}"));
        let model = RewardModel::from_pretrained(&folder, &device(), None).unwrap();
        let rows: Vec<Vec<u32>> = (0..3)
            .map(|row| expected[&format!("rows.{row}")].iter::<i64>().map(|id| id as u32).collect())
            .collect();
        let scores: Vec<f32> = (0..3)
            .flat_map(|row| expected[&format!("score.{row}")].iter::<f32>().collect::<Vec<_>>())
            .collect();
        // Scores of size one through two layers in f32.
        assert_close(model.raw_scores_of_rows(&rows), &scores[..], 1e-4);
        let (prompts, responses): (Vec<_>, Vec<_>) =
            rows.iter().map(|row| (row[..4].to_vec(), row[4..].to_vec())).unzip();
        assert_close(
            model.score(&Completions::from_rows(&prompts, &responses, &device())),
            &scores[..],
            1e-4,
        );
    }
}

#[test]
fn a_score_is_the_same_alone_and_in_any_batch() {
    let folder = fixtures::path("models/llama-reward");
    let model = RewardModel::from_pretrained(&folder, &device(), None).unwrap();
    let prompts = [vec![5, 6, 7], vec![8; 9], vec![9, 10]];
    let responses = [vec![11, 2], vec![12], vec![13, 14, 15, 16, 17, 2]];
    let together = numbers(model.score(&Completions::from_rows(&prompts, &responses, &device())));
    for row in 0..3 {
        let alone = Completions::from_rows(&prompts[row..=row], &responses[row..=row], &device());
        // The same sums in another order at most.
        assert_close(model.score(&alone), together[row], 1e-5);
    }
}

#[test]
fn normalisation_is_applied_stored_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("reward");
    let model = RewardModel::from_transformer(&language_model(), &Draws::new(1));
    let completions = Completions::from_rows(&[vec![5, 6]], &[vec![7, 2]], &device());
    let raw = numbers(model.raw_scores(&completions))[0];
    let model = model.with_normalization(Normalization { gain: 2.0, bias: -0.5 });
    assert_close(model.score(&completions), 2.0 * raw - 0.5, 1e-6);
    model.save_pretrained(&target).unwrap();
    let again = RewardModel::from_pretrained(&target, &device(), None).unwrap();
    assert_eq!(numbers(again.score(&completions)), numbers(model.score(&completions)));
    let config = fs::read_to_string(target.join("config.json")).unwrap();
    for part in ["LlamaForSequenceClassification", "\"num_labels\": 1", "LABEL_0", "\"pad_token_id\": 0"] {
        assert!(config.contains(part), "{part} in {config}");
    }
}

#[test]
fn a_missing_head_is_an_error_unless_asked_for() {
    let folder = fixtures::path("models/llama");
    let message = RewardModel::from_pretrained(&folder, &device(), None).unwrap_err().to_string();
    assert!(
        message.contains("models/llama has no head `score.weight`") && message.contains("init_head"),
        "{message}"
    );
    let drawn = RewardModel::from_pretrained(&folder, &device(), Some(&Draws::new(4))).unwrap();
    let made = RewardModel::from_transformer(&language_model(), &Draws::new(4));
    let completions = Completions::from_rows(&[vec![5, 6]], &[vec![7, 2]], &device());
    assert_eq!(numbers(drawn.score(&completions)), numbers(made.score(&completions)));
}

#[test]
fn a_head_that_is_there_is_kept_even_if_a_new_one_was_allowed() {
    let folder = fixtures::path("models/llama-reward");
    let completions = Completions::from_rows(&[vec![5, 6]], &[vec![7, 2]], &device());
    let [kept, own] = [Some(&Draws::new(4)), None].map(|draws| {
        numbers(RewardModel::from_pretrained(&folder, &device(), draws).unwrap().score(&completions))
    });
    assert_eq!(kept, own);
}

#[test]
fn new_heads_have_the_standard_deviation_of_the_source() {
    // 4096 numbers of standard deviation 1/√4097: its estimate has a standard error of σ/√8192; five of them.
    let mut config = TransformerConfig::llama(8, 4096, 1, 1);
    config.intermediate_size = 1;
    config.num_layers = 0;
    config.windows.clear();
    let model =
        RewardModel::from_transformer(&Transformer::init(&config, &Draws::new(1), &device()), &Draws::new(2));
    let folder = tempfile::tempdir().unwrap();
    let head = {
        use burn::module::{ModuleVisitor, Param};
        struct Find(Vec<f32>);
        impl ModuleVisitor for Find {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.dims()[0] == 1 {
                    self.0 = numbers(param.val());
                }
            }
        }
        let mut find = Find(Vec::new());
        model.visit(&mut find);
        find.0
    };
    drop(folder);
    assert_eq!(head.len(), 4096);
    let sigma = 1.0 / 4097f64.sqrt();
    let found = (head.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 4096.0).sqrt();
    assert!((found - sigma).abs() < 5.0 * sigma / 8192f64.sqrt(), "{found} vs {sigma}");
}

#[test]
fn a_value_is_read_before_its_token_is_chosen() {
    let model = ValueModel::from_transformer(&language_model(), &Draws::new(1));
    let values = |response: &[u32]| {
        numbers(model.values(&Completions::from_rows(&[vec![5, 6, 7]], &[response.to_vec()], &device())))
    };
    let (first, second) = (values(&[8, 9, 10]), values(&[8, 11, 10]));
    assert_eq!(first[..2], second[..2], "tokens 0 and 1 are valued before token 1 is seen");
    assert_ne!(first[2], second[2]);
    // The same as a reward model with that head, read at the token before.
    let padded = numbers(model.values(&Completions::from_rows(
        &[vec![5, 6, 7], vec![3]],
        &[vec![8], vec![4, 5, 6]],
        &device(),
    )));
    assert_close(padded[0], first[0], 1e-5);
    assert_eq!(padded[1..3], [0.0, 0.0], "padding has no value");
}

#[test]
fn a_critic_from_a_reward_model_starts_with_its_scores() {
    let folder = fixtures::path("models/llama-reward");
    let reward = RewardModel::from_pretrained(&folder, &device(), None).unwrap();
    let reward = reward.with_normalization(Normalization { gain: 3.0, bias: 0.0 });
    let critic = ValueModel::from_reward_model(&reward);
    let scored = Completions::from_rows(&[vec![5, 6]], &[vec![7]], &device());
    let valued = Completions::from_rows(&[vec![5, 6, 7]], &[vec![9]], &device());
    assert_close(critic.values(&valued), &numbers(reward.score(&scored))[..], 1e-5);
    let other = critic.clone().with_new_head(&Draws::new(8));
    assert_ne!(numbers(other.values(&valued)), numbers(critic.values(&valued)));
}

#[test]
fn policy_and_critic_share_no_parameter_id() {
    let policy = language_model();
    let critic = ValueModel::from_transformer(&policy, &Draws::new(1));
    let ids = list_param_ids(&policy);
    assert!(list_param_ids(&critic).iter().all(|id| !ids.contains(id)));
}

#[test]
fn every_weight_of_a_reward_model_and_a_critic_is_trained() {
    let policy = Transformer::from_pretrained(&fixtures::path("models/llama"), &train_device()).unwrap();
    let completions = Completions::from_rows(&[vec![5, 6, 7]], &[vec![8, 9, 2]], &device());
    let reward = RewardModel::from_transformer(&policy, &Draws::new(1));
    let gradients = GradientsParams::from_grads(reward.raw_scores(&completions).sum().backward(), &reward);
    assert_eq!(gradients.len(), list_param_ids(&reward).len());
    assert!(!reward.score(&completions).is_autodiff(), "scores are constants");
    let critic = ValueModel::from_transformer(&policy, &Draws::new(1));
    let gradients = GradientsParams::from_grads(critic.values(&completions).sum().backward(), &critic);
    assert_eq!(gradients.len(), list_param_ids(&critic).len());
}

#[test]
fn heads_survive_saving_and_restoring() {
    let completions = Completions::from_rows(&[vec![5, 6, 7]], &[vec![8, 9, 2]], &device());
    let (base, other) = (language_model(), Draws::new(99));
    let folder = tempfile::tempdir().unwrap();
    let reward = RewardModel::from_transformer(&base, &Draws::new(1))
        .with_normalization(Normalization { gain: 0.5, bias: 2.0 });
    reward.save(folder.path()).unwrap();
    let restored = RewardModel::from_transformer(&base, &other).restore(folder.path()).unwrap();
    assert_eq!(numbers(restored.score(&completions)), numbers(reward.score(&completions)));

    let folder = tempfile::tempdir().unwrap();
    let critic = ValueModel::from_transformer(&base, &Draws::new(1));
    critic.save(folder.path()).unwrap();
    let restored = ValueModel::from_transformer(&base, &other).restore(folder.path()).unwrap();
    assert_eq!(numbers(restored.values(&completions)), numbers(critic.values(&completions)));

    let folder = tempfile::tempdir().unwrap();
    let lora = LoraConfig::default();
    let adapted = critic.with_adapters(&lora, &Draws::new(5));
    adapted.save(folder.path()).unwrap();
    let restored = ValueModel::from_transformer(&base, &other).with_adapters(&lora, &other);
    let restored = restored.restore(folder.path()).unwrap();
    assert_eq!(numbers(restored.values(&completions)), numbers(adapted.values(&completions)));
}

#[test]
fn reward_models_that_begin_alike_score_together_as_they_do_alone() {
    let config = TransformerConfig { initializer_range: 0.2, ..TransformerConfig::llama(30, 16, 3, 4) };
    let base = Transformer::init(&config, &Draws::new(1), &device());
    let completions =
        Completions::from_rows(&[vec![3, 9], vec![4]], &[vec![7, 2], vec![8, 11, 5]], &device());
    let with_head = |seed| RewardModel::from_transformer(&base, &Draws::new(seed));
    let adapted = |seed, last_layers| {
        let lora = LoraConfig { last_layers, ..LoraConfig::default() };
        stirred(with_head(seed).with_adapters(&lora, &Draws::new(seed)))
    };
    let other = |seed| {
        let base = Transformer::init(&config, &Draws::new(seed), &device());
        RewardModel::from_transformer(&base, &Draws::new(seed))
    };
    let cases: [(&str, usize, Vec<RewardModel>); 5] = [
        ("heads", 3, (0..4).map(with_head).collect()),
        ("adapters on the last layer", 2, (0..3).map(|seed| adapted(seed, Some(1))).collect()),
        ("adapters everywhere", 0, (0..2).map(|seed| adapted(seed, None)).collect()),
        ("strangers", 0, (5..8).map(other).collect()),
        ("one", 3, vec![with_head(0)]),
    ];
    for (name, layers, members) in cases {
        let members: Vec<RewardModel> = members
            .into_iter()
            .enumerate()
            .map(|(at, member)| {
                member.with_normalization(Normalization { gain: 1.0 + at as f64, bias: at as f64 })
            })
            .collect();
        let shared = SharedRewardModels::new(members.clone());
        assert_eq!(shared.shared_layers(), layers, "{name}");
        let together = shared.scores(&completions);
        assert_eq!(together.len(), members.len());
        for (at, (together, alone)) in together.iter().zip(&members).enumerate() {
            assert_eq!(together.to_data(), alone.score(&completions).to_data(), "{name}, member {at}");
        }
        let distinct: std::collections::BTreeSet<String> =
            together.iter().map(|scores| format!("{:?}", numbers(scores.clone()))).collect();
        assert_eq!(distinct.len(), members.len(), "{name}: members differ");
    }
}

/// B starts at zero; here the adapters do something.
fn stirred(model: RewardModel) -> RewardModel {
    struct Stir(u64);
    impl ModuleMapper for Stir {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            let shift = self.0 as f64 / 100.0;
            param.map(|tensor| {
                if tensor.clone().abs().max().into_scalar::<f32>() == 0.0 { tensor + shift } else { tensor }
            })
        }
    }
    model.map(&mut Stir(0))
}
