//! The values of a network's parameters on the host, by name, and how they start.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use defrost_tensor::HostTensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::{Graph, GraphError, Init, Param};

/// Host values for every parameter and buffer of one graph, in the table's order, found by name.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamStore {
    names: Vec<String>,
    values: Vec<HostTensor>,
    index: HashMap<String, usize>,
}

impl ParamStore {
    /// Fresh values by each parameter's [`Init`], keyed by (`seed`, name): adding a layer changes no other's start.
    pub fn init(graph: &Graph, seed: u64) -> Self {
        // Large ones first, so that no thread is left with one at the end.
        let mut params: Vec<_> = graph.params().iter().collect();
        params.sort_by_key(|p| std::cmp::Reverse(p.len()));
        let (next, made) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(params.len())));
        let work = || {
            while let Some(param) = params.get(next.fetch_add(1, Ordering::Relaxed)) {
                let value = initial(param, seed);
                made.lock().unwrap_or_else(PoisonError::into_inner).push((param.name.as_str(), value));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut made: HashMap<_, _> = made.into_iter().collect();
        Self::build(graph, |param| made.remove(param.name.as_str()).unwrap_or_else(|| initial(param, seed)))
    }

    /// The values that `given` has, and fresh ones as [`ParamStore::init`] makes them for the others alone.
    ///
    /// # Errors
    /// A value of another shape than the graph's.
    pub fn init_where_none(
        graph: &Graph,
        seed: u64,
        given: &mut dyn FnMut(&str) -> Option<HostTensor>,
    ) -> Result<Self, GraphError> {
        let mut wrong = None;
        let store = Self::build(graph, |param| match given(&param.name) {
            None => initial(param, seed),
            Some(value) => {
                if value.shape() != param.shape {
                    let (name, want) = (param.name.clone(), param.shape.clone());
                    wrong.get_or_insert(GraphError::ParamShape { name, want, got: value.shape().to_vec() });
                }
                value
            }
        });
        wrong.map_or(Ok(store), Err)
    }

    /// Zeros for every parameter.
    pub fn zeros(graph: &Graph) -> Self {
        Self::build(graph, |param| HostTensor::zeros(param.shape.clone()))
    }

    fn build(graph: &Graph, mut value: impl FnMut(&Param) -> HostTensor) -> Self {
        let names: Vec<_> = graph.params().iter().map(|p| p.name.clone()).collect();
        let index = names.iter().cloned().enumerate().map(|(i, n)| (n, i)).collect();
        Self { names, values: graph.params().iter().map(&mut value).collect(), index }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.index.get(name).map(|&i| &self.values[i])
    }

    /// Replaces the value of `name`.
    ///
    /// # Errors
    /// No such name, or another shape than the graph's.
    pub fn set(&mut self, name: &str, value: HostTensor) -> Result<(), GraphError> {
        let &i = self.index.get(name).ok_or_else(|| GraphError::NoSuchParam { name: name.into() })?;
        let want = self.values[i].shape();
        if want != value.shape() {
            let (want, got) = (want.to_vec(), value.shape().to_vec());
            return Err(GraphError::ParamShape { name: name.into(), want, got });
        }
        self.values[i] = value;
        Ok(())
    }

    /// Whether `other` has the very values of this one, which nothing was copied for.
    pub fn shares(&self, other: &Self) -> bool {
        let pairs = self.values.iter().zip(&other.values);
        self.names == other.names && pairs.into_iter().all(|(a, b)| a.data().as_ptr() == b.data().as_ptr())
    }

    /// The values alone, in the table's order.
    pub fn into_values(self) -> impl ExactSizeIterator<Item = HostTensor> {
        self.values.into_iter()
    }

    /// Names and values in the table's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &HostTensor)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }
}

/// The starting value of `param`.
fn initial(param: &Param, seed: u64) -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(&param.name));
    let data = match param.init {
        Init::Constant(value) => vec![value; param.len()],
        Init::KaimingNormalFanOut { fan_out } => normal(&mut rng, (2.0 / fan_out as f32).sqrt(), param.len()),
        Init::Normal { std } => normal(&mut rng, std, param.len()),
        Init::FanInUniform { fan_in } => {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let uniform = Uniform::new_inclusive(-bound, bound).expect("the bound is finite and positive");
            (0..param.len()).map(|_| uniform.sample(&mut rng)).collect()
        }
    };
    HostTensor::new(param.shape.clone(), data).expect("as many values as the shape has elements")
}

fn normal(rng: &mut ChaCha8Rng, std: f32, len: usize) -> Vec<f32> {
    let normal = Normal::new(0.0, std).expect("the deviation is finite");
    (0..len).map(|_| normal.sample(rng)).collect()
}

/// FNV-1a, 64 bits: a stable hash of a name.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}
