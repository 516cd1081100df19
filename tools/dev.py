"""What the authors' commands do, run by the Makefile with .venv's Python:
dev.py check | pytest | prepare | readme [--check] | notebooks [NB ...]"""
import json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
INDEX, README = ROOT/'nbs/index.ipynb', ROOT/'README.md'
JUNK = {'.git', '.venv', '.ipynb_checkpoints', '__pycache__', 'out', 'build', 'dist', '_docs', '_proc'}
SKIP = re.compile(r'^#\s*\|\s*(eval:\s*false|slow|cuda)\b', re.M)   # cells that neither tests nor `make notebooks` run


def fail(msg): sys.exit(f'make: {msg}')

def run(*cmd, **kw):
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')}
    env.update(PATH=f'{BIN}{os.pathsep}{env.get("PATH", "")}', **kw.pop('env', {}))
    return subprocess.run([str(c) for c in cmd], env=env, **kw).returncode


# README.md from nbs/index.ipynb

def _directives(src):
    "(directives of a cell, the source without them)"
    head = [o for o in src.splitlines() if re.match(r'#\s*\|', o)]
    return {k.strip(): v.strip() for k,_,v in (re.sub(r'^#\s*\|', '', o).partition(':') for o in head)}, '\n'.join(
        o for o in src.splitlines() if o not in head).strip('\n')

def _output(out, src, alt):
    "One output as markdown: a picture as the file that the cell saved, Markdown as it is, text indented."
    data = out.get('data', {})
    if 'image/png' in data:
        saved = re.search(r"['\"](\.\./data/figures/[^'\"]+\.png)['\"]", src)
        if not saved: fail('a cell of nbs/index.ipynb shows a picture that it does not save in data/figures')
        return f'![{alt}]({saved[1]})'
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    txt = ''.join(data.get('text/plain', [])) or (''.join(out.get('text', [])) if out.get('name') == 'stdout' else '')
    return '\n'.join('    ' + o for o in txt.rstrip().splitlines())

def readme_text():
    "README.md as nbs/index.ipynb gives it: no hidden cells, links and paths as seen from the repository's root."
    parts = []
    for c in json.loads(INDEX.read_text(encoding='utf-8'))['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown': parts.append(['text', src.strip()])
        if c['cell_type'] != 'code': continue
        how, code = _directives(src)
        if {'hide', 'export', 'default_exp'} & {k.split()[0] for k in how}: continue
        if code and how.get('echo') != 'false':
            if parts and parts[-1][0] == 'code': parts[-1][1] += f'\n\n{code}'   # no output between them: one block
            else: parts.append(['code', code])
        parts += [['text', o] for o in (_output(o, src, how.get('fig-alt', '')) for o in c['outputs']) if o]
    text = '\n\n'.join(f'```python\n{o}\n```' if kind == 'code' else o for kind,o in parts)
    text = re.sub(r'\]\(([\w-]+\.ipynb)\)', r'](nbs/\1)', text).replace('../', '')
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(o.rstrip() for o in text.splitlines()))
    return '<!-- Made from nbs/index.ipynb by `make readme`: edit that. -->\n\n' + text.strip() + '\n'

def readme(check=False):
    text = readme_text()
    same = README.exists() and README.read_text(encoding='utf-8') == text
    if check and not same: fail('README.md is not what nbs/index.ipynb gives: run `make prepare`')
    if not check and not same: README.write_text(text, encoding='utf-8')


# The checks work on a copy, so that the working tree stays as it is, committed or not

def _files():
    "What a clone would hold, and what is new and not ignored; in a folder without git everything but JUNK."
    r = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, capture_output=True) if (ROOT/'.git').exists() else None
    if r and r.returncode == 0: return sorted({Path(o) for o in r.stdout.decode().split('\0') if o and (ROOT/o).is_file()})
    return sorted(p.relative_to(ROOT) for p in ROOT.rglob('*') if p.is_file() and not JUNK & set(p.relative_to(ROOT).parts)
                  and not any(o.endswith('.egg-info') for o in p.parts))

def _copy(dst):
    for f in _files():
        (dst/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/f, dst/f)

