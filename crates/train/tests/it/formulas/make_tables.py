"""Makes tables.json: what PyTorch's and timm's optimizers make of a linear layer under each loss, step by step.

    pip install torch torchvision timm
    python make_tables.py > tables.json

Made with torch 2.15.0, torchvision 0.29.2 and timm 1.0.31, in double precision.
"""

import json

import torch
import torch.nn.functional as F
from timm.optim import Lamb
from torch import optim

IMAGES, INPUTS, OUTPUTS, STEPS = 12, 5, 4, 25
CLASSES = ["a", "b", "c", "d"]
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)


def rounded(t):
    """What a float32 holds exactly, so that both sides start from the same numbers."""
    return t.to(torch.float32).to(torch.float64)


X = rounded(torch.randn(IMAGES, INPUTS))
WEIGHT, BIAS = rounded(0.5 * torch.randn(OUTPUTS, INPUTS)), rounded(0.1 * torch.randn(OUTPUTS))
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, 1, 0, 2, 0, 1, 0])
SEVERAL = (torch.rand(IMAGES, OUTPUTS) < 0.4).to(torch.float64)
NUMBERS = rounded(2 * torch.randn(IMAGES, OUTPUTS))
BY_NAME = torch.tensor([1.0, 3.0, 0.5, 2.0])


def balanced():
    counts = torch.bincount(LABELS, minlength=OUTPUTS)
    return IMAGES / (OUTPUTS * counts)


def focal(logits, gamma, alpha):
    """Lin et al. 2017, equation 5, over a softmax: torchvision has the one over sigmoids alone. Of two classes with the
    logits z and 0 it is torchvision's."""
    log_p = F.log_softmax(logits, 1)[torch.arange(len(LABELS)), LABELS]
    return (-alpha[LABELS] * (1 - log_p.exp()) ** gamma * log_p).mean()


def check_focal():
    from torchvision.ops import sigmoid_focal_loss

    z, y = torch.randn(20), (torch.rand(20) < 0.5).to(torch.float64)
    want = sigmoid_focal_loss(z, y, alpha=-1, gamma=2, reduction="mean")
    log_p = F.log_softmax(torch.stack([torch.zeros(20), z], 1), 1)[torch.arange(20), y.long()]
    assert torch.isclose(want, (-((1 - log_p.exp()) ** 2) * log_p).mean())


check_focal()

# What a recipe says, and the same in PyTorch. `targets` names the truths.
ONES = torch.ones(OUTPUTS)
TABLE = "{ a = 1.0, b = 3.0, c = 0.5, d = 2.0 }"
CE, BCE = F.cross_entropy, F.binary_cross_entropy_with_logits
SMOOTH = SEVERAL * 0.9 + 0.05
LOSSES = [
    ('{ kind = "cross_entropy" }', "labels", lambda z: CE(z, LABELS)),
    ('{ kind = "cross_entropy", label_smoothing = 0.1 }', "labels", lambda z: CE(z, LABELS, label_smoothing=0.1)),
    (
        '{ kind = "cross_entropy", label_smoothing = 0.2, class_weights = "balanced" }',
        "labels",
        lambda z: CE(z, LABELS, weight=balanced(), label_smoothing=0.2),
    ),
    (
        '{ kind = "cross_entropy", class_weights = ' + TABLE + " }",
        "labels",
        lambda z: CE(z, LABELS, weight=BY_NAME),
    ),
    ('{ kind = "focal" }', "labels", lambda z: focal(z, 2.0, ONES)),
    ('{ kind = "focal", gamma = 0.5, class_weights = ' + TABLE + " }", "labels", lambda z: focal(z, 0.5, BY_NAME)),
    ('{ kind = "binary_cross_entropy" }', "several", lambda z: BCE(z, SEVERAL)),
    ('{ kind = "binary_cross_entropy", label_smoothing = 0.1 }', "several", lambda z: BCE(z, SMOOTH)),
    ('{ kind = "mean_squared" }', "numbers", lambda z: F.mse_loss(z, NUMBERS)),
    ('{ kind = "huber", delta = 0.5 }', "numbers", lambda z: F.huber_loss(z, NUMBERS, delta=0.5)),
]
DECAY = "weight_decay = 0.05"
OPTIMIZERS = [
    ('{ kind = "sgd", momentum = 0.0, ' + DECAY + " }", 0.3, lambda g, lr: optim.SGD(g, lr)),
    ('{ kind = "sgd" }', 0.1, lambda g, lr: optim.SGD(g, lr, momentum=0.9)),
    (
        '{ kind = "sgd", momentum = 0.8, nesterov = true, ' + DECAY + " }",
        0.1,
        lambda g, lr: optim.SGD(g, lr, momentum=0.8, nesterov=True),
    ),
    ('{ kind = "adam", ' + DECAY + " }", 0.05, lambda g, lr: optim.Adam(g, lr)),
    (
        '{ kind = "adam", betas = [0.8, 0.99], eps = 1e-5 }',
        0.05,
        lambda g, lr: optim.Adam(g, lr, betas=(0.8, 0.99), eps=1e-5),
    ),
    ('{ kind = "adamw", ' + DECAY + " }", 0.05, lambda g, lr: optim.AdamW(g, lr)),
    ('{ kind = "rmsprop", ' + DECAY + " }", 0.02, lambda g, lr: optim.RMSprop(g, lr)),
    (
        '{ kind = "rmsprop", alpha = 0.9, eps = 1e-4, momentum = 0.9, centered = true, ' + DECAY + " }",
        0.01,
        lambda g, lr: optim.RMSprop(g, lr, alpha=0.9, eps=1e-4, momentum=0.9, centered=True),
    ),
    ('{ kind = "lamb", ' + DECAY + " }", 0.05, lambda g, lr: Lamb(g, lr)),
    (
        '{ kind = "lamb", betas = [0.8, 0.99], max_grad_norm = 0.0, weight_decay = 0.1 }',
        0.05,
        lambda g, lr: Lamb(g, lr, betas=(0.8, 0.99), max_grad_norm=None),
    ),
]
CLIPS = [
    (None, lambda params: None),
    ("{ norm = 0.2 }", lambda params: torch.nn.utils.clip_grad_norm_(params, 0.2)),
    ("{ value = 0.03 }", lambda params: torch.nn.utils.clip_grad_value_(params, 0.03)),
]


