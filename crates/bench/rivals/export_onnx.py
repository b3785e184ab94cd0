#!/usr/bin/env python3
"""A torchvision network with random weights and 10 classes as NAME.onnx, batch 16, for bench_ort.py."""
import json, sys, torch, torchvision
for name in sys.argv[1:]:
    net = getattr(torchvision.models, name)(weights=None, num_classes=10).eval()
    torch.onnx.export(net, torch.randn(16, 3, 224, 224), f"{name}.onnx", dynamo=False, opset_version=17)
    print(json.dumps(dict(what="export", model=name)))
