"""Runs ONNX files in onnxruntime and compares with what defrost computed.

    python check_onnx.py FILE.onnx ...

Beside each file lie FILE.input.npy and FILE.logits.npy. Needs numpy, onnx and onnxruntime. Each image alone must give what the
batch gives: the batch axis is free. Ends with 1 where an output is off by 1e-4 or more, or numbers in the data's units, the
output `values`, by as much of what they are, where they are above 1.
"""

import sys

import numpy as np
import onnx
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


def check(path):
    stem = path.removesuffix(".onnx")
    want = np.load(stem + ".logits.npy")
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (into,) = session.get_inputs()
    batch = np.load(stem + ".input.npy").astype(TYPES[into.type])
    assert into.shape[0] == "N", into.shape
    got = session.run(None, {into.name: batch})[0]
    one = np.concatenate([session.run(None, {into.name: image[None]})[0] for image in batch])
    assert got.shape == want.shape, (got.shape, want.shape)
    unit = np.maximum(np.abs(want), 1) if session.get_outputs()[0].name == "values" else 1
    off = max((np.abs(got - want) / unit).max(), (np.abs(one - want) / unit).max())
    print(f"{path.split('/')[-1]}: off by {off:.1e} of {np.abs(want).max():.2f}, onnxruntime {onnxruntime.__version__}")
    return off < 1e-4


if __name__ == "__main__":
    sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
