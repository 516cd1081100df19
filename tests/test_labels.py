"dim_nb.labels: foreground colours, prepared cut-outs, repaired labels"
import os, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from dim_nb.images import composite, read_alpha, read_rgba
from dim_nb.trimaps import alpha_to_trimap
from dim_nb.labels import (coarsen_alpha, estimate_foreground, foreground_colours, prepare_foregrounds, repair_alpha,
                           repair_folder, source_stem)
from made import cut, find, matte, pair, snapshot

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

pytestmark = pytest.mark.usefixtures('elsewhere')

@pytest.fixture(scope='module')
def scene():
    rgb,a = (lambda im: (im[...,:3], im[...,3]/255.))(np.array(Image.open(FACES[0]).resize((160,160))))
    bg = np.full_like(rgb, (30,90,60))
    return composite(estimate_foreground(rgb,a), bg, a.astype(np.float32)), a.astype(np.float32)

# Foreground colours

def known_composite(i, bg=(30,90,60)):
    "(image, F, alpha) of a portrait with its colours shifted far from the photograph's mixture"
    rgb,a = read_rgba(FACES[i])
    F = estimate_foreground(rgb, a)
    return composite(F, np.full_like(F, bg), a),F,a

def test_colours_are_as_near_as_pymattings():
    from pymatting import estimate_foreground_ml
    for i in (0,1):
        im,F,a = known_composite(i)
        soft = (a>0)&(a<1)
        def error(o): return (np.abs(o.astype(float)-F).mean(-1)*a)[soft].mean()
        theirs = np.rint(estimate_foreground_ml(im/255., a.astype(float))*255)
        assert error(estimate_foreground(im, a))<1.1*error(theirs)<.4*error(im)
        assert error(foreground_colours(im, a))<1.1*error(theirs)

def test_background_colours_too():
    im,_,a = known_composite(0)
    F,B = estimate_foreground(im, a, return_background=True)
    soft = (a>.02)&(a<.5)
    assert F.dtype==B.dtype==np.uint8 and F.shape==B.shape==im.shape
    assert np.abs(B[soft].astype(int)-(30,90,60)).mean()<3

@pytest.mark.parametrize('shape', [(1,1),(1,9),(9,1),(2,2),(33,70),(65,64)])
def test_colours_of_odd_pictures(shape):
    rng = np.random.default_rng(0)
    im = rng.integers(0, 256, (*shape,3), dtype=np.uint8)
    for a in (rng.random(shape, dtype=np.float32), np.zeros(shape), np.ones(shape), np.full(shape, .5)):
        for f in (estimate_foreground, foreground_colours):
            F = f(im, a)
            assert F.shape==im.shape and F.dtype==np.uint8 and (F[a>=1]==im[a>=1]).all()
    assert (foreground_colours(im, np.full(shape, 255, np.uint8))==im).all()

def test_large_photographs_keep_their_own_pixels():
    rgb,a = read_rgba(FACES[4])
    im,a = (np.repeat(np.repeat(o, 2, 0), 2, 1) for o in (rgb,a))
    F = foreground_colours(im, a, largest=200)
    assert (F[a>=1]==im[a>=1]).all()

def test_colours_bad_arguments():
    im,a = np.zeros((6,8,3), np.uint8),np.zeros((6,8), np.float32)
    for bad in ((im[:-1],a), (im/255.,a), (im[...,0],a)):
        with pytest.raises(ValueError, match='image'): estimate_foreground(*bad)
    for bad in (a+2, a[None], a*np.nan):
        with pytest.raises(ValueError, match='alpha'): foreground_colours(im, bad)

def test_labels_are_light():
    code = ("import sys, numpy as np; from dim_nb.labels import foreground_colours; "
            "foreground_colours(np.zeros((40,40,3), np.uint8), np.full((40,40), .5, np.float32)); "
            "print({'torch','fastai','timm','pandas','numba','pymatting','matplotlib','scipy'} & set(sys.modules))")
    said = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, cwd=ROOT).stdout
    assert said.strip()=='set()'

# Prepared cut-outs

def test_prepared_names_never_meet(tmp_path):
    names = ['a.png','a.webp','b.png','x/b.png','y/x/b.png','x_b.png']
    files = [tmp_path/'in'/n for n in names]
    for k,p in enumerate(files):
        p.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6,6,4), 30*k+30, np.uint8)).save(p, lossless=True)
    made = prepare_foregrounds([(p,None) for p in files], tmp_path/'out', workers=3)
    assert len(set(made))==len(names) and [source_stem(p) for p in made]==[p.stem for p in files]
    assert [round(float(read_alpha(p)[0,0])*255) for p in made]==[30*k+30 for k in range(len(names))]

def test_replaced_pictures_are_prepared_anew(tmp_path):
    p,q = tmp_path/'p.png',tmp_path/'q.png'
    for seed,f in enumerate((p,q)): Image.fromarray(matte(seed=seed)).save(f)
    first = prepare_foregrounds([(p,None),(q,None)], tmp_path/'out')
    Image.fromarray(matte(seed=7)).save(p)
    second = prepare_foregrounds([(p,None),(q,None)], tmp_path/'out')
    assert second[0]!=first[0] and second[1]==first[1] and not first[0].exists()
    os.utime(q, (1e9,1e9))                                                # the same size, another time
    assert prepare_foregrounds([(p,None),(q,None)], tmp_path/'out')[1]!=first[1]

