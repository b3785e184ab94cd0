//! The Python objects that a weight file may name. They are names here and nothing more.

/// Whole names.
const KNOWN: &[&str] = &[
    "__builtin__.bytearray",
    "__builtin__.complex",
    "__builtin__.dict",
    "__builtin__.frozenset",
    "__builtin__.list",
    "__builtin__.object",
    "__builtin__.set",
    "__builtin__.slice",
    "__builtin__.tuple",
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.dict",
    "builtins.frozenset",
    "builtins.list",
    "builtins.object",
    "builtins.set",
    "builtins.slice",
    "builtins.tuple",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "fastcore.foundation.L",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "torch.Size",
    "torch.Tensor",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.device",
    "torch.nn.parameter.Buffer",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
];

/// Names directly in `torch`: storages, and the types of numbers.
const IN_TORCH: &[&str] = &[
    "bfloat16",
    "bool",
    "complex128",
    "complex32",
    "complex64",
    "double",
    "float",
    "float16",
    "float32",
    "float64",
    "half",
    "int",
    "int16",
    "int32",
    "int64",
    "int8",
    "long",
    "short",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
];

/// Whether a file may name this object.
pub(super) fn allowed(name: &str) -> bool {
    if KNOWN.binary_search(&name).is_ok() {
        return true;
    }
    // Modules that were pickled whole: their class does not matter, their parameters are plain attributes.
    if ["torch.nn.modules.", "torchvision.models.", "torchvision.ops.misc."]
        .iter()
        .any(|p| name.starts_with(p))
    {
        return true;
    }
    match name.strip_prefix("torch.") {
        Some(rest) => {
            let storage = rest.strip_prefix("cuda.").unwrap_or(rest).strip_suffix("Storage");
            storage.is_some_and(|s| !s.contains('.')) || IN_TORCH.contains(&rest)
        }
        // The types of scalars: `numpy.float32`, also through `numpy.dtypes`.
        None => ["numpy.float", "numpy.int", "numpy.uint", "numpy.bool"].iter().any(|p| {
            name.strip_prefix(p).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'_'))
        }),
    }
}

/// Whether an instance of this class is a dict.
pub(super) fn is_dict(name: &str) -> bool {
    matches!(name, "__builtin__.dict" | "builtins.dict")
        || name.starts_with("collections.")
        || name.ends_with(".AttributeDict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_closed() {
        assert!(KNOWN.is_sorted());
        for yes in [
            "collections.OrderedDict",
            "torch.FloatStorage",
            "torch.bfloat16",
            "numpy.float64",
            "numpy.bool_",
        ] {
            assert!(allowed(yes), "{yes}");
        }
        let no = [
            "os.system",
            "posix.system",
            "builtins.eval",
            "__builtin__.eval",
            "builtins.getattr",
            "torch.load",
        ];
        for no in no.into_iter().chain([
            "numpy.float32x",
            "torch.x.FloatStorage",
            "torch.hub.load",
            "numpy.load",
            "",
        ]) {
            assert!(!allowed(no), "{no}");
        }
    }
}
