"The metrics against an independent implementation, written from the definitions: slow, plain numpy and scipy."
import warnings
warnings.filterwarnings('ignore', category=FutureWarning)
import numpy as np, pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from dim_nb.metrics import (MASK_METRICS, METRICS, AlphaConn, AlphaGrad, AlphaMAD, AlphaMSE, AlphaSAD, all_metrics,
    conn,
    error_maps, grad, mad, mask_iou, mask_mad, mask_scores, mse, sad, trimap_scores)

ALL = (sad,mse,mad,grad,conn)

# --- the reference -----------------------------------------------------------

def ref(pred, target, trimap=None):
    p,g = (np.asarray(o,np.float64)/(255 if np.asarray(o).dtype==np.uint8 else 1) for o in (pred,target))
    r = np.ones(p.shape,bool) if trimap is None else np.asarray(trimap)==128
    d = p-g
    n = max(r.sum(),1)
    return dict(sad=np.abs(d[r]).sum()/1000, mse=(d[r]**2).sum()/n, mad=np.abs(d[r]).sum()/n, grad=ref_grad(p,g,r),
        conn=ref_conn(pred,target,r))

def ref_grad(p, g, r):
    gauss = lambda x: np.exp(-x**2/(2*1.4**2))/(1.4*np.sqrt(2*np.pi))
    h = np.array([[gauss(v)*(-u*gauss(u)/1.4**2) for u in range(-4,5)] for v in range(-4,5)])
    h /= np.sqrt((h**2).sum())
    def mag(a):
        if a.max()>a.min(): a = (a-a.min())/(a.max()-a.min())
        return np.sqrt(ndimage.correlate(a,h,mode='nearest')**2+ndimage.correlate(a,h.T,mode='nearest')**2)
    return ((mag(p)-mag(g))**2)[r].sum()/1000

def ref_conn(pred, target, r):
    "Bytes are compared in whole numbers: k/255 >= i/10 is 10k >= 255i, k/255 - i/10 >= 3/20 is 20k - 510i >= 765"
    exact = np.asarray(pred).dtype==np.uint8 and np.asarray(target).dtype==np.uint8
    def number(o): return o.astype(int) if exact else o.astype(float)/(255 if o.dtype==np.uint8 else 1)
    k = [number(np.asarray(o)) for o in (pred,target)]
    level = np.zeros(k[0].shape,int)
    still = np.ones(k[0].shape,bool)
    for i in range(1,11):
        both = (10*k[0]>=255*i)&(10*k[1]>=255*i) if exact else (k[0]>=i/10-1e-7)&(k[1]>=i/10-1e-7)
        lab,n = ndimage.label(both)
        if n==0: break
        sizes = [(lab==j).sum() for j in range(1,n+1)]
        still &= lab==1+int(np.argmax(sizes))
        level[still] = i
    phi = []
    for o in k:
        a = o/255 if exact else o
        d = a-level/10
        phi.append(1-d*((20*o-510*level>=765) if exact else (d>=.15-1e-7)))
    return np.abs(phi[0]-phi[1])[r].sum()/1000

# --- mattes ------------------------------------------------------------------

def blobs(rng, h=48, w=40, sigma=3.):
    "Smooth matte with 0, 1 and soft edges"
    a = ndimage.gaussian_filter(rng.standard_normal((h,w)), sigma)
    return (a/a.std()*.7+.5).clip(0,1)
