"The whole chain and the command, on files as people have them."
import hashlib, json, os, subprocess, sys, warnings
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.core import ImageError, read_alpha, read_image, read_rgba
from dim_nb.pipeline import PortraitMatter, _axis, _fold, _matte, _refine, _shrink_trimap, add_detail, dim_cutout, foreground_colours, in_tiles

ROOT = Path(__file__).resolve().parent.parent
PORTRAITS = sorted((ROOT/'data/portraits').glob('*.png'))

@pytest.fixture(scope='session')
def matter(): return PortraitMatter.load(device='cpu')

@pytest.fixture(scope='session')
def photo(): return read_image(ROOT/'data/portraits/obama.png', bg=None)

def iou(a, b): return ((a > .5)&(b > .5)).sum()/((a > .5)|(b > .5)).sum()

def odd_files(d, photo):
    "The same portrait in every format that people have; name -> size (w, h) that its cut-out must have"
    im = Image.fromarray(photo); w, h = im.size
    exif = Image.Exif(); exif[274] = 6
    im.rotate(90, expand=True).save(d/'rotated.jpg', exif=exif)
    im.quantize(64).save(d/'palette.png'); im.convert('L').save(d/'grey.png'); im.convert('LA').save(d/'with_alpha.png')
    im.convert('CMYK').save(d/'cmyk.jpg'); im.save(d/'UPPER.JPG'); im.save(d/'webp.webp'); im.save(d/'bmp.bmp')
    cv2.imwrite(str(d/'deep.png'), photo[...,::-1].astype(np.uint16)*257)
    im.resize((60, 80)).save(d/'tiny.png')
    return {**{n: (w, h) for n in 'rotated.jpg palette.png grey.png with_alpha.png cmyk.jpg UPPER.JPG webp.webp bmp.bmp deep.png'.split()}, 'tiny.png': (60, 80)}

