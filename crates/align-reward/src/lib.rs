//! Reward models: Bradley-Terry training, scoring and calibration.
