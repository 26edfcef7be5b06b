//! Who watches a run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::TrainError;
use crate::metrics::Metrics;

/// What an observer wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Save and end the run.
    Stop,
}

/// Watches a run. Steps are counted from 1: `step` iterations are complete.
pub trait Observer {
    /// Called once, before the first iteration: `step` iterations are complete already, `steps` will be.
    ///
    /// # Errors
    /// If the observer cannot write where it is meant to.
    fn started(&mut self, _step: u64, _steps: u64) -> Result<(), TrainError> {
        Ok(())
    }

    /// Called after every iteration.
    ///
    /// # Errors
    /// If the observer cannot write where it is meant to.
    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError>;

    /// Called after every checkpoint.
    ///
    /// # Errors
    /// If the observer cannot write where it is meant to.
    fn saved(&mut self, _step: u64, _folder: &Path) -> Result<(), TrainError> {
        Ok(())
    }

    /// Called once, at the end, also after a stop.
    ///
    /// # Errors
    /// If the observer cannot write where it is meant to.
    fn finished(&mut self, _step: u64) -> Result<(), TrainError> {
        Ok(())
    }
}

/// A closure that watches.
pub struct ObserverFn<F>(pub F);

impl<F: FnMut(u64, &Metrics) -> Control> Observer for ObserverFn<F> {
    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError> {
        Ok((self.0)(step, metrics))
    }
}

/// Stops the run after the present iteration once the flag is set, by Ctrl-C for instance.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches this flag.
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// The flag, to be set by a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Observer for Interrupt {
    fn iterated(&mut self, _: u64, _: &Metrics) -> Result<Control, TrainError> {
        Ok(if self.0.load(Ordering::Relaxed) { Control::Stop } else { Control::Continue })
    }
}
