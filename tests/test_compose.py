"dim_nb.compose: reproducible samples, faces like CelebA's"
import json
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.images import composite, read_alpha, read_image, write_png
from dim_nb.labels import prepare_foregrounds, source_stem
from dim_nb.compose import (LIGHTS, SHARES, Composer, celeba_like, face_window, relight,
                            _behind, _in_front, _lamps, _noise, _photo_matrix, _random_soft, _warp)

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))
SCENES = sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))

@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return prepare_foregrounds([(f,None) for f in FACES], tmp_path_factory.mktemp('prepared')),SCENES

def test_epochs_and_seeds_differ(sources):
    c = Composer(*sources, size=64)
    a = c(3).image
    c.epoch = 1
    assert (c(3).image!=a).any() and (Composer(*sources, size=64, seed=1)(3).image!=a).any()

def fingerprint(sources, stage):
    "Mean of each 24x24 block of image and alpha of the validation composites, as bytes 0..255"
    out = []
    for i in range(4):
        s = Composer(*sources, stage=stage, size=96, seed=99)(i)
        planes = *s.image.transpose(2,0,1),s.alpha*255,s.trimap
        out += [p.astype(float).reshape(4,24,4,24).mean((1,3)) for p in planes]
    return np.array(out)

@pytest.mark.parametrize('stage', ['trimap','matting'])
def test_validation_composites_never_change(sources, stage):
    """Exactly the same in two runs on one machine; on another, where OpenCV's JPEG and warp may round differently,
    block by block. When the composition is changed on purpose: python tests/test_compose.py"""
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
    rgba = np.array(Image.open(FACES[0]))
    a = rgba[...,3]
    write_png(tmp_path/'p.png', rgba[...,:3])
    write_png(tmp_path/'rgba.png', np.dstack([rgba[...,:3]*(a[...,None]>0),a]))
    write_png(tmp_path/'grey.png', a)
    write_png(tmp_path/'rgb.png', np.dstack([a]*3))
    Image.fromarray(a.astype(np.uint16)*257).save(tmp_path/'deep.png')
    def samples(kind):
        make = Composer(*sources, photos=[(tmp_path/'p.png', tmp_path/f'{kind}.png')], size=96, seed=5)
        return [make(i) for i in range(12)]
    made = [samples(k) for k in ('rgba','grey','rgb','deep')]
    taken = [i for i,s in enumerate(made[0]) if (s.fg==s.bg).all()]
    assert taken
    for other in made[1:]:
        for s,o in zip(made[0], other):
            for plane in ('image','alpha','trimap'): assert (getattr(s,plane)==getattr(o,plane)).all()
    for i in taken: assert np.abs(made[0][i].clean-made[0][i].fg).max()<1e-2

