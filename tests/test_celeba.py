"Signs and lights of the CelebA notebook"
import numpy as np, pytest
from dim_nb.celeba import *
from dim_nb.core import *

def signs(alpha): return matte_signs(alpha, np.where(alpha > .5, 255, 0).astype(np.uint8))

def test_pieces_are_counted():
    a = np.zeros((100, 100), np.float32); a[:30,:30] = 1; a[60:90,60:90] = 1; a[50,50] = 1   # the last one is a speck
    s = signs(a)
    assert s['pieces'] == 2 and s['unknown'] == 0 and s['soft'] == 0 and abs(s['person']-.1801) < 1e-4

def test_an_empty_alpha_has_no_pieces(): assert signs(np.zeros((20, 20), np.float32))['pieces'] == 0

@pytest.mark.parametrize('kind', ['plain', 'dark', 'shadow', 'lowcontrast'])
def test_lights_keep_shape_and_truth(kind):
    rng = np.random.default_rng(0); fg, bg = rng.integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    a = np.zeros((40, 30), np.float32); a[:,:10] = 1; a[:,10:14] = .5
    out = relight(fg, bg, a, kind)
    assert out.shape == fg.shape and out.dtype == np.uint8
    if kind == 'plain': assert (out[:,:10] == fg[:,:10]).all() and (out[:,14:] == bg[:,14:]).all()
    if kind == 'dark': assert out[:,14:].max() <= .08*255+1
    if kind == 'lowcontrast': assert out[:,14:].std() < bg[:,14:].std()

def head(h=300, w=260, top=60, half=40):
    a = np.zeros((h, w), np.float32); y, x = np.mgrid[:h,:w]
    a[((y-top-half*1.3)/(half*1.3))**2 + ((x-w/2)/half)**2 < 1] = 1; a[top+int(half*2.2):, 20:-20] = 1; return a

def test_the_window_holds_the_head_and_keeps_celebas_shape():
    a = head(); ys, xs = face_window(a)
    assert ys.start <= 60 and xs.start < 90 and xs.stop > 170
    assert abs((ys.stop-ys.start)/(xs.stop-xs.start)-218/178) < .03 and ys.stop <= 300 and xs.stop <= 260 and min(ys.start, xs.start) >= 0

@pytest.mark.parametrize('shape', [(20, 300), (300, 20), (5, 5)])
def test_the_window_stays_inside_odd_pictures(shape):
    ys, xs = face_window(np.ones(shape, np.float32)); assert 0 <= ys.start < ys.stop <= shape[0] and 0 <= xs.start < xs.stop <= shape[1]

def test_made_faces_are_what_dim_eval_takes(tmp_path):
    from dim_nb.evaluation import eval_items
    rng = np.random.default_rng(0); a = head(); rgb = rng.integers(0, 256, (*a.shape, 3), dtype=np.uint8)
    write_png(tmp_path/'p.png', np.dstack([rgb, (a*255).astype(np.uint8)])); write_png(tmp_path/'bg.png', rgb)
    items, problems = eval_items(celeba_like([(tmp_path/'p.png', None)], [tmp_path/'bg.png'], tmp_path/'out'))
    assert not problems and sorted(o.subset for o in items) == sorted(LIGHTS)
    for o in items: assert read_image(o.image).shape == (218, 178, 3) and read_alpha(o.alpha).shape == (218, 178)
    assert len({read_alpha(o.alpha).tobytes() for o in items}) == 1             # one person, one alpha
    dark, outdoor = (read_image(next(o.image for o in items if o.subset == k)) for k in ('dark','outdoor')); m = read_alpha(items[0].alpha) == 0
    assert dark[m].mean() < .2*outdoor[m].mean()

def test_edge_light_sees_the_rims_and_nothing_else():
    a = np.zeros((80, 60), np.float32); a[20:, 20:40] = 1; im = np.zeros((80, 60, 3), np.uint8); im[a > 0] = 180; im[:5] = 255; im[40:][a[40:] == 0] = 255   # far above and below: not beside the hair
    a[20:, 19] = a[20:, 40] = a[19, 19:41] = .5; e = edge_light(im, a, 5)
    assert e['luminance'] < .02 and abs(e['contrast']-180/255) < .02
    assert np.isnan(edge_light(im, np.zeros((80, 60), np.float32))['contrast'])