def run(loss, optimizer, clip, decay):
    weight, bias = torch.nn.Parameter(WEIGHT.clone()), torch.nn.Parameter(BIAS.clone())
    (loss_text, targets, loss), (optimizer_text, lr, make), (clip_text, limit) = loss, optimizer, clip
    decay_of = float(optimizer_text.split("weight_decay = ")[1].split(" ")[0]) if "weight_decay" in optimizer_text else 0.0
    decay_of = decay_of or decay
    # As recipes have it: a bias is not decayed.
    groups = [{"params": [weight], "weight_decay": decay_of}, {"params": [bias], "weight_decay": 0.0}]
    stepper = make(groups, lr)
    losses, grads = [], None
    for _ in range(STEPS):
        stepper.zero_grad()
        value = loss(F.linear(X, weight, bias))
        value.backward()
        losses.append(value.item())
        if grads is None:
            grads = [weight.grad.clone(), bias.grad.clone()]
        limit([weight, bias])
        stepper.step()
    flat = lambda pair: [p.detach().flatten().tolist() for p in pair]
    return {
        "loss": loss_text,
        "targets": targets,
        "optimizer": optimizer_text,
        "clip": clip_text,
        "lr": lr,
        "losses": losses,
        "grads": flat(grads),
        "params": flat([weight, bias]),
    }


runs = []
for i, optimizer in enumerate(OPTIMIZERS):
    for j, loss in enumerate(LOSSES):
        # Every pair of an optimizer and a loss of another, each limit with each.
        if (i + j) % 3 == 0:
            runs.append(run(loss, optimizer, CLIPS[(i + j // 3) % 3], 0.0))


def average():
    """PyTorch's exponential average of weights, as `ema` has it without warm-up."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = torch.nn.Linear(INPUTS, OUTPUTS)
    with torch.no_grad():
        model.weight.copy_(WEIGHT), model.bias.copy_(BIAS)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    mean.update_parameters(model)  # The first is a copy: where a run starts.
    stepper = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(STEPS):
        stepper.zero_grad()
        CE(model(X), LABELS).backward()
        stepper.step()
        mean.update_parameters(model)
    return [p.detach().flatten().tolist() for p in mean.module.parameters()]


def nine_digits(value):
    if isinstance(value, dict):
        return {k: nine_digits(v) for k, v in value.items()}
    if isinstance(value, list):
        return [nine_digits(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


tables = nine_digits(
    {
        "classes": CLASSES,
        "x": X.flatten().tolist(),
        "weight": WEIGHT.flatten().tolist(),
        "bias": BIAS.tolist(),
        "labels": LABELS.tolist(),
        "several": SEVERAL.flatten().tolist(),
        "numbers": NUMBERS.flatten().tolist(),
        "runs": runs,
        "average": average(),
    }
)
print(json.dumps(tables, separators=(",", ":")))
