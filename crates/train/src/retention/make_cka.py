#!/usr/bin/env python3
"""Writes linear CKA of made-up features, for the test of `similarity.rs`.

`feature_space_linear_cka` is the function of that name in the notebook that belongs to Kornblith, Norouzi, Lee and
Hinton 2019, "Similarity of Neural Network Representations Revisited"
(https://github.com/google-research/google-research/blob/master/representation_similarity/Demo.ipynb), without its debiased
variant. It works on covariances of features; the crate works on Gram matrices of images, so that the two check one another.

    pip install numpy
    python make_cka.py > cka.json

Made with numpy 2.4.
"""
import json
import numpy as np


def feature_space_linear_cka(features_x, features_y):
    features_x = features_x - np.mean(features_x, 0, keepdims=True)
    features_y = features_y - np.mean(features_y, 0, keepdims=True)
    dot_product_similarity = np.linalg.norm(features_x.T.dot(features_y)) ** 2
    normalization_x = np.linalg.norm(features_x.T.dot(features_x))
    normalization_y = np.linalg.norm(features_y.T.dot(features_y))
    return dot_product_similarity / (normalization_x * normalization_y)


rng = np.random.default_rng(0)
cases = []


def case(name, x, y):
    # What the crate is given is single precision, and so is what the formula sees.
    x, y = np.round(x, 3).astype(np.float32), np.round(y, 3).astype(np.float32)
    value = feature_space_linear_cka(x.astype(np.float64), y.astype(np.float64))
    rows = lambda a: [float(f"{v:.3f}") for v in a.ravel()]
    cases.append({"name": name, "n": len(x), "x": rows(x), "y": rows(y), "cka": value})


base = rng.normal(size=(10, 4))
rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
case("unrelated", rng.normal(size=(12, 3)), rng.normal(size=(12, 5)))
case("the same", base, base)
case("rotated, scaled and shifted", base, 3.0 * base @ rotation + 7.0)
case("a little noise", base, base + 0.1 * rng.normal(size=base.shape))
case("much noise", base, base + 2.0 * rng.normal(size=base.shape))
case("more features than images", rng.normal(size=(6, 20)), rng.normal(size=(6, 30)))
case("a linear map that is no rotation", base, base @ rng.normal(size=(4, 6)))
print(json.dumps(cases))
