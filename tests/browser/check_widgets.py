"""Viewer and fixer in a real browser. `make test-browser` runs this; plain `pytest tests` does not collect it.

Needs Chromium with its driver (Debian: chromium, chromium-driver), selenium, jupyterlab and notebook.
Screenshots: out/browser."""

import json
from pathlib import Path
import nbformat, pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from harness import WAIT, Kernel, Lab, browser, until

REPO = Path(__file__).resolve().parents[2]
OUT = REPO / 'out' / 'browser'
READY = '''
    const app = window.jupyterapp, open = app && [...app.shell.widgets("main")].find(o => o.sessionContext);
    if (!open) return false;
    if (app.shell.currentWidget !== open) app.shell.activateById(open.id);   // commands are for the current one
    return app.shell.currentWidget === open'''

SETUP = '''
import os
os.environ['OMP_NUM_THREADS'] = '1'
import sys, time, cv2, numpy as np
from dataclasses import replace
from functools import partial
from pathlib import Path
from dim_nb.files import image_files
from dim_nb.images import read_rgba
from dim_nb.trimaps import alpha_to_trimap
from dim_nb.viewer import Inspector, Item, inspect_mattes
from dim_nb.fixer import fix_trimap
from dim_nb.peers import ClosedFormMatter
shown,show = [],Inspector.show
def timed(self, *_):
    start = time.time()
    show(self)
    shown.append((1000*start, 1000*time.time()))
Inspector.show = timed
'''
ITEMS = '''
def item(f, wide=False):
    photo,truth = read_rgba(f)
    if wide: photo,truth = (cv2.resize(o, (800,o.shape[0]*800//o.shape[1]))[:600] for o in (photo,truth))
    h,w = truth.shape
    t,spot = alpha_to_trimap(truth, 6, 6),(w//2,int(h*.8))
    for radius,value in ((34,128),(26,0)): cv2.circle(t, spot, radius, value, -1)
    rough = cv2.circle(cv2.blur(truth, (9,9)), spot, 30, 0, -1)
    return Item(photo, t, rough, truth, truth, None, f.stem)
five,wide = ([item(f,o) for f in image_files(PORTRAITS)] for o in (False,True))
'''
FACES = '''
faces = [replace(wide[i%5], name=f'face {i+1}') for i in range(12)]
a = inspect_mattes(faces, layers=('photo','trimap','rough','rough_error'), save_to=SAVE)
a
'''
FIXER = '''
start = five[0]
fix = fix_trimap(ClosedFormMatter(start.trimap), start.photo, truth=start.truth, name='astronaut', save_to=SAVE)
fix
'''
MANY = '''
opened = []
def lazy(i):
    opened.append(i)
    return replace(five[i%5], truth=None, name=f'lazy {i+1}')
b = inspect_mattes([partial(lazy,i) for i in range(999)])
b
'''
LARGE = '''
cv2.imwrite(SAVE+'/big.jpg', cv2.resize(five[1].photo, (4000,3000))[...,::-1])
c = inspect_mattes(dict(photo=SAVE+'/big.jpg'), layers=('photo','alpha','error'))
c
'''
CELLS = [SETUP, ITEMS, FACES, FIXER, MANY, LARGE]

# names, titles, dict names and error texts that would run if they were markup
EVIL = '<img src=x onerror=alert(1)>'
EVIL_CELLS = [
    SETUP,
    f'''
EVIL = {EVIL!r}
picture = np.zeros((60,80,3), np.uint8)
cv2.imwrite(SAVE+'/'+EVIL+'.png', picture+90)
Path(SAVE, EVIL+'.txt.png').write_text('no picture')
def boom(): raise RuntimeError(EVIL)
files = [Path(SAVE, EVIL+'.png'), Path(SAVE, EVIL+'.txt.png'), dict(photo=picture, name=EVIL), boom]
a = inspect_mattes(files, backgrounds={{EVIL: picture}}, save_to=Path(SAVE, EVIL))
a
''',
    '''
def moody(image, trimap=None):
    if trimap is not None: raise RuntimeError(EVIL)
    half = np.zeros(image.shape[:2], np.uint8)
    half[:,40:] = 255
    return ClosedFormMatter(half)(image)
fix = fix_trimap(moody, picture, name='../../'+EVIL, save_to=Path(SAVE,'deep','down'))
fix
''',
]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    home = tmp_path_factory.mktemp('lab')
    OUT.mkdir(parents=True, exist_ok=True)
    lab, drv = Lab(home), None
    try:
        drv = browser(home)
        p = Page(lab, drv)
        p.open()
        yield p
        p.kernel.close()
    finally:
        try:
            drv and drv.quit()
        finally:
            lab.close()


