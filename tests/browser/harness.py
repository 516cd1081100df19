"JupyterLab on a free loopback port, headless Chromium, and a line to the kernel: what the browser test drives"

import ast, json, os, secrets, shutil, signal, socket, subprocess, sys, time, urllib.request
from jupyter_client import BlockingKernelClient
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WAIT = int(os.environ.get('BROWSER_WAIT', 60))  # seconds that any one thing may take on a busy machine


def until(f, what='', timeout=WAIT, every=0.1):
    "The first true value of `f()`; `what` is what was waited for"
    end, err = time.monotonic() + timeout, None
    while time.monotonic() < end:
        try:
            if v := f():
                return v
        except Exception as e:
            err = e
        time.sleep(every)
    raise TimeoutError(f'not within {timeout} s: {what}' + (f' (last: {type(err).__name__}: {err})' if err else ''))


def twice(f):
    "`f()`, and once more if it fails: another port, a browser that was too slow to start"
    try:
        return f()
    except Exception as e:
        print(f'once more, after {type(e).__name__}: {str(e)[:200]}')
        return f()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def stop(p):
    "End the process group that `p` leads, and nothing else"
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(p.pid, sig)
        except ProcessLookupError:
            return
        try:
            p.wait(15)
            return
        except subprocess.TimeoutExpired:
            pass


class Lab:
    "A JupyterLab server of its own, with its own settings, in an own folder"

    def __init__(self, home, theme='JupyterLab Light'):
        self.home, self.root, self.runtime, self.token = home, home / 'root', home / 'runtime', secrets.token_hex(16)
        for o in (self.root, self.runtime, home / 'app' / 'settings'):
            o.mkdir(parents=True, exist_ok=True)
        over = {
            '@jupyterlab/apputils-extension:themes': dict(theme=theme),
            '@jupyterlab/apputils-extension:notification': dict(fetchNews='false', checkForUpdates=False),
            '@jupyterlab/notebook-extension:tracker': dict(windowingMode='none'),
        }
        (home / 'config' / 'labconfig').mkdir(parents=True)
        (home / 'settings').mkdir()
        (home / 'config' / 'labconfig' / 'default_setting_overrides.json').write_text(json.dumps(over))
        twice(self.start)

    def start(self):
        self.port = free_port()
        env = {
            **os.environ,
            'JUPYTER_RUNTIME_DIR': str(self.runtime),
            'JUPYTER_CONFIG_DIR': str(self.home / 'config'),
            'IPYTHONDIR': str(self.home / 'ipython'),
            'JUPYTERLAB_SETTINGS_DIR': str(self.home / 'settings'),
            'JUPYTERLAB_WORKSPACES_DIR': str(self.home / 'workspaces'),
            'JUPYTER_PREFER_ENV_PATH': '1',
            'PYTHONUNBUFFERED': '1',
            'PYTHONWARNINGS': 'ignore',
        }
        cmd = [
            sys.executable,
            '-m',
            'jupyterlab',
            '--no-browser',
            '--allow-root',
            '--ServerApp.ip=127.0.0.1',
            f'--ServerApp.port={self.port}',
            '--ServerApp.port_retries=0',
            f'--IdentityProvider.token={self.token}',
            f'--ServerApp.root_dir={self.root}',
            '--LabApp.expose_app_in_browser=True',
            '--JupyterNotebookApp.expose_app_in_browser=True',
            '--LabApp.news_url=',
            '--MultiKernelManager.default_kernel_name=python3',
        ]
        self.log = open(self.home / 'server.log', 'wb')
        self.proc = subprocess.Popen(
            cmd, env=env, stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            until(lambda: self.proc.poll() is not None or self.api('status'), 'the server answers')
        except TimeoutError:
            self.close()
            raise
        if self.proc.poll() is not None:
            self.close()
            raise RuntimeError((self.home / 'server.log').read_text()[-2000:])

    def url(self, path):
        return f'http://127.0.0.1:{self.port}/{path}'

    def api(self, path, method='GET'):
        r = urllib.request.Request(
            self.url(f'api/{path}'),
            method=method,
            headers=dict(Authorization=f'token {self.token}'),
            data=b'{}' if method == 'POST' else None,
        )
        with urllib.request.urlopen(r, timeout=30) as f:
            return json.loads(f.read() or 'null')

    def kernel(self, path):
        "Id of the kernel behind the notebook `path`"
        return next((o['kernel']['id'] for o in self.api('sessions') if o['path'] == path), None)

    def close(self):
        stop(self.proc)
        self.log.close()


class Kernel:
    "Reads values back from a running kernel, beside the browser"

    def __init__(self, lab, path):
        self.id = until(lambda: lab.kernel(path), 'a kernel')
        f = lab.runtime / f'kernel-{self.id}.json'
        until(f.exists, 'the connection file')
        until(lambda: lab.api(f'kernels/{self.id}')['execution_state'] == 'idle', 'the kernel is up', 2 * WAIT)
        until(lambda: self.connect(f), 'the kernel answers')

    def connect(self, f):
        self.kc = BlockingKernelClient(connection_file=str(f))
        self.kc.load_connection_file()
        self.kc.start_channels()
        try:
            self.kc.wait_for_ready(timeout=WAIT / 2)
        except RuntimeError:
            self.kc.stop_channels()
            raise  # it looks dead while it is busy
        return True

    def __call__(self, expr, code='', timeout=WAIT):
        "The value of `expr` (a literal's worth), after running `code`"
        r = self.kc.execute(code, store_history=False, user_expressions=dict(v=expr), reply=True, timeout=timeout)[
            'content'
        ]
        if r['status'] != 'ok':
            raise RuntimeError(f"{r['ename']}: {r['evalue']}")
        v = r['user_expressions']['v']
        if v['status'] != 'ok':
            raise RuntimeError(f"{v['ename']}: {v['evalue']}")
        return ast.literal_eval(v['data']['text/plain'])

    def until(self, expr, what='', timeout=WAIT):
        return until(lambda: self(expr), what or expr, timeout)

    def close(self):
        self.kc.stop_channels()


def browser(home, width=1400, height=1400):
    "Debian's Chromium, headless, driven by its own driver; nothing is downloaded"
    exe = next((o for o in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if o), None)
    drv = shutil.which('chromedriver')
    if not (exe and drv):
        raise FileNotFoundError('chromium and chromedriver are needed: apt-get install chromium chromium-driver')
    o = webdriver.ChromeOptions()
    o.binary_location = exe
    for a in (
        '--headless=new',
        '--no-sandbox',
        '--disable-dev-shm-usage',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        '--force-color-profile=srgb',
        f'--window-size={width},{height}',
        f'--user-data-dir={home / "chrome"}',
    ):
        o.add_argument(a)
    o.set_capability('goog:loggingPrefs', dict(browser='ALL'))
    d = twice(lambda: webdriver.Chrome(options=o, service=Service(drv, log_output=str(home / 'driver.log'))))
    d.execute_cdp_cmd('Emulation.setFocusEmulationEnabled', {'enabled': True})  # or Lab has no current notebook
    d.set_page_load_timeout(120)
    d.set_script_timeout(WAIT)
    return d
