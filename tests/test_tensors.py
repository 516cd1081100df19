"Typed tensors and how they are shown"
import pickle, warnings
import numpy as np, pytest
from dim_nb.images import ImageError

H,W = 40,60
RNG = np.random.default_rng(0)
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

@pytest.fixture(scope='module')
def T():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import dim_nb.tensors as T
    return T

def test_types(T):
    import torch
    x,a = T.MattingImage.create(RGB),T.Alpha.create(GREY)
    t = T.Trimap.create(np.where(GREY>99,255,0).astype(np.uint8))
    assert (x.shape,a.shape,t.shape)==((3,H,W),(1,H,W),(H,W)) and t.dtype==torch.int64
    for p in (x,a):
        for q in (x,a,t): assert torch.isfinite(p*q-q+p).all()
    for o in (x,a,t): assert type(pickle.loads(pickle.dumps(o))) is type(o) and type(o.clone()) is type(o)
    assert type(T.MattingInput.create((RGB,GREY/255)).rgb) is T.MattingImage
    with pytest.raises(ImageError): T.Trimap.create(RGB)
    assert 'encodes' not in T.__all__ and 'decodes' not in T.__all__

@pytest.mark.parametrize('stage', ['trimap','matting','refine'])
def test_show_stages(T, stage):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt, torch
    from fastai.vision.all import (CrossEntropyLossFlat, DataLoaders, IntToFloatTensor, Learner, MSELossFlat, Normalize,
        TfmdDL, imagenet_stats)
    tri = RNG.choice(np.array([0,128,255],np.uint8),(H,W))
    fourth = tri if stage=='matting' else GREY/255
    x = T.MattingImage.create(RGB) if stage=='trimap' else T.MattingInput.create((RGB, fourth))
    y = T.Trimap.create(tri) if stage=='trimap' else T.Alpha.create(GREY)
    after = [IntToFloatTensor(), Normalize.from_stats(*imagenet_stats, cuda=False)]
    dls = DataLoaders(*[TfmdDL([(x,y)]*5, bs=3, num_workers=0, after_batch=after) for _ in range(2)])
    dls.show_batch(max_n=2)
    titles = [a.get_title() for a in plt.gcf().axes]
    assert titles[:3]==dict(trimap=['Photo','True trimap',''], matting=['Photo','Trimap','True alpha'],
        refine=['Photo','Rough alpha','True alpha'])[stage]
    n = len(x)
    loss = CrossEntropyLossFlat(axis=1) if n==3 else MSELossFlat()
    learn = Learner(dls, torch.nn.Conv2d(n, 3 if n==3 else 1, 3, padding=1), loss_func=loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.show_results(max_n=2)
    assert 'Predicted' in ''.join(a.get_title() for a in plt.gcf().axes)
    plt.close('all')

def test_arrays_to_tensors_and_back(T):
    import torch
    for a in (RGB, GREY, RGB/255, GREY.astype(np.float32), np.dstack([RGB,GREY])):
        t = T.to_tensor(a)
        assert t.shape==(1, a.shape[2] if a.ndim==3 else 1, H, W) and t.dtype==torch.float32
        want = a/np.float32(255) if a.dtype==np.uint8 else a.astype(np.float32)
        assert np.array_equal(T.to_array(t), want) and np.array_equal(T.to_array(t[0]), want)
    assert np.array_equal(T.to_array(T.Alpha.create(GREY)), GREY/np.float32(255))
    assert T.to_array(T.to_tensor(RGB[::-1,::-1])).shape==RGB.shape         # views with negative steps
    with pytest.raises(ValueError, match='one image'): T.to_array(torch.zeros(2,3,4,5))
