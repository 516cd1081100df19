"The viewer: what a notebook cell is the wrong place for"
import ast
import asyncio
import sys
import time
import types
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip('ipycanvas')
import dim_nb.viewer as viewer  # noqa: E402
from dim_nb.metrics import METRICS, Measure  # noqa: E402
from dim_nb.show import BAR, GAP  # noqa: E402
from dim_nb.viewer import LAYERS, Item, enable_colab, file_stem, inspect_mattes, loupe_box, pane_boxes  # noqa: E402

REPO = Path(__file__).resolve().parents[1]
EVIL = '<img src=x onerror=alert(1)>'
size = st.integers(1, 5000)


def events(canvas, *evs):
    for kind, x, y in evs:
        canvas._handle_frontend_event(None, dict(event=f'mouse_{kind}', x=x, y=y), None)


def photo(h, w): return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def ramp(h, w): return np.linspace(0, 1, h*w, dtype=np.float32).reshape(h, w)


def imported(path):
    found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    return {f"{'.'*n.level}{n.module or ''}" for n in found}


def test_leaf():
    "Of the library only the fixer imports the viewer, and it imports light rooms and metrics alone"
    for p in (REPO/'dim_nb').glob('*.py'):
        if p.stem in ('viewer', 'fixer', '_modidx'):
            continue
        assert not {'.viewer', 'dim_nb.viewer'} & imported(p), p
    own = {n for n in imported(REPO/'dim_nb'/'viewer.py') if n.startswith(('.', 'dim_nb'))}
    assert own == {'.files', '.images', '.trimaps', '.show', '.metrics'}


@given(st.integers(1, 8), size, size)
def test_panes_fit(n, w, h):
    "Every pane lies on the canvas, none overlaps another, all are equal, and the canvas is no wider than its room"
    boxes, cw, ch = pane_boxes(n, w, h, 960, 600)
    assert len(boxes) == n and len({o[2:] for o in boxes}) == 1 and cw <= 960+n
    for x, y, pw, ph in boxes:
        assert x >= 0 and y >= BAR and x+pw <= cw and y+ph <= ch
    for i, (x, y, pw, ph) in enumerate(boxes):
        for X, Y, _, _ in boxes[:i]:
            assert abs(x-X) >= pw+GAP or abs(y-Y) >= ph+BAR


@given(size, size, st.integers(1, 900), st.integers(1, 200), st.sampled_from([2, 4, 8, 16]), st.data())
def test_loupe_stays_inside(w, h, lw, lh, zoom, data):
    "The loupe's window lies in the photo and holds the spot"
    x, y = data.draw(st.integers(0, w-1)), data.draw(st.integers(0, h-1))
    bx, by, bw, bh = loupe_box((x, y), (w, h), lw, lh, zoom)
    assert 0 <= bx <= x < bx+bw <= w and 0 <= by <= y < by+bh <= h


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_tiny_items(h, w):
    "Any size can be shown, wiped, magnified and saved"
    a = ramp(h, w)
    insp = inspect_mattes(Item(photo(h, w), np.full((h, w), 128, np.uint8), a, a, a), layers=tuple(LAYERS))
    insp.later.flush()
    insp.key('w')
    insp.later.flush()
    events(insp.canvas[-1], ('move', 1, BAR+1), ('down', 1, BAR+1))
    insp.later.flush()
    assert insp.picture().shape[:2] == (h+BAR, w) and insp.loupe.value[:4] == b'\x89PNG'


@pytest.mark.parametrize('h,w', [(10, 4000), (4000, 10), (3000, 4000)])
def test_odd_shapes(h, w, tmp_path):
    "Panoramas, towers and 12 megapixels"
    insp = inspect_mattes([dict(photo=photo(h, w)), dict(photo=photo(5, 5))], save_to=tmp_path)
    insp.later.flush()
    insp.key('n')
    insp.key('p')
    insp.later.flush()
    assert max(insp.canvas.width, insp.canvas.height) <= 1000 and insp.sent < 2_000_000
    assert insp.save().exists()


