//! Adam on a table.

/// First and second moments of each entry.
///
/// # Source
/// Kingma and Ba 2015, algorithm 1, <https://arxiv.org/abs/1412.6980>.
#[derive(Clone, Debug)]
pub(crate) struct Adam {
    learning_rate: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(entries: usize, learning_rate: f64) -> Self {
        Self { learning_rate, first: vec![0.0; entries], second: vec![0.0; entries], steps: 0 }
    }

    /// One step down the gradient.
    pub(crate) fn descend(&mut self, parameters: &mut [f64], gradient: &[f64]) {
        const BETA: (f64, f64) = (0.9, 0.999);
        self.steps = self.steps.saturating_add(1);
        let corrections = (1.0 - BETA.0.powi(self.steps), 1.0 - BETA.1.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, g), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first = BETA.0 * *first + (1.0 - BETA.0) * g;
            *second = BETA.1 * *second + (1.0 - BETA.1) * g * g;
            *parameter -=
                self.learning_rate * (*first / corrections.0) / ((*second / corrections.1).sqrt() + 1e-8);
        }
    }
}
