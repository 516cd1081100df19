"The fixer: what a notebook cell is the wrong place for"
import numpy as np
import pytest
from hypothesis import given, strategies as st

pytest.importorskip('ipycanvas')
from dim_nb.fixer import fix_trimap  # noqa: E402
from dim_nb.peers import ClosedFormMatter  # noqa: E402
from dim_nb.trimaps import grow_band, shrink_band  # noqa: E402


def photo(h, w): return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def trimap(h, w, half=2):
    t = np.zeros((h, w), np.uint8)
    t[:, w//2:] = 255
    t[:, w//2-half:w//2+half] = 128
    return t


def fixer(h, w, **kw): return fix_trimap(ClosedFormMatter(trimap(h, w)), photo(h, w), **kw)


def events(canvas, *evs):
    for kind, x, y in evs:
        canvas._handle_frontend_event(None, dict(event=f'mouse_{kind}', x=x, y=y), None)


def touch(canvas, kind, *points):
    touches = [dict(x=x, y=y) for x, y in points]
    canvas._handle_frontend_event(None, dict(event=f'touch_{kind}', touches=touches), None)


@given(st.integers(0, 2**32-1), st.integers(1, 6))
def test_bands(seed, px):
    "Growing adds unknown pixels only, shrinking takes away only, and neither invents a class"
    cells = np.random.default_rng(seed).choice([0, 128, 255], (5, 6)).astype(np.uint8)
    t = np.kron(cells, np.ones((8, 8), np.uint8))
    g, s = grow_band(t, px), shrink_band(t, px)
    assert ((g == 128) >= (t == 128)).all() and ((s == 128) <= (t == 128)).all()
    assert (g[g != 128] == t[g != 128]).all() and (s[t != 128] == t[t != 128]).all()
    assert set(np.unique(s)) <= set(np.unique(t)) and set(np.unique(g)) <= set(np.unique(t))


def test_touch_and_leaving_the_canvas():
    "A stroke also ends where the pointer leaves, and a finger paints like a mouse"
    fix = fixer(60, 80)
    c, s = fix.canvas[-1], fix.scale
    fix.paint.value, fix.radius.value = 'unknown', 3
    events(c, ('down', 10*s, 10*s), ('move', 20*s, 10*s), ('out', 0, 0))
    assert fix.trimap[10, 15] == 128 and len(fix.past) == 1
    events(c, ('move', 10*s, 50*s))
    assert fix.trimap[50, 10] == 0   # no button, no paint
    touch(c, 'start', (10*s, 40*s))
    touch(c, 'move', (20*s, 40*s))
    touch(c, 'end')
    assert fix.trimap[40, 15] == 128 and len(fix.past) == 2


def test_history_is_bounded():
    fix = fixer(20, 30, size=None)
    fix.matter = lambda image, trimap: fix.cut
    for i in range(60):
        fix.set_trimap(np.full((20, 30), (0, 255)[i % 2], np.uint8))
    assert len(fix.past) == 50
    for _ in range(70):
        fix.undo()
    assert not fix.past and len(fix.future) == 50


EVIL = '<img src=x onerror=alert(1)>'


@pytest.mark.parametrize('name', ['../../outside', '..', '/tmp/outside', 'a/b', EVIL, 'x'*400])
def test_export_stays_in_its_folder(name, tmp_path):
    "Whatever the name, three files are written, all of them in the folder, and the message is no markup"
    folder = tmp_path/'deep'/'down'
    fix = fixer(20, 30, name=name, save_to=folder)
    written = fix.export()
    everything = [p for p in tmp_path.rglob('*') if p.is_file()]
    assert len(written) == 3 and sorted(everything) == sorted(written)
    assert {p.parent for p in written} == {folder}
    assert '<img' not in fix.saved.value


def test_error_text_is_no_markup():
    fix = fixer(20, 30)

    def moody(image, trimap=None): raise RuntimeError(EVIL)
    fix.matter = moody
    fix.set_trimap(np.zeros((20, 30), np.uint8))
    assert '<img' not in fix.status.value and '&lt;img' in fix.status.value
