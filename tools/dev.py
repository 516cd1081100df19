"""What the authors' commands do, run by the Makefile with .venv's Python:
dev.py check | pytest | prepare | readme [--check] | notebooks [NB ...] | docs | hooks | release | notes"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NBS, DOCS = ROOT/'nbs', ROOT/'_docs'
INDEX, README = NBS/'index.ipynb', ROOT/'README.md'
JUNK = {'.git', '.venv', '.ipynb_checkpoints', '__pycache__', 'out', 'build', 'dist', '_docs', '_proc'}
SKIP = re.compile(r'^#\s*\|\s*(eval:\s*false|slow|cuda)\b', re.M)   # cells that neither tests nor `make notebooks` run
VIEW = 'application/vnd.jupyter.widget-view+json'


def fail(msg): sys.exit(f'make: {msg}')


def run(*cmd, **kw):
    "The exit status of `cmd`, run with .venv's commands first on the PATH"
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')}
    env.update(PATH=f'{BIN}{os.pathsep}{env.get("PATH", "")}', **kw.pop('env', {}))
    return subprocess.run([str(c) for c in cmd], env=env, **kw).returncode


def config():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def all_notebooks():
    "Every notebook under nbs/: the story first, then toolbox and product"
    found = [p for p in NBS.rglob('*.ipynb') if not JUNK & set(p.relative_to(ROOT).parts)]
    return sorted(found, key=lambda p: (len(p.parts), p.parent.name != 'toolbox', p.name))


def read_notebook(path): return json.loads(Path(path).read_text(encoding='utf-8'))


def write_notebook(path, nb):
    Path(path).write_text(json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def strip_widgets(path):
    "Take the references to live widgets out of a notebook, leave their static pictures; how many there were"
    nb = read_notebook(path)
    outs = [o for c in nb['cells'] for o in c.get('outputs', []) if VIEW in o.get('data', {})]
    for o in outs:
        del o['data'][VIEW]
    if nb['metadata'].pop('widgets', None) or outs:
        write_notebook(path, nb)
    return len(outs)


# README.md from nbs/index.ipynb

def directives(src):
    "(directives of a cell, the source without them)"
    lines = src.splitlines()
    head = [o for o in lines if re.match(r'#\s*\|', o)]
    pairs = [re.sub(r'^#\s*\|', '', o).partition(':') for o in head]
    code = '\n'.join(o for o in lines if o not in head).strip('\n')
    return {k.strip(): v.strip() for k, _, v in pairs}, code


def hidden(how): return bool({'hide', 'export', 'default_exp'} & {k.split()[0] for k in how})


def output_text(out, src, alt):
    "One output as markdown: a picture as the file that the cell saved, Markdown as it is, text indented"
    data = out.get('data', {})
    if 'image/png' in data:
        saved = re.search(r"['\"](\.\./data/figures/[^'\"]+\.png)['\"]", src)
        if not saved:
            fail('a cell of nbs/index.ipynb shows a picture that it does not save in data/figures')
        return f'![{alt}]({saved[1]})'
    if 'text/markdown' in data:
        return ''.join(data['text/markdown'])
    printed = out.get('text', []) if out.get('name') == 'stdout' else []
    text = ''.join(data.get('text/plain', printed))
    return '\n'.join('    ' + o for o in text.rstrip().splitlines())


def cell_parts(cell):
    "What README.md shows of a cell: (kind, text) each"
    src = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return [('text', src.strip())]
    how, code = directives(src) if cell['cell_type'] == 'code' else ({'hide': ''}, '')
    if hidden(how):
        return []
    parts = [('code', code)] if code and how.get('echo') != 'false' else []
    texts = [output_text(o, src, how.get('fig-alt', '')) for o in cell['outputs']]
    return parts + [('text', o) for o in texts if o]


def root_links(text):
    "Links and paths of nbs/index.ipynb as seen from the repository's root"
    text = re.sub(r'\]\(((?:toolbox/|product/)?[\w-]+\.ipynb)', r'](nbs/\1', text)
    text = re.sub(r'\]\(#([\w-]+)\)', lambda m: f'](#{m[1].lower()})', text)
    return text.replace('../', '')


def readme_text():
    "README.md as nbs/index.ipynb gives it, without hidden cells"
    parts = []
    for kind, text in [o for c in read_notebook(INDEX)['cells'] for o in cell_parts(c)]:
        if kind == 'code' and parts and parts[-1][0] == 'code':
            parts[-1] = kind, f'{parts[-1][1]}\n\n{text}'   # no output between them: one block
        else:
            parts.append((kind, text))
    text = root_links('\n\n'.join(f'```python\n{o}\n```' if kind == 'code' else o for kind, o in parts))
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(o.rstrip() for o in text.splitlines()))
    return '<!-- Made from nbs/index.ipynb by `make readme`: edit that. -->\n\n' + text.strip() + '\n'


def readme(check=False):
    text = readme_text()
    same = README.exists() and README.read_text(encoding='utf-8') == text
    if check and not same:
        fail('README.md is not what nbs/index.ipynb gives: run `make prepare`')
    if not check and not same:
        README.write_text(text, encoding='utf-8')


# The checks work on a copy, so that the working tree stays as it is, committed or not

def tracked_files():
    "What a clone would hold, and what is new and not ignored; in a folder without git everything but JUNK"
    if (ROOT/'.git').exists():
        listed = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, capture_output=True)
        if listed.returncode == 0:
            names = filter(None, listed.stdout.decode().split('\0'))
            return sorted({Path(o) for o in names if (ROOT/o).is_file()})
    found = [p.relative_to(ROOT) for p in ROOT.rglob('*') if p.is_file()]
    return sorted(p for p in found if not JUNK & set(p.parts) and not any(o.endswith('.egg-info') for o in p.parts))


def copy_tree(dst):
    for f in tracked_files():
        (dst/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/f, dst/f)


def contents(root, under, pattern):
    found = [p.relative_to(root) for p in (root/under).rglob(pattern)]
    return {p: (root/p).read_bytes() for p in found if not JUNK & set(p.parts)}


def differing(copy, under, pattern):
    "Files matching `pattern` below `under` that are not byte for byte the same in the working tree and in `copy`"
    a, b = contents(ROOT, under, pattern), contents(copy, under, pattern)
    return sorted(str(k) for k in a.keys() | b.keys() if a.get(k) != b.get(k))


def step(n, what): print(f'== {n}/7 {what}', flush=True)


def counts_as_code(cell):
    "Is it a code cell that a reader sees?"
    return cell['cell_type'] == 'code' and not {'hide', 'default_exp'} & {
        k.split()[0] for k in directives(''.join(cell['source']))[0]}


def hard_to_read(path):
    "Cells of a notebook that are too long, and too many code cells in a row without prose"
    found, row = [], 0
    for i, cell in enumerate(read_notebook(path)['cells']):
        lines = [o for o in cell['source'] if o.strip() and not o.strip().startswith('#')]
        if cell['cell_type'] == 'code' and len(lines) > 30:
            found.append(f'{path.relative_to(ROOT)}: cell {i} has {len(lines)} lines; split it')
        row = 0 if cell['cell_type'] == 'markdown' else row + counts_as_code(cell)
        if row == 4:
            found.append(f'{path.relative_to(ROOT)}: cell {i} is the fourth code cell in a row; say what comes')
    return found


def check_style():
    step(1, 'style: pyflakes, one statement a line, 120 characters; cells of 30 lines, prose after three at most')
    if run(BIN/'ruff', 'check', '--no-cache', '--quiet', '.', cwd=ROOT):
        fail('the lines above name what to mend')
    if found := [o for path in all_notebooks() for o in hard_to_read(path)]:
        fail('\n'.join(found))


def check_clean(copy):
    step(2, 'notebooks are clean')
    if run('nbdev_clean', cwd=copy):
        fail('nbdev_clean failed; the lines above say where')
    if d := differing(copy, 'nbs', '*.ipynb'):
        fail(f'not clean: {", ".join(d)}. Run `make prepare`')


def check_export(copy):
    step(3, 'the library is what the notebooks export')
    for p in (copy/'dim_nb').rglob('*.py'):
        if p.name == '_modidx.py' or '# AUTOGENERATED!' in p.read_text(encoding='utf-8')[:1000]:
            p.unlink()
    if run('nbdev_export', cwd=copy):
        fail('nbdev_export failed; the lines above say where')
    changed = differing(copy, 'dim_nb', '*.py')
    if (copy/'pyproject.toml').read_bytes() != (ROOT/'pyproject.toml').read_bytes():
        changed.append('pyproject.toml')
    if changed:
        fail(f'not what the notebooks export: {", ".join(changed)}. '
             'Edit the notebook, not the module; then `make prepare`. A module whose notebook is gone: delete it')


def check_notebooks(copy):
    step(5, 'the notebooks run')
    start = time.time()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    workers = min(cpus, 8)
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(1, cpus//workers))
    env = dict(OMP_NUM_THREADS=threads, NUMBA_NUM_THREADS=threads)   # numba would set OpenMP's threads, torch's too
    if run('nbdev_test', '--n_workers', workers, '--do_print', '--timing', cwd=copy, env=env):
        fail('a notebook failed; the lines above show the cell. Mend it, then '
             '`make notebooks NB=nbs/<name>.ipynb` and `make prepare`')
    print(f'notebooks took {time.time()-start:.0f} s')


def check():
    "Style, clean notebooks, export equality, README, and all notebooks"
    check_style()
    with tempfile.TemporaryDirectory(prefix='dim_nb-') as tmp:
        copy = Path(tmp).resolve()
        copy_tree(copy)
        check_clean(copy)
        check_export(copy)
        step(4, 'README.md is current')
        readme(check=True)
        check_notebooks(copy)


def pytest():
    step(6, 'tests')
    with tempfile.TemporaryDirectory(prefix='dim_nb-') as tmp:
        cmd = [sys.executable, '-m', 'pytest', 'tests', '-p', 'no:cacheprovider']
        return run(*cmd, cwd=ROOT, env=dict(HYPOTHESIS_STORAGE_DIRECTORY=tmp))


COLAB = """#| hide
#| eval: false
from pathlib import Path
if Path('/content').exists():   # on Colab: the library, torch left as it is, and the data
    !pip install -qq "dim_nb[train,inspect] @ git+{git_url}"
    !git clone -q --depth 1 {git_url} /content/dim_nb
    %cd /content/dim_nb/{folder}"""


def colab_cell(path):
    "The hidden cell with which a notebook begins on Colab, the same in all"
    return COLAB.format(git_url=config()['git_url'], folder=path.parent.relative_to(ROOT).as_posix())


def set_colab_cell(path):
    nb = read_notebook(path)
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'code' and '/content' in src and re.search(r'^#\|\s*eval: false', src, re.M):
            c['source'] = colab_cell(path).splitlines(keepends=True)
            write_notebook(path, nb)
            return


def prepare():
    for p in all_notebooks():
        set_colab_cell(p)
    if run('nbdev_clean', cwd=ROOT) or run('nbdev_export', cwd=ROOT):
        fail('the lines above say what failed')
    readme()


def hooks():
    "nbdev's git hooks, by the path of this .venv, so that they work in a shell that has not activated it"
    if not (ROOT/'.git').is_dir():
        return
    if run('nbdev_install_hooks', cwd=ROOT):
        fail('nbdev_install_hooks failed; the lines above say why')
    for path, command in ((ROOT/'.gitconfig', 'nbdev_merge'), (ROOT/'.git/hooks/post-merge', 'nbdev_trust')):
        path.write_text(path.read_text().replace(command, f"'{BIN/command}'"))


# Running notebooks in place

def execute(path):
    "Run a notebook as a reader would, from the top, leaving out the cells that need a GPU or hours"
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    nb = nbformat.read(path, 4)
    for c in nb.cells:
        if c.cell_type == 'code' and SKIP.search(c.source):
            c.metadata['tags'] = ['skip-execution']
    where = dict(metadata=dict(path=str(path.parent)))
    try:
        NotebookClient(nb, timeout=3600, kernel_name='python3', resources=where).execute()
    except CellExecutionError as e:
        fail(f'{path.name} stopped, and was left as it was:\n{e}')
    for c in nb.cells:
        c.metadata.pop('tags', None)
        c.metadata.pop('execution', None)
    nbformat.write(nb, path)
    strip_widgets(path)   # a widget without its kernel would show as an error


def notebooks(*paths):
    os.environ.update(JUPYTER_PREFER_ENV_PATH='1', PYTHONWARNINGS='ignore')
    for p in [Path(o).resolve() for o in paths] or all_notebooks():
        print(f'== {p.relative_to(ROOT)}', flush=True)
        start = time.time()
        execute(p)
        print(f'{time.time()-start:.0f} s')
    prepare()


# The site: what settings.ini's doc_host promises, a page a notebook

def with_anchors(nb):
    "Without hidden cells; an anchor before each cell that defines something, for links such as viewer.html#Item"
    import nbformat
    cells = []
    for c in nb.cells:
        how, code = directives(c.source) if c.cell_type == 'code' else ({}, '')
        if hidden(how) and 'export' not in {k.split()[0] for k in how}:
            continue
        names = re.findall(r'^(?:class|def) ([A-Za-z]\w*)', code, re.M)
        if names:
            cells.append(nbformat.v4.new_markdown_cell(''.join(f'<a id="{o}"></a>' for o in names)))
        cells.append(c)
    nb.cells = cells
    return nb


def page_links(html):
    "Links between notebooks become links between pages; links into the repository go to its host"
    url = config()['git_url']
    html = re.sub(r'href="((?:\.\./|toolbox/|product/)*[\w-]+)\.ipynb', r'href="\1.html', html)
    return re.sub(r'href="(?:\.\./)+((?:LICENSE|[A-Z_]+\.md|data/|web/)[^"]*)"', rf'href="{url}/blob/main/\1"', html)


def docs():
    "All notebooks as pages in _docs, as they were saved"
    import nbformat
    from nbconvert import HTMLExporter
    shutil.rmtree(DOCS, ignore_errors=True)
    for p in all_notebooks():
        page = DOCS/p.relative_to(NBS).with_suffix('.html')
        page.parent.mkdir(parents=True, exist_ok=True)
        html, _ = HTMLExporter().from_notebook_node(with_anchors(nbformat.read(p, 4)), dict(metadata=dict(name=p.stem)))
        page.write_text(page_links(html), encoding='utf-8')
    print(f'{len(list(DOCS.rglob("*.html")))} pages in _docs')


# A release: a tag, from which the workflow builds the wheel

def release_notes(version):
    "The section of CHANGELOG.md about `version`"
    text = (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')
    found = re.search(rf'^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)', text, re.M | re.S)
    return found[1].strip() if found else ''


def git(*args): return subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def release():
    "Tag the present commit with settings.ini's version and push the tag"
    version, branch = config()['version'], config()['branch']
    tag = f'v{version}'
    faults = {f'on {branch}': git('branch', '--show-current') == branch,
              'with everything committed': not git('status', '--porcelain'),
              f'with a section "## {version}" in CHANGELOG.md': release_notes(version),
              f'of a version that has no tag {tag} yet': not git('tag', '--list', tag)}
    for what, ok in faults.items():
        if not ok:
            fail(f'a release is made {what}')
    if run('git', 'tag', '-a', tag, '-m', f'{tag}\n\n{release_notes(version)}', cwd=ROOT):
        fail(f'could not make the tag {tag}')
    if run('git', 'push', 'origin', branch, tag, cwd=ROOT):
        fail(f'the tag {tag} is made, but could not be pushed: git push origin {branch} {tag}')


def notes(): print(release_notes(config()['version']))


COMMANDS = dict(notes=notes, hooks=hooks, check=check, pytest=pytest, prepare=prepare, docs=docs, release=release)

if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cmd, *args = sys.argv[1:]
    if cmd == 'readme':
        readme(check='--check' in args)
    elif cmd == 'notebooks':
        notebooks(*args)
    else:
        sys.exit(COMMANDS[cmd]())
