//! All buffers of a session, while a plan runs over them and while weights are loaded into them.

use defrost_graph::{Graph, Param, ParamStore};
use defrost_tensor::{HostTensor, Kernels};

use crate::ExecError;
use crate::compiled::Place;

/// Writes all of `params` into `buffers`, one a parameter.
pub(crate) fn load<K: Kernels>(
    kernels: &K,
    graph: &Graph,
    params: &ParamStore,
    buffers: &mut [Option<K::Buf>],
) -> Result<(), ExecError> {
    for (param, buffer) in graph.params().iter().zip(buffers) {
        let value = params
            .get(&param.name)
            .ok_or_else(|| defrost_graph::GraphError::NoSuchParam { name: param.name.clone() })?;
        check("parameter", 1, param.len(), value.len())?;
        kernels.upload(param.layout(), value.data(), buffer.as_mut().expect("buffers are in place"))?;
    }
    Ok(())
}

/// Writes all of `params` into `buffers`, one a parameter; each value is gone when it is there. Those that somebody else has
/// too are copied.
pub(crate) fn give<K: Kernels>(
    kernels: &K,
    graph: &Graph,
    params: ParamStore,
    buffers: &mut [Option<K::Buf>],
) -> Result<(), ExecError> {
    let names = params.iter().map(|(name, _)| name).eq(graph.params().iter().map(|p| p.name.as_str()));
    if !names {
        // Weights of another network, or of one in another order: found by name.
        return load(kernels, graph, &params, buffers);
    }
    for ((param, buffer), value) in graph.params().iter().zip(buffers).zip(params.into_values()) {
        check("parameter", 1, param.len(), value.len())?;
        let buffer = buffer.as_mut().expect("buffers are in place");
        match value.try_into_data() {
            Ok(data) => kernels.upload_owned(param.layout(), data, buffer)?,
            Err(shared) => kernels.upload(param.layout(), shared.data(), buffer)?,
        }
    }
    Ok(())
}

/// The values of `buffers`, one a parameter, each as `value` gives it.
pub(crate) fn gather<B>(
    graph: &Graph,
    buffers: &[Option<B>],
    mut value: impl FnMut(&Param, &Option<B>) -> Result<HostTensor, ExecError>,
) -> Result<ParamStore, ExecError> {
    let pairs = graph.params().iter().zip(buffers);
    let values: Vec<_> = pairs.map(|(param, buffer)| value(param, buffer)).collect::<Result<_, _>>()?;
    let mut values = values.into_iter();
    Ok(ParamStore::init_where_none(graph, 0, &mut |_| values.next())?)
}

/// All buffers a call may name.
pub(crate) struct Store<'a, B> {
    pub(crate) params: &'a mut [Option<B>],
    pub(crate) grads: &'a mut [Option<B>],
    pub(crate) slots: &'a mut [Option<B>],
    pub(crate) own: &'a mut [Option<B>],
    pub(crate) folds: &'a mut [Option<B>],
}

impl<B> Store<'_, B> {
    pub(crate) fn slot(&mut self, place: Place) -> &mut Option<B> {
        match place {
            Place::Param(i) => &mut self.params[i],
            Place::Grad(i) => &mut self.grads[i],
            Place::Slot(i) => &mut self.slots[i],
            Place::Own(i) => &mut self.own[i],
            Place::Folded(i) => &mut self.folds[i],
        }
    }

    pub(crate) fn take(&mut self, place: Place) -> B {
        self.slot(place).take().expect("a call writes each buffer once and reads none that it writes")
    }

    pub(crate) fn put(&mut self, place: Place, buffer: B) {
        *self.slot(place) = Some(buffer);
    }

    pub(crate) fn get(&self, place: Place) -> &B {
        let slot = match place {
            Place::Param(i) => &self.params[i],
            Place::Grad(i) => &self.grads[i],
            Place::Slot(i) => &self.slots[i],
            Place::Own(i) => &self.own[i],
            Place::Folded(i) => &self.folds[i],
        };
        slot.as_ref().expect("a call reads no buffer that it writes")
    }
}

pub(crate) fn check(what: &'static str, n: usize, want: usize, got: usize) -> Result<(), ExecError> {
    if want == got { Ok(()) } else { Err(ExecError::Length { what, n, want, got }) }
}
