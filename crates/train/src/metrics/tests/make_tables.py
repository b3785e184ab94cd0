"""Makes tables.json: outputs, truths, and what scikit-learn and torchmetrics make of them.

Made with scikit-learn 1.9.1, torchmetrics 1.9.0, torch and numpy:  python make_tables.py > tables.json
"""

import json
import warnings

import numpy as np
import sklearn.metrics as sk
import torch
import torch.nn.functional as F
import torchmetrics.functional as tm

warnings.simplefilter("ignore")
rng = np.random.default_rng(20)


def prf(truth, said, labels=None, averages=("macro", "weighted")):
    out = {}
    for how in averages:
        p, r, f, _ = sk.precision_recall_fscore_support(truth, said, average=how, labels=labels, zero_division=0)
        suffix = "" if how == "macro" else "_" + how
        out |= {"precision" + suffix: p, "recall" + suffix: r, "f1" + suffix: f}
    return out


def classification(n, classes, absent=()):
    """`absent` are classes that no image is of."""
    present = [c for c in range(classes) if c not in absent]
    y = rng.choice(present, n)
    y[: len(present)] = present
    z = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y]
    # Ties, among images and among the classes of one: the only ones, whatever rounds the softmax.
    z[1::4] = z[0]
    z[2::9, 0] = z[2::9, 1]
    z = z.astype(np.float32)
    p = torch.softmax(torch.tensor(z, dtype=torch.float64), 1).numpy()
    said = z.argmax(1)
    want = {
        "loss": F.cross_entropy(torch.tensor(z, dtype=torch.float64), torch.tensor(y)).item(),
        "accuracy": sk.accuracy_score(y, said),
        **prf(y, said),
        # One against the rest, over the classes that occur.
        "map": np.mean([sk.average_precision_score(y == c, p[:, c]) for c in present]),
        "auc": np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in present]),
    }
    if not absent:
        assert np.isclose(want["auc"], sk.roc_auc_score(y, p, multi_class="ovr", average="macro"))
        assert np.isclose(want["map"], sk.average_precision_score(np.eye(classes)[y], p, average="macro"))
        args = torch.tensor(p), torch.tensor(y)
        assert np.isclose(want["auc"], tm.auroc(*args, task="multiclass", num_classes=classes), atol=1e-5)
        assert np.isclose(want["map"], tm.average_precision(*args, task="multiclass", num_classes=classes), atol=1e-5)
    if classes > 5:
        # Of equal outputs the one to the left counts as greater, as in a stable sort.
        best = np.argsort(-z, axis=1, kind="stable")[:, :5]
        want["top5"] = np.mean([t in row for t, row in zip(y, best)])
    each = sk.precision_recall_fscore_support(y, said, labels=range(classes), average=None, zero_division=0)
    gamma = 2.0
    logp = torch.log_softmax(torch.tensor(z, dtype=torch.float64), 1).numpy()[np.arange(n), y]
    return {
        "classes": classes,
        "labels": y.tolist(),
        "logits": z.flatten().tolist(),
        "want": want,
        "focal": float(np.mean(-((1 - np.exp(logp)) ** gamma) * logp)),
        "per_class": {
            "precision": each[0].tolist(),
            "recall": each[1].tolist(),
            "f1": each[2].tolist(),
            "images": each[3].tolist(),
            "confusion": sk.confusion_matrix(y, said, labels=range(classes)).tolist(),
        },
    }


def labels(n, classes, empty=()):
    """`empty` are labels that no image has."""
    y = (rng.random((n, classes)) < np.linspace(0.1, 0.6, classes)).astype(int)
    y[:, list(empty)] = 0
    y[0, [c for c in range(classes) if c not in empty]] = 1
    z = np.round((rng.normal(size=(n, classes)) + 2.0 * y - 1.0) * 4) / 4 + 0.125
    z = z.astype(np.float32)
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    said = (z > 0).astype(int)
    known = [c for c in range(classes) if c not in empty]
    want = {
        "loss": F.binary_cross_entropy_with_logits(
            torch.tensor(z, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
        ).item(),
        "accuracy": sk.accuracy_score(y, said),
        **prf(y, said, averages=("macro", "weighted", "micro")),
        "map": sk.average_precision_score(y[:, known], p[:, known], average="macro"),
        "auc": sk.roc_auc_score(y[:, known], p[:, known], average="macro"),
    }
    if not empty:
        args = torch.tensor(p), torch.tensor(y)
        assert np.isclose(want["map"], tm.average_precision(*args, task="multilabel", num_labels=classes), atol=1e-5)
        assert np.isclose(want["auc"], tm.auroc(*args, task="multilabel", num_labels=classes), atol=1e-5)
        assert np.isclose(want["f1"], tm.f1_score(*args, task="multilabel", num_labels=classes, average="macro"), atol=1e-5)
        assert np.isclose(want["accuracy"], tm.exact_match(*args, task="multilabel", num_labels=classes), atol=1e-5)
    return {
        "classes": classes,
        "targets": y.flatten().tolist(),
        "logits": z.flatten().tolist(),
        "want": want,
        "average_precision": [
            sk.average_precision_score(y[:, c], p[:, c]) if c in known else None for c in range(classes)
        ],
        "auc": [sk.roc_auc_score(y[:, c], p[:, c]) if c in known else None for c in range(classes)],
    }


def values(n, width, constant=False):
    y = (rng.normal(size=(n, width)) * np.logspace(0, 2, width) + 7).astype(np.float32)
    if constant:
        y[:, 0] = 3.0
    x = (y + rng.normal(size=(n, width)) * np.logspace(-0.3, 2, width)).astype(np.float32)
    t, p = y.astype(np.float64), x.astype(np.float64)
    args = torch.tensor(p), torch.tensor(t)
    want = {
        "loss": F.mse_loss(*args).item(),
        "mae": sk.mean_absolute_error(t, p),
        "rmse": sk.root_mean_squared_error(t, p),
        "r2": sk.r2_score(t, p),
    }
    if not constant:
        assert np.isclose(want["r2"], tm.r2_score(*args))
        assert np.isclose(want["mae"], tm.mean_absolute_error(*args, num_outputs=width).mean())
    return {
        "classes": width,
        "targets": y.flatten().tolist(),
        "logits": x.flatten().tolist(),
        "want": want,
        "huber": F.huber_loss(*args, delta=1.5).item(),
        "mae": sk.mean_absolute_error(t, p, multioutput="raw_values").tolist(),
        "r2": sk.r2_score(t, p, multioutput="raw_values").tolist(),
    }


print(
    json.dumps(
        {
            "classification": [classification(40, 3), classification(60, 8), classification(30, 7, absent=(2, 6))],
            "labels": [labels(40, 4), labels(25, 6, empty=(3,))],
            "values": [values(20, 1), values(30, 3), values(12, 2, constant=True)],
        }
    )
)
