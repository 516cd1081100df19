"Trimaps: read as people draw them, made to the pixel, settled, opened"
import io, subprocess, sys, warnings
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.images import ImageError, composite, read_alpha, read_rgba, write_png
from dim_nb.trimaps import (TRIMAP_UNKNOWN, alpha_to_trimap, check_alpha, classes_to_trimap, distance_to, force_known,
    grow_band, open_holes, perturb_trimap, random_trimap, read_trimap, settle_known, shrink_band, shrink_trimap,
    trimap_to_classes)
from dim_nb.labels import repair_alpha
from made import H, RGB, W, enc

RNG = np.random.default_rng(0)

def test_imports_nothing_heavy():
    heavy = 'torch fastai timm pandas numba pymatting matplotlib scipy'.split()
    code = f"import sys, dim_nb.trimaps; bad = [m for m in {heavy} if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[1])

# --- reading -----------------------------------------------------------------

def test_read_trimap():
    t = RNG.choice(np.array([0,128,255],np.uint8),(H,W))
    im = Image.fromarray(t)
    for o in (im, *(im.convert(mode) for mode in ('RGB','RGBA','P','LA'))):
        assert np.array_equal(read_trimap(enc(o)), t)
    for o in (t, t.astype(np.uint16)*257, np.array([0,.5,1])[trimap_to_classes(t)]):
        assert np.array_equal(read_trimap(o), t)
    assert read_trimap(t, size=(H,W)).dtype==np.uint8

