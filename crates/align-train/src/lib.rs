//! The training step, its optimizer, the outer loop, observers and bit-exact resume.
