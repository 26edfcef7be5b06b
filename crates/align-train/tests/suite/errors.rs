use align_core::{Completions, Demonstrations};
use align_testkit::{BigramLm, device, train_device};
use align_train::{Learner, Loss, NextToken, OptimizerConfig, TrainError, evaluate};
use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;

use crate::common::{By, Net, Squares, bits, brisk, learner, rows};

#[test]
fn a_loss_that_is_not_finite_stops_names_the_term_and_changes_nothing() {
    let mut learner = learner(brisk());
    learner.step(&Squares, &[rows()]).unwrap();
    let before = bits(learner.model());
    let objective = By(|net: &Net| {
        let (fine, broken) = (net.first.val().sum(), net.second.val().sum() * f32::NAN);
        Loss::new(fine.clone() + broken.clone(), 1.0)
            .with_term("loss/policy", fine)
            .with_term("loss/value", broken)
    });
    let error = learner.step(&objective, &[()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "optimizer step 1: `loss/value` is NaN, expected a finite number; the parameters were not changed"
    );
    assert_eq!(bits(learner.model()), before);
    assert_eq!(learner.steps(), 1);
}

#[test]
fn a_gradient_that_is_not_finite_names_the_tensor_and_changes_nothing() {
    let mut learner = learner(brisk());
    let before = bits(learner.model());
    // √x at x = 0: the value is 0, the slope is infinite.
    let objective = By(|net: &Net| {
        let zero = (net.bias.val() - net.bias.val().detach()).sum();
        Loss::new(zero.sqrt() + net.first.val().sum() + net.second.val().sum(), 1.0)
    });
    let error = learner.step(&objective, &[()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "optimizer step 0: the gradient is not finite in `bias`; the parameters were not changed"
    );
    assert_eq!(bits(learner.model()), before);
}

#[test]
fn tensors_that_would_silently_not_be_trained_are_named() {
    let objective = By(|net: &Net| Loss::new(net.first.val().sum() + net.bias.val().sum() * 0.0, 1.0));
    let mut learner = learner(brisk());
    let before = bits(learner.model());
    let error = learner.step(&objective, &[()]).unwrap_err().to_string();
    assert_eq!(
        error,
        "optimizer step 0: expected a non-zero gradient in every trainable tensor, found none in 2 of 3: `bias`, \
         `second`; freeze them, or list them in `allow_zero_gradient` if that is meant"
    );
    assert_eq!(bits(learner.model()), before);
}

#[test]
fn what_is_listed_may_stay_without_gradient() {
    let objective = By(|net: &Net| Loss::new(net.first.val().sum(), 1.0));
    let config = OptimizerConfig { allow_zero_gradient: vec!["bias".into(), "second".into()], ..brisk() };
    assert!(learner(config).step(&objective, &[()]).is_ok());
}

#[test]
fn a_batch_in_which_nothing_counts_is_refused() {
    let model = BigramLm::independent(&[0.0, 1.0, 2.0], &train_device());
    let empty: Demonstrations = Completions::from_rows(&[vec![1]], &[vec![]], &device()).into();
    let message = "expected at least one token or pair that counts, found none in 1";
    let held_out = evaluate(&model, &NextToken, std::slice::from_ref(&empty)).unwrap_err().to_string();
    assert_eq!(held_out, format!("{message} held-out batches"));
    let error = Learner::new(model, brisk(), 1).unwrap().step(&NextToken, &[empty]).unwrap_err();
    assert_eq!(error.to_string(), format!("optimizer step 0: {message} microbatches"));
}

#[test]
fn a_frozen_model_is_refused() {
    let error = Learner::new(Net::new(1, &train_device()).freeze(), brisk(), 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a model with trainable parameters, found 3 tensors, all of them frozen"
    );
}

#[test]
fn one_parameter_at_two_paths_is_refused() {
    #[derive(Module, Debug)]
    struct Tied {
        input: Param<Tensor<1>>,
        output: Param<Tensor<1>>,
    }
    let tensor = Tensor::<1>::ones([2], &train_device()).detach().require_grad();
    let input = Param::initialized(ParamId::new(), tensor);
    let error = Learner::new(Tied { output: input.clone(), input }, brisk(), 1).unwrap_err();
    assert!(
        matches!(&error, TrainError::SharedParameter { first, second } if first == "input" && second == "output")
    );
}

#[test]
fn a_configuration_out_of_range_is_refused_with_the_value() {
    let read = |text: &str| serde_json::from_str::<OptimizerConfig>(text).unwrap_err().to_string();
    for (text, expected) in [
        (r#"{"learning_rate": 0}"#, "expected a finite number > 0, found 0"),
        (r#"{"beta_2": 1}"#, "expected a number in [0, 1), found 1"),
        (r#"{"weight_decay": -0.1}"#, "expected a finite number >= 0, found -0.1"),
        (r#"{"learning_rat": 1}"#, "unknown field `learning_rat`"),
    ] {
        let message = read(text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_configuration_survives_its_file() {
    let config = OptimizerConfig::ppo();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<OptimizerConfig>(&text).unwrap(), config);
}
