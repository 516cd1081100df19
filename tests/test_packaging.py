"What is shipped: the package's metadata, the wheel, the pocket data, and how quickly and lightly it starts."

import ast, fnmatch, hashlib, importlib.util, re, shutil, subprocess, sys, time, zipfile
from configparser import ConfigParser
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / 'data'
BANNED = (
    'torch torchvision fastai timm safetensors pandas numba pymatting matplotlib scipy onnx nbdev IPython jupyter '
    'jupyterlab jupyter_client jupyter_core ipykernel ipywidgets'
).split()
LIGHT = 'files images trimaps show labels guided onnx looks pipeline cutout'.split()


def settings():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def data_files():
    return [p.relative_to(DATA).as_posix() for p in sorted(DATA.rglob('*')) if p.is_file() and p.name != 'README.md']


def rows():
    "The rows of data/README.md's tables: file or pattern -> the row's text."
    found = re.findall(r'^\| `([^`]+)` \|(.*)\|$', (DATA / 'README.md').read_text(encoding='utf-8'), re.M)
    assert len(found) == len(dict(found)), 'a file has two rows'
    return dict(found)


def test_every_data_file_has_a_row():
    assert not [f for f in data_files() if not any(fnmatch.fnmatchcase(f, pat) for pat in rows())]


def test_every_row_has_its_file():
    fs = data_files()
    assert not [pat for pat in rows() if '*' not in pat and pat not in fs]


@pytest.mark.parametrize('f', [o for o in data_files() if o.startswith(('portraits/', 'backgrounds/'))])
def test_source_licence_and_sum(f):
    row = rows()[f]
    assert re.search(r'CC0|CC BY|public domain', row), 'no licence'
    assert re.search(r'(scikit-image|scikit-learn|matplotlib|face_recognition)\b', row), 'no source'
    assert re.search(r'`([0-9a-f]{64})`', row)[1] == hashlib.sha256((DATA / f).read_bytes()).hexdigest()


def test_data_is_small():
    assert sum((DATA / f).stat().st_size for f in data_files()) < 6_000_000


def test_portraits_are_rgba_with_their_background():
    import numpy as np
    from PIL import Image

    fs = sorted((DATA / 'portraits').glob('*.png'))
    assert len(fs) == 5
    for f in fs:
        im = Image.open(f)
        assert im.mode == 'RGBA', f.name
        a = np.asarray(im)
        assert a[a[..., 3] == 0][:, :3].std() > 10, f'{f.name}: no background under alpha 0'


def test_setup_does_not_need_pkg_resources():
    tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert 'pkg_resources' not in names


def test_version():
    import dim_nb

    assert settings()['version'] == dim_nb.__version__


def test_console_scripts_exist():
    for o in settings()['console_scripts'].split():
        mod, fn = o.split('=')[1].split(':')
        src = (ROOT / (mod.replace('.', '/') + '.py')).read_text(encoding='utf-8')
        assert re.search(rf'^(def|async def) {fn}\b|^{fn}\s*=', src, re.M), o


def test_licence():
    txt = (ROOT / 'LICENSE').read_text(encoding='utf-8')
    assert 'Apache License' in txt and 'Version 2.0' in txt and 'END OF TERMS AND CONDITIONS' in txt


