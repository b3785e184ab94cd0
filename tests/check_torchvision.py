#!/usr/bin/env python3
"""Checks that torchvision reads what defrost writes: `load_state_dict(strict=True)` without a change of any name, and the
same outputs as `defrost predict`.

For each network: fresh weights of torchvision are trained for one epoch on a few pictures, the best checkpoint (and what
`defrost convert` makes of it as .pth) is loaded into torchvision's model, and both networks see the same array.

Needs torch, torchvision, safetensors, numpy, pillow. Usage: check_torchvision.py PATH_TO_DEFROST [ARCH...]
"""
import os, subprocess, sys, tempfile
import numpy as np, torch, torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

def run(*arguments):
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

def check(defrost, arch, here):
    torch.manual_seed(0)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        os.makedirs(f"{here}/photos/{name}", exist_ok=True)
        for i in range(8):
            noise = np.random.default_rng(i).integers(0, 40, (64, 64, 3))
            Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(f"{here}/photos/{name}/{i}.png")
    fresh = getattr(torchvision.models, arch)(num_classes=1000).state_dict()
    save_file(fresh, f"{here}/start.safetensors")
    run(defrost, "train", f"{here}/photos", "--model", arch, "--weights", f"{here}/start.safetensors", "--recipe", "full",
        "--image-size", "64", "--batch", "8", "--set", "phase.1.epochs=1", "--run", f"{here}/run", "--quiet")
    best = f"{here}/run/checkpoints/best.safetensors"
    run(defrost, "convert", best, f"{here}/best.pth")
    x = np.random.default_rng(1).normal(size=(2, 3, 64, 64)).astype(np.float32)
    np.save(f"{here}/x.npy", x)
    run(defrost, "predict", "--weights", best, f"{here}/x.npy", "--logits", f"{here}/y.npy")
    got = np.load(f"{here}/y.npy")
    for file, state in ((best, load_file(best)), ("best.pth", torch.load(f"{here}/best.pth"))):
        model = getattr(torchvision.models, arch)(num_classes=2)
        print(f"{arch}: {os.path.basename(file)}: {model.load_state_dict(state, strict=True)}", end=", ")
        with torch.no_grad():
            want = model.eval()(torch.from_numpy(x)).numpy()
        off = np.abs(got - want).max() / np.abs(want).max()
        print(f"largest relative difference of outputs {off:.1e}")
        assert off < 1e-4, (got, want)

for arch in sys.argv[2:] or ["resnet18", "resnet50", "mobilenet_v2", "vgg16"]:
    with tempfile.TemporaryDirectory() as here:
        check(os.path.abspath(sys.argv[1]), arch, here)
