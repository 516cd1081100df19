"The ONNX graphs against torch, and what the runtime refuses."
import shutil, subprocess, sys
from pathlib import Path
import cv2, numpy as np, pytest
from dim_nb.images import read_image
from dim_nb.onnx import GRAPHS, OnnxNets, cuda_runtime, dim_export, export_onnx, session_threads
from dim_nb.pipeline import PortraitMatter

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT/'dim_nb/weights'
PORTRAITS = sorted((ROOT/'data/portraits').glob('*.png'))
FILES = {name: WEIGHTS/f'{name}.onnx' for name in GRAPHS}

@pytest.fixture(scope='module')
def nets(): return OnnxNets(FILES)

@pytest.fixture(scope='module')
def by_torch(): return PortraitMatter.load(device='cpu', backend='torch').nets

def run_torch(nets, name, x):
    "What a graph's network, and what follows it there, makes of a batch"
    import torch
    net = getattr(nets, f'{name}_net')
    with torch.inference_mode(): return GRAPHS[name][1](net, torch.from_numpy(x)).numpy()

@pytest.mark.parametrize('path', PORTRAITS, ids=lambda p: p.stem)
def test_the_three_networks_agree_with_torch(nets, by_torch, path):
    photo = read_image(path, bg=None)
    assert np.abs(nets.trimap_probs(photo)-by_torch.trimap_probs(photo)).max() <= 1e-3
    trimap = np.full(photo.shape[:2], 128, np.uint8)
    trimap[:50], trimap[-50:] = 0, 255
    rough = by_torch.rough_alpha(photo, trimap)
    assert np.abs(nets.rough_alpha(photo, trimap)-rough).max() <= 1e-3
    assert np.abs(nets.refined_alpha(photo, rough)-by_torch.refined_alpha(photo, rough)).max() <= 1e-3

@pytest.mark.parametrize('size', [(1, 1), (17, 3), (64, 500), (333, 217)])
def test_odd_sizes_agree_with_torch(nets, by_torch, size):
    photo = cv2.resize(read_image(PORTRAITS[-1], bg=None), size[::-1], interpolation=cv2.INTER_AREA)
    trimap = np.full(size, 128, np.uint8)
    assert np.abs(nets.trimap_probs(photo)-by_torch.trimap_probs(photo)).max() <= 1e-3
    rough = by_torch.rough_alpha(photo, trimap)
    assert rough.shape == size and np.abs(nets.rough_alpha(photo, trimap)-rough).max() <= 1e-3
    assert np.abs(nets.refined_alpha(photo, rough)-by_torch.refined_alpha(photo, rough)).max() <= 1e-3

@pytest.mark.parametrize('name', GRAPHS)
def test_a_batch_of_three_agrees_with_torch(nets, by_torch, name):
    x = np.random.default_rng(0).random((3, GRAPHS[name][0], 96, 160)).astype(np.float32)
    assert np.abs(nets.run(name, x)-run_torch(by_torch, name, x)).max() <= 1e-3

@pytest.mark.parametrize('name', ['trimap', 'matting'])
def test_the_graphs_pad_by_themselves(name):
    "timm's padding is no arithmetic on sizes and no copy of all planes, but a word of the convolution's"
    nodes = pytest.importorskip('onnx').load(FILES[name], load_external_data=False).graph.node
    assert not {'Pad', 'Softmax', 'ConstantOfShape'} & {o.op_type for o in nodes} and len(nodes) < 700
    words = [a.s for o in nodes if o.op_type == 'Conv' for a in o.attribute if a.name == 'auto_pad']
    assert words == [b'SAME_UPPER']*5

def save_random(folder, name, spec):
    "A network of random weights and lively batch norms, saved for shipping"
    import torch
    from dim_nb.training import save_weights
    from dim_nb.unet import build_net
    torch.manual_seed(0)
    net = build_net(spec)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, .1)
            module.running_var.uniform_(.5, 2)
    save_weights(net, folder/f'{name}.safetensors')

