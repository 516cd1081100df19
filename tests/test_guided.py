"The guided filter: by its definition, and the same for arrays and tensors"
import subprocess, sys
from pathlib import Path
import cv2, numpy as np, pytest
from dim_nb.guided import _coefficients, _window_means_np, guide_coefficients, guided_alpha
from dim_nb.images import read_rgba

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)

def test_imports_nothing_heavy():
    heavy = 'torch fastai timm pandas numba pymatting matplotlib scipy'.split()
    code = f"import sys, dim_nb.guided; bad = [m for m in {heavy} if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

def windows(shape, radius):
    for y,x in np.ndindex(shape): yield y, x, np.s_[max(0,y-radius):y+radius+1, max(0,x-radius):x+radius+1]

def by_definition(image, alpha, radius, eps):
    "He et al. 2010, equations 19 to 21, window by window in float64"
    a, b = np.zeros(image.shape), np.zeros(alpha.shape)
    for y,x,w in windows(alpha.shape, radius):
        I, p = image[w].reshape(-1,3).astype(float), alpha[w].ravel().astype(float)
        Sigma = np.cov(I.T, bias=True)
        a[y,x] = np.linalg.solve(Sigma+eps*np.eye(3), I.T@p/len(p)-I.mean(0)*p.mean())
        b[y,x] = p.mean()-a[y,x]@I.mean(0)
    out = np.zeros(alpha.shape)
    for y,x,w in windows(alpha.shape, radius): out[y,x] = a[w].mean((0,1))@image[y,x]+b[w].mean()
    return out.clip(0,1)

def to_tensors(image, alpha):
    import torch
    return torch.from_numpy(image).permute(2,0,1)[None], torch.from_numpy(alpha)[None,None]

@pytest.mark.parametrize('radius,eps', [(1,1e-2),(2,1e-4),(4,1e-5)])
@pytest.mark.parametrize('h,w', [(13,17),(5,30),(3,3)])
def test_definition(h, w, radius, eps):
    image, alpha = RNG.random((h,w,3)).astype(np.float32), RNG.random((h,w)).astype(np.float32)
    want = by_definition(image, alpha, radius, eps)
    assert np.abs(guided_alpha(image, alpha, radius, eps)-want).max()<1e-3
    assert np.abs(guided_alpha(*to_tensors(image,alpha), radius, eps)[0,0].numpy()-want).max()<1e-3

def test_window_means_at_the_border():
    a = RNG.random((7,12)).astype(np.float32)
    for r in (1,2,4,9):
        got, = _window_means_np([a], r)
        for y,x,w in windows(a.shape, r): assert abs(got[y,x]-a[w].mean())<1e-6

def portrait(name):
    "Part of a photograph, and its alpha blurred"
    rgb, alpha = read_rgba(ROOT/'data'/'portraits'/f'{name}.png')
    part = np.s_[:300,100:420]
    return np.ascontiguousarray(rgb[part]).astype(np.float32)/255, cv2.GaussianBlur(alpha[part], None, 3)

@pytest.mark.parametrize('radius,eps', [(2,1e-4),(4,1e-5)])
@pytest.mark.parametrize('name', ['noise','astronaut','biden','grace_hopper','obama'])
def test_arrays_and_tensors_agree(name, radius, eps):
    pair = portrait(name) if name!='noise' else [RNG.random(s).astype(np.float32) for s in ((90,120,3),(90,120))]
    got = guided_alpha(*pair, radius, eps)
    assert got.dtype==np.float32 and got.shape==pair[1].shape
    assert np.abs(got-guided_alpha(*to_tensors(*pair), radius, eps)[0,0].numpy()).max()<1e-4

def test_a_grey_picture_is_the_hardest():
    "Three equal channels: Sigma has rank one. There a tensor's float32 is 2e-4 from the truth, an array's is not"
    image, alpha = portrait('camera')
    def means64(planes, r=4):
        def sums(o): return cv2.boxFilter(o, -1, (2*r+1,2*r+1), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return [sums(o)/sums(np.ones(alpha.shape)) for o in planes]
    c = np.dstack(_coefficients(cv2.split(image.astype(float)), alpha.astype(float), means64, 1e-5))
    truth = ((c[...,:3]*image).sum(-1)+c[...,3]).clip(0,1)
    assert np.abs(guided_alpha(image, alpha)-truth).max()<1e-4
    tensors = to_tensors(image, alpha)
    assert np.abs(guided_alpha(*tensors)[0,0].numpy()-truth).max()<3e-4
    assert np.abs(guided_alpha(image, alpha, 2, 1e-4)-guided_alpha(*tensors, 2, 1e-4)[0,0].numpy()).max()<1e-4

def test_half_precision_is_not_used():
    import torch
    image, alpha = to_tensors(RNG.random((20,20,3)).astype(np.float32), RNG.random((20,20)).astype(np.float32))
    with torch.autocast('cpu', torch.bfloat16): got = guide_coefficients(image, alpha)
    assert got.dtype==torch.float32 and torch.equal(got, guide_coefficients(image, alpha))

def test_batches_are_images_by_themselves():
    import torch
    image, alpha = torch.rand(3,3,16,18), torch.rand(3,1,16,18)
    whole = guided_alpha(image, alpha)
    for i in range(3): assert torch.allclose(guided_alpha(image[i:i+1], alpha[i:i+1])[0], whole[i], atol=1e-5)