def _differ(copy, under, pat):
    "Files matching `pat` below `under` that are not byte for byte the same in the working tree and in `copy`."
    def read(root): return {p.relative_to(root): p.read_bytes() for p in (root/under).rglob(pat) if not JUNK & set(p.relative_to(root).parts)}
    a, b = read(ROOT), read(copy)
    return sorted(str(k) for k in a.keys() | b.keys() if a.get(k) != b.get(k))

def _step(n, what): print(f'== {n}/6 {what}', flush=True)

def check():
    with tempfile.TemporaryDirectory(prefix='dim_nb-') as tmp:
        tmp = Path(tmp).resolve()
        _copy(tmp)
        _step(1, 'notebooks are clean')
        if run('nbdev_clean', cwd=tmp): fail('nbdev_clean failed; the lines above say where')
        if d := _differ(tmp, 'nbs', '*.ipynb'): fail(f'not clean: {", ".join(d)}. Run `make prepare`')
        _step(2, 'the library is what the notebooks export')
        for p in (tmp/'dim_nb').rglob('*.py'):
            if p.name == '_modidx.py' or '# AUTOGENERATED!' in p.read_text(encoding='utf-8')[:1000]: p.unlink()
        keep = (tmp/'pyproject.toml').read_bytes()
        if run('nbdev_export', cwd=tmp): fail('nbdev_export failed; the lines above say where')
        d = _differ(tmp, 'dim_nb', '*.py') + ([] if (tmp/'pyproject.toml').read_bytes() == keep else ['pyproject.toml'])
        if d: fail(f'not what the notebooks export: {", ".join(d)}. Edit the notebook, not the module; then `make prepare`. '
                   'A module whose notebook is gone: delete it')
        _step(3, 'README.md is current')
        readme(check=True)
        _step(4, 'the notebooks run')
        t = time.time()
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        threads = os.environ.get('OMP_NUM_THREADS') or str(max(1, cpus//min(cpus, 8)))
        if run('nbdev_test', '--n_workers', min(cpus, 8), '--do_print', '--timing', cwd=tmp, env=dict(OMP_NUM_THREADS=threads, NUMBA_NUM_THREADS=threads)):  # numba would set OpenMP's threads to all cores, for torch too
            fail('a notebook failed; the lines above show the cell. Mend it, then `make notebooks NB=nbs/<name>.ipynb` and `make prepare`')
        print(f'notebooks took {time.time()-t:.0f} s')

def pytest():
    _step(5, 'tests')
    with tempfile.TemporaryDirectory(prefix='dim_nb-') as tmp:
        return run(sys.executable, '-m', 'pytest', 'tests', '-p', 'no:cacheprovider', cwd=ROOT, env=dict(HYPOTHESIS_STORAGE_DIRECTORY=tmp))

def prepare():
    if run('nbdev_clean', cwd=ROOT) or run('nbdev_export', cwd=ROOT): fail('the lines above say what failed')
    readme()

def notebooks(*paths):
    "Run notebooks in place, as a reader would from the top, leaving out the cells that need a GPU or hours."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from dim_nb.inspect import strip_widgets
    os.environ.update(JUPYTER_PREFER_ENV_PATH='1', PYTHONWARNINGS='ignore')
    for p in [Path(o).resolve() for o in paths] or sorted((ROOT/'nbs').glob('*.ipynb')):
        print(f'== {p.name}', flush=True)
        nb = nbformat.read(p, 4)
        for c in nb.cells:
            if c.cell_type == 'code' and SKIP.search(c.source): c.metadata['tags'] = ['skip-execution']
        t = time.time()
        try: NotebookClient(nb, timeout=3600, kernel_name='python3', resources=dict(metadata=dict(path=str(p.parent)))).execute()
        except CellExecutionError as e: fail(f'{p.name} stopped, and was left as it was:\n{e}')
        for c in nb.cells:
            for k in ('tags', 'execution'): c.metadata.pop(k, None)
        nb.metadata.pop('widgets', None)
        nbformat.write(nb, p)
        strip_widgets(p)   # a widget without its kernel would show as an error
        print(f'{time.time()-t:.0f} s')
    prepare()


if __name__ == '__main__':
    if len(sys.argv) < 2: sys.exit(__doc__)
    cmd, *args = sys.argv[1:]
    if cmd == 'readme': readme(check='--check' in args)
    elif cmd == 'notebooks': notebooks(*args)
    else: sys.exit({'check': check, 'pytest': pytest, 'prepare': prepare}[cmd]())
