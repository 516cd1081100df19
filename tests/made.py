"What several tests are made of: pictures, mattes, AISegment pairs, damaged files, colour profiles"
import io, struct
import numpy as np
from PIL import Image, ImageCms
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

SRGB_XYZ = (.43607,.22249,.01392),(.38515,.71687,.09708),(.14307,.06061,.71410)
SPACES = dict(p3=(((.51512,.24120,-.00105),(.29198,.69225,.04189),(.15710,.06657,.78407)), None),
    adobe=(((.60974,.31111,.01947),(.20528,.62567,.06087),(.14919,.06322,.74457)), 2.19921875),
    prophoto=(((.79767,.28804,0),(.13519,.71188,0),(.03134,.00009,.82491)), 1.8))

def srgb_profile(): return ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()

def icc(xyz, gamma=None):
    "An ICC profile of these primaries (XYZ under D50), with sRGB's curve or a plain gamma"
    b = bytearray(srgb_profile())
    for i in range(struct.unpack_from('>I',b,128)[0]):
        tag,at,_ = struct.unpack_from('>4sII',b,132+12*i)
        if tag in (b'rXYZ',b'gXYZ',b'bXYZ'):
            struct.pack_into('>3i',b,at+8,*(round(v*65536) for v in xyz[b'rgb'.index(tag[:1])]))
        if gamma and tag in (b'rTRC',b'gTRC',b'bTRC'):
            struct.pack_into('>H',b,at+8,0)
            struct.pack_into('>i',b,at+12,round(gamma*65536))
    return bytes(b)

def in_space(rgb, space):
    "8-bit sRGB as 8-bit numbers of another space, by the book"
    xyz,gamma = SPACES[space]
    v = rgb/255.
    lin = np.where(v<=.04045, v/12.92, ((v+.055)/1.055)**2.4) @ np.array(SRGB_XYZ)
    lin = np.clip(lin @ np.linalg.inv(np.array(xyz)), 0, 1)
    out = lin**(1/gamma) if gamma else np.where(lin<=.0031308, lin*12.92, 1.055*np.maximum(lin,1e-9)**(1/2.4)-.055)
    return np.rint(out*255).astype(np.uint8)
