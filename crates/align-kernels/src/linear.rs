//! Products with weights.

use burn::Tensor;

/// How a weight matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[in, out]`: `y = x·W`.
    InOut,
    /// `[out, in]`, as embeddings and Hugging Face files are: `y = x·Wᵀ`.
    OutIn,
}

/// `x·W` or `x·Wᵀ`.
///
/// On Flex, a few rows (a decoding step) run in a kernel that reads the weights once, on all threads; more rows are one matrix
/// product into memory that nothing else has touched.
///
/// # Shapes
/// `x`: `[N, in]`, `weight`: as `layout` says. Returns `[N, out]`.
///
/// # Gradient
/// Through both.
///
/// # Panics
/// If the widths differ.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, layout: WeightLayout) -> Tensor<2> {
    let ([_, width], [rows, columns]) = (x.dims(), weight.dims());
    let expected = if layout == WeightLayout::InOut { rows } else { columns };
    assert_eq!(
        width, expected,
        "linear: x has width {width}, a weight of {rows} × {columns} ({layout:?}) takes {expected}"
    );
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) && crate::device::is_fused(&weight) {
        return crate::flex::linear(x, weight, layout);
    }
    match layout {
        WeightLayout::InOut => x.matmul(weight),
        WeightLayout::OutIn => x.matmul(weight.transpose()),
    }
}
