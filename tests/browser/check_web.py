"The page in headless Chromium: a portrait in, Python's alpha out, paint, download, bad files; nothing leaves this machine"
import base64, io, json, os, struct, threading, time, zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).resolve().parent.parent.parent
SHOTS = Path(os.environ.get('DIM_SHOTS', ROOT/'out'/'shots'))   # screenshots, to be looked at


class Server(SimpleHTTPRequestHandler):
    extensions_map = {
    **SimpleHTTPRequestHandler.extensions_map,
    '.mjs': 'text/javascript',
    '.js': 'text/javascript',
     '.wasm': 'application/wasm'}
    def log_message(self, *_): pass

@pytest.fixture(scope='session')
def page(tmp_path_factory):
    "The page's address"
    from dim_nb.web import build_page
    folder = build_page(tmp_path_factory.mktemp('page'), ROOT/'web', ROOT/'data'/'portraits')
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture(scope='session')
def downloads(tmp_path_factory): return tmp_path_factory.mktemp('downloads')

@pytest.fixture(scope='session')
def browser(tmp_path_factory, downloads):
    o = webdriver.ChromeOptions()
    for a in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
              '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--window-size=1280,1400',
              f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
                  o.add_argument(a)
    o.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    o.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    d = webdriver.Chrome(options=o)
    d.set_script_timeout(120)
    yield d
    d.quit()

def until(d, ready, seconds=240):
    end = time.time()+seconds
    while not ready():
        assert time.time(
        ) < end, f'it took too long: {d.find_element(By.ID, "status").text!r} {d.find_element(By.ID, "error").text!r}'
        time.sleep(.1)

def state(d): return d.execute_script('return document.body.dataset.state')
def runs(d): return int(d.execute_script('return document.body.dataset.done || 0'))
def shot(d, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    d.save_screenshot(str(SHOTS/f'{name}.png'))

def canvas(d, name):
    "A canvas as an array"
    url = d.execute_script(f'return document.getElementById("{name}").toDataURL("image/png")')
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1]))))

def give(d, path): d.find_element(By.ID, 'file').send_keys(str(path))

def refused(d, path):
    "What the page says to a file that it can't use"
    give(d, path)
    until(d, lambda: state(d) in ('refused', 'failed'))
    return d.find_element(By.ID, 'error').text

@pytest.fixture(scope='session')
def portrait(tmp_path_factory):
    f = tmp_path_factory.mktemp('photo')/'obama.png'
    Image.open(ROOT/'data/portraits/obama.png').convert('RGB').save(f)
    return f

@pytest.fixture(scope='session')
def opened(browser, page, portrait):
    "The page with a portrait cut out"
    browser.get(page)
    until(browser, lambda: 'Ready' in browser.find_element(By.ID, 'status').text)
    give(browser, portrait)
    until(browser, lambda: state(browser) == 'done')
    return browser


def test_alpha_is_pythons(opened, portrait):
    from dim_nb.pipeline import PortraitMatter
    want = PortraitMatter.load(device='cpu', backend='onnx')(portrait)
    alpha = canvas(opened, 'alpha')[...,0]/255
    assert alpha.shape == want.alpha.shape
    difference = np.abs(alpha-want.alpha).mean()
    print(f'\nmean difference of alpha {difference:.5f}; {opened.find_element(By.ID, "times").text}')
    assert difference <= .01
    assert np.abs(canvas(opened, 'rough')[...,0].mean()/255-want.rough.mean()) < .01
    shot(opened, 'page_done')

def test_download(opened, downloads, portrait):
    from dim_nb.pipeline import PortraitMatter
    opened.find_element(By.ID, 'download').click()
    until(opened, lambda: (downloads/'obama.png').exists(), 30)
    time.sleep(.5)
    got = np.array(Image.open(downloads/'obama.png')).astype(int)
    want = np.array(PortraitMatter.load(device='cpu', backend='onnx')(portrait).rgba).astype(int)
    assert got.shape == want.shape
    assert np.abs(got[...,3]-want[...,3]).mean() <= 2.55
    soft = (want[...,3] > 25) & (want[...,3] < 230)
    assert np.abs(got-want)[soft][:,:3].mean() < 8          # the person's own colours, estimated as in Python
    assert (got[...,:3][got[...,3] == 0] == 0).all()

