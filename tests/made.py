"What several tests are made of: pictures, mattes, AISegment pairs, damaged files"
import io
import numpy as np
from PIL import Image
from dim_nb.datasets import aisegment_pairs
from dim_nb.images import write_png

H,W = 40,60
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

def enc(im, fmt='PNG', **kw):
    "The bytes of a PIL image's file"
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()

def find(root, **kw): return aisegment_pairs(root, progress=False, **{'workers':0, **kw})

def matte(h=80, w=60, seed=0):
    rgba = np.random.default_rng(seed).integers(0, 255, (h,w,4)).astype(np.uint8)
    rgba[...,3] = 0
    rgba[h//4:,w//4:-(w//4),3] = 255
    rgba[h//4,w//4:-(w//4),3] = 128
    return rgba

def pair(root, i, group='1803151818', folder='00000000', jpg='.jpg', png='.png', size=(80,60)):
    p = root/'clip_img'/group/f'clip_{folder}'/f'{group}-{i:08d}{jpg}'
    q = root/'matting'/group/f'matting_{folder}'/f'{group}-{i:08d}{png}'
    for o in (p,q): o.parent.mkdir(parents=True, exist_ok=True)
    m = matte(*size, seed=i)
    Image.fromarray(m[...,:3]).save(p, 'JPEG', quality=95)
    write_png(q, m)
    return p,q

def cut(f, share):
    d = f.read_bytes()
    f.write_bytes(d[:int(len(d)*share)])

def snapshot(root):
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns, p.lstat().st_mode) for p in root.rglob('*')}
