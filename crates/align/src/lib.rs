//! Language-model alignment on Burn.