def bad_files(d, photo):
    Image.fromarray(photo).save(d/'whole.tmp', 'JPEG'); data = (d/'whole.tmp').read_bytes(); (d/'whole.tmp').unlink()
    (d/'truncated.jpg').write_bytes(data[:len(data)//2]); (d/'empty.png').write_bytes(b''); (d/'text.jpg').write_text('not a picture')
    return ['truncated.jpg', 'empty.png', 'text.jpg']

@pytest.mark.parametrize('path', PORTRAITS, ids=lambda p: p.stem)
def test_portraits_are_cut_out(matter, path):
    cut = matter(read_image(path, bg=None)); truth = read_alpha(path)
    assert iou(cut.alpha, truth) > (.7 if path.stem == 'camera' else .9)
    assert set(np.unique(cut.trimap)) == {0, 128, 255}
    for o in (cut.rough, cut.alpha): assert o.dtype == np.float32 and o.shape == truth.shape and 0 <= o.min() and o.max() <= 1

def test_a_mixed_folder(tmp_path, photo, capsys):
    src, out = tmp_path/'in', tmp_path/'out'; src.mkdir()
    good, bad = odd_files(src, photo), bad_files(src, photo)
    (src/'.hidden.jpg').write_text('x'); (src/'notes.txt').write_text('x')
    status = dim_cutout([str(src), '--out', str(out), '--alpha', '--trimap', '--bg', 'white', '--sheet', '--device', 'cpu'])
    got = capsys.readouterr()
    assert status == 1
    for n in bad: assert n in got.err
    for n in good: assert n not in got.err
    names = {Path(n).stem for n in good}
    assert {p.name for p in out.iterdir()} == {f'{n}{s}.png' for n in names for s in ('', '_alpha', '_trimap', '_bg')} | {'contact_sheet.png'}
    ref = None
    for n, size in good.items():
        im = Image.open(out/f'{Path(n).stem}.png')
        assert im.mode == 'RGBA' and im.size == size, n
        if n == 'UPPER.JPG': ref = np.asarray(im)[...,3]/255
    for n in ('rotated', 'webp', 'bmp', 'deep', 'cmyk', 'palette'): assert iou(read_alpha(out/f'{n}.png'), ref) > .95, n

def test_same_stem_twice(tmp_path, photo):
    for n in ('me.jpg', 'me.png'): Image.fromarray(photo).resize((96, 96)).save(tmp_path/n)
    assert dim_cutout([str(tmp_path), '--out', str(tmp_path/'out'), '--device', 'cpu']) == 0
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['me-2.png', 'me.png']

def test_one_input_named_as_anothers_alpha(tmp_path, photo):
    for n in ('me.jpg', 'me_alpha.jpg', 'contact_sheet.jpg'): Image.fromarray(photo).resize((96, 96)).save(tmp_path/n)
    assert dim_cutout([str(tmp_path), '--out', str(tmp_path/'out'), '--alpha', '--sheet', '--device', 'cpu']) == 0
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['contact_sheet-2.png', 'contact_sheet-2_alpha.png', 'contact_sheet.png', 'me.png', 'me_alpha-2.png', 'me_alpha-2_alpha.png', 'me_alpha.png']

def test_one_drawn_trimap_for_one_file(tmp_path, photo, matter):
    Image.fromarray(photo).save(tmp_path/'p.jpg'); Image.fromarray(matter(photo).trimap).save(tmp_path/'t.png')
    assert dim_cutout([str(tmp_path/'p.jpg'), '--out', str(tmp_path/'out'), '--trimap_in', str(tmp_path/'t.png'), '--device', 'cpu']) == 0
    assert dim_cutout([str(tmp_path/'missing.jpg'), '--out', str(tmp_path/'out'), '--device', 'cpu']) == 1

def test_never_overwrites_its_input(tmp_path, photo, capsys):
    Image.fromarray(photo).resize((96, 96)).save(tmp_path/'me.png'); before = (tmp_path/'me.png').read_bytes()
    assert dim_cutout([str(tmp_path/'me.png'), '--out', str(tmp_path), '--device', 'cpu']) == 1
    assert 'overwrite' in capsys.readouterr().err and (tmp_path/'me.png').read_bytes() == before

def test_drawn_trimaps(tmp_path, photo, matter, capsys):
    src = tmp_path/'in'; src.mkdir()
    for n in ('a', 'b', 'c'): Image.fromarray(photo).save(src/f'{n}.jpg')
    tri = matter(photo).trimap; (tmp_path/'tri').mkdir()
    Image.fromarray(tri).save(tmp_path/'tri/a.png'); Image.fromarray(tri[:-3]).save(tmp_path/'tri/b_trimap.png')
    assert dim_cutout([str(src), '--out', str(tmp_path/'out'), '--trimap_in', str(tmp_path/'tri'), '--alpha', '--device', 'cpu']) == 1
    err = capsys.readouterr().err
    assert 'b' in err and 'c.jpg' in err and 'no trimap' in err
    a = np.asarray(Image.open(tmp_path/'out/a_alpha.png'))
    assert (a[tri == 0] == 0).all() and (a[tri == 255] == 255).all()

@pytest.mark.parametrize('argv', [['x.jpg'], ['--out', 'o'], ['x.jpg', '--out', 'o', '--bg', 'no-such-colour'], ['x.jpg', '--out', 'o', '--size', '1'],
                                  ['x.jpg', '--out', 'o', '--trimap_in', 'nowhere'], ['x.jpg', '--out', 'o', '--weights', 'nowhere'], ['x.jpg', '--out', 'o', '--device', 'tpu']])
def test_wrong_arguments_exit_with_2(argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: dim_cutout(argv)
    assert e.value.code == 2

def test_nobody_there(matter):
    with pytest.warns(UserWarning, match='nobody'): cut = matter(np.full((200, 300, 3), 127, np.uint8))
    assert cut.alpha.max() == 0 and cut.rough.max() == 0 and cut.rgba.size == (300, 200)

@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT/'data/backgrounds').glob('*.jpg')))
def test_no_ghost_before_a_background(matter, name):
    with pytest.warns(UserWarning, match='nobody'): cut = matter(ROOT/f'data/backgrounds/{name}.jpg')
    assert cut.alpha.max() == 0

@pytest.mark.parametrize('size', [(1, 1), (17, 3), (64, 5000), (5000, 64), (333, 517)])
def test_any_size(matter, photo, size):
    h, w = size; im = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); cut = matter(im)
    for o in (cut.trimap, cut.rough, cut.alpha): assert o.shape == (h, w) and np.isfinite(o).all() and o.min() >= 0
    assert cut.foreground.shape == (h, w, 3) and cut.foreground.dtype == np.uint8 and cut.alpha.max() <= 1 and cut.rgba.size == (w, h)
    unknown = np.full((h, w), 128, np.uint8)
    assert matter(im, unknown).alpha.shape == (h, w)

