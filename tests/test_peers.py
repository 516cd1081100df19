"Other methods behind one interface: what they are given, what they give back, what is said when one is missing."
import subprocess, sys
from pathlib import Path
import numpy as np, pytest
from dim_nb.onnx import session_threads
from dim_nb.peers import (ClosedFormMatter, OnnxMatter, Peer, check_peers, load_peers, machine_record,
                          parse_onnx, set_threads, weights_record)
from dim_nb.pipeline import Cutout
from onnx_by_hand import tiny_onnx
from scenes import scene

ROOT = Path(__file__).resolve().parent.parent

def test_a_peer_must_give_an_alpha_of_the_pictures_size():
    im = scene(0)[0]
    with pytest.raises(ValueError, match=r'short: gave \(3, 3\)'):
        Peer('short', lambda im: np.zeros((3, 3)))(im)
    with pytest.raises(ValueError, match='no numbers'):
        Peer('nan', lambda im: np.full(im.shape[:2], np.nan))(im)
    a = Peer('wide', lambda im: np.full(im.shape[:2], 2.))(im)
    assert a.dtype == np.float32 and (a == 1).all()

def test_closed_form_is_one_method_in_two_clothes():
    im, _, t = scene(0)
    cut, peer = ClosedFormMatter()(im, t), load_peers('cf')[0]
    assert isinstance(cut, Cutout) and cut.rgba.mode == 'RGBA' and cut.foreground.shape == im.shape
    np.testing.assert_array_equal(cut.alpha, peer(im, t))
    np.testing.assert_array_equal(ClosedFormMatter(t)(im).alpha, cut.alpha)
    np.testing.assert_array_equal(ClosedFormMatter(lambda image: t)(im).alpha, cut.alpha)

@pytest.mark.parametrize('value', [0, 128, 255])
def test_classical_methods_with_one_kind_of_known_pixels(value):
    im, _, t = scene(0)
    for peer in load_peers(['cf', 'shared']):
        np.testing.assert_array_equal(peer(im, np.full_like(t, value)), float(value == 255))

def test_names_are_checked_before_anything_is_loaded():
    assert check_peers('cf, shared,cf') == (['cf', 'shared'], [])
    assert check_peers(['cf'], 'cf=mine.onnx') == ([], ['cf=mine.onnx'])
    with pytest.raises(ValueError, match='no peer'):
        check_peers(['closed'])
    with pytest.raises(ValueError, match='used twice'):
        check_peers([], ['a=x', 'a=y'])
    with pytest.raises(ValueError, match='our own name'):
        check_peers([], ['ours=x'])

def test_mediapipe_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mediapipe', None)
    with pytest.raises(ImportError, match=r'pip install mediapipe==0\.10\.21'):
        load_peers(['mediapipe'])

def test_onnxruntime_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match='pip install onnxruntime'):
        load_peers([], ['m=m.onnx'])

def test_onnx_peer(tmp_path):
    pytest.importorskip('onnxruntime')
    im, raw = scene(0)[0], '?mean=0&std=1&'
    grey = im.astype(np.float32).mean(2)/255
    def alpha(text): return load_peers([], [text])[0](im)
    f = tiny_onnx(tmp_path/'m.onnx', ['n', 3, 'h', 'w'])
    np.testing.assert_allclose(alpha(f'm={f}{raw}size=48x40'), grey, atol=1e-5)
    fixed = tiny_onnx(tmp_path/'f.onnx', [1, 3, 40, 48])
    np.testing.assert_allclose(alpha(f'm={fixed}{raw}size=999'), grey, atol=1e-5)
    last = tiny_onnx(tmp_path/'l.onnx', ['n', 'h', 'w', 3], axis=3)
    np.testing.assert_allclose(alpha(f'm={last}?mean=0&std=255&size=48x40'), grey, atol=1e-5)
    np.testing.assert_allclose(alpha(f'modnet={fixed}'), np.clip((grey*255-127.5)/127.5, 0, 1), atol=1e-5)
    s = alpha(f'm={fixed}?stretch=1')
    assert s.min() == 0 and s.max() == pytest.approx(1, abs=1e-5)
    info = load_peers([], [f'tiny={fixed}{raw}'])[0].info
    assert info['file'] == 'f.onnx' and len(info['sha256']) == 64 and info['settings']['std'] == (1.,)

def test_onnx_sizes(tmp_path):
    pytest.importorskip('onnxruntime')
    f = tiny_onnx(tmp_path/'m.onnx', ['n', 3, 'h', 'w'])
    def size(text, *hw):
        _, file, settings = parse_onnx(text)
        return OnnxMatter(file, settings).size(*hw)
    assert size(f'modnet={f}', 300, 200) == (768, 512)
    assert size(f'x={f}', 300, 200) == (512, 352)
    assert size(f'u2netp={f}', 300, 200) == (320, 320)
    assert size(f'x={f}?size=256&side=short&multiple=16', 300, 200) == (384, 256)
    assert size(f'x={f}', 6000, 10) == (512, 32)

def test_files_that_are_no_models(tmp_path):
    pytest.importorskip('onnxruntime')
    (tmp_path/'bad.onnx').write_text('not a model')
    with pytest.raises(ValueError, match='cannot load'):
        load_peers([], [f'x={tmp_path/"bad.onnx"}'])
    with pytest.raises(ValueError, match='one of shape'):
        load_peers([], [f'x={tiny_onnx(tmp_path/"d.onnx", [3, 4])}'])
    with pytest.raises(ValueError, match='no number 3'):
        load_peers([], [f'x={tiny_onnx(tmp_path/"m.onnx", [1, 3, 32, 32])}?out=3'])
    with pytest.raises(FileNotFoundError, match='none.onnx'):
        load_peers([], ['x=none.onnx'])

def test_threads_are_the_same_for_all(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert session_threads() == 3 and machine_record()['threads'] == 3
    set_threads(1)
    assert session_threads() == 1
    monkeypatch.setenv('OMP_NUM_THREADS', 'many')
    assert session_threads() >= 1

def test_weights_are_known_by_their_sums(tmp_path):
    (tmp_path/'a.safetensors').write_bytes(b'x')
    (tmp_path/'b.txt').write_bytes(b'x')
    record = weights_record(tmp_path)
    assert list(record) == ['a.safetensors'] and len(record['a.safetensors']) == 64

def test_import_is_light():
    heavy = (
    'torch',
    'fastai',
    'pandas',
    'nbdev',
    'IPython',
    'onnxruntime',
    'mediapipe',
    'pymatting',
    'matplotlib',
     'scipy')
    code = f'import sys, dim_nb.peers; print(*[m for m in {heavy} if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0 and not r.stdout.split(), r.stdout+r.stderr
