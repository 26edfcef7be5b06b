//! Averages of weights: soups of modules and of checkpoint folders, with checks that they make sense.
