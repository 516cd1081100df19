"dim_nb.trimaps: trimaps to the pixel"
from pathlib import Path
import numpy as np, pytest
from dim_nb.images import read_alpha
from dim_nb.trimaps import alpha_to_trimap
from dim_nb.labels import repair_alpha

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

def squared_distances(a):
    "The definition by brute force: (sure, its code, squared distance to the nearest pixel that is not sure) for both sides"
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
    thin = np.zeros((n,n)); thin[:,n//2] = 1; thin[5] = 1
    border = np.zeros((n,n)); border[n//2:] = 1; border[n//2:,:3] = .5
    lone = np.zeros((n,n)); lone[20,20] = 1
    return dict(disk=disk, thin=thin, border=border, lone=lone, hair=np.where((x+y)%7==0,.6,disk), empty=np.zeros((n,n)), full=np.ones((n,n)), corner=((x<9)&(y<9))*1., soft=np.full((n,n),.5))

@pytest.mark.parametrize('name', list(shapes()))
def test_band_is_as_wide_as_asked(name):
    a = shapes()[name]; sides = list(squared_distances(a))
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
    a = shapes()['disk']; a = np.maximum(a, a[::-1,::-1])
    for w in range(1,12):
        t = alpha_to_trimap(a,w,w)
        assert (t==t[::-1,::-1]).all() and (t==alpha_to_trimap(a[::-1],w,w)[::-1]).all() and (t.T==alpha_to_trimap(a.T,w,w)).all()

@pytest.mark.parametrize('name,args', [('fg_width',(-1,1)),('fg_width',(1.5,1)),('fg_width',(None,1)),('bg_width',(1,-3)),('bg_width',(1,'2')),('bg_width',(1,True))])
def test_bad_widths(name, args):
    with pytest.raises(ValueError, match=name): alpha_to_trimap(np.zeros((4,4)), *args)

@pytest.mark.parametrize('a', [np.zeros((4,4,3)), np.zeros((4,4,1)), np.zeros(4), np.zeros((4,4),np.int32), np.full((4,4),1.01), np.full((4,4),-.01), np.full((4,4),np.nan), np.full((4,4),255.)])
def test_bad_alphas(a):
    with pytest.raises(ValueError, match='alpha'): alpha_to_trimap(a, 1, 1)
    with pytest.raises(ValueError, match='alpha'): repair_alpha(np.zeros((4,4,3),np.uint8), a)

def test_good_alphas():
    a = shapes()['disk']
    t = alpha_to_trimap(a,2,2)
    assert t.dtype==np.uint8 and (alpha_to_trimap(a.astype(np.float32),2,2)==t).all() and (alpha_to_trimap(a>.5,np.int64(2),2)==alpha_to_trimap((a>.5)*1.,2,2)).all()
    u = (a*255+.5).astype(np.uint8)
    assert (alpha_to_trimap(u,2,2)==alpha_to_trimap(u/255,2,2)).all()
    assert alpha_to_trimap(np.zeros((0,5)),1,1).shape==(0,5)
