//! Experts that are adapters over one small base in memory.

use align_core::draws::Purpose;
use align_core::{CausalLm, Draws};
use align_fusion::{Expert, Fusion, FusionError, Weighing};
use align_models::{LoraConfig, LoraTarget, Transformer};
use align_testkit::{assert_close, device};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

use crate::world::{
    after, batch, before_responses, completions, next_log_probs, prompts, responses, transformer, weighings,
};

/// Gives adapters something to do: their second factor starts at zero.
struct Stir(Draws);

impl ModuleMapper for Stir {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let largest: f32 = param.val().abs().max().into_scalar();
        if largest != 0.0 {
            return param;
        }
        let draws = self.0;
        self.0 = draws.child(1);
        param.map(|tensor| {
            let count = tensor.shape().num_elements() as u64;
            let values: Vec<f32> =
                (0..count).map(|at| draws.token(Purpose::Initialize, 0, at, 0, 0) as f32 - 0.5).collect();
            Tensor::from_data(TensorData::new(values, tensor.shape()), &device())
        })
    }
}

fn config() -> LoraConfig {
    let targets = vec![LoraTarget::Query, LoraTarget::Value, LoraTarget::Up];
    LoraConfig { rank: 2, alpha: 2.0, targets, ..LoraConfig::default() }
}

fn adapted(base: &Transformer, seed: u64) -> Transformer {
    base.clone().with_adapters(&config(), &Draws::new(seed)).map(&mut Stir(Draws::new(seed)))
}

fn parameters(model: &Transformer) -> Vec<(ParamId, usize)> {
    struct Collect(Vec<(ParamId, usize)>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.id, param.val().shape().num_elements()));
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}

#[test]
fn adapters_over_one_base_fuse_as_merged_copies_do() {
    let (base, anchor) = (transformer(1, 24), transformer(2, 12));
    let adapted = [adapted(&anchor, 5), adapted(&anchor, 6)];
    let merged = [adapted[0].merged(), adapted[1].merged()];
    for weighing in weighings(2) {
        let fuse = |experts: [&Transformer; 2]| {
            let experts = ["first", "second"].into_iter().zip(experts);
            let experts =
                experts.map(|(name, model)| Expert::new(name, Box::new(model.clone()) as Box<dyn CausalLm>));
            let (base, anchor) = (Box::new(base.clone()), Box::new(anchor.clone()));
            Fusion::new(base, anchor, experts.collect(), weighing.clone()).expect("they fit")
        };
        let (found, expected) = (fuse([&adapted[0], &adapted[1]]), fuse([&merged[0], &merged[1]]));
        // (x·A)·B beside x·(A·B): other roundings, enlarged by shifts and weights.
        assert_close(
            next_log_probs(&found, &completions(), 2).concat(),
            before_responses(&expected, &prompts(), &responses()).concat(),
            5e-4,
        );
        let (mut found, mut expected) = (found.decoder(), expected.decoder());
        assert_close(found.admit(&batch(&prompts())), expected.admit(&batch(&prompts())), 5e-4);
        assert_close(found.advance(&[1, 2, 3]), expected.advance(&[1, 2, 3]), 5e-4);
    }
    let apart =
        after(&adapted[0], &[3, 1]).iter().zip(after(&adapted[1], &[3, 1])).any(|(a, b)| (a - b).abs() > 0.1);
    assert!(apart, "two adapters that do the same prove nothing");
}

#[test]
fn adapters_have_the_bases_own_parameters() {
    let anchor = transformer(2, 12);
    let adapted = adapted(&anchor, 5);
    let (of_base, of_adapted) = (parameters(&anchor), parameters(&adapted));
    assert!(of_base.iter().all(|parameter| of_adapted.contains(parameter)));
    let fresh: usize =
        of_adapted.iter().filter(|parameter| !of_base.contains(parameter)).map(|(_, count)| count).sum();
    // Two layers; rank 2; query and value 12 → 12, up 12 → 32.
    assert_eq!(fresh, 2 * 2 * ((12 + 12) + (12 + 12) + (12 + 32)));
}

#[test]
fn an_adapter_that_was_never_trained_has_no_direction() {
    let (base, anchor) = (transformer(1, 24), transformer(2, 12));
    let fresh = anchor.clone().with_adapters(&config(), &Draws::new(5));
    let trained = adapted(&anchor, 5);
    let fuse = |expert: &Transformer| {
        let experts = vec![Expert::new("adapter", Box::new(expert.clone()) as Box<dyn CausalLm>)];
        Fusion::new(Box::new(base.clone()), Box::new(anchor.clone()), experts, Weighing::default())
            .expect("they fit")
    };
    let found = fuse(&fresh).check_direction(&completions());
    assert_eq!(found, Err(FusionError::NoDirection { expert: "adapter".into(), positions: 7 }));
    assert_eq!(fuse(&trained).check_direction(&completions()), Ok(()));
    assert!(fuse(&anchor.merged()).check_direction(&completions()).is_err());
}
