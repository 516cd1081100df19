"Made pictures with known alphas, folders of them, groups of people, and a matter that needs no networks."
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
from dim_nb.images import composite, cover, read_image, read_rgba, resize_to, write_png
from dim_nb.labels import estimate_foreground
from dim_nb.pipeline import Cutout

DATA = Path(__file__).resolve().parent.parent/'data'
SUBSETS = dict(a='plain', b='dark', c='lowcontrast', d='plain')

class FakeMatter:
    "Takes the brightness for alpha, and counts its calls; `weights` stands for the networks"
    def __init__(self, weights=1., stop_at=None):
        import torch
        self.device, self.size, self.net, self.calls, self.stop_at = 'cpu', 64, torch.nn.Linear(1, 1), 0, stop_at
        torch.nn.init.constant_(self.net.weight, weights)
        torch.nn.init.zeros_(self.net.bias)

    def __call__(self, image, trimap=None):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        im = read_image(image)
        rough = (im.mean(2)/255).astype(np.float32)
        t = np.where(rough > .9, 255, np.where(rough < .1, 0, 128)).astype(np.uint8) if trimap is None else trimap
        alpha = np.clip(rough*1.1, 0, 1)
        if trimap is not None:
            alpha, rough = (np.where(t == 128, a, t/255).astype(np.float32) for a in (alpha, rough))
        return Cutout(im, t, rough, alpha, im)

def scene(seed, h=40, w=48):
    "A photograph whose brightness is nearly its alpha; alpha; a trimap"
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h,:w]
    a = np.clip((h*.35-np.hypot(y-h*.55, x-w/2))/6+.5, 0, 1)
    a = np.rint(a*255)/255
    im = np.clip(a*235+10+rng.normal(0, 6, (h,w)), 0, 255)
    t = np.where(a == 1, 255, np.where(a == 0, 0, 128)).astype(np.uint8)
    return np.repeat(im[...,None], 3, 2).astype(np.uint8), a.astype(np.float32), t

def make_set(d, trimaps=True, subsets=True, masks=False):
    "A folder to judge on, of four pictures"
    truth = 'masks' if masks else 'alphas'
    for n in ('images', truth, *(['trimaps'] if trimaps else [])):
        (d/n).mkdir(parents=True)
    for i,(s,suffix) in enumerate(zip(SUBSETS, ('.png', '.bmp', '.png', '.tif'))):
        im, a, t = scene(i)
        Image.fromarray(im).save(d/f'images/{s}{suffix}')
        write_png(d/f'{truth}/{s}.png', t if masks else a)
        if trimaps:
            write_png(d/f'trimaps/{s}.png', t)
    if subsets:
        pd.DataFrame(SUBSETS.items(), columns=['stem', 'subset']).to_csv(d/'subsets.csv', index=False)
    return d

def group(size, background, *people):
    "Pocket portraits (name, middle 0..1, height in px, bottom 0..1) before a background without people: photo, alpha"
    photo, alpha = cover(read_image(DATA/f'backgrounds/{background}.jpg'), size).copy(), np.zeros(size, np.float32)
    for name, middle, height, bottom in people:
        rgb, a = read_rgba(DATA/f'portraits/{name}.png')
        small = (height, round(a.shape[1]*height/a.shape[0]))
        top, left = round(bottom*size[0])-height, int(np.clip(middle*size[1]-small[1]/2, 0, size[1]-small[1]))
        at, soft = np.s_[top:top+height, left:left+small[1]], resize_to(a, small)
        photo[at] = composite(resize_to(estimate_foreground(rgb, a), small), photo[at], soft)
        alpha[at] = np.maximum(alpha[at], soft)
    return photo, alpha
