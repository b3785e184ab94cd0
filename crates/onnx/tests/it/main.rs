//! What is written, read back: its structure, its values by a small reading of ONNX' rules, and by onnxruntime where a
//! Python has it.

mod evaluate;
mod networks;
mod runtime;
mod structure;
mod values;
