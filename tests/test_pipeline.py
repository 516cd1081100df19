"The whole chain and the command, on files as people have them."
import hashlib, json, os, subprocess, sys
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb.core import ImageError, read_alpha, read_image, read_rgba
from dim_nb.pipeline import PortraitMatter, dim_cutout

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

def test_a_large_photograph(tmp_path, photo):
    Image.fromarray(photo).resize((6000, 4000)).save(tmp_path/'large.jpg')
    assert dim_cutout([str(tmp_path/'large.jpg'), '--out', str(tmp_path/'out'), '--device', 'cpu']) == 0
    assert Image.open(tmp_path/'out/large.png').size == (6000, 4000)

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
    assert cut.alpha.max() == 0 and cut.rgba.size == (300, 200)

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