def cases():
    rng = np.random.default_rng(1)
    y,x = np.mgrid[:48,:40]
    disc = (15.5-np.hypot(y-24,x-20)).clip(0,1)
    ring = disc-(8.5-np.hypot(y-24,x-20)).clip(0,1)
    comb = np.where(x%4<2, 1., 0.)
    comb[40:] = 1
    yield 'noise', rng.random((48,40)), rng.random((48,40))
    for i in range(4): yield f'blobs{i}', blobs(rng,sigma=1+i), blobs(rng,sigma=1+i)
    g = blobs(rng)
    yield 'near', (g+rng.normal(0,.05,g.shape)).clip(0,1), g
    yield 'disc and ring', disc, ring
    yield 'comb', comb, disc
    yield 'zero', np.zeros_like(disc), disc
    yield 'one', np.ones_like(disc), ring
    yield 'constant', np.full_like(disc,.37), disc
    yield 'ramps', x/39., y/47.
    yield 'islands', np.where((x//6+y//6)%2, .8, .1), np.where((x//6+y//6)%2, .6, .3)
    yield 'wide', rng.random((3,70)), rng.random((3,70))
    yield 'one pixel', np.array([[.3]]), np.array([[.8]])
CASES = list(cases())

def check(pred, target, trimap=None):
    want,got = ref(pred,target,trimap),all_metrics(pred,target,trimap)
    for k,v in want.items():
        assert type(got[k]) is float
        assert abs(got[k]-v)<=(1e-6 if k in ('sad','mse','mad') else 1e-4)*abs(v)+1e-12, (k,got[k],v)

@pytest.mark.parametrize('kind', ['float64','float32','uint8','mixed'])
@pytest.mark.parametrize('name,p,g', CASES, ids=[c[0] for c in CASES])
def test_reference(name, p, g, kind):
    u = lambda o: np.rint(o*255).astype(np.uint8)
    if kind=='uint8': p,g = u(p),u(g)
    elif kind=='mixed': p = u(p)
    else: p,g = p.astype(kind),g.astype(kind)
    check(p, g)
    check(g, p)
    tri = np.random.default_rng(2).choice(np.array([0,128,255],np.uint8), p.shape, p=[.3,.5,.2])
    check(p, g, tri)

def test_reference_on_ties():
    "Equally large components: the first in reading order counts, in both implementations"
    rng = np.random.default_rng(3)
    for _ in range(200):
        p,g = (rng.integers(0,6,(rng.integers(1,12),rng.integers(1,12)))*51).astype(np.uint8),None
        g = (rng.integers(0,6,p.shape)*51).astype(np.uint8)
        check(p, g)

mattes = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2,max_dims=2,max_side=12))
codes = st.sampled_from([0,128,255])
def three(shape): return st.tuples(*[hnp.arrays(np.uint8,shape)]*2, hnp.arrays(np.uint8,shape,elements=codes))
pairs = hnp.array_shapes(min_dims=2,max_dims=2,max_side=12).flatmap(three)

@given(pairs)
@settings(max_examples=150, deadline=None)
def test_reference_property(pgt): check(*pgt)

# --- properties --------------------------------------------------------------

@given(pairs)
@settings(max_examples=100, deadline=None)
def test_properties(pgt):
    p,g,t = pgt
    for f in ALL:
        assert f(p,p)==0 and f(p,p,t)==0
        assert np.isfinite(f(p,g,t)) and f(p,g,t)>=0
        assert abs(f(p,g)-f(g,p))<1e-12                                       # all five are symmetric
        assert abs(f(p,g)-f(p/255,g/255))<1e-9                                # bytes and floats
        assert abs(f(p,g)-f((p/255).astype(np.float32),(g/255).astype(np.float32)))<=1e-5*f(p,g)+1e-6
        assert f(p,g,np.full_like(t,128))==f(p,g)
        assert f(p,g,np.where(t==128,0,t))==0                                 # empty region
    assert sad(p,g,t)<=sad(p,g) and mse(p,g,t)<=mad(p,g,t)+1e-12

@given(mattes, st.integers(0,255))
@settings(max_examples=50, deadline=None)
def test_constant_prediction(g, v):
    for f in ALL: assert np.isfinite(f(np.full_like(g,v), g))

@given(mattes)
@settings(max_examples=50, deadline=None)
def test_zero_prediction(g):
    assume((g>=64).any())
    assert conn(np.zeros_like(g), g)>0 and abs(conn(np.zeros_like(g),g)-(g[g/255>=.15]/255.).sum()/1000)<1e-9

def test_byte_153():
    for k in (51,102,153,204,255):          # the bytes that are whole tenths
        for o in (np.uint8([[255,255,k]]), np.uint8([[255,255,k]])/255,
            (np.uint8([[255,255,k]])/255).astype(np.float32), np.float32([[1,1,k/255]])):
            want = (1-k/255)/1000 if 1-k/255>=.15 else 0
            assert abs(conn(o, np.ones((1,3)))-want)<1e-9, (k,o.dtype)

def test_conn_is_not_symmetric_to_labels():
    "Background may be the largest region, and is not a component"
    p = np.zeros((20,20))
    p[9:11,9:11] = 1
    assert conn(p,p)==0 and conn(p*.5,p)>0 and abs(conn(p*.5,p)-4*.5/1000)<1e-12

def test_grad_scale():
    "Stretched: contrast does not matter, and a constant stays as it is"
    g = blobs(np.random.default_rng(5))
    assert grad(g*.5,g)<1e-12 and grad(g*.5+.2,g)<1e-12
    flat = grad(np.full_like(g,.9),g)
    assert abs(flat-grad(np.zeros_like(g),g))<1e-9 and flat>0