def test_a_file_that_is_gone_is_named(sources, tmp_path):
    (tmp_path/'bad.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='bad.png'): Composer([tmp_path/'bad.png'], sources[1], size=64)(0)

def only(monkeypatch, **shares):
    "Samples of one kind: all other shares are 0"
    for k in SHARES: monkeypatch.setitem(SHARES, k, shares.get(k, 0))

@pytest.fixture
def things(tmp_path):
    rgba = np.zeros((80,120,4), np.uint8)
    rgba[10:70,10:110] = (250,0,250,255)
    return [write_png(tmp_path/'thing.png', rgba)]

def test_all_kinds_are_sound(sources, things):
    "Photographs, objects and untrusted bands together: I = alpha F + (1-alpha) B, the same at each call"
    photos = [(f,f) for f in FACES]
    for stage in ('trimap','matting'):
        c,again = (Composer(*sources, photos, things, things, stage, 96, bands={FACES[0].stem:11}) for _ in range(2))
        for i in range(40):
            s,o = c(i),again(i)
            assert np.allclose(s.clean, s.alpha[...,None]*s.fg+(1-s.alpha[...,None])*s.bg, atol=1e-2)
            for k in ('image','alpha','trimap','fg','bg'): assert (getattr(s,k)==getattr(o,k)).all()

def test_people_far_away_are_small_and_whole(sources, monkeypatch):
    only(monkeypatch, far=1)
    shares = [(Composer(sources[0][4:5], sources[1], stage='trimap', size=96)(i).alpha>.5).mean() for i in range(30)]
    only(monkeypatch)
    near = [(Composer(sources[0][4:5], sources[1], stage='trimap', size=96)(i).alpha>.5).mean() for i in range(30)]
    assert max(shares)<.3 and min(shares)>.002 and np.median(shares)<.25*np.median(near)

def test_nobody_there(sources, monkeypatch):
    only(monkeypatch, nobody=1)
    s = Composer(*sources, stage='trimap', size=64)(0)
    assert s.alpha.max()==0 and (s.trimap==0).all()
    assert Composer(*sources, stage='matting', size=64)(0).alpha.max()>0

def test_grey_pictures_and_lamps(sources, monkeypatch):
    only(monkeypatch, grey=1)
    s = Composer(*sources, size=64)(1)
    for o in (s.fg, s.bg): assert (o==o[...,:1]).all()
    rng,white = np.random.default_rng(0),np.full((4,4,3), 255, np.uint8)
    one,same = _lamps(white, white, white[...,0], rng)
    assert (one==same).all() and len(np.unique(one[0,0]))>1           # a photograph as taken has one light

def test_things_behind_and_in_front():
    rng = np.random.default_rng(0)
    f,b,thing = rng.integers(0, 256, (3,20,20,3), dtype=np.uint8)
    alpha,t = rng.integers(0, 256, (2,20,20), dtype=np.uint8)
    bg,a = _behind(thing, t, b, alpha)
    assert (a==alpha).all() and np.abs(composite(f,bg,a).astype(int)-composite(f,composite(thing,b,t),alpha)).max()<=3
    bg,a = _in_front(thing, t, b, alpha)
    assert np.abs(composite(f,bg,a).astype(int)-composite(thing,composite(f,b,alpha),t)).max()<=3

def test_held_things_are_part_of_the_person(sources, things, monkeypatch):
    only(monkeypatch, held=1)
    f,alpha = np.full((96,96,3), 200, np.uint8),np.zeros((96,96), np.uint8)
    alpha[20:,30:66] = 255
    c = Composer(*sources, held=things, stage='trimap', size=96)
    for i in range(20):
        rng = np.random.default_rng(i)
        fg,a = c._held(f, alpha, rng)
        changed = (fg!=f).any(-1) & (a>0)
        assert (a>=alpha).all() and changed.any() and np.median(changed.nonzero()[0])>45
    assert c._held(f, alpha*0, rng)[1].max()==0          # nobody holds nothing
    with_things = (c(0).alpha>.5).mean()
    only(monkeypatch)
    assert with_things>=(c(0).alpha>.5).mean()

def test_a_thing_may_lie_before_the_body(sources, things, monkeypatch):
    "Half of the things hide part of the body's lower half; the person is never enlarged"
    alpha = np.zeros((96,96), np.uint8)
    alpha[20:,30:66] = 255
    c = Composer(*sources, objects=things, stage='trimap', size=96)
    hidden = [np.minimum(c._thing(alpha, np.random.default_rng(i))[1], alpha) for i in range(60)]
    assert 20<sum(o.max()>0 for o in hidden)<60
    assert c._thing(alpha*0, np.random.default_rng(0))[1].shape==(96,96)      # nobody has no lap

def test_photographs_as_taken_are_joined(sources, things, monkeypatch):
    "By a person, who is foreground, or by a thing, which is not; the matting network sees none of it"
    photos = [(f,f) for f in FACES]
    def alone(i, stage='trimap'): return Composer(*sources, photos, things, stage=stage, size=96, taken=1)(i)
    only(monkeypatch)
    before = [alone(i).alpha for i in range(12)]
    only(monkeypatch, joined=1)
    more = [alone(i).alpha-b for i,b in enumerate(before)]
    assert min(o.min() for o in more)>=-.01 and np.median([o.max() for o in more])>.9
    only(monkeypatch, thing=1)
    less = [alone(i).alpha-b for i,b in enumerate(before)]
    assert max(o.max() for o in less)<=.01 and min(o.min() for o in less)<-.9
    for stage_share in (dict(), dict(joined=1, thing=1)):
        only(monkeypatch, **stage_share)
        s = alone(0, 'matting')
        assert (s.fg==s.bg).all()

def test_what_is_too_small_to_halve_is_drawn_all_the_same():
    "A thing of a picture's size on somebody of one pixel"
    a = np.full((3,64,4), 255, np.uint8)
    for k in (.4,.01,1e-4): assert _warp(a, np.array([[k,0,16],[0,k,16]]), 32, cv2.BORDER_CONSTANT).shape==(32,32,4)

def test_nothing_is_continued_beyond_its_picture(sources, things):
    "However small a thing gets, no line runs from it to the sample's edge"
    rgba = np.full((64,64,4), 255, np.uint8)
    m = np.array([[.05,0,40],[0,.05,40]])
    c = Composer(*sources, stage='trimap', size=96)
    assert c._warped(rgba, m)[1].min()==255              # a person who is cut by the edge goes on
    _,alpha = c._warped(rgba, m, cv2.BORDER_CONSTANT)
    assert alpha.max()>100 and (alpha>0).sum()<40

def test_untrusted_bands(sources):
    "Wide unknown bands for the trimap network, nothing for the matting network"
    cutouts,bgs = sources
    bands = {source_stem(cutouts[0]):40}
    assert len(Composer(*sources, bands=bands).cutouts)==4
    assert Composer(*sources, [(f,f) for f in FACES], bands=bands).photos==[(f,f) for f in FACES[1:]]
    wide,narrow = (Composer(cutouts[:1], bgs, stage='trimap', size=96, bands=b) for b in (bands,None))
    for i in range(6):
        w,n = wide(i),narrow(i)
        assert (w.image==n.image).all() and (w.trimap==128).mean()>=(n.trimap==128).mean()
    shares = [np.mean([(c(i).trimap==128).mean() for i in range(6)]) for c in (wide,narrow)]
    assert shares[0]>1.5*shares[1]

@pytest.mark.parametrize('size', [(600,800),(100,1000),(1000,100),(64,64)])
def test_photographs_fill_the_sample(size):
    "Up to a turn's corners, the sample shows picture; its sides are stretched by no more than a half"
    rng = np.random.default_rng(0)
    for _ in range(50):
        m = _photo_matrix(*size, 96, rng)
        kx,ky = np.hypot(*m[:,0]),np.hypot(*m[:,1])
        assert max(kx/ky, ky/kx)<2.2
        x,y = np.linalg.solve(m[:,:2], np.array([48,48])-m[:,2])
        assert 0<=x<=size[1] and 0<=y<=size[0]

def test_shares_are_checked(sources):
    for k,v in (('hard',7),('perturb',float('nan')),('low',-.1),('taken',5)):
        with pytest.raises(ValueError, match=k): Composer(*sources, **{k:v})

def test_warp_keeps_its_place():
    "Halved or drawn twice as large, the centre of mass of a blob lands where the matrix says"
    a = np.zeros((200,300,4),np.uint8)
    cv2.circle(a, (140,90), 30, (255,)*4, -1)
    for k in (1.5,1.,.66,.55,.5,.4,.24,.11):
        m = np.array([[k,.05*k,3.],[-.05*k,k,7.]])
        out = _warp(a, m, 320)[...,0].astype(float)
        y,x = np.mgrid[:320,:320]
        want = m@[140,90,1]
        assert np.abs(np.array([(out*x).sum(),(out*y).sum()])/out.sum()-want).max()<.1, k
        assert abs(out.sum()/a[...,0].sum()/np.linalg.det(m[:,:2])-1)<.03, k

def test_random_soft_pixels():
    rng = np.random.default_rng(0)
    a = np.zeros((200,300),np.uint8)
    a[:,150:] = 255
    assert _random_soft(a, rng) is None
    a[7,9] = 100
    assert _random_soft(a, rng)==(9.,7.)           # the only one is found
    a[50:60,20:40] = 128
    got = np.array([_random_soft(a, rng) for _ in range(400)])
    assert abs(got[:,0].mean()-29.5)<1.5 and abs(got[:,1].mean()-54.5)<1.5

def test_noise_is_normal():
    n = _noise(np.full((256,256,3),128,np.uint8), np.random.default_rng(1), 6.)-128.
    assert abs(n.mean())<.05 and abs(n.std()-6)<.1 and abs((np.abs(n)>12).mean()-.0455)<.008

@pytest.mark.parametrize('kind', ['plain', 'dark', 'shadow', 'lowcontrast'])
def test_lights_keep_shape_and_truth(kind):
    rng = np.random.default_rng(0)
    fg,bg = rng.integers(0, 256, (2,40,30,3), dtype=np.uint8)
    a = np.zeros((40,30), np.float32)
    a[:,:10] = 1
    a[:,10:14] = .5
    out = relight(fg, bg, a, kind)
    assert out.shape==fg.shape and out.dtype==np.uint8
    if kind=='plain': assert (out[:,:10]==fg[:,:10]).all() and (out[:,14:]==bg[:,14:]).all()
    if kind=='dark': assert out[:,14:].max()<=.08*255+1
    if kind=='lowcontrast': assert out[:,14:].std()<bg[:,14:].std()

def head(h=300, w=260, top=60, half=40):
    a = np.zeros((h,w), np.float32)
    y,x = np.mgrid[:h,:w]
    a[((y-top-half*1.3)/(half*1.3))**2+((x-w/2)/half)**2<1] = 1
    a[top+int(half*2.2):,20:-20] = 1
    return a

def test_the_window_holds_the_head_and_keeps_celebas_shape():
    a = head()
    ys,xs = face_window(a)
    assert ys.start<=60 and xs.start<90 and xs.stop>170
    assert abs((ys.stop-ys.start)/(xs.stop-xs.start)-218/178)<.03
    assert ys.stop<=300 and xs.stop<=260 and min(ys.start, xs.start)>=0

@pytest.mark.parametrize('shape', [(20,300),(300,20),(5,5)])
def test_the_window_stays_inside_odd_pictures(shape):
    ys,xs = face_window(np.ones(shape, np.float32))
    assert 0<=ys.start<ys.stop<=shape[0] and 0<=xs.start<xs.stop<=shape[1]

def test_made_faces_are_what_dim_eval_takes(tmp_path):
    from dim_nb.evaluation import eval_items
    rng,a = np.random.default_rng(0),head()
    rgb = rng.integers(0, 256, (*a.shape,3), dtype=np.uint8)
    write_png(tmp_path/'p.png', np.dstack([rgb,(a*255).astype(np.uint8)]))
    write_png(tmp_path/'bg.png', rgb)
    out = celeba_like([(tmp_path/'p.png',None)], [tmp_path/'bg.png'], tmp_path/'out')
    items,problems = eval_items(out)
    assert not problems and sorted(o.subset for o in items)==sorted(LIGHTS)
    images = {o.subset:read_image(o.image) for o in items}
    alphas = {o.subset:read_alpha(o.alpha) for o in items}
    assert {o.shape for o in images.values()}=={(218,178,3)} and {o.shape for o in alphas.values()}=={(218,178)}
    assert len({o.tobytes() for o in alphas.values()})==1             # one person, one alpha
    nobody = alphas['dark']==0
    assert images['dark'][nobody].mean()<.2*images['outdoor'][nobody].mean()

if __name__=='__main__':
    import tempfile
    src = prepare_foregrounds([(f,None) for f in FACES], tempfile.mkdtemp()),SCENES
    new = {s:fingerprint(src,s).round(1).ravel().tolist() for s in ('trimap','matting')}
    (Path(__file__).parent/'valid_fingerprint.json').write_text(json.dumps(new))
