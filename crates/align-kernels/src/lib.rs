//! Fused operations for transformer training and decoding on Burn, with gradients of their own.