def test_no_pickles():
    assert not [p for p in (ROOT / 'dim_nb').rglob('*') if p.suffix in ('.pth', '.pkl', '.pt', '.bin')]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    if not importlib.util.find_spec('setuptools'):
        pytest.skip('needs setuptools')
    try:
        import setuptools.command.bdist_wheel  # noqa: F401
    except ImportError:
        if not importlib.util.find_spec('wheel'):
            pytest.skip('needs wheel')
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('wheel')
    for f in 'settings.ini setup.py pyproject.toml README.md CHANGELOG.md LICENSE MANIFEST.in'.split():
        if (ROOT / f).exists():
            shutil.copy(ROOT / f, src)
    for d in 'dim_nb data nbs tests'.split():
        shutil.copytree(
            ROOT / d, src / d, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'runs', 'models')
        )
    cmd = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', out, src]
    r = subprocess.run(list(map(str, cmd)), capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return zipfile.ZipFile(next(out.glob('*.whl')))


def test_wheel_holds_code_and_weights_only(wheel):
    names = wheel.namelist()
    assert {n.split('/')[0].split('-')[0] for n in names} == {'dim_nb'}
    assert not [n for n in names if n.endswith(('.ipynb', '.png', '.jpg'))]
    pkg = {n for n in names if n.startswith('dim_nb/')}
    here = [p for p in (ROOT / 'dim_nb').rglob('*') if p.suffix in ('.py', '.json', '.safetensors')]
    assert pkg >= {p.relative_to(ROOT).as_posix() for p in here}
    assert [n for n in pkg if n.startswith('dim_nb/weights/') and n.endswith('.safetensors')]


def test_wheel_metadata(wheel):
    meta = wheel.read(next(n for n in wheel.namelist() if n.endswith('.dist-info/METADATA'))).decode()
    cfg = settings()
    for req in cfg['requirements'].split():
        assert f'Requires-Dist: {req}\n' in meta
    for x in 'dev train inspect kaggle scale hub heic peers'.split():
        assert f'Provides-Extra: {x}\n' in meta
    for x in ('torch', 'ipycanvas', 'ray', 'pillow-heif', 'kagglehub', 'huggingface_hub'):
        assert re.search(rf'^Requires-Dist: {x}\b.*extra == .dev.', meta, re.M), f'dev does not bring {x}'
    assert f"Version: {cfg['version']}\n" in meta and 'Requires-Python: >=3.10\n' in meta
    assert re.search(r'^License(-Expression)?: Apache-2\.0$', meta, re.M)
    scripts = wheel.read(next(n for n in wheel.namelist() if n.endswith('entry_points.txt'))).decode()
    for o in cfg['console_scripts'].split():
        assert o in scripts.replace(' ', '')


def test_runtime_is_light():
    "What `pip install .` brings is what the design allows, and nothing that trains"
    names = {re.match(r'[\w-]+', o)[0] for o in settings()['requirements'].split()}
    assert names == set('numpy opencv-python-headless pillow onnxruntime tqdm fastcore'.split())


def test_no_windows_of_opencv():
    "Whatever build of OpenCV is there will do, so what only `opencv-python` has is not used"
    windows = re.compile(r'cv2\.(imshow|waitKey|namedWindow|destroy\w+|setMouseCallback|createTrackbar|selectROI)')
    assert not [p.name for p in (ROOT / 'dim_nb').glob('*.py') if windows.search(p.read_text(encoding='utf-8'))]


@pytest.mark.parametrize('room', LIGHT)
def test_import_is_light(room):
    code = f'import sys, dim_nb.{room}; print(*[m for m in {BANNED!r} if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert not r.stdout.split()


NO_TRAINING = """
import sys
class Refuse:
    "An environment without what trains"
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {banned!r}: raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ['dim_cutout', {photo!r}, '--out', {out!r}, '--alpha', '--trimap']
from dim_nb.cutout import dim_cutout
sys.exit(dim_cutout())
"""


def test_cut_out_without_torch(tmp_path):
    "The command cuts out where nothing of the extras is installed"
    photo = tmp_path / 'biden.jpg'
    from PIL import Image

    Image.open(DATA / 'portraits' / 'biden.png').convert('RGB').save(photo, quality=95)
    code = NO_TRAINING.format(banned=BANNED, photo=str(photo), out=str(tmp_path / 'out'))
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'biden.png', 'biden_alpha.png', 'biden_trimap.png'}


def test_help_is_quick():
    mod, fn = dict(o.split('=') for o in settings()['console_scripts'].split())['dim_cutout'].split(':')
    code = f"import sys; sys.argv = ['dim_cutout', '--help']\nfrom {mod} import {fn}\nsys.exit({fn}())"
    best = 99
    for _ in range(3):
        t = time.perf_counter()
        r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
        best = min(best, time.perf_counter() - t)
        assert r.returncode == 0, r.stderr
        assert '--out' in r.stdout
        if best < 3:
            break
    assert best < 3, f'{best:.1f} s'