# --- faults ------------------------------------------------------------------

OK = np.zeros((4,5))
@pytest.mark.parametrize('args,says', [
    ((OK,OK[:3]),'pred.*target.*equal'), ((OK[None],OK),'pred: shape'), ((OK,OK[0]),
        'target: shape'), ((OK,np.zeros((4,5,1))),'target: shape'),
    ((OK*np.nan,OK),'pred: .*NaN'), ((OK,OK+np.inf),'target: .*NaN or inf'), ((OK+1.5,OK),
        'pred: values'), ((OK,OK-.1),'target: values'), ((OK,OK+255.),'target: values'),
    ((OK.astype(int),OK),'pred: dtype'), ((OK,OK,OK[:2]+128),'trimap: shape'), ((OK,OK,OK+1),
        'trimap: values'), ((OK,OK,OK+127),'trimap: values')])
@pytest.mark.parametrize('f', ALL+(all_metrics,))
def test_faults(f, args, says):
    with pytest.raises(ValueError, match=says): f(*args)

def test_inputs_accepted():
    import torch
    assert sad(OK.astype(bool),OK)==0 and sad(OK.astype(np.float16),OK.astype(np.uint16))==0
    assert sad(torch.zeros(4,5,requires_grad=True),torch.zeros(4,5))==0
    assert sad(OK+1+5e-5, OK+1)==0          # rounding beyond 1 is clipped
    a = np.random.default_rng(0).random((4,5))
    b = a.copy()
    all_metrics(a,OK)
    assert np.array_equal(a,b)

# --- trimaps -----------------------------------------------------------------

def test_trimap_scores_by_hand():
    a = np.zeros((6,8))
    a[:,4:] = 1
    a[:,3] = .5
    t = np.zeros((6,8),np.uint8)
    t[:,2:5] = 128
    t[:,5:] = 255
    s = trimap_scores(t, a, t)
    assert (s['iou_bg'],s['iou_unknown'],s['iou_fg'],s['fatal'],s['unknown'])==(1,1,1,0,3/8)
    assert abs(s['rms_edge_px']-.5)<1e-9            # mid-line at x = 3, contour between 2 and 3
    t[:,3] = 0                                      # declares half-transparent pixels background
    assert trimap_scores(t,a)['fatal']==6/(6*6) and 'iou_bg' not in trimap_scores(t,a)
    assert list(trimap_scores(t,a,t))==['iou_bg','iou_unknown','iou_fg','fatal','unknown','rms_edge_px']

@pytest.mark.parametrize('d', [0,1,3,-2])
def test_rms_edge_of_a_shift(d):
    a = np.zeros((30,60))
    a[:,30:] = 1
    t = np.full((30,60),128,np.uint8)
    t[:,:26+d] = 0
    t[:,34+d:] = 255
    for u,b in ((t,a),(t.T,a.T),(255-t+(t==128),1-a)): assert abs(trimap_scores(u,b)['rms_edge_px']-abs(d))<1e-9

def test_rms_edge_of_a_disc():
    y,x = np.mgrid[:101,:101]
    r = np.hypot(y-50,x-50)
    for d in (0,2,5):
        t = np.where(r<25+d, 255, np.where(r>35+d, 0, 128)).astype(np.uint8)
        assert abs(trimap_scores(t, (30.5-r).clip(0,1))['rms_edge_px']-d)<.45

