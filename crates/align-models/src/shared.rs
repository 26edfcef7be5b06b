//! Reward models that begin alike: what they have in common is held and computed once.

use align_core::{Completions, Reward};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use crate::backbone::Backbone;
use crate::heads::RewardModel;

/// Reward models of one ensemble. Their first layers, as far as they are the same to the last bit and bear no adapters, are
/// held in memory once and run once for all: members that differ in their heads, or in adapters on the last layers, cost
/// little more than one.
#[derive(Clone, Debug)]
pub struct SharedRewardModels {
    members: Vec<RewardModel>,
    /// How many layers all members share.
    shared: usize,
}

impl SharedRewardModels {
    /// Finds out what the models share, which reads every weight once. They may share nothing.
    ///
    /// # Panics
    /// Without models.
    pub fn new(mut members: Vec<RewardModel>) -> Self {
        assert!(!members.is_empty(), "expected at least one reward model");
        let (first, others) = members.split_at_mut(1);
        let base = first[0].backbone().clone();
        let shared = others.iter().map(|other| in_common(&base, other.backbone())).min();
        let shared = shared.unwrap_or(base.layers.len());
        if shared > 0 {
            for other in others {
                *other = other.clone().sharing(&base, shared);
            }
        }
        Self { members, shared }
    }

    /// The models.
    pub fn members(&self) -> &[RewardModel] {
        &self.members
    }

    /// How many layers, from the first, are run once for all members.
    pub fn shared_layers(&self) -> usize {
        self.shared
    }

    /// Every member's scores, on its own scale; what each gives alone.
    ///
    /// # Shapes
    /// → k times `[B]`, constants.
    ///
    /// # Panics
    /// If prompt and response of a row are both empty.
    pub fn scores(&self, completions: &Completions) -> Vec<Tensor<1>> {
        if self.shared == 0 {
            return self.members.iter().map(|member| member.score(completions)).collect();
        }
        let rows = completions.joined().rows();
        let base = self.members[0].backbone();
        let tokens = RewardModel::packed(&rows, &base.device());
        let inputs = base.inputs(&tokens);
        let context = base.context(&inputs);
        let run = |x, from: &Backbone, layers: std::ops::Range<usize>| {
            from.layers[layers].iter().fold(x, |x, layer| layer.forward(x, &context, None))
        };
        let trunk = run(base.embed(&inputs), base, 0..self.shared);
        self.members
            .iter()
            .map(|member| {
                let own = member.backbone();
                let hidden = own.norm.forward(run(trunk.clone(), own, self.shared..own.layers.len()));
                member.normalized(member.score_last(hidden, &rows)).without_autodiff()
            })
            .collect()
    }
}

/// How many first layers are the same in both, 0 if what stands before them differs.
fn in_common(a: &Backbone, b: &Backbone) -> usize {
    let is_same_start = a.config() == b.config()
        && a.dtype() == b.dtype()
        && numbers(&a.embedding) == numbers(&b.embedding)
        && numbers(&a.position_embedding) == numbers(&b.position_embedding);
    if !is_same_start {
        return 0;
    }
    a.layers.iter().zip(&b.layers).take_while(|(a, b)| numbers(*a) == numbers(*b)).count()
}

/// All numbers of a module in order. An adapter has numbers too: layers with and without one differ.
fn numbers<M: Module>(module: &M) -> Vec<TensorData> {
    struct Collect(Vec<TensorData>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().without_autodiff().into_data());
        }
    }
    let mut collect = Collect(Vec::new());
    module.visit(&mut collect);
    collect.0
}