class Page:
    "The notebook in the browser"

    def __init__(self, lab, drv):
        self.lab, self.drv = lab, drv
        save = lab.home / 'saved'
        save.mkdir()
        paths = str(REPO / 'data' / 'portraits'), str(save), str(REPO / 'tools')
        head = f'PORTRAITS,SAVE,TOOLS = {paths}'
        self.notebook('t.ipynb', [head, *CELLS])
        self.notebook('n7.ipynb', [head, *CELLS[:4]])
        self.notebook('evil.ipynb', [head, *EVIL_CELLS])

    def notebook(self, name, cells):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in cells])
        nb.metadata.kernelspec = dict(name='python3', display_name='Python 3', language='python')
        nbformat.write(nb, self.lab.root / name)

    def open(self):
        self.drv.get(self.lab.url(f'lab/tree/t.ipynb?token={self.lab.token}&reset'))
        until(lambda: self.js(READY), 'the notebook opens')
        self.js('jupyterapp.commands.execute("application:toggle-left-area"); return 1')
        self.kernel = Kernel(self.lab, 't.ipynb')
        self.run()

    def run(self):
        "Run all cells, wait for all widgets"
        self.command('notebook:run-all-cells')
        self.kernel.until("'c' in globals() and c.ms>0", 'all cells have run', 2 * WAIT)
        self.all_drawn()

    def all_drawn(self, n=6):
        until(lambda: len(self.canvases()) == n and all(self.drawn(i) for i in range(n)), f'{n} canvases with pictures')

    def js(self, code, *a):
        return self.drv.execute_script(code, *a)

    def command(self, name, **kw):
        until(lambda: self.js(READY), 'the notebook is current')
        self.js('jupyterapp.commands.execute(arguments[0],arguments[1]); return 1', name, kw)

    def canvases(self):
        return self.js(
            'return [...document.querySelectorAll(".jp-OutputArea canvas")].filter(o => o.offsetParent)'
        )  # those that are seen

    def shot(self, name):
        self.drv.save_screenshot(str(OUT / f'{name}.png'))

    def look_at(self, el, name=None):
        self.js('arguments[0].scrollIntoView({block:"center"})', el)
        self.settle()
        if name:
            self.shot(name)

    def settle(self):
        "Until the browser has painted, the kernel has answered what was sent to it, and the browser has painted that"
        for _ in range(2):
            self.drv.execute_async_script(
                'const f = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => f(1)))'
            )
            self.kernel('1')

    def drawn(self, i):
        "Is there more than one colour on canvas `i`?"
        return self.js(COLOURS, self.canvases()[i])

    def button(self, text, n=0):
        "The `n`th button with this text"
        return until(
            lambda: [
                o
                for o in self.drv.find_elements(By.CSS_SELECTOR, '.jp-OutputArea button')
                if o.text.strip() == text and o.is_displayed()
            ][n],
            f'button {text}',
        )

    def click(self, text, n=0):
        b = self.button(text, n)
        self.look_at(b)
        b.click()

    def drag(self, canvas, *pts):
        "Press at the first point, move through the others, let go; points as shares of the canvas"
        s = canvas.size
        to = lambda p: (round((p[0] - 0.5) * s['width']), round((p[1] - 0.5) * s['height']))
        ch = ActionChains(self.drv, duration=120).move_to_element_with_offset(canvas, *to(pts[0])).click_and_hold()
        for p in pts[1:]:
            ch = ch.move_to_element_with_offset(canvas, *to(p))
        ch.release().perform()

    def hover(self, canvas, p):
        s = canvas.size
        ActionChains(self.drv, duration=60).move_to_element_with_offset(
            canvas, round((p[0] - 0.5) * s['width']), round((p[1] - 0.5) * s['height'])
        ).perform()


COLOURS = '''
    const c = arguments[0], d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, seen = new Set();
    for (let i = 0; i < d.length; i += 4*97) seen.add(d[i] + 256*d[i+1] + 65536*d[i+2]);
    return seen.size > 20'''


