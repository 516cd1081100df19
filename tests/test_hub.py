"Weights to and from a stand-in for the hub that listens on loopback alone"
import base64, hashlib, json, os, shutil, subprocess, sys, textwrap, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest

from dim_nb.files import check_sums, write_sums
from dim_nb.hub import fetch_weights, model_card, network_files, push_weights

pytest.importorskip('huggingface_hub')
SHIPPED = Path(__file__).parent.parent/'dim_nb'/'weights'
REPO, COMMIT = 'somebody/portraits', 'a'*40


class Hub(BaseHTTPRequestHandler):
    "So much of the hub's HTTP as a push and a fetch need"
    files, asked = {}, []
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_): pass
    def body(self): return self.rfile.read(int(self.headers.get('Content-Length', 0)))
    def json(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data)

    def missing(self):
        self.send_response(404)
        self.send_header('X-Error-Code', 'RepoNotFound')
        self.send_header('Content-Length', '0')
        self.end_headers()

    def do_GET(self):
        path = urlparse(self.path).path
        self.asked.append(f'{self.command} {path}')
        if REPO not in path:
            return self.missing()
        if path.startswith(f'/api/models/{REPO}/tree'):
            return self.json([dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest())
                             for k,v in self.files.items()])
        if path.startswith(f'/api/models/{REPO}'):
            return self.json(dict(id=REPO, sha=COMMIT, siblings=[dict(rfilename=k) for k in self.files]))
        name = path.split('/')[-1]
        if name not in self.files:
            return self.missing()
        data = self.files[name]
        self.send_response(200)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(data)
    do_HEAD = do_GET

    def do_POST(self):
        path, body = urlparse(self.path).path, self.body()
        self.asked.append(f'POST {path}')
        if path == '/api/repos/create':
            return self.json(dict(url=f'http://{self.headers["Host"]}/{REPO}', id=REPO, name=REPO))
        if 'preupload' in path:
            wanted = json.loads(body)['files']
            return self.json(
                dict(files=[dict(path=f['path'], uploadMode='regular', shouldIgnore=False) for f in wanted]))
        if 'commit' in path:
            for line in body.splitlines():
                o = json.loads(line)
                if o['key'] == 'file':
                    self.files[o['value']['path']] = base64.b64decode(o['value']['content'])
            return self.json(dict(success=True, commitOid=COMMIT,
                             commitUrl=f'http://{self.headers["Host"]}/{REPO}/commit/{COMMIT}', hookOutput=''))
        if path == '/api/validate-yaml':
            return self.json(dict(errors=[], warnings=[]))
        self.missing()


@pytest.fixture()
def hub():
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.fixture()
def folder(tmp_path):
    out = tmp_path/'own'
    out.mkdir()
    for f in network_files(SHIPPED):
        shutil.copy(f, out)
    write_sums(out, network_files(out))
    return out

def run(code, hub, tmp_path, **env):
    "Python in a process of its own: the hub's client reads its settings once, when it is imported"
    env = {**os.environ, 'HF_ENDPOINT': hub, 'HF_HOME': str(tmp_path/'home'), 'HF_HUB_DISABLE_XET': '1', 'HF_HUB_DISABLE_TELEMETRY': '1',
           'NO_PROXY': '*', 'no_proxy': '*', **env}
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
                       env=env, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout.strip()

PUSH = "from dim_nb.hub import *\nprint(push_weights({folder!r}, 'somebody/portraits', token='hf_x'))"
FETCH = "from dim_nb.hub import *\nprint(fetch_weights('somebody/portraits'))"


def test_there_and_back(hub, folder, tmp_path):
    assert run(PUSH.format(folder=str(folder)), hub, tmp_path).endswith(COMMIT)
    assert {'trimap.safetensors', 'sha256.json', 'README.md'} <= set(Hub.files)
    assert Hub.files['README.md'].startswith(b'---\nlicense')
    got = Path(run(FETCH, hub, tmp_path))
    assert check_sums(got) == check_sums(folder)

def test_offline_takes_the_cache(hub, folder, tmp_path):
    run(PUSH.format(folder=str(folder)), hub, tmp_path)
    first = run(FETCH, hub, tmp_path)
    Hub.asked.clear()
    assert run(FETCH, hub, tmp_path, HF_HUB_OFFLINE='1') == first
    assert not Hub.asked

def test_damaged_on_the_way(hub, folder, tmp_path):
    run(PUSH.format(folder=str(folder)), hub, tmp_path)
    data = bytearray(Hub.files['refine.safetensors'])
    data[-1] ^= 1
    Hub.files['refine.safetensors'] = bytes(data)
    code = "from dim_nb.hub import *\ntry: fetch_weights('somebody/portraits')\nexcept ValueError as e: print(e)"
    assert 'refine.safetensors: damaged' in run(code, hub, tmp_path)

def test_a_name_that_does_not_exist(hub, tmp_path):
    code = "from dim_nb.hub import *\ntry: fetch_weights('nobody/nothing')\nexcept FileNotFoundError as e: print(e)"
    assert 'nobody/nothing: no folder of that name' in run(code, hub, tmp_path)

def test_a_trainings_folder_goes_with_its_card(hub, tmp_path):
    run_folder = tmp_path/'run'
    run_folder.mkdir()
    shutil.copy(SHIPPED/'refine.safetensors', run_folder)
    for own in ('best.safetensors', 'average.safetensors', 'last.pt'): (run_folder/own).write_bytes(b'of the training')
    record = dict(license=None, kept='raw', validation=dict(raw=dict(valid_loss=.25)))
    (run_folder/'card.json').write_text(json.dumps(record))
    (run_folder/'card.md').write_text('# A refine network\n\n**Licence:** not stated yet.')
    run(PUSH.format(folder=str(run_folder)), hub, tmp_path)
    assert Hub.files.keys() == {'refine.safetensors', 'sha256.json', 'card.json', 'README.md'}
    readme = Hub.files['README.md'].decode()
    assert readme.startswith('---\nlicense: other') and 'value: 0.25' in readme and '# A refine network' in readme
    got = Path(run(FETCH, hub, tmp_path))
    assert json.loads((got/'card.json').read_text()) == record and check_sums(got).keys() == {'refine.safetensors'}

def test_card_keeps_its_text():
    card = model_card('# Mine', license='apache-2.0', metrics=dict(SAD=1.5))
    assert card.startswith('---\nlicense: apache-2.0') and card.endswith('# Mine\n') and 'value: 1.5' in card

def test_folders_without_networks_stay_here(tmp_path):
    with pytest.raises(ValueError, match='no networks'):
        push_weights(tmp_path, REPO)

def test_fetch_of_a_folder(folder): assert fetch_weights(folder) == folder
