//! Who computes: a fixed set of threads and an instruction set.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Isa;
use crate::workers::Workers;

/// At most this many threads work on one call.
const MAX_THREADS: usize = 256;

/// The threads that kernels run on, and the instruction set they use.
///
/// The thread that calls a kernel takes part, so `Threads::new(2)` starts one more. Tasks of a call are handed out
/// in contiguous shares (neighbouring tasks share cache lines and pages); a thread that has finished its own share takes
/// from the others'.
#[derive(Debug)]
pub struct Threads {
    workers: Option<Workers>,
    count: usize,
    isa: Isa,
}

impl Threads {
    /// `count` threads, at least one, with the best instruction set of this machine.
    ///
    /// Where the system refuses to start threads, the calling thread works alone.
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_THREADS);
        let workers = if count > 1 { Workers::start(count - 1) } else { None };
        let count = if workers.is_some() { count } else { 1 };
        Self { workers, count, isa: Isa::best() }
    }

    /// As many threads as the system says are useful.
    pub fn all() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The calling thread alone.
    pub fn serial() -> Self {
        Self::new(1)
    }

    /// The same threads with another instruction set.
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// How many threads there are, the calling one included.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The instruction set that kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether the instruction set multiplies pairs of bfloat16.
    pub fn multiplies_bf16(&self) -> bool {
        crate::half::supported(self.isa)
    }

    /// Calls `task(worker, i)` once for each `i` below `tasks`; `worker` is below [`Threads::count`] and never in two
    /// calls at once.
    pub(crate) fn for_each(&self, tasks: usize, task: impl Fn(usize, usize) + Sync) {
        self.hand_out(tasks, false, task);
    }

    /// As [`Threads::for_each`]; `back` gives each share from its end.
    fn hand_out(&self, tasks: usize, back: bool, task: impl Fn(usize, usize) + Sync) {
        let workers = self.count.min(tasks);
        let Some(pool) = self.workers.as_ref().filter(|_| workers > 1) else {
            (0..tasks).for_each(|i| task(0, if back { tasks - 1 - i } else { i }));
            return;
        };
        let start = |worker: usize| tasks * worker / workers;
        let end = |worker: usize| tasks * (worker + 1) / workers;
        let next: [AtomicUsize; MAX_THREADS] =
            std::array::from_fn(|w| AtomicUsize::new(if w < workers { start(w) } else { 0 }));
        let work = |worker: usize| {
            for share in (worker..workers).chain(0..worker) {
                loop {
                    let i = next[share].fetch_add(1, Ordering::Relaxed);
                    if i >= end(share) {
                        break;
                    }
                    task(worker, if back { start(share) + end(share) - 1 - i } else { i });
                }
            }
        };
        pool.run(workers - 1, &work);
    }

    /// Calls `task(i, chunk)` for each chunk of `chunk` elements of `data` (the last may be shorter).
    pub(crate) fn for_chunks<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let parts = Parts::new(data, chunk);
        // SAFETY: each task takes its own part, once.
        self.for_each(parts.count(), |_, i| task(i, unsafe { parts.get(i) }));
    }
}

impl Threads {
    /// As [`Threads::for_chunks`], each share from its end: for a second pass over what a first one has just read.
    pub(crate) fn for_chunks_back<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let parts = Parts::new(data, chunk);
        // SAFETY: each task takes its own part, once.
        self.hand_out(parts.count(), true, |_, i| task(i, unsafe { parts.get(i) }));
    }
}

/// A slice cut into equal parts that tasks may take one each.
pub(crate) struct Parts<'a, T> {
    ptr: *mut T,
    len: usize,
    part: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `get`'s contract makes the parts handed out disjoint.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T], part: usize) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), part: part.max(1), _slice: PhantomData }
    }

    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.part)
    }

    /// Part `i`; empty beyond the end.
    ///
    /// # Safety
    /// No two live references to the same part.
    #[allow(clippy::mut_from_ref)] // The contract: parts are disjoint.
    pub(crate) unsafe fn get(&self, i: usize) -> &mut [T] {
        let start = (i * self.part).min(self.len);
        let len = self.part.min(self.len - start);
        // SAFETY: in bounds; the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
}

/// A pointer that tasks may share; what they do with it is theirs to keep disjoint.
#[derive(Clone, Copy)]
pub(crate) struct PtrMut(pub(crate) *mut f32);

// SAFETY: a mere address; each use states why it is disjoint.
unsafe impl Send for PtrMut {}
// SAFETY: as above.
unsafe impl Sync for PtrMut {}

impl PtrMut {
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_one_worker_at_a_time() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count);
            for tasks in [0, 1, 2, 7, 100] {
                let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let busy: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                threads.for_each(tasks, |worker, i| {
                    assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0);
                    done[i].fetch_add(1, Ordering::SeqCst);
                    busy[worker].fetch_sub(1, Ordering::SeqCst);
                });
                assert!(done.iter().all(|d| d.load(Ordering::SeqCst) == 1), "{count} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut data = vec![0; 103];
        Threads::new(2).for_chunks(&mut data, 10, |i, chunk| chunk.fill(i + 1));
        assert!(data.iter().enumerate().all(|(i, &v)| v == i / 10 + 1));
        for count in [1, 2] {
            Threads::new(count).for_chunks_back(&mut data, 10, |i, chunk| chunk.fill(i + 2));
            assert!(data.iter().enumerate().all(|(i, &v)| v == i / 10 + 2));
        }
    }
}