def test_faces(page):
    "Faces by button, by key, by thumbnail"
    k, (strip, pics, *_) = page.kernel, page.canvases()
    page.look_at(pics, 'inspector_light')
    page.click('▶')
    k.until('a.index==1')
    pics.click()  # gives the pictures the keyboard
    ActionChains(page.drv).send_keys('n').perform()
    k.until('a.index==2')
    ActionChains(page.drv).send_keys('.').send_keys('.').perform()
    k.until('a.index==4')
    ActionChains(page.drv).send_keys('p').perform()
    k.until('a.index==3')
    page.look_at(strip)
    page.hover(strip, (7.5 / 12, 0.5))
    ActionChains(page.drv).click().perform()
    k.until('a.index==7')
    until(
        lambda: page.js('return document.querySelector(".jp-OutputArea input[type=number]").value') == '8',
        'the number follows',
    )
    assert k('b.index') == 0  # the other inspector did not move


def test_layers(page):
    "Layers on and off; the picture follows"
    k, pics = page.kernel, page.canvases()[1]
    w = pics.get_attribute('width')
    page.click('cut-out')
    k.until("a.shown[-1]=='cutout'")
    until(lambda: pics.get_attribute('width') != w or page.drawn(1), 'five panes')
    page.look_at(pics, 'inspector_five_layers')
    page.click('cut-out')
    k.until("a.shown[-1]=='rough_error'")
    assert 'SAD' in k('(a.later.flush(), a.table.value)[1]')


def test_loupe(page):
    "The loupe follows the mouse, and a click pins it"
    k, pics = page.kernel, page.canvases()[1]
    page.look_at(pics)
    page.hover(pics, (0.125, 0.4))
    k.until('a.spot is not None')
    x = until(lambda: k('a.spot'))
    page.hover(pics, (0.16, 0.6))
    k.until(f'a.spot!={x}')
    bx = k('[float(o) for o in (*a.boxes[0], a.canvas.width, a.canvas.height, *a.item.photo.shape[:2])]')
    sx, sy = (0.16 * bx[4] - bx[0]) / bx[2] * bx[7], (0.6 * bx[5] - bx[1]) / bx[3] * bx[6]
    until(lambda: abs(k('a.spot')[0] - sx) < 6 and abs(k('a.spot')[1] - sy) < 6, 'the spot is under the mouse')
    page.shot('loupe')
    if not k('a.pinned'):
        ActionChains(page.drv).click().perform()
    k.until('a.pinned')
    spot = k('a.spot')
    page.hover(pics, (0.1, 0.3))
    page.settle()
    assert k('a.spot') == spot


CLICK = '''
    const [cv, button, done] = arguments, g = cv.getContext("2d");
    const hash = () => {   // 0: empty
        let s = 0;
        const d = g.getImageData(0, 30, cv.width, 200).data;
        for (let i = 0; i < d.length; i += 404) s = (s*31 + d[i]) | 0;
        return s;
    };
    let h = hash(), first = 0, last = 0;
    const t0 = Date.now();
    button.click();
    const poll = () => {
        const n = hash(), t = Date.now();
        if (n && n !== h) { h = n; last = t; first = first || t }
        if (last && t-last > 400) done([t0, first, last]);
        else if (t-t0 > 20000) done([t0, 0, 0]);
        else requestAnimationFrame(poll);
    };
    requestAnimationFrame(poll)'''


