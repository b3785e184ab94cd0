//! Calls on the CPU: custom operations in place, run by `defrost-kernels` on the memory of candle's tensors.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use defrost_tensor::Call;

use crate::CandleBuf;

/// What is done to the elements of a tensor.
type Body<'a> = Box<dyn FnOnce(&mut [f32]) -> Result<()> + 'a>;

/// What is done to the elements of several.
type AllBody<'a> = Box<dyn FnOnce(Vec<&mut [f32]>) + 'a>;

/// A custom operation that runs once.
struct InPlace<'a>(Cell<Option<Body<'a>>>);

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "defrost-kernels"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some(body)) = (storage, self.0.take()) else {
            bail!("a CPU buffer of the candle backend is f32")
        };
        let start = layout.start_offset();
        body(&mut values[start..start + layout.shape().elem_count()])
    }
}

/// Calls `body` with the elements of all `tensors`, which do not share memory.
fn with_all<'t>(tensors: &'t [Tensor], held: Vec<&'t mut [f32]>, body: AllBody<'t>) -> Result<()> {
    let Some((first, rest)) = tensors.split_first() else {
        body(held);
        return Ok(());
    };
    let body = move |slice: &mut [f32]| {
        let mut all: Vec<&mut [f32]> = held;
        all.push(slice);
        with_all(rest, all, body)
    };
    first.inplace_op1(&InPlace(Cell::new(Some(Box::new(body)))))
}

/// Calls `body` with the elements of a buffer.
pub(crate) fn with_mut(buf: &mut CandleBuf, body: impl FnOnce(&mut [f32])) -> Result<()> {
    with_all(std::slice::from_ref(&buf.value), Vec::new(), Box::new(|mut all| body(all.swap_remove(0))))
}

/// Calls `body` with the elements of a buffer that is only read.
pub(crate) fn with<R>(buf: &CandleBuf, body: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, _) = buf.value.storage_and_layout();
    Ok(body(elements(&storage)?))
}

fn elements(storage: &Storage) -> Result<&[f32]> {
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(values),
        _ => bail!("a CPU buffer of the candle backend is f32"),
    }
}

/// Calls `body` with the call over the elements of its buffers.
pub(crate) fn with_call<R>(
    call: Call<&CandleBuf, &mut CandleBuf>,
    body: impl FnOnce(Call<&[f32], &mut [f32]>) -> R,
) -> Result<R> {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let call = call.map(&mut |buf| reads.push(&buf.value), &mut |buf| writes.push(buf.value.clone()));
    let guards: Vec<_> = reads.into_iter().map(|tensor| tensor.storage_and_layout().0).collect();
    let read = guards.iter().map(|guard| elements(guard)).collect::<Result<Vec<_>>>()?;
    let mut result = None;
    let run = |written: Vec<&mut [f32]>| {
        let (mut read, mut written) = (read.into_iter(), written.into_iter());
        let enough = "one slice an operand";
        let call = call.map(&mut |()| read.next().expect(enough), &mut |()| written.next().expect(enough));
        result = Some(body(call));
    };
    with_all(&writes, Vec::new(), Box::new(run))?;
    Ok(result.expect("the operation has run"))
}
