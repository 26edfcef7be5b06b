//! Tensors that are read whole, merged and written, several at a time.
//!
//! Each lane is a thread that takes the next tensor, reads it from all models, merges it on the pool and writes it. While
//! one lane waits for a disk, another computes. Tensors are begun in order, and only as long as all that are in hand fit
//! into what the largest needs, with [`READ_AHEAD`] to spare.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of tensors that may be in hand beyond what the largest one needs.
const READ_AHEAD: u64 = 192 << 20;
/// Bytes of buffers that may lie idle, or those of the largest tensor: often there are two of its size, at both ends of a model.
const IDLE: usize = 64 << 20;

/// Works on items in order on several threads; item i needs `needs[i]` bytes while it is in hand. The first error, by the
/// order of the items, is returned after all threads have stopped.
pub(crate) fn in_lanes<E: Send>(
    needs: &[u64],
    lanes: usize,
    work: impl Fn(usize, &Buffers) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let largest = needs.iter().copied().max().unwrap_or(0);
    let queue = Queue {
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
        needs,
        limit: largest.saturating_add(READ_AHEAD),
    };
    let buffers = Buffers { limit: IDLE.max(largest as usize), idle: Mutex::new(Vec::new()) };
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..lanes.min(needs.len()) {
            scope.spawn(|| {
                while let Some(item) = queue.next() {
                    if let Err(error) = work(item.index, &buffers) {
                        queue.stop();
                        let mut failed = lock(&failed);
                        if failed.as_ref().is_none_or(|(first, _)| item.index < *first) {
                            *failed = Some((item.index, error));
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// A panic in one lane ends the merge through the scope; the state is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct State {
    next: usize,
    in_hand: u64,
    stopped: bool,
}

struct Queue<'a> {
    state: Mutex<State>,
    changed: Condvar,
    needs: &'a [u64],
    limit: u64,
}

/// An item in hand; its bytes are free again when it is dropped.
struct Item<'a> {
    index: usize,
    queue: &'a Queue<'a>,
}

impl Queue<'_> {
    /// The next item, as soon as there is room for it.
    fn next(&self) -> Option<Item<'_>> {
        let mut state = lock(&self.state);
        loop {
            let need = *self.needs.get(state.next).filter(|_| !state.stopped)?;
            if state.in_hand == 0 || state.in_hand + need <= self.limit {
                state.in_hand += need;
                state.next += 1;
                return Some(Item { index: state.next - 1, queue: self });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }
}

impl Drop for Item<'_> {
    fn drop(&mut self) {
        lock(&self.queue.state).in_hand -= self.queue.needs[self.index];
        self.queue.changed.notify_all();
    }
}

/// Buffers that go from one tensor to the next: fresh memory of this size costs a page fault every few KB.
pub(crate) struct Buffers {
    /// Bytes that may lie idle.
    limit: usize,
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer of `len` bytes with anything in it.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut idle = lock(&self.idle);
        match idle.iter().position(|buffer| buffer.len() == len) {
            Some(index) => idle.swap_remove(index),
            None => {
                drop(idle);
                vec![0; len]
            }
        }
    }

    /// Keeps a buffer for later.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut idle = lock(&self.idle);
        idle.push(buffer);
        while idle.iter().map(Vec::len).sum::<usize>() > self.limit {
            idle.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_in_hand_stays_below_the_largest_item_and_the_read_ahead() {
        let mega = 1 << 20;
        let needs: Vec<u64> = (0..40).map(|index| if index % 7 == 0 { 300 } else { 90 } * mega).collect();
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let done = Mutex::new(Vec::new());
        in_lanes::<()>(&needs, 6, |index, _| {
            let in_hand = now.fetch_add(needs[index], Ordering::SeqCst) + needs[index];
            most.fetch_max(in_hand, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            now.fetch_sub(needs[index], Ordering::SeqCst);
            done.lock().unwrap().push(index);
            Ok(())
        })
        .unwrap();
        let most = most.into_inner();
        assert!(most <= 300 * mega + READ_AHEAD, "{most} bytes in hand");
        assert!(most > 300 * mega, "lanes work side by side");
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_stops_all_lanes() {
        let needs = vec![1; 1000];
        let begun = AtomicU64::new(0);
        let error = in_lanes(&needs, 4, |index, _| {
            begun.fetch_add(1, Ordering::SeqCst);
            if index >= 10 { Err(index) } else { Ok(()) }
        });
        assert_eq!(error, Err(10));
        assert!(begun.into_inner() < 100);
    }

    #[test]
    fn a_buffer_comes_back_for_the_next_tensor_of_its_size() {
        let buffers = Buffers { limit: 100, idle: Mutex::new(Vec::new()) };
        buffers.give(vec![7; 80]);
        assert_eq!(buffers.take(30), vec![0; 30], "of another size");
        assert_eq!(buffers.take(80), vec![7; 80]);
        assert_eq!(buffers.take(80), vec![0; 80]);
        buffers.give(vec![1; 90]);
        buffers.give(vec![2; 90]);
        assert_eq!(lock(&buffers.idle).len(), 1, "no more than the limit lies idle");
    }
}
