//! SuperHF: filter samples by a reward, fine-tune on the best with a KL prior.
