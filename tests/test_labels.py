"dim_nb.labels: repaired labels"
import os
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from dim_nb.images import composite, read_alpha
from dim_nb.trimaps import alpha_to_trimap
from dim_nb.datasets import aisegment_pairs
from dim_nb.labels import coarsen_alpha, estimate_foreground, repair_alpha, repair_folder
from made import cut, pair, snapshot

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('DIM_CACHE', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.setenv('KAGGLEHUB_CACHE', str(tmp_path_factory.mktemp('kaggle')))
    monkeypatch.delenv('DIM_DATA', raising=False)

def find(root, **kw): return aisegment_pairs(root, progress=False, **{'workers':0, **kw})

@pytest.fixture(scope='module')
def scene():
    rgb,a = (lambda im: (im[...,:3], im[...,3]/255.))(np.array(Image.open(FACES[0]).resize((160,160))))
    bg = np.full_like(rgb, (30,90,60))
    return composite(estimate_foreground(rgb,a), bg, a.astype(np.float32)), a.astype(np.float32)

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
    c = coarsen_alpha(a, np.random.default_rng(0)); t = alpha_to_trimap(c,3,6); r = repair_alpha(im,c,3,6)
    assert r.dtype==np.float32 and (r[t==0]==0).all() and (r[t==255]==1).all()
    for v in (0,1): f = np.full((20,30),v,np.float32); assert (repair_alpha(np.zeros((20,30,3),np.uint8),f)==f).all()
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
    done[1][1].unlink(); (done[1][1].parent/f'.{done[1][1].name}.1.x.tmp').write_bytes(b'half')  # killed in between
    again,_ = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert again==done and [q.stat().st_mtime_ns for _,q in done][0::2]==times[0::2]
    os.utime(pairs[0][1], (2e9,2e9))                                    # a label that changed is repaired anew
    repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert done[0][1].stat().st_mtime_ns!=times[0]
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, tmp_path/'out', prior=0.)
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, pairs[0][1].parent/'new')
    cut(pairs[2][0], .3); os.utime(pairs[2][1], (2e9,2e9))
    done,report = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert len(done)==3 and report.path.tolist()==[str(pairs[2][1])]
    assert repair_folder([], tmp_path/'o2')[0]==[]
