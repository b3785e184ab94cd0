#!/usr/bin/env python3
"""Writes what fastai, PyTorch, timm, Keras and Lightning themselves compute, for tests of rates, schedules and decisions.

Every number comes from a call of the tool, none from a formula written here.

    pip install torch torchvision timm fastai lightning keras
    KERAS_BACKEND=torch python make_tables.py > tables.json

Made with torch 2.15.0, timm 1.0.31, fastai 2.8.12, keras 3.15.1.
"""
import json, math, os, random, sys, warnings

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore")
import numpy as np, torch, timm, keras
from torch import nn
from torch.optim import lr_scheduler as L
from fastai.basics import Callback, DataLoader, DataLoaders, Learner, SGD
from fastai.callback.schedule import (SchedCos, SchedExp, combine_scheds, combined_cos, minimum, slide, steep, valley)
from fastcore.basics import even_mults
from timm.optim import param_groups_layer_decay

out = {}
positions = [i / 40 for i in range(41)]

# fastai: schedules as functions of the position.
out["one_cycle"] = [
    {"div": d, "div_final": f, "pct_start": p,
     "factor": [float(combined_cos(p, 1 / d, 1.0, 1 / f)(x)) for x in positions],
     "momentum": [float(combined_cos(p, 0.95, 0.85, 0.95)(x)) for x in positions]}
    for d, f, p in [(25.0, 1e5, 0.25), (5.0, 1e5, 0.3), (25.0, 1e5, 0.99), (10.0, 100.0, 0.5)]]
out["flat_cosine"] = [
    {"flat": p, "div_final": f,
     "factor": [float(combine_scheds([p, 1 - p], [lambda x: 1.0, SchedCos(1.0, 1 / f)])(x)) for x in positions]}
    for p, f in [(0.75, 1e5), (0.5, 10.0)]]

def sgdr(cycles, mult):  # the first lines of Learner.fit_sgdr
    epochs = (mult ** cycles - 1) // (mult - 1)
    pcts = [mult ** i / epochs for i in range(cycles)]
    return combine_scheds(pcts, [SchedCos(1.0, 0.0)] * cycles)
# Powers of two keep the sum of the parts at 1, which fastai asserts; the turns themselves are left out.
out["sgdr"] = [{"cycles": n, "mult": m, "points": [[x, float(sgdr(n, m)(x))] for x in positions if 0 < x < 1]}
               for n, m in [(2, 2), (3, 2), (2, 3)]]
out["even_mults"] = [{"a": a, "b": b, "n": n, "lrs": [float(v) for v in even_mults(a, b, n)]}
                     for a, b, n in [(1e-5, 1e-3, 3), (1e-6, 1e-4, 6), (2e-5, 1e-3, 10)]]

# fastai: what a Learner with three groups runs at, batch by batch.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    def forward(self, x):
        for p in self.parts: x = p(x)
        return x

class Record(Callback):
    order = 70
    def before_fit(self): self.rows = []
    def before_batch(self):
        if self.training: self.rows.append({"lrs": [float(h["lr"]) for h in self.opt.hypers], "mom": float(self.opt.hypers[-1]["mom"])})

def learner():
    torch.manual_seed(0)
    data = [(torch.randn(2), torch.randn(2)) for _ in range(8)]
    dl = DataLoader(data, bs=2)
    return Learner(DataLoaders(dl, dl), Net(), loss_func=nn.MSELoss(), opt_func=SGD,
                   splitter=lambda m: [list(p.parameters()) for p in m.parts], cbs=Record())

class Quiet:
    def __enter__(self): self.o = sys.stdout; sys.stdout = open(os.devnull, "w")
    def __exit__(self, *a): sys.stdout = self.o

with Quiet():
    l = learner(); rows = []
    fit = l.fit_one_cycle
    def keep(*a, **k): fit(*a, **k); rows.append(l.record.rows)
    l.fit_one_cycle = keep
    with l.no_bar(), l.no_logging(): l.fine_tune(3, base_lr=2e-3, freeze_epochs=2)
    out["fine_tune"] = rows
    frozen = {}
    for n in [-3, -2, -1, 0, 1, 2]:
        l = learner(); l.freeze_to(n)
        frozen[n] = [all(p.requires_grad for p in part.parameters()) for part in l.model.parts]
    out["freeze_to"] = [[n, f] for n, f in frozen.items()]

# fastai: the finder's sweep, smoothing and readings on made-up curves.
def curve(seed, n=100, noise=0.05):
    r = random.Random(seed)
    lrs = [SchedExp(1e-7, 10)(i / 100) for i in range(n)]
    best = 10 ** r.uniform(-3, -1)
    losses = []
    for lr in lrs:
        loss = 2.3 - 1.5 / (1 + (best / lr / 4) ** 1.2) + (lr / best / 10) ** 2 + r.gauss(0, noise)
        losses.append(loss)
    return lrs, losses

