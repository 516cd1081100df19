"Pictures side by side, the error picture, contact sheets"
import subprocess, sys
import numpy as np, pytest
from PIL import Image
from dim_nb.show import BAR, GAP, checkerboard, contact_pages, contact_sheet, error_picture, show_side_by_side, titled

H,W = 40,60
RNG = np.random.default_rng(0)
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

def test_show_side_by_side():
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt, torch
    ims = [RGB, GREY, GREY/255, torch.rand(3,5,6), torch.rand(1,1,5,6), np.dstack([RGB,GREY]),
                                           Image.fromarray(RGB), GREY>9, GREY.astype(np.uint16)*257, np.full((3,4),np.nan)]
    f = show_side_by_side(ims, titles=[str(i) for i in range(10)], rows=2, suptitle='all', row_titles=['a','b'])
    assert len(f.axes)==10 and [a.get_title() for a in f.axes]==[str(i) for i in range(10)]
    f = show_side_by_side([[RGB,None],[GREY]], titles=['x','y'])
    assert len(f.axes)==4 and [a.get_title() for a in f.axes]==['x','y','','']
    plt.close('all')

def test_a_figure_is_shown_once_and_small(monkeypatch):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from IPython import display
    shown = []
    monkeypatch.setattr(display, 'display', shown.append)
    noise = RNG.integers(0,256,(500,500,3),dtype=np.uint8)
    f = show_side_by_side([noise], size=5)
    f._ipython_display_()
    assert len(shown)==1 and not plt.get_fignums() and len(shown[0].data)<250_000
    assert Image.open(__import__('io').BytesIO(shown[0].data)).mode=='P'

# --- the error ----------------------------------------------------------------

def test_error_picture():
    e = error_picture(np.array([[.5,1,0,.04]]), np.array([[.5,0,1,0]]))
    assert e.dtype==np.uint8 and e[0,:3].tolist()==[[0,0,0],[255,150,30],[70,160,255]] and abs(int(e[0,3,0])-51)<=1
    a,b = RNG.integers(0,256,(2,H,W),dtype=np.uint8)
    want = error_picture(a/255, b/255)
    for p,t in ((a,b),(a,b/255),((a/255).astype(np.float32),b)):
        assert np.array_equal(error_picture(p,t), want)
    assert np.array_equal(error_picture(b,a)[...,0]>error_picture(b,a)[...,2], b>a)
    assert np.array_equal(error_picture(np.array([[2.]]),np.array([[-1.]])),
                          [[[255,150,30]]])   # beyond 0..1 is no error

# --- contact sheets -------------------------------------------------------------

def test_a_sheet_s_places():
    red,blue = (np.full((20,40,3),c,np.uint8) for c in ([255,0,0],[0,0,255]))
    s = contact_sheet([[red,blue],[blue,red]], ['a','b'], ['first','second'], side=40, gap=4, header=30)
    assert s.shape==(30+2*60+4, 84, 3)
    assert (s[30:40,:]==255).all() and s[50,20].tolist()==[255,0,0] and s[50,64].tolist()==[0,0,255]
    assert s[30+64+20,20].tolist()==[0,0,255] and (s[30:90,40:44]==255).all()
    for y,x in ((slice(0,30),slice(0,40)),(slice(0,30),slice(44,84)),
                (slice(70,90),slice(0,84)),(slice(134,154),slice(0,84))):
        assert (s[y,x]<99).any()

def test_a_sheet_takes_all_kinds():
    import torch
    ims = [RGB, GREY, GREY/255, GREY>9, np.dstack([RGB,GREY]), Image.fromarray(RGB),
                                                  torch.rand(3,9,5), GREY.astype(np.uint16)*257]
    s = contact_sheet([ims], side=50)
    assert s.shape==(50,400,3) and np.array_equal(s[:,50:100],s[:,350:400])
    assert np.array_equal(contact_sheet([[RGB]], side=None), RGB)
    back = contact_sheet([[np.dstack([RGB,GREY*0])]], side=None)
    assert np.array_equal(back, checkerboard(H,W))

def test_a_sheet_of_different_sizes():
    s = contact_sheet([[RGB, GREY[:9,:9]], [GREY[:5]]], side=None, gap=3)
    assert s.shape==(H+3+5, W+3+9, 3) and np.array_equal(s[:H,:W],
                     RGB) and (s[9:H,W+3:]==255).all() and (s[H+3:,W:]==255).all()

@pytest.mark.parametrize('name', [b'latin1_\xe9\xff.jpg', 'a\x1b[31m\n.png',
                         '写真.jpg', '\ud800', '', 'x'*500, 7, 'Zoë.png'])
def test_any_name_is_drawn(name):
    s = contact_sheet([[RGB]], [name], [name], side=90)
    assert s.shape==(24+110, 90, 3) and (name=='' or (s[-20:]<99).any())
    if isinstance(name, bytes):
        assert np.array_equal(s, contact_sheet([[RGB]], [r'latin1_\xe9\xff.jpg'], [r'latin1_\xe9\xff.jpg'], side=90))

def test_a_name_too_few_is_an_error():
    with pytest.raises(ValueError):
        contact_sheet([[RGB],[RGB]], names=['a'])
    with pytest.raises(ValueError):
        contact_sheet([[RGB,RGB]], ['a'])

def test_pages_come_as_soon_as_they_are_full():
    made = []
    def rows():
        for i in range(43):
            made.append(i)
            yield [GREY[:2,:2]]*5
    pages = contact_pages(rows(), 'a b c d e'.split(), (f'{i}.png' for i in range(43)))
    assert next(pages).shape==(24+40*220,1000,3) and made==list(range(40))
    assert [o.shape for o in pages]==[(24+3*220,1000,3)] and len(made)==43
    assert list(contact_pages([]))==[]

def test_titled():
    t = titled(RGB, '<b>Zoë</b>')
    assert t.shape==(H+BAR,W,3) and np.array_equal(t[BAR:],RGB) and (t[:BAR]>200).any() and GAP>0

def test_show_imports_nothing_heavy():
    code = "import sys, dim_nb.show; bad=[m for m in ('torch','fastai','matplotlib','pandas','IPython','numba','scipy') if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable,'-c',code], check=True)