def test_nothing_is_an_error():
    with pytest.raises(ValueError, match='nothing to inspect'):
        inspect_mattes([])


def test_faults_do_not_spread(tmp_path):
    "Truncated files, mattes of another size and functions that raise are named; the next item opens"
    (tmp_path/'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    (tmp_path/'text.jpg').write_text('hello')

    def boom(): raise RuntimeError('no such net')
    other_size = photo(4, 5), np.zeros((5, 4), np.float32)
    insp = inspect_mattes([tmp_path/'cut.png', tmp_path/'text.jpg', boom, other_size, photo(6, 6)])
    for i, word in enumerate(('cut.png', 'text.jpg', 'no such net', 'truth is 4x5')):
        insp.later.flush()
        assert insp.index == i and word in insp.problem and word in insp.title.value
        insp.key('n')
    insp.later.flush()
    assert insp.problem == '' and insp.item.photo.shape == (6, 6, 3)


def test_text_from_outside_is_no_markup(tmp_path):
    "Names of files, titles of dicts, texts of errors and names of uploads are shown, not run"
    (tmp_path/f'{EVIL}.png').write_text('no picture')

    def boom(): raise RuntimeError(EVIL)
    items = [tmp_path/f'{EVIL}.png', dict(photo=photo(4, 4), name=EVIL), boom]
    insp = inspect_mattes(items, save_to=tmp_path/EVIL)
    for _ in items:
        insp.later.flush()
        texts = [insp.title.value, insp.readout.value, insp.table.value, insp.hist.value]
        assert '<img' not in ''.join(texts) and '&lt;img' in insp.title.value
        insp.key('n')
    assert insp.save().parent == tmp_path/EVIL and '<img' not in insp.saved.value
    insp.upload = types.SimpleNamespace(value={EVIL: dict(content=EVIL.encode())})
    insp.uploaded()
    assert '<img' not in insp.saved.value and '&lt;img' in insp.saved.value


@given(st.text())
def test_file_stem_leaves_no_way_out(name):
    stem = file_stem(name)
    assert Path(stem).name == stem and stem not in ('', '.', '..') and len(stem) <= 100


def test_generator_and_custom_sequence():
    "Anything that can be listed, or that has a length and numbers"
    picture, asked = photo(8, 8), []

    class Lazy:
        def __len__(self): return 10**6

        def __getitem__(self, i):
            asked.append(i)
            return dict(photo=picture, name=str(i))
    insp = inspect_mattes(Lazy())
    insp.later.flush()
    insp.key('p')
    insp.later.flush()
    assert insp.index == 10**6-1 and len(set(asked)) <= 24+2   # two items and two pages of thumbnails
    assert len(inspect_mattes(photo(4, 4) for _ in range(3)).items) == 3


def test_two_inspectors_share_nothing():
    "What is done in one does not show in another, even over the same items"
    items = [photo(8, 8), photo(9, 9), photo(10, 10)]
    a, b = inspect_mattes(items), inspect_mattes(items)
    a.key('n')
    a.key('w')
    a.zoom.value, a.opacity.value = 8, .9
    a.toggles['truth'].value = True
    a.later.flush()
    b.later.flush()
    assert (b.index, b.wiping, b.zoom.value, b.opacity.value, b.toggles['truth'].value) == (0, False, 4, .45, False)

    def own(insp): return {id(o) for o in vars(insp).values() if isinstance(o, (dict, list)) and o is not items}
    assert not own(a) & own(b)


def test_constructor_reads_one_file(monkeypatch):
    "999 files: one is read for the first face, thumbnails come one page at a time"
    read, real = [], viewer.read_photo

    def read_one(x):
        read.append(x)
        return real(photo(6, 6))
    monkeypatch.setitem(viewer._READERS, 'photo', read_one)
    monkeypatch.setattr(viewer, '_thumbnail', lambda x, o=None, n=68: read.append(('thumb', x)))
    insp = inspect_mattes([f'{i}.png' for i in range(999)])
    assert read == ['0.png']
    insp.later.flush()
    assert len(read) == 1+12
    insp.key('End')
    insp.later.flush()
    assert '998.png' in read and len(read) == 1+12+1+3


@pytest.fixture
def colab(monkeypatch):
    "A stand-in for google.colab that counts how often its widget manager was asked for"
    asked, output = [], types.ModuleType('google.colab.output')
    output.enable_custom_widget_manager = lambda: asked.append(1)
    package = types.ModuleType('google.colab')
    package.output = output
    modules = {'google': types.ModuleType('google'), 'google.colab': package, 'google.colab.output': output}
    for k, v in modules.items():
        monkeypatch.setitem(sys.modules, k, v)
    return asked


def test_colab(colab, monkeypatch):
    "Colab's widget manager is on before anything is shown, and widgets are displayed, which is where Colab marks them"
    from dim_nb.fixer import fix_trimap
    from dim_nb.peers import ClosedFormMatter
    t = np.zeros((8, 8), np.uint8)
    t[:, 4:] = 255
    shown = []
    monkeypatch.setattr(viewer, 'display', lambda data, raw=False: shown.append((data, raw)))
    for w in (inspect_mattes(photo(8, 8)), fix_trimap(ClosedFormMatter(t), photo(8, 8))):
        w._ipython_display_()
    assert enable_colab() and len(colab) == 3 and len(shown) == 2
    for data, raw in shown:
        assert raw and set(data) == {'application/vnd.jupyter.widget-view+json', 'image/jpeg', 'text/plain'}


def test_all_canvases_are_in_the_page():
    "Colab makes only the widgets that a page contains; one that waits for a canvas outside it would wait for ever"
    def inside(w):
        parts = *getattr(w, 'children', ()), *getattr(w, '_canvases', ())
        return [w] + [p for o in parts for p in inside(o)]
    for n in (1, 2):
        insp = inspect_mattes([photo(8, 8)]*n)
        canvases = *insp.off, insp.strip, insp.canvas[0], insp.canvas[1]
        assert {id(o) for o in canvases} <= {id(o) for o in inside(insp.ui)}


def test_metrics_do_not_hold_the_kernel_up(monkeypatch):
    "In a running loop the metrics are computed on a thread; who leafs on does not wait for them"
    def slow(p, g):
        time.sleep(.3)
        return 7.
    monkeypatch.setitem(METRICS, 'conn', Measure(slow, 'Conn', '', slow=True))
    a = ramp(8, 8)

    async def leaf():
        insp = inspect_mattes([Item(photo(8, 8), alpha=a, truth=a)]*2)
        gaps, last, end = [], time.monotonic(), time.monotonic()+20
        while '7.00' not in insp.table.value and time.monotonic() < end:
            await asyncio.sleep(.01)
            gaps.append(time.monotonic()-last)
            last = time.monotonic()
        return insp.table.value, sorted(gaps)[-3]
    table, gap = asyncio.run(leaf())
    assert '7.00' in table and gap < .25


def test_static_picture_is_small():
    "What stays in a saved notebook, at worst: four panes of noise, which JPEG cannot pack"
    a = np.random.default_rng(0).random((600, 800), np.float32)
    insp = inspect_mattes(Item(photo(600, 800), np.full((600, 800), 128, np.uint8), a, a, a))
    assert len(insp._repr_mimebundle_()['image/jpeg']) < 250_000


def test_bad_upload_is_said():
    insp = inspect_mattes(photo(8, 8))
    insp.upload = types.SimpleNamespace(value={'x.png': dict(content=b'no picture')})
    insp.uploaded()
    assert 'x.png' in insp.saved.value and insp.on.value == 'checkerboard'