def median(o):
    return sorted(o)[len(o) // 2]


def click_times(page, buttons):
    "From each click on: ms until the kernel begins, in the kernel, until the browser has drawn, and the loupe"
    res = []
    for b in buttons:
        n = page.kernel('len(shown)')
        t0, first, last = page.drv.execute_async_script(CLICK, page.canvases()[1], b)
        assert first, 'no new picture'
        k0, k1 = page.kernel('shown[-1]')
        assert page.kernel('len(shown)') == n + 1
        res.append(dict(way_in=k0 - t0, kernel=k1 - k0, way_out=first - k1, pictures=first - t0, loupe=last - t0))
    return {o: round(median([r[o] for r in res])) for o in res[0]}


def test_speed(page):
    "From a click to the new pictures, four panes of 800x600 faces, and its parts"
    page.look_at(page.canvases()[1])
    res = dict(face=click_times(page, [page.button('▶')] * 8), layer=click_times(page, [page.button('cut-out')] * 8))
    for k, v in res.items():
        print(
            f'\n# {k}, median ms from a click: ' + ', '.join(f'{a.replace("_", " ")} {b}' for a, b in v.items()), end=''
        )
    (OUT / 'speed.json').write_text(json.dumps(res))
    assert res['face']['pictures'] < 2000  # 100 ms on two idle cores; a busy machine gets more


def test_wipe(page):
    "The line is dragged by mouse"
    k, pics = page.kernel, page.canvases()[1]
    page.click('wipe')
    k.until("a.mode.value=='wipe'")
    until(lambda: page.drawn(1), 'the wipe is drawn')
    page.look_at(pics)
    sent = k('a.sent')
    page.drag(pics, (0.5, 0.5), (0.4, 0.5), (0.3, 0.5), (0.25, 0.5))
    k.until('abs(a.pos-.25)<.02', 'the line is at a quarter')
    assert k('a.sent') == sent  # no picture was sent
    page.shot('wipe')
    page.hover(pics, (0.8, 0.5))
    page.settle()
    assert abs(k('a.pos') - 0.25) < 0.02  # let go
    page.click('side by side')
    k.until("a.mode.value!='wipe'")


def test_save(page):
    "Save writes a PNG"
    page.click('Save PNG')
    page.kernel.until("len(list(Path(SAVE).glob('face*.png')))==1", 'the PNG is written')


def test_paint(page):
    "A stroke over the hole: the trimap changes, and the matte comes right"
    k, cv = page.kernel, page.canvases()[2]
    page.look_at(cv, 'fix_before')
    x, y = k('(start.photo.shape[1]//2/start.photo.shape[1], int(start.photo.shape[0]*.8)/start.photo.shape[0])')
    at = 'fix.cut.alpha[int(start.photo.shape[0]*.8), start.photo.shape[1]//2]'
    assert k(f'float({at})') < 0.1
    page.click('foreground')
    k.until("fix.paint.value=='foreground'")
    k('1', 'fix.radius.value = 14')
    img = cv.find_element(By.XPATH, 'ancestor::*[contains(@class,"widget-gridbox")]//img')
    src = img.get_attribute('src')
    page.look_at(cv)
    page.drag(
        cv,
        (x - 0.06, y - 0.05),
        (x + 0.06, y - 0.05),
        (x + 0.07, y),
        (x - 0.07, y),
        (x - 0.06, y + 0.05),
        (x + 0.06, y + 0.05),
    )
    k.until(f'float({at})>.95', 'the matte is opaque where the hole was')
    until(lambda: img.get_attribute('src') != src, 'the new matte is shown')
    print(f"\n# a stroke at {k('fix.trimap.shape')}: {k('round(fix.ms)')} ms")
    assert page.js('return document.body.innerText.includes("alpha computed anew in")'), 'the time is told'
    page.look_at(cv, 'fix_after')
    page.click('↶ undo')
    k.until(f'float({at})<.1')
    page.click('↷ redo')
    k.until(f'float({at})>.95')
    page.click('export')
    k.until("Path(SAVE,'astronaut_trimap.png').exists() and Path(SAVE,'astronaut.png').exists()")


def test_many_and_large(page):
    "999 items are opened when looked at; a 12-megapixel photo without anything else"
    k, cs = page.kernel, page.canvases()
    assert k('opened') == [0]
    page.look_at(cs[4], 'many')
    cs[4].click()
    ActionChains(page.drv).send_keys('p').perform()
    k.until('b.index==998 and opened==[0,998]')
    page.look_at(cs[5], 'large')
    assert k('c.sent') < 400_000 and k('c.item.photo.shape') == (3000, 4000, 3)


def test_dark(page):
    "The same in the dark theme"
    page.command('apputils:change-theme', theme='JupyterLab Dark')
    until(lambda: page.js('return document.body.dataset.jpThemeLight') == 'false', 'dark theme')
    page.settle()
    page.look_at(page.canvases()[1], 'inspector_dark')
    page.look_at(page.canvases()[2], 'fix_dark')


def test_reload(page):
    "A page loaded anew on the same kernel draws its canvases again"
    page.command('docmanager:save')
    until(
        lambda: all(c.outputs for c in nbformat.read(page.lab.root / 't.ipynb', 4).cells[3:]),
        'the notebook is saved with its outputs',
    )
    page.drv.get(page.lab.url(f'lab/tree/t.ipynb?token={page.lab.token}'))
    page.all_drawn()
    i = page.kernel('a.index')
    page.click('▶')
    page.kernel.until(f'a.index=={(i + 1) % 12}')
    page.shot('reloaded')


def test_restart(page):
    "After a kernel restart the pictures stand; the cells run again and the widgets answer"
    page.lab.api(f'kernels/{page.kernel.id}/restart', 'POST')
    page.kernel.until("'a' not in globals()", 'a fresh kernel')
    page.all_drawn()
    page.look_at(page.canvases()[1], 'restarted')
    page.run()
    page.click('▶')
    page.kernel.until('a.index==1')
    bad = [o['message'] for o in page.drv.get_log('browser') if 'ipycanvas' in o['message'] and o['level'] == 'SEVERE']
    assert not bad, bad


STATIC = '''
import json
sys.path.insert(0, TOOLS)
from dev import read_notebook, strip_widgets, write_notebook
nb = read_notebook('t.ipynb')
shown_output = dict(output_type='display_data', metadata={}, data=a._repr_mimebundle_())
nb['cells'] = [dict(nb['cells'][0], source='', outputs=[shown_output])]
nb['metadata']['kernelspec'] = dict(name='none', display_name='none')
write_notebook('static.ipynb', nb)
strip_widgets('static.ipynb')
'''


def test_static(page):
    "A saved notebook whose widgets were stripped shows the same comparison, without a kernel"
    k = page.kernel
    k('1', STATIC)
    page.drv.get(page.lab.url(f'lab/workspaces/static/tree/static.ipynb?token={page.lab.token}'))
    until(
        lambda: page.js('const o = document.querySelector(".jp-OutputArea img"); return o && o.naturalWidth>400'),
        'the picture is shown',
    )
    page.shot('static')
    assert not page.js('return document.body.innerText.includes("Error displaying widget")')


def test_notebook7(page):
    "Notebook 7: the same widgets, its own shortcuts"
    pytest.importorskip('notebook')
    drv, lab = page.drv, page.kernel
    drv.get(page.lab.url(f'notebooks/n7.ipynb?token={page.lab.token}'))
    until(lambda: page.js(READY), 'the notebook opens')
    page.kernel = k = Kernel(page.lab, 'n7.ipynb')
    try:
        page.command('notebook:run-all-cells')
        k.until("'fix' in globals()", 'all cells have run', 2 * WAIT)
        page.all_drawn(3)
        pics = page.canvases()[1]
        page.look_at(pics, 'notebook7')
        page.look_at(pics)
        pics.click()
        ActionChains(drv).send_keys('n').perform()
        k.until('a.index==1')
        page.click('wipe')
        k.until('a.wiping')
        page.look_at(page.canvases()[2])
        x, y = 0.5, 0.8
        page.click('foreground')
        k.until("fix.paint.value=='foreground'")
        page.look_at(page.canvases()[2])
        page.drag(page.canvases()[2], (x - 0.05, y), (x + 0.05, y))
        k.until('len(fix.past)==1')
        k.until('fix.ms>0', 'the matte is computed')
    finally:
        page.kernel = lab
        k.close()
        page.lab.api(f'kernels/{k.id}', 'DELETE')


def test_text_is_never_markup(page):
    "Names, titles, dict names and error texts in every widget are shown as they are, and run nothing"
    old = page.kernel
    page.drv.get(page.lab.url(f'lab/workspaces/evil/tree/evil.ipynb?token={page.lab.token}'))
    until(lambda: page.js(READY), 'the notebook opens')
    page.kernel = k = Kernel(page.lab, 'evil.ipynb')
    try:
        page.js('window.alerts = 0; window.alert = () => { window.alerts += 1 }; return 1')
        page.command('notebook:run-all-cells')
        k.until("'fix' in globals()", 'all cells have run', 2 * WAIT)
        for i in range(4):
            k(f'a.go({i})')
            until(lambda: EVIL in page.js('return document.body.innerText'), f'the name of item {i} is read')
        page.shot('evil')
        k('1', 'a.save()')
        k('1', 'fix.set_trimap(fix.trimap*0)')
        until(lambda: f'RuntimeError: {EVIL}' in page.js('return document.body.innerText'), 'the error is read')
        page.settle()
        assert page.js('return window.alerts') == 0
        assert not page.js("""return document.querySelectorAll('img[src="x"]').length""")
    finally:
        page.kernel = old
        k.close()
        page.lab.api(f'kernels/{k.id}', 'DELETE')
