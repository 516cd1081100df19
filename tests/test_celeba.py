"Signs and lights of the CelebA notebook"
import numpy as np, pytest
from dim_nb.celeba import matte_signs, relight
from dim_nb.pipeline import Cutout

def cutout(alpha):
    z = np.zeros((*alpha.shape, 3), np.uint8)
    return Cutout(z, np.where(alpha > .5, 255, 0).astype(np.uint8), alpha, alpha, z)

def test_pieces_are_counted():
    a = np.zeros((100, 100), np.float32); a[:30,:30] = 1; a[60:90,60:90] = 1; a[50,50] = 1   # the last one is a speck
    s = matte_signs(cutout(a))
    assert s['pieces'] == 2 and s['unknown'] == 0 and s['soft'] == 0 and abs(s['person']-.1801) < 1e-4

def test_an_empty_alpha_has_no_pieces(): assert matte_signs(cutout(np.zeros((20, 20), np.float32)))['pieces'] == 0

@pytest.mark.parametrize('kind', ['plain', 'dark', 'shadow', 'lowcontrast'])
def test_lights_keep_shape_and_truth(kind):
    rng = np.random.default_rng(0); fg, bg = rng.integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    a = np.zeros((40, 30), np.float32); a[:,:10] = 1; a[:,10:14] = .5
    out = relight(fg, bg, a, kind)
    assert out.shape == fg.shape and out.dtype == np.uint8
    if kind == 'plain': assert (out[:,:10] == fg[:,:10]).all() and (out[:,14:] == bg[:,14:]).all()
    if kind == 'dark': assert out[:,14:].max() <= .08*255+1
    if kind == 'lowcontrast': assert out[:,14:].std() < bg[:,14:].std()