def test_trimap_thresholds_and_edges():
    t = np.array([[0,0,255,255,128]],np.uint8)
    assert trimap_scores(t, np.array([[.1,0,.9,1,.5]]))['fatal']==0         # exactly .1 is not more than .1
    assert trimap_scores(t, np.array([[.1,0,.9,1,.5]],np.float32))['fatal']==0
    assert trimap_scores(t, np.array([[.11,0,.88,1,.5]]))['fatal']==.5
    for v in (0,128,255):
        s = trimap_scores(np.full((3,3),v,np.uint8), np.eye(3), np.full((3,3),v,np.uint8))
        assert np.isnan(s['rms_edge_px']) and s['unknown']==(v==128)
        assert sum(np.isnan(s[k]) for k in ('iou_bg','iou_unknown','iou_fg'))==2
    for v in (0,1): assert np.isnan(trimap_scores(t, np.full((1,5),float(v)))['rms_edge_px'])
    for args,says in (((t//128,t/255.),'pred: values'), ((t,np.zeros((2,5))),'pred: shape'),
        ((t,t/255.,t[:,:2]),'target: shape'), ((t,t*np.nan),'alpha: .*NaN')):
        with pytest.raises(ValueError, match=says): trimap_scores(*args)

# --- fastai ------------------------------------------------------------------

def test_fastai_metrics():
    import torch
    from fastai.vision.all import DataLoaders, Learner, MSELossFlat, TfmdDL
    rng = np.random.default_rng(0)
    xs = torch.tensor(np.stack([blobs(rng) for _ in range(5)]),dtype=torch.float32)[:,None]
    ys = torch.tensor(np.stack([blobs(rng) for _ in range(5)]),dtype=torch.float32)[:,None]
    ts = torch.tensor(rng.integers(0,3,(5,48,40)))
    class Items(list): n_inp = 1
    dl = TfmdDL(Items((x,y,t) for x,y,t in zip(xs,ys,ts)), bs=2, num_workers=0)
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.ones(1))
        def forward(self, x): return x*self.p
    ms = [cls() for cls in (AlphaSAD,AlphaMSE,AlphaMAD,AlphaGrad,AlphaConn)]+[AlphaSAD(trimap=1), AlphaConn(trimap=1),
        AlphaSAD(trimap=lambda l: l.yb[1][:,None]/2)]
    learn = Learner(DataLoaders(dl,dl), Net(), loss_func=lambda p,y,t: MSELossFlat()(p,y), metrics=ms)
    with learn.no_bar(), learn.no_logging(): got = learn.validate()[1:]
    code = np.array([0,128,255],np.uint8)
    want = [np.mean([f(x[0].numpy(),y[0].numpy()) for x,y in zip(xs,ys)]) for f in ALL]
    want += [np.mean([f(x[0].numpy(),y[0].numpy(),code[t.numpy()]) for x,y,t in zip(xs,ys,ts)]) for f in (sad,conn,sad)]
    assert np.allclose(got, want, rtol=1e-6)
    assert [m.name for m in ms]==['sad','mse','mad','grad','conn','sad','conn','sad']

# --- the registry ------------------------------------------------------------

def test_every_metric_has_what_whoever_shows_it_needs():
    p,g = (blobs(np.random.default_rng(i)) for i in (0,1))
    scores, maps = all_metrics(p,g), error_maps(p,g)
    assert list(scores)==list(maps)==list(METRICS)==['sad','mse','mad','grad','conn']
    for name,m in METRICS.items():
        assert m(p,g)==m.fn(p,g)==scores[name] and m.smaller_is_better
        assert m.text(scores[name])==f'{m.scale*scores[name]:.2f}'
        assert abs(maps[name].sum()/(p.size if m.unit=='thousandths' else 1000)-scores[name])<1e-12

# --- masks -------------------------------------------------------------------

def masks_by_hand(a, m):
    both = either = total = n = 0
    for v,k in zip(np.ravel(a), np.ravel(m)):
        if k==128: continue
        both += v>.5 and k==255
        either += v>.5 or k==255
        total += abs(v-(k==255))
        n += 1
    return both/either if either else float('nan'), total/max(n,1)

def test_masks_by_hand():
    rng = np.random.default_rng(0)
    for shape in ((1,1),(5,7),(20,3)):
        for p in ([.3,.4,.3],[1,0,0],[0,1,0],[0,0,1]):
            a, m = rng.random(shape), rng.choice(np.array([0,128,255],np.uint8), shape, p=p)
            np.testing.assert_allclose([mask_iou(a,m), mask_mad(a,m)], masks_by_hand(a,m))
            assert mask_scores(a,m).keys()==MASK_METRICS.keys()

def test_masks_ignore_what_is_not_judged():
    rng = np.random.default_rng(1)
    a, m = rng.random((9,9)), rng.choice(np.array([0,128,255],np.uint8), (9,9))
    other = np.where(m==128, 1-a, a)
    assert (mask_iou(a,m), mask_mad(a,m))==(mask_iou(other,m), mask_mad(other,m))
    bytes_ = np.rint(a*255).astype(np.uint8)
    assert abs(mask_mad(bytes_,m)-mask_mad(bytes_/255,m))<1e-12

@pytest.mark.parametrize('args,says', [((OK,OK+1),'mask: values'), ((OK,OK[:2]),'mask: shape'),
    ((OK+7,OK),'alpha: values'), ((OK*np.nan,OK),'alpha: .*NaN')])
@pytest.mark.parametrize('f', [mask_iou,mask_mad,mask_scores])
def test_mask_faults(f, args, says):
    with pytest.raises(ValueError, match=says): f(*args)