@pytest.mark.parametrize('n', [1, 50, 448+64, 448+65, 3001])
def test_weights_of_tiles_sum_to_one(n):
    total = np.zeros(n)
    for look, keep, w in _axis(n, 448, 64, 64): total[keep] += w; assert look.start%32 == 0
    np.testing.assert_allclose(total, 1, atol=1e-6)

def test_tiles_leave_no_seam(matter, photo):
    "The same picture in one pass and in nine tiles: near each other everywhere, and no step where tiles meet"
    import torch
    im = cv2.resize(photo, (512, 512), interpolation=cv2.INTER_AREA)
    cut = matter(im); t = cut.trimap
    with torch.inference_mode():
        one, many = _matte(matter.matting_net, im, t), _matte(matter.matting_net, im, t, one_pass=0, step=192)
        fine = [_refine(matter.refine_net, im, one, step, 0) for step in (64, 128, 4096)]
    d = np.abs(many-one)[t == 128]
    assert d.mean() < .05 and (d > .5).mean() < .03, (d.mean(), d.max())
    jump = lambda a, b: np.abs((a[:, b]-a[:, b-1])-(one[:, b]-one[:, b-1]))[t[:, b] == 128].max(initial=0)
    assert max(jump(many, b) for b in (160, 224, 352, 416)) < .2     # where the ramps begin and end
    for f in fine[:2]: assert np.abs(f-fine[2])[(one > .01) & (one < .99)].max() < 1e-4

def test_a_tile_with_nothing_to_do_is_not_run():
    where, base = np.zeros((1000, 1000), bool), np.zeros((1000, 1000), np.float32); where[900, 900] = True; seen = []
    out = in_tiles(lambda a: (seen.append(a.shape), a*0+1)[1], base, where, [np.zeros_like(base)], 256, 0, 32)
    assert len(seen) == 1 and out.sum() == (1000-768)**2

def test_folded_networks_say_the_same():
    import torch
    from dim_nb.refine import RefineNet, matting_unet
    torch.manual_seed(0); net, refine = matting_unet(), RefineNet()
    for n in (*net.modules(), *refine.modules()):
        if isinstance(n, torch.nn.BatchNorm2d): n.running_mean.normal_(0, .1); n.running_var.uniform_(.5, 2); n.weight.data.uniform_(.5, 1.5); n.bias.data.normal_(0, .1)
    torch.nn.init.normal_(refine.convs[-1].weight, std=.1)
    names = list(net.state_dict()); folded, fref = _fold(net), _fold(refine); net.eval(); refine.eval()
    with torch.no_grad():
        for seed in (1, 2):
            x = torch.rand(1, 4, 96, 64, generator=torch.Generator().manual_seed(seed))
            assert (net(x)-folded(x)).abs().max() < 1e-4 and (refine(x[:, :3], x[:, 3:])-fref(x[:, :3], x[:, 3:])).abs().max() < 1e-4
    assert list(net.state_dict()) == names

def test_every_unknown_pixel_of_a_large_drawn_trimap_counts(matter, photo):
    big = cv2.resize(photo, (1500, 1500), interpolation=cv2.INTER_CUBIC); tri = cv2.resize(matter(photo).trimap, (1500, 1500), interpolation=cv2.INTER_NEAREST)
    tri[tri == 128] = 255; tri[700:701, 300:1200] = 128; tri[10, 10] = 128           # unknown: one row, and one pixel
    small = _shrink_trimap(tri, (640, 640))
    assert (small[298, 150:500] == 128).any() or (small[299, 150:500] == 128).any()
    assert small[4, 4] == 128
    cut = matter(big, tri)
    assert (cut.alpha[tri == 0] == 0).all() and (cut.alpha[tri == 255] == 1).all() and (cut.trimap == tri).all()