@pytest.mark.parametrize('widths', [(96, 64, 48, 32, 16), (64, 48, 32, 24)])
def test_a_thin_network_is_exported(tmp_path, widths):
    "Bilinear enlarging in the graph is torch's, at every size and batch"
    from dim_nb.unet import load_net
    spec = dict(decoder='thin', encoder='lite0', n_in=4, n_out=1, widths=list(widths), y_range=[-.02, 1.02])
    save_random(tmp_path, 'matting', spec)
    assert export_onnx(tmp_path) == {'matting': tmp_path/'matting.onnx'}
    nets, torch_nets = OnnxNets({'matting': tmp_path/'matting.onnx'}), type('Nets', (), {})
    torch_nets.matting_net = load_net(tmp_path/'matting.safetensors')[0]
    for shape in ((1, 4, 64, 96), (3, 4, 160, 32), (1, 4, 224, 352)):
        x = np.random.default_rng(0).random(shape).astype(np.float32)
        assert np.abs(nets.run('matting', x)-run_torch(torch_nets, 'matting', x)).max() <= 1e-3
    image = np.random.default_rng(1).integers(0, 255, (77, 131, 3)).astype(np.uint8)
    assert nets.rough_alpha(image, np.full((77, 131), 128, np.uint8)).shape == (77, 131)

def test_weights_are_stored_once(tmp_path):
    assert sum(f.stat().st_size for f in FILES.values()) < 1e6
    shutil.copy(WEIGHTS/'refine.safetensors', tmp_path)
    files = export_onnx(tmp_path)
    again = export_onnx(tmp_path, tmp_path/'again')
    assert files['refine'].read_bytes() == again['refine'].read_bytes()   # equal runs export equal bytes
    assert sorted(f.name for f in (tmp_path/'again').iterdir()) == ['refine.onnx', 'refine.safetensors']

def test_the_shipped_graphs_belong_to_the_shipped_weights(nets): assert set(nets.sessions) == set(GRAPHS)

def copied(tmp_path):
    for f in WEIGHTS.iterdir(): shutil.copy(f, tmp_path)
    return {name: tmp_path/f'{name}.onnx' for name in GRAPHS}

def test_other_weights_are_refused(tmp_path):
    files = copied(tmp_path)
    data = bytearray(files['matting'].with_suffix('.safetensors').read_bytes())
    data[-5] ^= 4
    files['matting'].with_suffix('.safetensors').write_bytes(data)
    with pytest.raises(ValueError, match='other weights.*dim_export'): OnnxNets(files)

@pytest.mark.parametrize('damage', [b'', b'no graph', None])
def test_damaged_graphs_and_cut_weights_are_named(tmp_path, damage):
    files = copied(tmp_path)
    weights = files['refine'].with_suffix('.safetensors')
    if damage is None: weights.write_bytes(weights.read_bytes()[:2000])
    else: files['refine'].write_bytes(damage)
    with pytest.raises(ValueError, match='refine.onnx.*dim_export'): OnnxNets(files)

def test_missing_weights_are_named(tmp_path):
    files = copied(tmp_path)
    files['refine'].with_suffix('.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='refine.safetensors'): OnnxNets(files)

@pytest.mark.skipif(cuda_runtime(), reason='this ONNX Runtime has CUDA')
def test_cuda_is_never_silently_the_cpu():
    with pytest.raises(ValueError, match='no CUDA'): OnnxNets(FILES, 'cuda')

def test_threads_are_those_that_are_allowed(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert session_threads() == 3
    monkeypatch.delenv('OMP_NUM_THREADS')
    assert session_threads() >= 1

def test_a_missing_runtime_is_one_line():
    code = """import sys; sys.modules['onnxruntime'] = None
from dim_nb.pipeline import PortraitMatter
try: PortraitMatter.load(backend='onnx', device='cpu')
except ImportError as e: print(e)"""
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.count('\n') == 1 and 'pip install onnxruntime' in out

def test_export_needs_weights(tmp_path):
    with pytest.raises(SystemExit) as e: dim_export(str(tmp_path/'nowhere'), str(tmp_path/'out'))
    assert 'nowhere' in str(e.value.code) and '\n' not in str(e.value.code)
    assert not (tmp_path/'out').exists()
