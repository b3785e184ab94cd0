"""Results of torchvision's operations on one small image, for src/golden.rs: python3 torchvision_ops.py > torchvision.json

torchvision 0.29.2, transforms.v2.functional on uint8 tensors; geometry bilinear with reflection left out (black fill).
"""

import json

import torch
from torchvision.transforms import InterpolationMode as I
from torchvision.transforms.v2 import functional as F

H, W = 16, 20
# A smooth colourful image: golden geometry must not depend on single pixels.
y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
image = torch.stack([40 + 9 * x, 230 - 12 * y, 60 + (3 * x + 5 * y) // 2]).to(torch.uint8)


def out(t):
    return bytes(t.permute(1, 2, 0).flatten().tolist()).hex()


cases = {"image": image}
for f in [0.3, 1.0, 1.7]:
    cases[f"brightness {f}"] = F.adjust_brightness(image, f)
    cases[f"contrast {f}"] = F.adjust_contrast(image, f)
    cases[f"saturation {f}"] = F.adjust_saturation(image, f)
    cases[f"sharpness {f}"] = F.adjust_sharpness(image, f)
for f in [-0.4, 0.1, 0.5]:
    cases[f"hue {f}"] = F.adjust_hue(image, f)
cases["grayscale"] = F.rgb_to_grayscale(image, num_output_channels=3)
cases["autocontrast"] = F.autocontrast(image)
cases["equalize"] = F.equalize(image)
for bits in [2, 5]:
    cases[f"posterize {bits}"] = F.posterize(image, bits)
cases["solarize 128"] = F.solarize(image, 128)
for sigma, k in [(0.5, 5), (1.0, 7), (2.0, 13)]:
    cases[f"blur {sigma}"] = F.gaussian_blur(image, [k, k], [sigma, sigma])
start = [[0, 0], [W - 1, 0], [W - 1, H - 1], [0, H - 1]]
end = [[3, 2], [W - 3, 4], [W - 1, H - 4], [1, H - 2]]
degrees = float(torch.rad2deg(torch.atan(torch.tensor(0.25))))
maps = {
    "rotate -20.0": lambda i: F.rotate(i, -20.0, I.BILINEAR, fill=0),
    "rotate 33.0": lambda i: F.rotate(i, 33.0, I.BILINEAR, fill=0),
    "affine": lambda i: F.affine(i, 25.0, [3, -2], 1.2, [10.0, -5.0], I.BILINEAR, fill=0),
    "shear x 0.25": lambda i: F.affine(i, 0.0, [0, 0], 1.0, [degrees, 0.0], I.BILINEAR, fill=0, center=[0.0, 0.0]),
    "perspective": lambda i: F.perspective(i, start, end, I.BILINEAR, fill=0),
}
for name, f in maps.items():
    cases[name] = f(image)
    # 255 where no fill is mixed in: at the rim torchvision multiplies by its mask twice.
    cases[f"inside {name}"] = f(torch.full_like(image, 255))
for name, mode in [("bilinear", I.BILINEAR), ("bicubic", I.BICUBIC)]:
    for h, w in [(11, 9), (40, 50)]:
        cases[f"resize {name} {h} {w}"] = F.resize(image, [h, w], mode, antialias=True)
print(json.dumps({k: out(v) for k, v in cases.items()}, separators=(",", ":")).replace('","', '",\n"'))
