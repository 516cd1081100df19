"Pictures side by side"
import numpy as np
from PIL import Image
from dim_nb.show import show_side_by_side

H,W = 40,60
RNG = np.random.default_rng(0)
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

def test_show_side_by_side():
    import matplotlib; matplotlib.use('Agg')
    import matplotlib.pyplot as plt, torch
    ims = [RGB, GREY, GREY/255, torch.rand(3,5,6), torch.rand(1,1,5,6), np.dstack([RGB,GREY]), Image.fromarray(RGB), GREY>9, GREY.astype(np.uint16)*257, np.full((3,4),np.nan)]
    f = show_side_by_side(ims, titles=[str(i) for i in range(10)], rows=2, suptitle='all', row_titles=['a','b'])
    assert len(f.axes)==10 and [a.get_title() for a in f.axes]==[str(i) for i in range(10)]
    f = show_side_by_side([[RGB,None],[GREY]], titles=['x','y'])
    assert len(f.axes)==4 and [a.get_title() for a in f.axes]==['x','y','','']
    plt.close('all')
