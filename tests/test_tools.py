"The authors' tools: widgets stripped, README from the index, links that lead somewhere, the site, a release's notes"
import json
import re
import sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import dev  # noqa: E402

NOTEBOOKS = dev.all_notebooks()


def name(path): return path.relative_to(dev.NBS).as_posix()


def outputs(nb): return [o for c in nb['cells'] for o in c.get('outputs', [])]


def prose(path): return '\n'.join(''.join(c['source']) for c in dev.read_notebook(path)['cells']
                                  if c['cell_type'] == 'markdown')


def test_strip_widgets(tmp_path):
    path = tmp_path/'nb.ipynb'
    out = dict(output_type='display_data', metadata={}, data={dev.VIEW: dict(model_id='x'), 'image/jpeg': '…'})
    path.write_text(json.dumps(dict(cells=[dict(cell_type='code', outputs=[out])], metadata=dict(widgets={}))))
    assert (dev.strip_widgets(path), dev.strip_widgets(path)) == (1, 0)
    nb = dev.read_notebook(path)
    assert 'widgets' not in nb['metadata'] and list(outputs(nb)[0]['data']) == ['image/jpeg']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_notebooks_hold_no_dead_widgets(path):
    "A saved reference to a widget shows as an error to whoever opens the notebook; strip_widgets takes it out"
    nb = dev.read_notebook(path)
    assert 'widgets' not in nb['metadata']
    assert not [o for o in outputs(nb) if dev.VIEW in o.get('data', {})]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_links_lead_somewhere(path):
    "Relative links of a notebook point to files that are there"
    links = re.findall(r'\]\(([^)#:\s]+)(?:#[^)]*)?\)', prose(path))
    assert not [o for o in links if not (path.parent/o).exists()]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_badge_opens_this_notebook(path):
    badges = re.findall(r'colab\.research\.google\.com/github/dim-nb/dim_nb/blob/main/nbs/([\w/]+\.ipynb)', prose(path))
    assert path.stem == 'index' or name(path) in badges


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_colab_cell(path):
    "Installs the library without upgrading torch, brings the data, goes to the notebook's folder"
    cells = [''.join(c['source']) for c in dev.read_notebook(path)['cells'] if c['cell_type'] == 'code']
    assert [c for c in cells if '/content' in c and 'pip install' in c] == [dev.colab_cell(path)]


def test_set_colab_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(dev, 'ROOT', tmp_path)
    monkeypatch.setattr(dev, 'config', lambda: dict(git_url='https://example.org/x'))
    path, old = tmp_path/'nb.ipynb', '#| hide\n#| eval: false\n!if [ -e /content ]; then pip install -U x; fi'
    dev.write_notebook(path, dict(cells=[dict(cell_type='code', source=[old])], metadata={}))
    dev.set_colab_cell(path)
    assert ''.join(dev.read_notebook(path)['cells'][0]['source']) == dev.colab_cell(path)
    assert '-U' not in dev.colab_cell(path)


def test_readme_links_lead_somewhere():
    links = re.findall(r'\]\(([^)#:\s]+)(?:#[^)]*)?\)', dev.readme_text())
    assert links and not [o for o in links if not (ROOT/o).exists()]


def test_links_as_seen_from_the_root():
    text = 'a [b](01_data_prep.ipynb) [c](toolbox/files.ipynb#x) [d](../data/README.md)'
    seen = 'a [b](nbs/01_data_prep.ipynb) [c](nbs/toolbox/files.ipynb#x) [d](data/README.md)'
    assert dev.root_links(text) == seen


def test_page_links():
    links = 'toolbox/files.ipynb#x', '../01_data_prep.ipynb', '../data/README.md'
    pages = dev.page_links(' '.join(f'<a href="{o}">x</a>' for o in links))
    assert 'href="toolbox/files.html#x"' in pages and 'href="../01_data_prep.html"' in pages
    assert 'github.com/dim-nb/dim_nb/blob/main/data/README.md"' in pages


def test_changelog_has_this_version():
    assert dev.release_notes(dev.config()['version'])