def test_a_changed_alpha_is_prepared_anew(tmp_path):
    m = matte()
    Image.fromarray(m[...,:3]).save(tmp_path/'p.png')
    Image.fromarray(m[...,3]).save(tmp_path/'a.png')
    first = prepare_foregrounds([(tmp_path/'p.png',tmp_path/'a.png')], tmp_path/'out')
    Image.fromarray(m[::-1,:,3].copy()).save(tmp_path/'a.png')
    second = prepare_foregrounds([(tmp_path/'p.png',tmp_path/'a.png')], tmp_path/'out')
    assert first!=second and (read_alpha(second[0])==m[::-1,:,3]/np.float32(255)).all()

def test_failures_are_named(tmp_path, capsys):
    for n in ('good.png','bad\nname.png','size.png','alpha.png'): Image.fromarray(matte()).save(tmp_path/n)
    cut(tmp_path/'bad\nname.png', .5)
    Image.fromarray(matte(40,40)).save(tmp_path/'alpha.png')
    pair = tmp_path/'size.png',tmp_path/'alpha.png'
    items = [(tmp_path/'bad\nname.png',None), (tmp_path/'good.png',None), pair, (tmp_path/'gone.png',None)]
    made = prepare_foregrounds(items, tmp_path/'out')
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith('left out')]
    assert [source_stem(p) for p in made]==['good'] and len(said)==3
    for line,name in zip(said, ('bad\\nname.png','size.png','gone.png')): assert name in line

# Label repair

def test_repair_brings_the_label_nearer(scene):
    im,a = scene
    c = coarsen_alpha(a, np.random.default_rng(0), blur=.012)
    err = lambda o: np.abs(o-a).sum()
    assert err(repair_alpha(im,c,4,4))<.6*err(c)
    assert err(repair_alpha(im,c,4,4,prior=0))<.7*err(c)
    assert np.abs(repair_alpha(im,c,4,4,prior=1e5)-c).mean()<np.abs(repair_alpha(im,c,4,4)-c).mean()

def test_plain_repair_is_closed_form_matting(scene):
    from pymatting import estimate_alpha_cf
    im,a = scene
    t = alpha_to_trimap(a,3,3)
    assert np.abs(repair_alpha(im,a,3,3,prior=0)-estimate_alpha_cf(im/255.,t/255.)).mean()<2e-3

def test_repair_touches_only_the_band(scene):
    im,a = scene
    c = coarsen_alpha(a, np.random.default_rng(0))
    t,r = alpha_to_trimap(c,3,6),repair_alpha(im,c,3,6)
    assert r.dtype==np.float32 and (r[t==0]==0).all() and (r[t==255]==1).all()
    for v in (0,1):
        f = np.full((20,30),v,np.float32)
        assert (repair_alpha(np.zeros((20,30,3),np.uint8),f)==f).all()
    u = np.full((20,30),.5,np.float32)                                  # no sure pixel at all: the label stays
    assert np.abs(repair_alpha(np.random.default_rng(0).integers(0,255,(20,30,3)).astype(np.uint8),u)-u).max()<1e-3

def test_repair_bad_arguments(scene):
    im,a = scene
    for bad in (im[:-1], im/255., im[...,0]):
        with pytest.raises(ValueError, match='image'): repair_alpha(bad, a)
    for k,v in (('fg_width',-1),('bg_width',2.5),('prior',-1),('prior','x'),('prior',float('nan'))):
        with pytest.raises(ValueError, match=k): repair_alpha(im, a, **{k:v})

def test_repair_folder(tmp_path):
    for i in range(4): pair(tmp_path/'d',i)
    before = snapshot(tmp_path/'d')
    pairs = find(tmp_path/'d')[0]
    done,report = repair_folder(pairs, tmp_path/'out', workers=2, progress=False)
    assert [p for p,_ in done]==[p for p,_ in pairs] and len(report)==0 and snapshot(tmp_path/'d')==before
    assert all(read_alpha(q).shape==(80,60) for _,q in done)
    times = [q.stat().st_mtime_ns for _,q in done]
    done[1][1].unlink()
    (done[1][1].parent/f'.{done[1][1].name}.1.x.tmp').write_bytes(b'half')  # killed in between
    again,_ = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert again==done and [q.stat().st_mtime_ns for _,q in done][0::2]==times[0::2]
    os.utime(pairs[0][1], (2e9,2e9))                                    # a label that changed is repaired anew
    repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert done[0][1].stat().st_mtime_ns!=times[0]
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, tmp_path/'out', prior=0.)
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, pairs[0][1].parent/'new')
    cut(pairs[2][0], .3)
    os.utime(pairs[2][1], (2e9,2e9))
    done,report = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert len(done)==3 and report.path.tolist()==[str(pairs[2][1])]
    assert repair_folder([], tmp_path/'o2')[0]==[]
