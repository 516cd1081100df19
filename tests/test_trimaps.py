"Trimaps: read, checked, coded"
import io
import numpy as np, pytest
from PIL import Image
from dim_nb.images import ImageError, write_png
from dim_nb.trimaps import classes_to_trimap, read_trimap, trimap_to_classes

H,W = 40,60
RNG = np.random.default_rng(0)
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

def enc(im, fmt='PNG', **kw):
    b = io.BytesIO(); im.save(b, fmt, **kw)
    return b.getvalue()

def test_read_trimap(tmp_path):
    t = RNG.choice(np.array([0,128,255],np.uint8),(H,W))
    for im in (Image.fromarray(t), Image.fromarray(t).convert('RGB'), Image.fromarray(t).convert('RGBA'), Image.fromarray(t).convert('P')): assert np.array_equal(read_trimap(enc(im)), t)
    for o in (t, t.astype(np.uint16)*257, np.array([0,.5,1])[trimap_to_classes(t)], np.where(t==128,127,t).astype(np.uint8), np.where(t==128,129,t).astype(np.uint8)):
        assert np.array_equal(read_trimap(o), t)
    assert read_trimap(t, size=(H,W)).dtype==np.uint8

@pytest.mark.parametrize('v', [1,2,126,130,254])
def test_bad_trimap(tmp_path, v):
    t = np.zeros((4,5),np.uint8); t[1,1] = v
    f = write_png(tmp_path/'tri.png', t)
    with pytest.raises(ImageError, match=f'tri.png.* also {v}'): read_trimap(f)

def test_trimap_refuses_size_and_colour(tmp_path):
    f = write_png(tmp_path/'tri.png', np.zeros((4,5),np.uint8))
    with pytest.raises(ImageError, match='trimap is 5x4, the image 4x5'): read_trimap(f, size=(5,4))
    with pytest.raises(ImageError, match='colour'): read_trimap(RGB)

def test_classes_roundtrip():
    import torch
    t = RNG.choice(np.array([0,128,255],np.uint8),(H,W)); c = trimap_to_classes(t)
    assert set(np.unique(c))=={0,1,2} and np.array_equal(classes_to_trimap(c), t)
    tt = torch.from_numpy(t); assert trimap_to_classes(tt).dtype==torch.int64 and torch.equal(classes_to_trimap(trimap_to_classes(tt)), tt)
    with pytest.raises(ValueError): trimap_to_classes(np.array([1]))
