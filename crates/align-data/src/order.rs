//! The order in which rows are visited: pure functions of (seed, position), so that a saved position resumes exactly.

use align_core::draws::{Draws, Purpose};
use rand::{Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

/// A place in the data: so many whole epochs, and so many rows of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Whole passes over the data.
    pub epoch: u64,
    /// Rows visited in this pass.
    pub row: u64,
}

/// The order of one epoch: a permutation of `0..rows`, keyed by seed and epoch.
pub fn permutation(rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut Draws::new(seed).generator(Purpose::Shuffle, epoch));
    order
}

/// Batches of row indices without end. Batch k is a pure function of (seed, k): epochs follow one another without a
/// gap, each in an order of its own, and a batch may reach over the border.
///
/// # Examples
/// ```
/// use align_data::Batches;
///
/// let mut batches = Batches::new(10, 4, 7);
/// let first: Vec<_> = batches.by_ref().take(3).collect();
/// assert_eq!(first[1], Batches::new(10, 4, 7).batch(1));
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    rows: usize,
    batch_size: usize,
    seed: u64,
    position: u64,
    order: (u64, Vec<usize>),
}

impl Batches {
    /// Batches over `rows` rows in memory.
    ///
    /// # Panics
    /// With no rows or an empty batch.
    pub fn new(rows: usize, batch_size: usize, seed: u64) -> Self {
        assert!(
            rows > 0 && batch_size > 0,
            "batches of {batch_size} over {rows} rows: both must be positive"
        );
        Self { rows, batch_size, seed, position: 0, order: (0, permutation(rows, seed, 0)) }
    }

    /// Goes on from a batch's number.
    pub fn starting_at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// The number of the next batch.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where the next batch begins in the data.
    pub fn cursor(&self) -> Cursor {
        let visited = self.position * self.batch_size as u64;
        Cursor { epoch: visited / self.rows as u64, row: visited % self.rows as u64 }
    }

    /// Batches in one epoch, the last one perhaps reaching into the next.
    pub fn per_epoch(&self) -> u64 {
        (self.rows as u64).div_ceil(self.batch_size as u64)
    }

    /// The row indices of batch `position`.
    pub fn batch(&mut self, position: u64) -> Vec<usize> {
        let (rows, first) = (self.rows as u64, position * self.batch_size as u64);
        (first..first + self.batch_size as u64)
            .map(|visit| {
                if self.order.0 != visit / rows {
                    self.order = (visit / rows, permutation(self.rows, self.seed, visit / rows));
                }
                self.order.1[(visit % rows) as usize]
            })
            .collect()
    }
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        self.position += 1;
        Some(self.batch(self.position - 1))
    }
}

/// Rows of a source larger than memory, shuffled within windows.
///
/// An epoch is cut into windows of `window` rows; each is read whole and given in an order keyed by (seed, epoch,
/// window). The first window is shorter by a seeded amount, so that windows fall elsewhere each epoch. Nothing but the
/// [`Cursor`] needs saving: resuming skips the windows before it and reads the current one again.
///
/// `open` starts the source anew and gives its rows in their own order; it must give the same rows each time.
pub struct WindowShuffle<T, E, I, F>
where
    I: Iterator<Item = Result<T, E>>,
    F: Fn() -> Result<I, E>,
{
    open: F,
    source: Option<I>,
    seed: u64,
    window: usize,
    cursor: Cursor,
    held: Vec<Option<T>>,
    next_in_window: usize,
    windows: u64,
}

impl<T, E, I, F> WindowShuffle<T, E, I, F>
where
    I: Iterator<Item = Result<T, E>>,
    F: Fn() -> Result<I, E>,
{
    /// Starts at the first row of the first epoch.
    ///
    /// # Panics
    /// With an empty window.
    pub fn new(open: F, window: usize, seed: u64) -> Self {
        assert!(window > 0, "a window must hold at least one row");
        let cursor = Cursor::default();
        Self { open, source: None, seed, window, cursor, held: Vec::new(), next_in_window: 0, windows: 0 }
    }

    /// Goes to a saved place.
    ///
    /// # Errors
    /// When the source fails on the way, or ends before it (then `Ok(false)`).
    pub fn restore(&mut self, cursor: Cursor) -> Result<bool, E> {
        self.source = None;
        self.held.clear();
        self.next_in_window = 0;
        self.cursor = Cursor { epoch: cursor.epoch, row: 0 };
        while self.cursor.row < cursor.row {
            if !self.fill()? {
                return Ok(false);
            }
            let step = (self.held.len() as u64).min(cursor.row - self.cursor.row);
            self.next_in_window = step as usize;
            self.cursor.row += step;
        }
        Ok(true)
    }

    /// The place of the next row.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next row; `None` once an epoch is over, after which the next epoch begins.
    ///
    /// # Errors
    /// When the source fails.
    pub fn next_row(&mut self) -> Result<Option<T>, E> {
        if self.next_in_window == self.held.len() && !self.fill()? {
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, row: 0 };
            self.source = None;
            return Ok(None);
        }
        let row = self.held[self.next_in_window].take();
        self.next_in_window += 1;
        self.cursor.row += 1;
        Ok(row)
    }

    /// Reads the next window and puts it in order; false when the source is at its end.
    fn fill(&mut self) -> Result<bool, E> {
        let draws = Draws::new(self.seed).child(self.cursor.epoch);
        if self.source.is_none() {
            self.source = Some((self.open)()?);
            self.windows = 0;
        }
        let mut generator = draws.generator(Purpose::Shuffle, self.windows);
        let size = match self.windows {
            0 => self.window - (generator.next_u64() % self.window as u64) as usize,
            _ => self.window,
        };
        self.windows += 1;
        self.held.clear();
        self.next_in_window = 0;
        for row in self.source.iter_mut().flatten().take(size) {
            self.held.push(Some(row?));
        }
        self.held.shuffle(&mut generator);
        Ok(!self.held.is_empty())
    }
}
