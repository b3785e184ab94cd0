//! What can be wrong with an image or with the parameters of a transform.

/// Why an image or a pipeline was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pixel buffer does not have `width * height * channels` bytes, or a side is zero.
    #[error(
        "an image of {width} x {height} pixels with {channels} channels was given {len} bytes; \
         sides must be at least 1, channels 1 to 4, and the bytes their product"
    )]
    Shape {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Interleaved channels.
        channels: usize,
        /// Bytes given.
        len: usize,
    },
    /// A parameter of an operation is out of its range.
    #[error("operation {index} ({op}): `{parameter}` is {value}; it must be {rule}")]
    Parameter {
        /// Position in the pipeline, from 0.
        index: usize,
        /// The name of the operation as written in a recipe.
        op: &'static str,
        /// The name of the parameter.
        parameter: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// The pipeline cuts or resizes twice: the second would undo the first.
    #[error("operations {first} and {second} both set the size of the image; keep one of them")]
    TwoSizes {
        /// Position of the first, from 0.
        first: usize,
        /// Position of the second.
        second: usize,
    },
    /// The resizing library refused (a side beyond its range).
    #[error("cannot resize {from_width} x {from_height} to {to_width} x {to_height}: {reason}")]
    Resize {
        /// Width of the source in pixels.
        from_width: usize,
        /// Height of the source in pixels.
        from_height: usize,
        /// Width asked for.
        to_width: usize,
        /// Height asked for.
        to_height: usize,
        /// What the library said.
        reason: String,
    },
    /// A batch buffer and its description disagree.
    #[error(
        "a batch of {n} images of {height} x {width} x {channels} does not have {len} values; \
         it needs their product, and one label each"
    )]
    Batch {
        /// Images.
        n: usize,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Channels.
        channels: usize,
        /// Values given.
        len: usize,
    },
}