def test_brush_changes_alpha(opened):
    before, n = canvas(opened, 'alpha')[...,0].astype(float), runs(opened)
    c = opened.find_element(By.ID, 'trimap')
    opened.execute_script('arguments[0].scrollIntoView()', c)
    opened.execute_script('document.querySelector("[name=paint][value=\'0\']").click()')
    ActionChains(opened).move_to_element_with_offset(
    c,
    0,
    c.size['height']//
    4).click_and_hold().move_by_offset(
        20,
         0).release().perform()
    until(opened, lambda: runs(opened) > n and state(opened) == 'done')
    after = canvas(opened, 'alpha')[...,0].astype(float)
    assert np.abs(after-before).max() > 200
    shot(opened, 'page_painted')
    n = runs(opened)
    opened.find_element(By.ID, 'undo').click()
    until(opened, lambda: runs(opened) > n and state(opened) == 'done')
    assert np.abs(canvas(opened, 'alpha')[...,0]-before).mean() < .5

def test_brush_by_keyboard(opened):
    before, n = canvas(opened, 'alpha')[...,0].astype(float), runs(opened)
    c = opened.find_element(By.ID, 'trimap')
    opened.execute_script('arguments[0].focus()', c)
    opened.execute_script('document.querySelector("[name=paint][value=\'0\']").click(); arguments[0].focus()', c)
    c.send_keys(Keys.ARROW_DOWN*8 + ' ')
    until(opened, lambda: runs(opened) > n and state(opened) == 'done')
    assert np.abs(canvas(opened, 'alpha')[...,0]-before).max() > 200
    n = runs(opened)
    opened.find_element(By.ID, 'reset').click()
    until(opened, lambda: runs(opened) > n and state(opened) == 'done')

def test_colour_behind(opened):
    opened.execute_script(
        'const c = document.getElementById("colour"); c.value = "#ff0000"; c.dispatchEvent(new Event("input"))')
    cut = canvas(opened, 'cut')
    assert tuple(cut[2,2,:3]) == (255,0,0)

def test_bad_files(opened, tmp_path):
    (tmp_path/'note.jpg').write_text('no photograph')
    assert 'note.jpg holds text' in refused(opened, tmp_path/'note.jpg')
    header = struct.pack('>IIBBBBB', 10000, 10000, 8, 2, 0, 0, 0)
    chunk = b'IHDR'+header
    (tmp_path/'huge.png').write_bytes(b'\x89PNG\r\n\x1a\n'+struct.pack('>I', 13)+chunk+struct.pack('>I', zlib.crc32(chunk)))
    assert 'huge.png has 10000 x 10000 pixels' in refused(opened, tmp_path/'huge.png')
    (tmp_path/'phone.heic').write_bytes(struct.pack('>I', 24)+b'ftypheic'+bytes(40))
    assert 'is a HEIC picture' in refused(opened, tmp_path/'phone.heic')
    (tmp_path/'cut.png').write_bytes((ROOT/'data/portraits/obama.png').read_bytes()[:3000])
    assert 'cut.png is a damaged PNG' in refused(opened, tmp_path/'cut.png')
    (tmp_path/'empty.png').write_bytes(b'')
    assert 'empty.png is empty' in refused(opened, tmp_path/'empty.png')

def test_odd_sizes(opened, tmp_path):
    for size in ((61, 97), (900, 640)):
        f = tmp_path/f'{size[0]}.png'
        n = runs(opened)
        Image.open(ROOT/'data/portraits/biden.png').convert('RGB').resize(size).save(f)
        give(opened, f)
        until(opened, lambda: runs(opened) > n and state(opened) == 'done')
        assert canvas(opened, 'alpha').shape[:2] == size[::-1]

def test_phone_and_dark(opened):
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(
        features=[dict(name='prefers-color-scheme', value='dark')]))
    opened.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    dict(
        width=380,
        height=900,
        deviceScaleFactor=1,
         mobile=True))
    opened.execute_script('scrollTo(0, 0)')
    time.sleep(.3)
    assert opened.execute_script('return document.documentElement.scrollWidth') <= 380
    shot(opened, 'page_phone_dark')
    opened.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))

def test_nothing_leaves(opened, page):
    asked = set()
    for line in opened.get_log('performance'):
        m = json.loads(line['message'])['message']
        if m['method'] == 'Network.requestWillBeSent':
            asked.add(m['params']['request']['url'])
    own = ('data:', 'blob:', 'chrome:', 'chrome-untrusted:')   # the browser's own first tab among them
    hosts = {urlparse(u).hostname for u in asked if not u.startswith(own)}
    assert hosts == {'127.0.0.1'}, asked
    errors = [o['message'] for o in opened.get_log('browser') if o['level'] == 'SEVERE']
    assert not errors, errors
