//! Sums of gradients.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;

/// Adds the gradients of `from` to those of `into`, parameter by parameter of `module`.
pub fn accumulate<M: Module>(module: &M, mut from: GradientsParams, into: &mut GradientsParams) {
    struct Accumulate<'a> {
        from: &'a mut GradientsParams,
        into: &'a mut GradientsParams,
    }
    impl ModuleVisitor for Accumulate<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<burn::Tensor<D>>) {
            if let Some(new) = self.from.remove::<D>(param.id) {
                let sum = match self.into.remove::<D>(param.id) {
                    Some(old) => old + new,
                    None => new,
                };
                self.into.register::<D>(param.id, sum);
            }
        }
    }
    module.visit(&mut Accumulate { from: &mut from, into });
}
