//! Networks as ONNX files.
//!
//! The decision that shapes this crate: **what is exported is the plan of an evaluation, call by call.** A backend runs the
//! calls, this crate writes them down. So the file holds what `predict` computes, with the same normalisations folded and
//! the same paddings resolved, and an operation of the graph that gets a kernel needs one more case here and nothing else.
//!
//! The batch axis is free, rows and columns are fixed. Operators are those of opset 17, parameters have the published
//! names. Messages are protobuf, declared in [`proto`] with `prost`'s derive: no generated code, no `protoc`.

mod error;
pub mod proto;
mod tensor;
mod translate;

pub use error::{Error, Result};

use std::path::Path;

use defrost_graph::{Graph, ParamStore};
use defrost_tensor::PixelScale;
use prost::Message;

/// The operator set that files ask for.
pub const OPSET: i64 = 17;

/// The name of a file's input.
pub const INPUT: &str = "input";

/// How elements of pictures lie in memory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Layout {
    /// Rows, columns, channels: what decoders of pictures give.
    #[default]
    Nhwc,
    /// Channels, rows, columns.
    Nchw,
}

/// The type of a picture's elements.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Element {
    /// Bytes.
    #[default]
    U8,
    /// Floats from 0 to 255.
    F32,
}

/// What a file's input is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// `[N, c, h, w]` floats, preprocessed by whoever runs the file.
    #[default]
    Prepared,
    /// Pictures of the right size with red, green and blue from 0 to 255; the file does the rest.
    Pixels {
        /// How pixels become numbers.
        scale: PixelScale,
        /// How they lie.
        layout: Layout,
        /// What they are.
        element: Element,
    },
}

/// What a file's output is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// What the network puts out: `logits`, `[N, classes]`.
    #[default]
    Logits,
    /// Their softmax: `probabilities`, one right class a picture.
    Softmax,
    /// Their logistic function: `probabilities`, several labels a picture.
    Sigmoid,
    /// Numbers in the data's units: `values`, of each column the network's output times its factor plus its summand.
    Values {
        /// A factor a column.
        factor: Vec<f32>,
        /// A summand a column.
        summand: Vec<f32>,
    },
}

impl Output {
    /// The output's name in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Softmax | Self::Sigmoid => "probabilities",
            Self::Values { .. } => "values",
        }
    }
}

/// How a network is written.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// What the input is.
    pub input: Input,
    /// What the output is.
    pub output: Output,
    /// Whether normalisations are folded into convolutions: smaller, and the names of folded parameters change. Without it
    /// a file holds every parameter as it is published.
    pub fold: bool,
    /// Pairs of key and text for `metadata_props`: classes, preprocessing.
    pub metadata: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { input: Input::default(), output: Output::default(), fold: true, metadata: Vec::new() }
    }
}

/// The model file of `graph` with the values of `params`, as messages.
///
/// # Errors
/// [`Error::Unsupported`] for a call that has no counterpart, [`Error::Param`] for values of another graph,
/// [`Error::Channels`] for pixels of another number of channels, [`Error::Columns`] for numbers of another number of columns.
pub fn model(graph: &Graph, params: &ParamStore, options: &Options) -> Result<proto::Model> {
    let entry = |(key, value): &(String, String)| proto::Entry { key: key.clone(), value: value.clone() };
    Ok(proto::Model {
        ir_version: proto::IR_VERSION,
        producer_name: "defrost".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(translate::translate(graph, params, options)?),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: options.metadata.iter().map(entry).collect(),
    })
}

/// The bytes of a model file.
///
/// # Errors
/// As [`model`]; [`Error::TooLarge`] over 2 GiB, which protobuf cannot hold.
pub fn to_bytes(graph: &Graph, params: &ParamStore, options: &Options) -> Result<Vec<u8>> {
    let model = model(graph, params, options)?;
    let bytes = model.encoded_len() as u64;
    if bytes > i32::MAX as u64 {
        return Err(Error::TooLarge { bytes });
    }
    Ok(model.encode_to_vec())
}

/// Writes a model file, whole or not at all, and returns its length in bytes.
///
/// # Errors
/// As [`to_bytes`]; [`Error::Write`] for a file that cannot be written, the one before being untouched.
pub fn write(path: impl AsRef<Path>, graph: &Graph, params: &ParamStore, options: &Options) -> Result<u64> {
    let bytes = to_bytes(graph, params, options)?;
    defrost_weights::atomic::write_bytes(path, &bytes)?;
    Ok(bytes.len() as u64)
}