@pytest.mark.parametrize('v', [1,2,60,126,127,128,129,130,200,254])
def test_one_grey_is_unknown_whichever(tmp_path, v):
    t = RNG.choice(np.array([0,128,255],np.uint8),(H,W))
    f = write_png(tmp_path/'tri.png', np.where(t==128,v,t).astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.array_equal(read_trimap(f), t)

def test_roundings_of_one_half_are_one_grey():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_trimap(np.array([[0,127,128,129,255]],np.uint8)).tolist()==[[0,128,128,128,255]]

def test_several_greys_are_said_and_thresholded(tmp_path):
    f = write_png(tmp_path/'tri.png', np.array([[0,5,25,26,90,128,229,230,250,255]],np.uint8))
    with pytest.warns(UserWarning, match='tri.png: a trimap with 8 greys.*Up to 25.*from 230'): t = read_trimap(f)
    assert t.tolist()==[[0,0,0,128,128,128,128,255,255,255]]

@pytest.mark.parametrize('spoil', [
    lambda t: cv2.GaussianBlur(t,None,2), lambda t: cv2.resize(cv2.resize(t,(70,50)),(100,80)),
    lambda t: np.asarray(Image.open(io.BytesIO(enc(Image.fromarray(t),'JPEG',
        quality=60))))], ids=['soft brush','interpolated','jpeg'])
def test_a_spoilt_trimap_changes_no_side(spoil):
    y,x = np.mgrid[:80,:100]
    t = alpha_to_trimap((30.5-np.hypot(y-40,x-50)).clip(0,1), 6, 6)
    with pytest.warns(UserWarning, match='greys'): got = read_trimap(spoil(t))
    assert not ((got!=t)&(got!=128)&(t!=128)).any()
    assert (got==t).mean()>.9

@pytest.mark.parametrize('values,side', [([0,128],'foreground'), ([128,255],'background'), ([0],'foreground'),
    ([255],'background')])
def test_a_missing_side_warns(tmp_path, values, side):
    f = write_png(tmp_path/'tri.png', np.resize(np.uint8(values),(4,5)))
    with pytest.warns(UserWarning, match=f'tri.png: this trimap declares no {side}'): read_trimap(f)

def test_all_unknown_warns_of_both_sides():
    with pytest.warns(UserWarning) as said: read_trimap(np.full((4,5),128,np.uint8))
    assert len(said)==2

def test_trimap_refuses_size_colour_and_classes(tmp_path):
    f = write_png(tmp_path/'tri.png', np.zeros((4,5),np.uint8))
    with pytest.raises(ImageError, match='tri.png: the trimap is 5x4, the image 4x5'): read_trimap(f, size=(5,4))
    with pytest.raises(ImageError, match='colour'): read_trimap(RGB)
    with pytest.raises(ImageError, match='class indices'): read_trimap(np.array([[0,1,2]],np.uint8))

def test_classes_roundtrip():
    import torch
    t = RNG.choice(np.array([0,128,255],np.uint8),(H,W))
    c = trimap_to_classes(t)
    assert set(np.unique(c))=={0,1,2} and np.array_equal(classes_to_trimap(c), t)
    tt = torch.from_numpy(t)
    assert trimap_to_classes(tt).dtype==torch.int64 and torch.equal(classes_to_trimap(trimap_to_classes(tt)), tt)
    with pytest.raises(ValueError): trimap_to_classes(np.array([1]))

# --- made from alphas --------------------------------------------------------

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

def squared_distances(a):
    "By brute force: (sure, its code, squared distance to the nearest pixel that is not sure) for both sides"
    yx = np.stack(np.mgrid[:a.shape[0],:a.shape[1]],-1).reshape(-1,2)
    for sure,code in ((a>=.99,255),(a<=.01,0)):
        rest = yx[~sure.ravel()]
        d2 = ((yx[:,None]-rest[None])**2).sum(-1).min(1) if len(rest) else np.full(len(yx), 10**9)
        yield sure,code,d2.reshape(a.shape)

def by_distance(sides, *widths):
    t = np.full(sides[0][0].shape, 128, np.uint8)
    for (sure,code,d2),w in zip(sides,widths): t[sure&(d2>w*w)] = code
    return t

def shapes(n=40):
    y,x = np.mgrid[:n,:n]
    disk = np.clip(12-np.hypot(y-n/2,x-n/2)+.5, 0, 1)
    thin = np.zeros((n,n))
    thin[:,n//2] = 1
    thin[5] = 1
    border = np.zeros((n,n))
    border[n//2:] = 1
    border[n//2:,:3] = .5
    lone = np.zeros((n,n))
    lone[20,20] = 1
    return dict(disk=disk, thin=thin, border=border, lone=lone, hair=np.where((x+y)%7==0,.6,disk),
        empty=np.zeros((n,n)), full=np.ones((n,n)), corner=((x<9)&(y<9))*1., soft=np.full((n,n),.5))

@pytest.mark.parametrize('name', list(shapes()))
def test_band_is_as_wide_as_asked(name):
    a = shapes()[name]
    sides = list(squared_distances(a))
    for w in range(0,46):
        assert (alpha_to_trimap(a,w,0)==by_distance(sides,w,0)).all(), (name,w,'fg')
        assert (alpha_to_trimap(a,0,w)==by_distance(sides,0,w)).all(), (name,w,'bg')
    assert (alpha_to_trimap(a,3,8)==by_distance(sides,3,8)).all()

def test_band_against_a_distance_transform_on_real_alphas():
    from scipy.ndimage import distance_transform_edt as edt
    for f in FACES[:2]:
        a = read_alpha(f)
        for w in (1,2,7,15,16,41,120):
            t = alpha_to_trimap(a, w, w)
            want = np.where((a>=.99)&(edt(a>=.99)>w), 255, np.where((a<=.01)&(edt(a<=.01)>w), 0, 128))
            assert (t==want).all()

def test_band_is_not_shifted():
    a = shapes()['disk']
    a = np.maximum(a, a[::-1,::-1])
    for w in range(1,12):
        t = alpha_to_trimap(a,w,w)
        assert (t==t[::-1,::-1]).all()
        assert (t==alpha_to_trimap(a[::-1],w,w)[::-1]).all() and (t.T==alpha_to_trimap(a.T,w,w)).all()

@pytest.mark.parametrize('name,args', [('fg_width',(-1,1)),('fg_width',(1.5,1)),('fg_width',(None,1)),
    ('bg_width',(1,-3)),('bg_width',(1,'2')),('bg_width',(1,True))])
def test_bad_widths(name, args):
    with pytest.raises(ValueError, match=name): alpha_to_trimap(np.zeros((4,4)), *args)

@pytest.mark.parametrize('a', [np.zeros((4,4,3)), np.zeros((4,4,1)), np.zeros(4), np.zeros((4,4),np.int32),
    np.full((4,4),1.01), np.full((4,4),-.01), np.full((4,4),np.nan), np.full((4,4),255.)])
def test_bad_alphas(a):
    with pytest.raises(ValueError, match='alpha'): alpha_to_trimap(a, 1, 1)
    with pytest.raises(ValueError, match='alpha'): repair_alpha(np.zeros((4,4,3),np.uint8), a)

def test_good_alphas():
    a = shapes()['disk']
    t = alpha_to_trimap(a,2,2)
    assert t.dtype==np.uint8 and (alpha_to_trimap(a.astype(np.float32),2,2)==t).all()
    assert (alpha_to_trimap(a>.5,np.int64(2),2)==alpha_to_trimap((a>.5)*1.,2,2)).all()
    u = (a*255+.5).astype(np.uint8)
    assert (alpha_to_trimap(u,2,2)==alpha_to_trimap(u/255,2,2)).all()
    assert alpha_to_trimap(np.zeros((0,5)),1,1).shape==(0,5)

def test_check_alpha_keeps_floats_and_refuses_the_rest():
    a = RNG.random((4,5)).astype(np.float32)
    assert check_alpha(a) is a and check_alpha(np.uint16([[65535,0]])).tolist()==[[1,0]]

def test_random_and_perturbed_trimaps_are_reproducible():
    a = shapes()['disk']
    def make(rng): return random_trimap(a, rng), perturb_trimap(alpha_to_trimap(a,3,3), rng)
    made = [make(np.random.default_rng(4)) for _ in range(2)]
    for one,two in zip(*made): assert np.array_equal(one, two)
    for t in made[0]: assert not set(np.unique(t))-{0,128,255} and t.dtype==np.uint8
    whole = np.zeros((20,20),np.uint8)
    assert not perturb_trimap(whole, np.random.default_rng(0)).any()   # no edge, nothing to get wrong

# --- known pixels ------------------------------------------------------------

def known_by_hand(a, t, sure, tolerance, force):
    "Pixel by pixel"
    out = a.copy()
    for p in np.ndindex(a.shape):
        if t[p]==128: continue
        side = t[p]/255
        if force or sure[p] or abs(a[p]-side)<=tolerance: out[p] = side
    return out

@pytest.mark.parametrize('tolerance', [0,.1,.5])
def test_known_pixels_for_arrays_and_tensors(tolerance):
    import torch
    a = RNG.random((9,11)).astype(np.float32)
    t = RNG.choice(np.array([0,128,255],np.uint8), a.shape)
    sure = RNG.random(a.shape)<.3
    forced, settled = known_by_hand(a,t,sure,tolerance,True), known_by_hand(a,t,sure,tolerance,False)
    assert np.array_equal(force_known(a,t), forced) and np.array_equal(settle_known(a,t,sure,tolerance), settled)
    ta, tt, ts = (torch.from_numpy(o)[None,None] for o in (a,t,sure))
    for codes in (tt, tt/255):
        assert np.array_equal(force_known(ta,codes)[0,0].numpy(), forced)
        assert np.array_equal(settle_known(ta,codes,ts,tolerance)[0,0].numpy(), settled)
    assert np.array_equal(settle_known(a,t/np.float32(255),sure,tolerance), settled)
    assert force_known(a,t).dtype==np.float32 and settle_known(ta,tt).dtype==torch.float32

def test_settling_lets_the_gradient_through():
    import torch
    a = torch.tensor([[.05,.5,.5]], requires_grad=True)
    settle_known(a, torch.tensor([[0.,128/255,1.]])).sum().backward()
    assert a.grad.tolist()==[[0,1,1]]

# --- sizes and bands ---------------------------------------------------------

def test_shrinking_keeps_what_is_unknown():
    t = np.zeros((300,400),np.uint8)
    t[:,200:] = 255
    ys,xs = RNG.integers(0,300,20),RNG.integers(0,400,20)
    t[ys,xs] = 128
    small = shrink_trimap(t,(30,40))
    assert (small[ys//10,xs//10]==128).all() and set(np.unique(small))=={0,128,255}
    assert np.array_equal(shrink_trimap(small,(60,80))[::2,::2], small)

def test_bands_by_the_definition():
    t = alpha_to_trimap(shapes()['disk'],2,3)
    yx = np.stack(np.mgrid[:40,:40],-1).reshape(-1,2)
    def distance(mask): return np.sqrt(((yx[:,None]-yx[mask.ravel()][None])**2).sum(-1).min(1)).reshape(t.shape)
    for px in (1,2,3):
        assert np.array_equal(grow_band(t,px)==128, distance(t==128)<=px)
        to_bg,to_fg = distance(t==0),distance(t==255)
        free = (t==128)&(np.minimum(to_bg,to_fg)<=px)
        assert np.array_equal(shrink_band(t,px), np.where(free, np.where(to_fg<to_bg,255,0), t))
    assert np.isinf(distance_to(np.zeros((2,2),bool))).all()

# --- holes -------------------------------------------------------------------

def hole_in_a_portrait(background):
    "(composite, trimap that knows nothing of the hole, HxW bool of the hole)"
    rgb, a = read_rgba(ROOT/'data'/'portraits'/'biden.png')
    depth = distance_to(a<.99)
    y, x = np.argwhere((depth>30)&(depth<32)&(np.arange(len(a))[:,None]>.6*len(a)))[0]
    hole = cv2.circle(np.zeros(a.shape,np.float32), (int(x),int(y)), 18, 1, -1)
    bg = np.full_like(rgb, background)
    noise = np.random.default_rng(0).normal(0, 2, rgb.shape)
    pic = composite(rgb, (bg+noise).clip(0,255).astype(np.uint8), a*(1-cv2.GaussianBlur(hole,None,1)))
    return pic, alpha_to_trimap(a,5,5), hole>.5

@pytest.mark.parametrize('background', [(120,140,90),(60,90,160),(200,180,140)])
def test_a_hole_becomes_unknown(background):
    pic, t, hole = hole_in_a_portrait(background)
    opened = open_holes(t, pic)
    assert (opened[hole]==TRIMAP_UNKNOWN).mean()>.9
    changed = opened!=t
    assert (t[changed]==255).all() and (opened[changed]==TRIMAP_UNKNOWN).all()
    assert (changed&(distance_to(hole)>8)).mean()<.005

def test_what_is_no_hole_stays_closed():
    rgb, a = read_rgba(ROOT/'data'/'portraits'/'biden.png')
    t = alpha_to_trimap(a,5,5)
    pic = composite(rgb, (60,200,90), a)
    assert np.array_equal(open_holes(t,pic), t)
    for side in (0,128,255): assert (open_holes(np.full_like(t,side),pic)==side).all()
