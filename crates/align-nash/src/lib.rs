//! Preference optimisation without a reward: INPO, Nash-MD, online and offline DPO and its relatives, games with exact equilibria.
