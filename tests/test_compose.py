"dim_nb.compose: reproducible samples"
import json
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.images import write_png
from dim_nb.labels import prepare_foregrounds
from dim_nb.compose import Composer, _noise, _random_soft, _warp

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return prepare_foregrounds([(f,None) for f in FACES], tmp_path_factory.mktemp('prepared')), sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))

def test_epochs_and_seeds_differ(sources):
    c = Composer(*sources, size=64)
    a = c(3).image; c.epoch = 1
    assert (c(3).image!=a).any() and (Composer(*sources, size=64, seed=1)(3).image!=a).any()

def fingerprint(sources, stage):
    "Mean of each 24x24 block of image and alpha of the validation composites, as bytes 0..255"
    out = []
    for i in range(4):
        s = Composer(*sources, stage=stage, size=96, seed=99)(i)
        for p in (*s.image.transpose(2,0,1), s.alpha*255, s.trimap): out.append(p.astype(float).reshape(4,24,4,24).mean((1,3)))
    return np.array(out)

@pytest.mark.parametrize('stage', ['trimap','matting'])
def test_validation_composites_never_change(sources, stage):
    """Exactly the same in two runs on one machine; on another, where OpenCV's JPEG and warp may round differently, block by block.
    When the composition is changed on purpose: python tests/test_compose.py"""
    assert (fingerprint(sources,stage)==fingerprint(sources,stage)).all()
    ref = json.loads((Path(__file__).parent/'valid_fingerprint.json').read_text())[stage]
    assert np.abs(fingerprint(sources,stage)-np.array(ref).reshape(-1,4,4)).max()<2

def test_samples_are_sound(sources):
    for stage in ('trimap','matting'):
        c = Composer(*sources, stage=stage, size=96)
        for i in range(25):
            s = c(i)
            assert s.image.shape==(96,96,3) and s.image.dtype==np.uint8 and s.alpha.dtype==np.float32
            assert 0<=s.alpha.min() and s.alpha.max()<=1 and not set(np.unique(s.trimap))-{0,128,255}
            assert s.fg.dtype==s.bg.dtype==np.uint8 and s.fg.shape==s.bg.shape==(96,96,3)
            assert np.allclose(s.clean, s.alpha[...,None]*s.fg+(1-s.alpha[...,None])*s.bg, atol=1e-2)
            if stage=='trimap': assert (s.trimap[(s.alpha>.01)&(s.alpha<.99)]==128).all()

def test_plain_samples_are_the_composite(sources):
    for i in range(8):
        s = Composer(*sources, size=96, plain=True)(i)
        assert np.abs(s.image-s.clean).max()<=1.01

def test_photos_as_taken(sources, tmp_path):
    "A photograph's alpha may be RGBA, as AISegment's, grey, or of 16 bits; the three make the same samples"
    rgba = np.array(Image.open(FACES[0])); Image.fromarray(rgba[...,:3]).save(tmp_path/'p.png')
    a = rgba[...,3]
    write_png(tmp_path/'rgba.png', np.dstack([rgba[...,:3]*(a[...,None]>0),a])); write_png(tmp_path/'grey.png', a); write_png(tmp_path/'rgb.png', np.dstack([a]*3))
    cv2.imwrite(str(tmp_path/'deep.png'), a.astype(np.uint16)*257)
    made = [[Composer(*sources, photos=[(tmp_path/'p.png', tmp_path/f'{k}.png')], size=96, seed=5)(i) for i in range(12)] for k in ('rgba','grey','rgb','deep')]
    taken = [i for i,s in enumerate(made[0]) if (s.fg==s.bg).all()]
    assert taken
    for other in made[1:]:
        for s,o in zip(made[0], other): assert (s.image==o.image).all() and (s.alpha==o.alpha).all() and (s.trimap==o.trimap).all()
    for i in taken: assert np.abs(made[0][i].clean-made[0][i].fg).max()<1e-2

def test_a_file_that_is_gone_is_named(sources, tmp_path):
    (tmp_path/'bad.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='bad.png'): Composer([tmp_path/'bad.png'], sources[1], size=64)(0)

def test_warp_keeps_its_place():
    "Halved or drawn twice as large, the centre of mass of a blob lands where the matrix says"
    a = np.zeros((200,300,4),np.uint8); cv2.circle(a, (140,90), 30, (255,)*4, -1)
    for k in (1.5,1.,.66,.55,.5,.4,.24,.11):
        m = np.array([[k,.05*k,3.],[-.05*k,k,7.]])
        out = _warp(a, m, 320)[...,0].astype(float)
        y,x = np.mgrid[:320,:320]
        want = m@[140,90,1]
        assert np.abs(np.array([(out*x).sum(),(out*y).sum()])/out.sum()-want).max()<.1, k
        assert abs(out.sum()/a[...,0].sum()/np.linalg.det(m[:,:2])-1)<.03, k

def test_random_soft_pixels():
    rng = np.random.default_rng(0)
    a = np.zeros((200,300),np.uint8); a[:,150:] = 255
    assert _random_soft(a, rng) is None
    a[7,9] = 100; assert _random_soft(a, rng)==(9.,7.)           # the only one is found
    a[50:60,20:40] = 128
    got = np.array([_random_soft(a, rng) for _ in range(400)])
    assert abs(got[:,0].mean()-29.5)<1.5 and abs(got[:,1].mean()-54.5)<1.5

def test_noise_is_normal():
    n = _noise(np.full((256,256,3),128,np.uint8), np.random.default_rng(1), 6.)-128.
    assert abs(n.mean())<.05 and abs(n.std()-6)<.1 and abs((np.abs(n)>12).mean()-.0455)<.008

if __name__=='__main__':
    import tempfile
    src = prepare_foregrounds([(f,None) for f in FACES], tempfile.mkdtemp()), sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))
    (Path(__file__).parent/'valid_fingerprint.json').write_text(json.dumps({s:fingerprint(src,s).round(1).ravel().tolist() for s in ('trimap','matting')}))