from fastai.learner import AvgSmoothLoss
class Fake: pass
out["finder"] = []
for seed, noise in [(1, 0.02), (2, 0.1), (3, 0.3), (4, 0.0), (5, 0.6)]:
    lrs, raw = curve(seed, noise=noise)
    smooth, avg = [], AvgSmoothLoss(beta=0.98)
    avg.reset(); avg.val = avg.val.double()
    best, kept = math.inf, 0
    for loss in raw:
        fake = Fake(); fake.loss = torch.tensor(loss, dtype=torch.float64); fake.yb = (torch.zeros(1),)
        avg.accumulate(fake)
        smooth.append(float(avg.value)); kept += 1
        best = min(best, smooth[-1])
        if smooth[-1] > 4 * best: break
    tl = torch.tensor(lrs[:kept], dtype=torch.float64)[100 // 10:-5]
    ts = torch.tensor(smooth, dtype=torch.float64)[100 // 10:-5]
    out["finder"].append({
        "raw": raw, "lrs": lrs[:kept], "smooth": smooth,
        "valley": valley(tl, ts, 100)[0], "slide": slide(tl, ts, 100)[0],
        "minimum": minimum(tl, ts, 100)[0], "steep": steep(tl, ts, 100)[0]})

# PyTorch: schedulers stepped once an epoch.
def torch_lrs(make, epochs=12):
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    s, lrs = make(opt), []
    for _ in range(epochs):
        lrs.append(opt.param_groups[0]["lr"]); opt.step(); s.step()
    return lrs
out["torch"] = {
    "step": torch_lrs(lambda o: L.StepLR(o, 5, 0.1)),
    "multi_step": torch_lrs(lambda o: L.MultiStepLR(o, [3, 7, 8], 0.3)),
    "exponential": torch_lrs(lambda o: L.ExponentialLR(o, 0.9)),
    "polynomial": torch_lrs(lambda o: L.PolynomialLR(o, 12, 2.0)),
    "cosine": torch_lrs(lambda o: L.CosineAnnealingLR(o, 12, eta_min=0.1)),
    # torchvision's reference training: linear warm-up, then the schedule.
    "warmup_cosine": torch_lrs(lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.01, total_iters=3), L.CosineAnnealingLR(o, 9)], [3])),
}

# timm: layer decay.
out["layer_decay"] = []
for name, d, floor in [("resnet18", 0.75, 0.0), ("resnet50", 0.9, 0.0), ("resnet18", 0.5, 0.1)]:
    groups = param_groups_layer_decay(timm.create_model(name, pretrained=False), weight_decay=0.05, layer_decay=d,
                                      min_scale=floor)
    rows = {}
    model = timm.create_model(name, pretrained=False)
    names = {tuple(p.shape): 0 for p in model.parameters()}
    for g in groups: rows.setdefault(g["lr_scale"], set()).add(g["weight_decay"])
    out["layer_decay"].append({"model": name, "decay": d, "min_scale": floor,
                               "scales": sorted({g["lr_scale"] for g in groups}),
                               "decays": sorted({g["weight_decay"] for g in groups})})

# Keras: callbacks on series of losses.
class FakeOptimizer: learning_rate = 1.0
class FakeModel:
    stop_training = False
    def __init__(self): self.optimizer = FakeOptimizer(); self.w = None; self.epoch = None
    def get_weights(self): return self.epoch
    def set_weights(self, w): self.w = w

series = [[1.0, 0.9, 0.9, 0.95, 0.8, 0.85, 0.85, 0.84, 0.83, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7],
          [1.0] * 16,
          [1.0, 0.99995, 0.9999, 0.99985, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]]
out["plateau"], out["early_stopping"] = [], []
for losses in series:
    for kw in [dict(factor=0.1, patience=2, min_delta=1e-4, cooldown=0, min_lr=0.0),
               dict(factor=0.5, patience=3, min_delta=0.0, cooldown=2, min_lr=0.2),
               dict(factor=0.1, patience=1, min_delta=1e-4, cooldown=1, min_lr=0.01)]:
        cb, model, lrs = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", **kw), FakeModel(), []
        cb.set_model(model); cb.on_train_begin()
        for e, v in enumerate(losses):
            cb.on_epoch_end(e, {"val_loss": v}); lrs.append(float(np.array(model.optimizer.learning_rate)))
        out["plateau"].append({"losses": losses, **kw, "lrs": lrs})
    for patience, delta in [(0, 0.0), (1, 0.0), (3, 0.0), (2, 0.05)]:
        cb, model = keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, min_delta=delta,
                                                  restore_best_weights=True), FakeModel()
        cb.set_model(model); cb.on_train_begin(); stopped = None
        for e, v in enumerate(losses):
            model.epoch = e
            cb.on_epoch_end(e, {"val_loss": v})
            if model.stop_training: stopped = e; break
        out["early_stopping"].append({"losses": losses, "patience": patience, "min_delta": delta,
                                      "stopped": stopped, "best": cb.best_epoch})

# Keras: the layers of a base without top.
kinds = {"InputLayer": "input", "ZeroPadding2D": "pad", "Conv2D": "conv2d", "DepthwiseConv2D": "conv2d",
         "BatchNormalization": "batch_norm", "Activation": "activate", "ReLU": "activate", "MaxPooling2D": "max_pool",
         "Add": "add"}
apps = keras.applications
out["keras_layers"] = {
    name: [[kinds[type(l).__name__], [int(w.shape[-1]) for w in l.weights][-1:]] for l in make(
        include_top=False, weights=None, input_shape=(64, 64, 3)).layers]
    for name, make in [("vgg16", apps.VGG16), ("resnet50", apps.ResNet50), ("mobilenet_v2", apps.MobileNetV2)]}

json.dump(out, sys.stdout, indent=None, separators=(",", ":"))
print()
