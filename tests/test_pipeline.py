"The whole chain, from a photograph to its cut-out, by either backend."
import hashlib, io, json, os, pickle, shutil, subprocess, sys, threading, warnings
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.images import ImageError, read_alpha, read_image
from dim_nb.labels import foreground_colours
from dim_nb.onnx import cuda_runtime
from dim_nb.pipeline import Cutout, PortraitMatter, _axis, _fold, add_detail, in_tiles, torch_cuda
from dim_nb.trimaps import probs_to_trimap, shrink_trimap, sure_known

ROOT = Path(__file__).resolve().parent.parent
PORTRAITS = sorted((ROOT/'data/portraits').glob('*.png'))
WEIGHTS = ROOT/'dim_nb/weights'

@pytest.fixture(scope='session')
def matter(): return PortraitMatter.load(device='cpu')

@pytest.fixture(scope='session')
def by_torch(): return PortraitMatter.load(device='cpu', backend='torch')

@pytest.fixture(scope='session')
def photo(): return read_image(ROOT/'data/portraits/obama.png', bg=None)

def iou(a, b): return ((a > .5)&(b > .5)).sum()/((a > .5)|(b > .5)).sum()

def run(code, **env):
    "What a fresh process prints"
    env = {**{k: v for k,v in os.environ.items() if k not in ('NUMBA_NUM_THREADS', 'OMP_NUM_THREADS')}, **env}
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, env=env, timeout=300)

@pytest.mark.parametrize('path', PORTRAITS, ids=lambda p: p.stem)
def test_portraits_are_cut_out(matter, path):
    cut = matter(read_image(path, bg=None))
    truth = read_alpha(path)
    lost = dict(camera=.7, astronaut=.75)   # his camera, her helmet
    assert iou(cut.alpha, truth) > lost.get(path.stem, .9)
    assert set(np.unique(cut.trimap)) == {0, 128, 255}
    for o in (cut.rough, cut.alpha):
        assert o.dtype == np.float32 and o.shape == truth.shape and 0 <= o.min() and o.max() <= 1

@pytest.mark.parametrize('path', PORTRAITS, ids=lambda p: p.stem)
def test_both_backends_agree(matter, by_torch, path):
    photo = read_image(path, bg=None)
    a, b = matter(photo), by_torch(photo)
    assert matter.nets.backend == 'ONNX Runtime' and by_torch.nets.backend == 'torch'
    assert np.abs(a.rough-b.rough).max() <= 1e-3
    assert (np.abs(a.alpha-b.alpha) > 1e-3).mean() < 1e-5   # a pixel may stand at a threshold

def test_nobody_there(matter):
    with pytest.warns(UserWarning, match='nobody'): cut = matter(np.full((200, 300, 3), 127, np.uint8))
    assert cut.alpha.max() == 0 and cut.rough.max() == 0 and cut.rgba.size == (300, 200) and cut.nobody

def test_an_empty_cut_out_does_not_carry_the_photograph(matter):
    with pytest.warns(UserWarning, match='nobody'): cut = matter(np.full((200, 300, 3), 127, np.uint8))
    assert not np.asarray(cut.rgba).any()

def test_colour_is_0_where_alpha_is(matter, photo):
    pixels = np.asarray(matter(photo).rgba)
    hidden = pixels[...,3] == 0
    assert hidden.any() and not pixels[hidden].any() and pixels[~hidden].any()

def test_no_ghosts_before_backgrounds(matter):
    "Most stay empty, and of none is it said that somebody was found"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        cuts = [matter(p) for p in sorted((ROOT/'data/backgrounds').glob('*.jpg'))]
    assert 'found' not in [c.verdict for c in cuts]
    assert sum(c.nobody for c in cuts) >= len(cuts)-2

