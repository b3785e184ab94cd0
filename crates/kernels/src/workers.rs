//! The threads that help the one which calls a kernel.
//!
//! A step is hundreds of calls a few hundred microseconds long, one right after another. A thread that sleeps between them is
//! late for each, and on a virtual machine may even be put behind the thread that woke it. So both sides watch a counter for
//! a while before they give way; that is all that sets these workers apart from a general pool, whose threads sleep soon
//! after there is nothing to steal.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;

/// How often the counter is looked at before a thread gives way: 110 µs where it was measured (AMD EPYC).
const LOOKS: usize = 4096;

/// What a call's workers run, each with its number.
type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Threads that wait for tasks; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    /// Held while a call's task runs.
    busy: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the call, times [`CALL`], and how many workers it wants.
    call: AtomicU64,
    /// The call's task: valid for its workers until they have all left.
    task: UnsafeCell<Option<&'static Task<'static>>>,
    /// Workers that have yet to leave the call.
    left: AtomicUsize,
    /// What the first task to panic said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Which workers sleep, or are about to.
    asleep: Vec<AtomicBool>,
    /// How often to look before giving way.
    looks: usize,
}

/// One call, in [`Shared::call`].
const CALL: u64 = 1 << 16;
/// Every worker of [`Shared::call`] is to end.
const END: u64 = CALL - 1;

// SAFETY: `task` is written by the one caller that holds `busy`, while no worker is in a call, and read by the workers of
// a call, which the counter publishes.
unsafe impl Sync for Shared {}
// SAFETY: as above; what it refers to is `Sync`.
unsafe impl Send for Shared {}

impl Workers {
    /// `count` workers, below `END`; `None` where the system refuses to start them.
    pub(crate) fn start(count: usize) -> Option<Self> {
        let crowded = std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= count);
        let shared = Arc::new(Shared {
            call: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            left: AtomicUsize::new(0),
            panic: Mutex::new(None),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            looks: if crowded { 0 } else { LOOKS },
        });
        let mut workers = Self { shared, busy: Mutex::new(()), threads: Vec::new() };
        for number in 0..count {
            let shared = workers.shared.clone();
            let name = format!("defrost-cpu-{}", number + 1);
            // Those that have started end as `workers` is dropped.
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.wait(number)).ok()?;
            workers.threads.push(thread);
        }
        Some(workers)
    }

    /// Runs `task(0)` here and `task(1)` to `task(count)` on as many workers, at once. Where the workers are in another
    /// call (of another thread, or one around this), all of them here.
    ///
    /// # Panics
    /// Where a task does, after all have ended.
    pub(crate) fn run(&self, count: usize, task: &Task<'_>) {
        let _busy = match self.busy.try_lock() {
            Ok(busy) => busy,
            Err(TryLockError::Poisoned(busy)) => busy.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..=count).for_each(task),
        };
        let Shared { call, left, asleep, looks, .. } = &*self.shared;
        assert!(count <= asleep.len());
        // SAFETY: the reference is used until `left` is 0 and no longer, which is waited for below, panic or not; no
        // worker reads it now, since those of the last call have left.
        unsafe {
            *self.shared.task.get() = Some(std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task));
        }
        left.store(count, Ordering::Relaxed);
        let number = call.load(Ordering::Relaxed) / CALL + 1;
        call.store(number * CALL + count as u64, Ordering::SeqCst);
        for (thread, asleep) in self.threads.iter().zip(asleep).take(count) {
            if asleep.load(Ordering::SeqCst) {
                thread.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| task(0)));
        let mut seen = 0;
        while left.load(Ordering::Acquire) > 0 {
            // A worker that the system has not yet let run needs this thread's core.
            if seen < *looks {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            seen += 1;
        }
        let theirs = self.shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// What worker `number` does until it is to end.
    fn wait(&self, number: usize) {
        let mut last = 0;
        loop {
            let mut seen = 0;
            let call = loop {
                let call = self.call.load(Ordering::SeqCst);
                if call != last {
                    break call;
                }
                if seen < self.looks {
                    seen += 1;
                    std::hint::spin_loop();
                    continue;
                }
                // Whoever calls sees that this one sleeps, or this one sees the call.
                self.asleep[number].store(true, Ordering::SeqCst);
                if self.call.load(Ordering::SeqCst) == last {
                    std::thread::park();
                }
                self.asleep[number].store(false, Ordering::SeqCst);
            };
            last = call;
            match call % CALL {
                END => return,
                count if (number as u64) < count => {}
                _ => continue,
            }
            // SAFETY: a worker of the call, which is not over before this one has left.
            let task = unsafe { *self.task.get() };
            if let Some(task) = task
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(number + 1)))
            {
                self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
            }
            self.left.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.call.fetch_or(END, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // Panics of tasks have been passed on.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn tasks_run_once_each_whoever_calls_and_however_often() {
        let workers = Workers::start(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..2_000 {
                        let done: [AtomicUsize; 4] = Default::default();
                        workers.run(round % 4, &|i| {
                            done[i].fetch_add(1, Ordering::Relaxed);
                        });
                        let done = done.map(AtomicUsize::into_inner);
                        assert!(
                            done.iter().enumerate().all(|(i, &d)| d == usize::from(i <= round % 4)),
                            "{done:?}"
                        );
                    }
                });
            }
        });
    }

    #[test]
    fn sleepers_wake_and_calls_within_calls_run_here() {
        let workers = Workers::start(1).unwrap();
        let sum = AtomicUsize::new(0);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            workers.run(1, &|i| {
                workers.run(1, &|j| {
                    sum.fetch_add(1 + i + j, Ordering::Relaxed);
                })
            });
        }
        assert_eq!(sum.into_inner(), 3 * (1 + 2 + 2 + 3));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_call_runs() {
        let workers = Workers::start(2).unwrap();
        for bad in 0..3 {
            let run = || workers.run(2, &|i| assert_ne!(i, bad, "task {bad}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains(&format!("task {bad}"))));
        }
        workers.run(2, &|_| {});
    }
}
