//! Bars and spinners on standard error; silent where there is no terminal.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use align_soup::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar over so many rows.
pub(crate) fn rows_bar(title: &str, rows: usize) -> ProgressBar {
    styled(ProgressBar::new(rows as u64), title, "{prefix} {bar:30} {pos}/{len} rows · {eta} left")
}

/// A bar over so many models.
pub(crate) fn models_bar(title: &str, models: usize) -> ProgressBar {
    styled(ProgressBar::new(models as u64), title, "{prefix} {bar:30} {pos}/{len} models · {elapsed}")
}

/// A bar over bytes, whose length is told as it goes.
fn bytes_bar(title: &str) -> ProgressBar {
    let form = "{prefix} {bar:30} {bytes}/{total_bytes} · {binary_bytes_per_sec} · {eta} left";
    styled(ProgressBar::new(0), title, form)
}

/// Does work on files under a bar of its bytes, and has it stop when `interrupt` is set.
pub(crate) fn watched<T>(
    title: &str,
    interrupt: &AtomicBool,
    work: impl FnOnce(&(dyn Fn(Progress) -> ControlFlow<()> + Sync)) -> T,
) -> T {
    let bar = bytes_bar(title);
    let result = work(&|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        match interrupt.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    result
}

/// Says what is going on until it is dropped, for work whose length nobody knows.
pub(crate) fn working(what: &str) -> Working {
    let bar = styled(ProgressBar::new_spinner(), what, "{spinner} {prefix} · {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(200));
    Working(bar)
}

/// A spinner that goes away when dropped.
pub(crate) struct Working(ProgressBar);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn styled(bar: ProgressBar, title: &str, form: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(form).expect("the forms in this file are valid");
    bar.with_prefix(title.to_owned()).with_style(style)
}
