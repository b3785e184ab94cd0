//! Whether a plan fits this machine, before anything runs.

use defrost_exec::Room;

use crate::Error;

/// Bytes that a phase may take where its buffers lie: nine tenths of what is free, where that is known.
pub fn room(room: Room) -> Option<usize> {
    free(room).map(|free| free / 10 * 9)
}

/// Bytes that are free, where that is known.
fn free(room: Room) -> Option<usize> {
    match room {
        Room::Device { bytes } => bytes,
        _ => available(),
    }
}

/// Refuses a phase that needs more than nine tenths of the free memory, with the batch that would fit. `need` gives the
/// bytes for a batch. What is not known beforehand is found when the device is asked for it.
pub(crate) fn check(
    room: Room,
    phase: &str,
    batch: usize,
    need: &dyn Fn(usize) -> Result<usize, Error>,
) -> Result<(), Error> {
    let Some(free) = free(room) else { return Ok(()) };
    let (needed, room) = (need(batch)?, free / 10 * 9);
    if needed <= room {
        return Ok(());
    }
    let smaller =
        std::iter::successors(Some(batch.next_power_of_two() / 2), |n| Some(n / 2)).take_while(|n| *n > 0);
    let fits = smaller.into_iter().find(|&n| need(n).is_ok_and(|bytes| bytes <= room));
    let (need_mb, have_mb) = (needed >> 20, free >> 20);
    Err(Error::Memory { phase: phase.into(), batch, need_mb, have_mb, fits })
}

/// Bytes that can be had without swapping, where the system says.
fn available() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_fits_is_named() {
        let Some(free) = available() else { return };
        let each = free / 20; // 18 fit into nine tenths.
        check(Room::Host, "p", 8, &|n| Ok(n * each)).unwrap();
        let error = check(Room::Host, "p", 100, &|n| Ok(n * each)).unwrap_err();
        assert!(error.to_string().ends_with("`--batch 16` fits"), "{error}");
        let error = check(Room::Host, "p", 4, &|_| Ok(2 * free)).unwrap_err();
        assert!(error.to_string().contains("no batch fits"), "{error}");
        let own = Room::Device { bytes: Some(100) };
        let error = check(own, "p", 8, &|n| Ok(n * 20)).unwrap_err();
        assert!(error.to_string().ends_with("`--batch 4` fits"), "{error}");
        check(Room::Device { bytes: None }, "p", 8, &|n| Ok(n * free)).unwrap();
    }
}
