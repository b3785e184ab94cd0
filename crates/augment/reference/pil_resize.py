"""The values in src/resize.rs, from Pillow 13.0: python3 pil_resize.py"""
import numpy as np
from PIL import Image
a=np.array([[16*y+4*x for x in range(5)] for y in range(4)],dtype=np.uint8)
im=Image.fromarray(a)
for s in [(2,2),(7,3)]:
    for n in ['BILINEAR','BICUBIC']:
        print(s,n,np.array(im.resize(s,getattr(Image.Resampling,n))).ravel().tolist())