@pytest.mark.parametrize('size', [(1, 1), (17, 3), (64, 5000), (5000, 64), (333, 517)])
def test_any_size(matter, photo, size):
    h, w = size
    im = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        cut = matter(im)
    for o in (cut.trimap, cut.rough, cut.alpha): assert o.shape == (h, w) and np.isfinite(o).all() and o.min() >= 0
    assert cut.foreground.shape == (h, w, 3) and cut.foreground.dtype == np.uint8
    assert cut.alpha.max() <= 1 and cut.rgba.size == (w, h)
    unknown = np.full((h, w), 128, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert matter(im, unknown).alpha.shape == (h, w)

@pytest.mark.parametrize('n', [1, 50, 448+64, 448+65, 3001])
def test_weights_of_tiles_sum_to_one(n):
    total = np.zeros(n)
    for look, keep, weight in _axis(n, 448, 64, 64):
        total[keep] += weight
        assert look.start%32 == 0
    np.testing.assert_allclose(total, 1, atol=1e-6)

def test_tiles_leave_no_seam(matter, photo):
    "The same picture in one pass and in nine tiles: near each other everywhere, and no step where tiles meet"
    im = cv2.resize(photo, (512, 512), interpolation=cv2.INTER_AREA)
    t = matter(im).trimap
    one, many = matter.matte(im, t), matter.matte(im, t, one_pass=0, step=192)
    fine = [matter.refine(im, one, step, 0) for step in (64, 128, 4096)]
    d = np.abs(many-one)[t == 128]
    assert d.mean() < .05 and (d > .5).mean() < .03, (d.mean(), d.max())
    def jump(a, b): return np.abs((a[:, b]-a[:, b-1])-(one[:, b]-one[:, b-1]))[t[:, b] == 128].max(initial=0)
    assert max(jump(many, b) for b in (160, 224, 352, 416)) < .2     # where the ramps begin and end
    for f in fine[:2]: assert np.abs(f-fine[2])[(one > .01) & (one < .99)].max() < 1e-4

def test_a_tile_with_nothing_to_do_is_not_run():
    where, base, seen = np.zeros((1000, 1000), bool), np.zeros((1000, 1000), np.float32), []
    where[900, 900] = True
    out = in_tiles(lambda a: (seen.append(a.shape), a*0+1)[1], base, where, [np.zeros_like(base)], 256, 0, 32)
    assert len(seen) == 1 and out.sum() == (1000-768)**2

def test_folded_networks_say_the_same():
    import torch
    from dim_nb.matting import matting_unet
    from dim_nb.refine import RefineNet
    torch.manual_seed(0)
    net, refine = matting_unet(), RefineNet()
    for n in (*net.modules(), *refine.modules()):
        if not isinstance(n, torch.nn.BatchNorm2d): continue
        n.running_mean.normal_(0, .1)
        n.running_var.uniform_(.5, 2)
        n.weight.data.uniform_(.5, 1.5)
        n.bias.data.normal_(0, .1)
    torch.nn.init.normal_(refine.convs[-1].weight, std=.1)
    names = list(net.state_dict())
    folded, fref = _fold(net), _fold(refine)
    net.eval()
    refine.eval()
    with torch.no_grad():
        for seed in (1, 2):
            x = torch.rand(1, 4, 96, 64, generator=torch.Generator().manual_seed(seed))
            assert (net(x)-folded(x)).abs().max() < 1e-4
            assert (refine(x[:, :3], x[:, 3:])-fref(x[:, :3], x[:, 3:])).abs().max() < 1e-4
    assert list(net.state_dict()) == names

def test_every_unknown_pixel_of_a_large_drawn_trimap_counts(matter, photo):
    big = cv2.resize(photo, (1500, 1500), interpolation=cv2.INTER_CUBIC)
    tri = cv2.resize(matter(photo).trimap, (1500, 1500), interpolation=cv2.INTER_NEAREST)
    tri[tri == 128] = 255
    tri[700:701, 300:1200] = 128
    tri[10, 10] = 128           # unknown: one row, and one pixel
    small = shrink_trimap(tri, (640, 640))
    assert (small[298, 150:500] == 128).any() or (small[299, 150:500] == 128).any()
    assert small[4, 4] == 128
    cut = matter(big, tri)
    assert (cut.alpha[tri == 0] == 0).all() and (cut.alpha[tri == 255] == 1).all() and (cut.trimap == tri).all()

def test_detail_of_a_large_picture_comes_back():
    "A thin line that the small picture only hints at is drawn at full size, and tiles agree with one another"
    rng, a = np.random.default_rng(0), np.zeros((1200, 1200), np.float32)
    a[:, :600] = 1
    for y in range(40, 1200, 80): cv2.line(a, (600, y), (680, y+30), 1., 3, cv2.LINE_AA)
    mixed = a[..., None]*[40, 30, 20]+(1-a[..., None])*[200, 210, 220]
    im = np.clip(mixed+rng.normal(0, 2, (1200, 1200, 3)), 0, 255).astype(np.uint8)
    small, coarse = (cv2.resize(o, (300, 300), interpolation=cv2.INTER_AREA) for o in (im, a))
    coarse = cv2.blur(coarse, (3, 3))
    up = cv2.resize(coarse, (1200, 1200), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    where = (coarse > .01) & (coarse < .99)
    fine = [add_detail(up.copy(), im, small, coarse, where, step) for step in (200, 512, 5000)]
    assert np.abs(fine[0]-a).sum() < .9*np.abs(up-a).sum()
    assert max(np.abs(f-fine[0]).max() for f in fine) < 1e-4

def test_colours_are_right_at_any_size():
    "Composed from a known foreground: its colour comes back where it is seen, the photograph's own where alpha is 1"
    rng, h, w = np.random.default_rng(0), 700, 900
    far = np.hypot(*(np.mgrid[:h, :w]-np.array([350, 450])[:, None, None]))
    a = np.clip(1.5-far/200, 0, 1).astype(np.float32)
    F = cv2.resize(rng.integers(0, 255, (7, 9, 3)).astype(np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
    im = (a[..., None]*F+(1-a[..., None])*[20, 200, 40]+.5).astype(np.uint8)
    f = foreground_colours(im, a)
    assert (f[a == 1] == im[a == 1]).all() and f.dtype == np.uint8
    see = (a > .3) & (a < 1)
    assert np.abs(f.astype(int)-F)[see].mean() < .65*np.abs(im.astype(int)-F)[see].mean()

def test_seconds_of_each_stage(matter, photo):
    cut = matter(photo)
    assert set(cut.times) == {'trimap', 'matting', 'refinement', 'detail', 'foreground'}
    assert all(v >= 0 for v in cut.times.values())

def test_a_given_trimap_must_fit(matter, photo):
    with pytest.raises((ImageError, ValueError)): matter(photo, np.full((9, 9), 128, np.uint8))

def test_inputs_of_every_kind_agree(matter, photo, tmp_path):
    import torch
    photo = cv2.resize(photo, (160, 160), interpolation=cv2.INTER_AREA)
    Image.fromarray(photo).save(tmp_path/'p.png')
    one = matter(photo).alpha
    data, tensor = (tmp_path/'p.png').read_bytes(), torch.from_numpy(photo).permute(2, 0, 1)
    for src in (Image.fromarray(photo), str(tmp_path/'p.png'), photo/255., data, io.BytesIO(data), tensor, tensor[None]/255):
        assert np.abs(matter(src).alpha-one).max() < 1e-3

def test_weights_are_the_published_ones():
    sums = json.loads((WEIGHTS/'sha256.json').read_text())
    files = sorted(WEIGHTS.glob('*.safetensors'))
    assert {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files} == sums
    assert sorted(sums) == ['matting.safetensors', 'refine.safetensors', 'trimap.safetensors']
    assert sum(f.stat().st_size for f in files) < 26e6

def test_what_the_trimap_network_is_sure_of_is_obeyed(matter, photo, monkeypatch):
    "A matting network that says ½ everywhere changes only what is not sure"
    monkeypatch.setattr(PortraitMatter, 'matte', lambda self, work, tri: np.full(tri.shape, .5, np.float32))
    c = matter(photo)
    p = matter.nets.trimap_probs(photo)
    t = probs_to_trimap(p, photo.shape[:2])
    sure = sure_known(p, t)
    assert sure.any() and (sure <= (t != 128)).all() and (c.alpha[sure] == (t == 255)[sure]).all()
    assert .2 < np.median(c.alpha[~sure]) < .8

@pytest.mark.parametrize('bg', [(10, 20, 30), np.full((7, 9, 3), 10, np.uint8)], ids=['colour', 'picture'])
def test_on_a_background(bg):
    half = np.full((4, 6), .5, np.float32)
    grey = np.full((4, 6, 3), 90, np.uint8)
    cut = Cutout(grey, np.full((4, 6), 128, np.uint8), half, half, grey)
    assert cut.on(bg).shape == (4, 6, 3) and (cut.on(bg)[..., 0] == 50).all()

# -- light, and in a server

HEAVY = 'torch fastai timm pandas numba pymatting matplotlib scipy'.split()

def test_a_cut_out_imports_nothing_heavy(tmp_path, photo):
    Image.fromarray(photo).resize((128, 128)).save(tmp_path/'p.png')
    done = run(f'''
import sys
import dim_nb.cutout
heavy = {HEAVY}
print([m for m in heavy if m in sys.modules])
status = dim_nb.cutout.dim_cutout(r"{tmp_path/'p.png'}", r"{tmp_path/'out'}",
                                  sheet=True, alpha=True, bg='white', device='cpu')
print([m for m in heavy if m in sys.modules], status)''')
    lines = done.stdout.splitlines()
    assert lines[0] == '[]' and lines[-1] == '[] 0', done.stdout+done.stderr

def test_a_missing_extra_is_one_line():
    done = run("""import sys; sys.modules.update(torch=None, fastai=None, timm=None)
from dim_nb.pipeline import PortraitMatter
try: PortraitMatter.load(backend='torch', device='cpu')
except ImportError as e: print(e)""")
    assert done.stdout.count('\n') == 1 and "pip install 'dim_nb[train]'" in done.stdout, done.stderr

@pytest.mark.skipif(torch_cuda() or cuda_runtime(), reason='there is CUDA here')
@pytest.mark.parametrize('backend', [None, 'onnx', 'torch'])
def test_cuda_is_never_silently_the_cpu(backend):
    with pytest.raises(ValueError, match='CUDA'): PortraitMatter.load(device='cuda', backend=backend)

def test_wrong_wishes_are_refused(tmp_path):
    with pytest.raises(ValueError, match='backend'): PortraitMatter.load(backend='jax')
    with pytest.raises(ValueError, match='bf16'): PortraitMatter.load(backend='onnx', half=True)
    with pytest.raises(FileNotFoundError, match='no weights'): PortraitMatter.load(tmp_path)

def test_missing_networks_come_from_the_shipped_set_and_that_is_said(tmp_path, photo):
    for end in ('onnx', 'safetensors'): shutil.copy(WEIGHTS/f'refine.{end}', tmp_path)
    with pytest.warns(UserWarning, match='no trimap and no matting'): own = PortraitMatter.load(tmp_path, device='cpu')
    assert own.nets.files['refine'].parent == tmp_path and own.nets.files['trimap'].parent == WEIGHTS

def test_own_weights_that_are_not_exported_run_in_torch(tmp_path):
    for f in WEIGHTS.glob('*.safetensors'): shutil.copy(f, tmp_path)
    assert PortraitMatter.load(tmp_path, device='cpu').nets.backend == 'torch'
    with pytest.raises(FileNotFoundError, match='dim_export'):
        PortraitMatter.load(tmp_path, device='cpu', backend='onnx')

def in_threads(matter, pictures, n=4):
    "The alphas of all pictures, worked on by n threads"
    out = [None]*len(pictures)
    def work(first):
        for i in range(first, len(pictures), n): out[i] = matter(pictures[i]).alpha
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
    return out

@pytest.mark.parametrize('backend, calls', [('onnx', 80), ('torch', 20)])
def test_four_threads_do_not_mix_people(matter, by_torch, backend, calls):
    m = dict(onnx=matter, torch=by_torch)[backend]
    faces = [cv2.resize(read_image(p, bg=None), (64, 64), interpolation=cv2.INTER_AREA) for p in PORTRAITS]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        alone = [m(f).alpha for f in faces]
        together = in_threads(m, faces*(calls//len(faces)))
    for i, a in enumerate(together): np.testing.assert_allclose(a, alone[i%len(faces)], atol=1e-4)

def test_a_pickled_matter_works(matter, photo):
    again = pickle.loads(pickle.dumps(matter))
    assert np.abs(again(photo).alpha-matter(photo).alpha).max() < 1e-5

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
@pytest.mark.parametrize('backend', ['onnx', 'torch'])
def test_a_fork_after_a_call_is_an_error_at_once(backend):
    done = run(f'''
import os, sys, numpy as np, warnings
warnings.simplefilter('ignore')
from dim_nb.pipeline import PortraitMatter
m = PortraitMatter.load(device='cpu', backend='{backend}')
im = np.full((64,64,3), 127, np.uint8)
m(im)
if os.fork() == 0:
    try: m(im)
    except RuntimeError as e: print(e, flush=True); os._exit(3)
    os._exit(0)
print('child', os.waitstatus_to_exitcode(os.wait()[1]))''')
    assert 'in the child process' in done.stdout and 'child 3' in done.stdout, done.stderr

def test_torch_keeps_its_threads():
    code = '''
import torch, numpy as np, warnings
torch.set_num_threads(1)
warnings.simplefilter('ignore')
from dim_nb.pipeline import PortraitMatter
from dim_nb.labels import foreground_colours
m = PortraitMatter.load(device='cpu', backend='torch')
m(np.full((64,64,3), 127, np.uint8))
foreground_colours(np.zeros((64,64,3), np.uint8), np.full((64,64), .5, np.float32))
print(torch.get_num_threads())'''
    assert run(code).stdout.split() == ['1']

def test_asked_threads_are_used():
    code = "from dim_nb.pipeline import PortraitMatter; print(PortraitMatter.load(device='cpu').nets.threads)"
    assert run(code, OMP_NUM_THREADS='1').stdout.split() == ['1']
