//! Batches made ahead by background threads, handed out in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::{Batch, Error};

/// Makes batch `i`; gives up early (with any result) once the flag is set.
pub(crate) type Make = dyn Fn(usize, &AtomicBool) -> Result<Batch, Error> + Send + Sync;

/// Threads at work on the batches `next..end`, at most `ahead` of them beyond the last one taken.
pub(crate) struct Queue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A batch was made.
    made: Condvar,
    /// A batch was taken, or it is time to stop.
    room: Condvar,
    stop: AtomicBool,
    end: usize,
    ahead: usize,
}

struct State {
    /// The next batch that no thread has begun.
    next: usize,
    /// Batches handed out: all below this.
    taken: usize,
    ready: BTreeMap<usize, Result<Batch, Error>>,
}

impl Queue {
    pub(crate) fn start(first: usize, end: usize, threads: usize, ahead: usize, make: Arc<Make>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { next: first, taken: first, ready: BTreeMap::new() }),
            made: Condvar::new(),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            end,
            ahead: ahead.max(1),
        });
        let threads = (0..threads.min(end.saturating_sub(first)))
            .map(|_| {
                let (shared, make) = (Arc::clone(&shared), Arc::clone(&make));
                std::thread::spawn(move || shared.work(&*make))
            })
            .collect();
        Self { shared, threads }
    }

    /// Batch `i`, which must be the one after the last that was taken.
    pub(crate) fn take(&self, i: usize) -> Result<Batch, Error> {
        let mut state = self.shared.lock();
        loop {
            if let Some(batch) = state.ready.remove(&i) {
                state.taken = i + 1;
                self.shared.room.notify_all();
                return batch;
            }
            state = self.shared.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        {
            // Under the lock, so that no thread is between looking at the flag and waiting.
            let _state = self.shared.lock();
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A thread reports its own panic as the result of its batch.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, make: &Make) {
        while let Some(i) = self.claim() {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(i, &self.stop)))
                .unwrap_or(Err(Error::Thread { batch: i }));
            self.lock().ready.insert(i, made);
            self.made.notify_all();
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.next >= self.end || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if state.next < state.taken + self.ahead {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