def test_detail_of_a_large_picture_comes_back():
    "A thin line that the small picture only hints at is drawn at full size, and tiles agree with one another"
    rng = np.random.default_rng(0); a = np.zeros((1200, 1200), np.float32); a[:, :600] = 1
    for y in range(40, 1200, 80): cv2.line(a, (600, y), (680, y+30), 1., 3, cv2.LINE_AA)
    im = np.clip(a[..., None]*[40, 30, 20]+(1-a[..., None])*[200, 210, 220]+rng.normal(0, 2, (1200, 1200, 3)), 0, 255).astype(np.uint8)
    small, coarse = (cv2.resize(o, (300, 300), interpolation=cv2.INTER_AREA) for o in (im, a)); coarse = cv2.blur(coarse, (3, 3))
    up = cv2.resize(coarse, (1200, 1200), interpolation=cv2.INTER_CUBIC).clip(0, 1); where = (coarse > .01) & (coarse < .99)
    fine = [add_detail(up.copy(), im, small, coarse, where, step) for step in (200, 512, 5000)]
    assert np.abs(fine[0]-a).sum() < .9*np.abs(up-a).sum()
    assert max(np.abs(f-fine[0]).max() for f in fine) < 1e-4

def test_colours_are_right_at_any_size():
    "Composed from a known foreground: its colour comes back where it can be seen, the photograph's own where alpha is 1"
    rng = np.random.default_rng(0); h, w = 700, 900; a = np.clip(1.5-np.hypot(*(np.mgrid[:h, :w]-np.array([350, 450])[:, None, None]))/200, 0, 1).astype(np.float32)
    F = cv2.resize(rng.integers(0, 255, (7, 9, 3)).astype(np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
    im = (a[..., None]*F+(1-a[..., None])*[20, 200, 40]+.5).astype(np.uint8)
    f = foreground_colours(im, a)
    assert (f[a == 1] == im[a == 1]).all() and f.dtype == np.uint8
    see = (a > .3) & (a < 1)
    assert np.abs(f.astype(int)-F)[see].mean() < .65*np.abs(im.astype(int)-F)[see].mean()

def test_seconds_of_each_stage(matter, photo):
    cut = matter(photo)
    assert set(cut.times) == {'trimap', 'matting', 'refinement', 'detail', 'foreground'} and all(v >= 0 for v in cut.times.values())

@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_24_megapixels_within_2_gb(tmp_path, photo):
    "The whole command, with everything it can write, in a fresh process"
    Image.fromarray(photo[:427]).resize((6000, 4000)).save(tmp_path/'p.jpg', quality=90)
    code = f'''
import re, sys
from dim_nb.pipeline import dim_cutout
status = dim_cutout([r"{tmp_path/'p.jpg'}", '--out', r"{tmp_path/'out'}", '--device', 'cpu', '--alpha', '--trimap', '--bg', 'white', '--sheet'])
print('peak', int(re.search('VmHWM: *([0-9]+)', open('/proc/self/status').read().replace(chr(9), ' '))[1])//1024); sys.exit(status)'''
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    peak = int(r.stdout.split('peak')[-1])
    assert peak < 2000, f'{peak} MB'
    assert Image.open(tmp_path/'out/p.png').size == (6000, 4000)

def test_a_given_trimap_must_fit(matter, photo):
    with pytest.raises((ImageError, ValueError)): matter(photo, np.full((9, 9), 128, np.uint8))

def test_inputs_of_every_kind_agree(matter, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path/'p.png')
    one = matter(photo).alpha
    for src in (Image.fromarray(photo), tmp_path/'p.png', str(tmp_path/'p.png'), photo/255.): assert np.abs(matter(src).alpha-one).max() < 1e-3

def test_no_network_at_run_time(tmp_path, photo):
    "Sockets are forbidden while a photograph is cut out by a fresh process"
    Image.fromarray(photo).resize((128, 128)).save(tmp_path/'p.png')
    code = f'''
import socket, sys
class Forbidden(socket.socket):
    def __init__(self, *a, **k): raise OSError('the network was touched')
socket.socket = Forbidden
from dim_nb.pipeline import dim_cutout
sys.exit(dim_cutout([r"{tmp_path/'p.png'}", '--out', r"{tmp_path/'out'}", '--device', 'cpu']))'''
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert (tmp_path/'out/p.png').exists()

def test_weights_are_the_published_ones():
    folder = ROOT/'dim_nb/weights'; sums = json.loads((folder/'sha256.json').read_text())
    files = sorted(folder.glob('*.safetensors'))
    assert {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files} == sums
    assert sorted(sums) == ['matting.safetensors', 'refine.safetensors', 'trimap.safetensors']
    assert sum(f.stat().st_size for f in files) < 26e6

def test_a_long_folder_shows_a_bar_and_writes_its_sheets_page_by_page(tmp_path, capsys, photo):
    small = Image.fromarray(photo).resize((24, 24)); (tmp_path/'in').mkdir()
    for i in range(43): small.save(tmp_path/'in'/f'{i:03}.png')
    small.save(tmp_path/'in'/'contact_sheet_2.png'); (tmp_path/'in'/'020b.png').write_bytes((tmp_path/'in'/'001.png').read_bytes()[:60])
    assert dim_cutout([str(tmp_path/'in'), '--out', str(tmp_path/'out'), '--sheet', '--device', 'cpu']) == 1
    out, err = capsys.readouterr(); lines = [l for l in out.splitlines() if l.startswith('[')]
    assert len(lines) == 44 and err.count('failed') == 1 and '020b.png' in err and '45/45' in err      # the bar ends full
    assert '44 of 45 cut out in' in out and 'images a second' in out and '1 failed' in out
    names = {p.name for p in (tmp_path/'out').iterdir()}
    assert {'contact_sheet.png', 'contact_sheet_2.png', 'contact_sheet_2-2.png'} <= names and len(names) == 46
    a, b = (Image.open(tmp_path/'out'/f'contact_sheet{k}.png').size for k in ('', '_2'))
    assert a == (1000, 24+40*220) and b == (1000, 24+4*220)

def test_a_short_folder_shows_no_bar(tmp_path, capsys, photo):
    Image.fromarray(photo).resize((24, 24)).save(tmp_path/'a.png'); dim_cutout([str(tmp_path), '--out', str(tmp_path/'out'), '--device', 'cpu'])
    assert '%|' not in capsys.readouterr().err

def test_colours_leave_torch_its_threads():
    code = """import torch, numpy as np, cv2; torch.set_num_threads(1); from dim_nb.pipeline import foreground_colours
foreground_colours(np.zeros((64,64,3), np.uint8), np.full((64,64), .5, np.float32)); print(torch.get_num_threads())"""
    env = {k: v for k,v in os.environ.items() if k not in ('NUMBA_NUM_THREADS', 'OMP_NUM_THREADS')}
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=True).stdout
    assert out.split() == ['1']

def test_what_the_trimap_network_is_sure_of_is_obeyed(matter, photo, monkeypatch):
    "A matting network that says ½ everywhere changes only what is not sure"
    from dim_nb.trimap import trimap_probs, probs_to_trimap, sure_known
    monkeypatch.setattr('dim_nb.pipeline._matte', lambda net, work, tri: np.full(tri.shape, .5, np.float32)); c = matter(photo)
    p = trimap_probs(matter.trimap_net, photo); t = probs_to_trimap(p, photo.shape[:2]); sure = sure_known(p, t)
    assert sure.any() and (sure <= (t != 128)).all() and (c.alpha[sure] == (t == 255)[sure]).all()
    assert .2 < np.median(c.alpha[~sure]) < .8

def test_the_guided_filter_is_the_one_of_the_paper():
    "Against least squares, window by window, in double precision"
    import torch
    from dim_nb.refine import guided_alpha
    rng = np.random.default_rng(0); im = cv2.GaussianBlur(rng.random((24, 20, 3)).astype(np.float32), (0,0), 2); a = rng.random((24, 20)).astype(np.float32); r, eps = 2, 1e-3
    out = guided_alpha(torch.from_numpy(im).permute(2,0,1)[None], torch.from_numpy(a)[None,None], r, eps)[0,0].numpy()
    co = np.zeros((24, 20, 4))
    for y in range(24):
        for x in range(20):
            w = np.s_[max(0,y-r):y+r+1, max(0,x-r):x+r+1]; I = im[w].reshape(-1,3).astype(float); q = a[w].ravel().astype(float); d = I-I.mean(0)
            co[y,x,:3] = np.linalg.solve(d.T@d/len(I)+eps*np.eye(3), d.T@(q-q.mean())/len(I)); co[y,x,3] = q.mean()-co[y,x,:3]@I.mean(0)
    for y in range(24):
        for x in range(20):
            k = co[max(0,y-r):y+r+1, max(0,x-r):x+r+1].reshape(-1,4).mean(0)
            assert abs(np.clip(k[:3]@im[y,x]+k[3], 0, 1)-out[y,x]) < 2e-3
