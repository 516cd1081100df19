"A job of 300 pictures on Ray: broken files, a killed worker, a killed driver"
import os, pickle, signal, subprocess, sys, threading, time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from dim_nb.looks import FOUND, NOBODY
from dim_nb.scale import ATTEMPTS, COLUMNS, Cutter, _mark, _summary, dim_scale, list_inputs, plan_targets, scale

PORTRAITS = sorted((Path(__file__).parent.parent/'data/portraits').glob('*.png'))
SIZE = 96   # the networks look at small pictures here: 300 of them have to be done in a minute


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "300 pictures in three folders, of which 12 are broken"
    root = tmp_path_factory.mktemp('photos')
    small = [Image.open(p).convert('RGB').resize((80, 96)) for p in PORTRAITS]
    for i in range(300):
        f = root/f'{i%3}'/f'{i:03}.jpg'
        f.parent.mkdir(exist_ok=True)
        small[i%5].save(f, quality=60+i%30)
        if i%25 == 7:
            f.write_bytes(f.read_bytes()[:200+i])
    return root

def broken(root): return {f'{i:03}' for i in range(300) if i%25 == 7}

def check(root, out, rows):
    "Every picture is done once, every broken one named, nothing half-written"
    assert len(rows) == 300
    failed = {Path(r['path']).stem for r in rows.values() if r['error']}
    assert failed == broken(root)
    made = sorted(out.rglob('*.png'))
    assert {f.stem for f in made} == {f'{i:03}' for i in range(300)}-failed
    for f in made:
        assert Image.open(f).convert('RGBA').size == (80, 96)
    left = [f for f in out.rglob('*') if f.is_file() and f.suffix != '.png']
    assert [f.name for f in left] == ['manifest.parquet']
    table = pd.read_parquet(out/'manifest.parquet')
    assert len(table) == 300 and set(table.target) == set(rows)
    assert table.reason[table.error != ''].str.len().min() > 0

def test_notes_and_resolution_are_kept(tmp_path):
    "What the file was warned of stands in its row, and the cut-out notes the photograph's resolution"
    photo = Image.open(PORTRAITS[0]).convert('RGB').resize((80, 96))
    gif, jpg = tmp_path/'in'/'moving.gif', tmp_path/'in'/'scan.jpg'
    gif.parent.mkdir()
    photo.save(gif, save_all=True, append_images=[photo.rotate(5), photo.rotate(9)])
    photo.save(jpg, dpi=(300, 150))
    rows = {Path(r['path']).name: r for r in scale(gif.parent, tmp_path/'out', size=96).values()}
    assert '3 frames' in rows['moving.gif']['notes'] and rows['scan.jpg']['notes'] == ''
    assert '1 with a note on the file' in '\n'.join(_summary(rows, 1, tmp_path))
    cut = Image.open(rows['scan.jpg']['target'])
    assert [round(o) for o in cut.info['dpi']] == [300, 150]
    cutter = Cutter(size=96)
    cutter.load()
    from_bytes = cutter.row('moving.gif', gif.read_bytes())
    assert 'moving.gif' in from_bytes['notes'] and '<bytes>' not in from_bytes['notes']
    assert pd.read_parquet(tmp_path/'out'/'manifest.parquet').notes.str.contains('frames').sum() == 1

def workers_of_ray():
    import psutil
    found = []
    for p in psutil.process_iter(['pid', 'cmdline']):
        if 'Map' in ' '.join(p.info['cmdline'] or ()) and 'ray::' in ' '.join(p.info['cmdline'] or ()):
            found.append(p.info['pid'])
    return found

def wait_for(ready, seconds=240):
    end = time.time()+seconds
    while not ready():
        assert time.time() < end, 'it took too long'
        time.sleep(.05)

def n_done(out): return sum(1 for _ in out.rglob('*.png'))


def test_targets_depend_on_their_folder_alone():
    files = [Path('in')/o for o in ('a.jpg', 'A.webp', 'b/a.jpg', 'b/c.png')]
    made = [str(o) for o in plan_targets(files, 'in', 'out')]
    assert made == ['out/a.jpg.png', 'out/A.webp.png', 'out/b/a.png', 'out/b/c.png']
    made = plan_targets([Path('in')/o for o in ('a.jpg', 'a.png', 'a.jpg.png')], 'in', 'out')
    assert [o.name for o in made] == ['a.jpg.png', 'a.png.png', 'a.jpg.png.png']

def test_inputs(photos, tmp_path):
    assert len(list_inputs(photos)[0]) >= 288
    assert len(list_inputs(str(photos/'1'/'*.jpg'))[0]) == 100
    listed = tmp_path/'list.txt'
    listed.write_text(f'{photos}/0/000.jpg\n\n{photos}/1/001.jpg\n')
    files, root, _ = list_inputs(listed)
    assert [f.name for f in files] == ['000.jpg', '001.jpg'] and root == photos
    with pytest.raises(ValueError, match='no picture matches'):
        list_inputs(tmp_path/'nowhere')

def test_networks_do_not_travel(photos):
    cutter = Cutter(size=SIZE)
    before = len(pickle.dumps(cutter))
    cutter(dict(path=[str(photos/'0'/'000.jpg')]))
    assert len(pickle.dumps(cutter)) == before

def test_the_unsure_can_be_found(tmp_path, capsys):
    "How certain it is that somebody is there stands in the manifest; one of an older version is read and filled up"
    src, manifest = tmp_path/'in', tmp_path/'out/manifest.parquet'
    src.mkdir()
    Image.open(PORTRAITS[1]).convert('RGB').resize((176, 240)).save(src/'somebody.jpg')
    Image.new('RGB', (96, 96), (90, 90, 90)).save(src/'wall.png')
    (src/'broken.jpg').write_text('x')
    assert dim_scale(in_=str(src), out=str(tmp_path/'out')) == 1
    assert '1 of them unsure or with nobody' in capsys.readouterr().out
    table = pd.read_parquet(manifest)
    sure = dict(zip(table.path.map(lambda o: Path(o).stem), table.certainty))
    assert sure['somebody'] > FOUND and sure['wall'] < NOBODY and pd.isna(sure['broken'])
    table.drop(columns='certainty').to_parquet(manifest)
    assert dim_scale(in_=str(src), out=str(tmp_path/'out')) == 1
    again = pd.read_parquet(manifest)
    assert list(again.columns) == COLUMNS and again.certainty.isna().all() and again.width.max() == 176

def test_nothing_to_do_is_said(tmp_path):
    Image.new('RGB', (9, 9)).save(tmp_path/'a.png')
    with pytest.raises(ValueError, match='no picture there'): scale(tmp_path, tmp_path)
    assert [o.name for o in tmp_path.iterdir()] == ['a.png']

def test_what_kills_its_worker_is_given_up(photos, tmp_path):
    target = tmp_path/'000.png'
    _mark(target).write_text(str(ATTEMPTS))
    done = Cutter(size=SIZE)(dict(path=[str(photos/'0'/'000.jpg')], target=[str(target)]))
    assert 'died' in done['error'][0] and not target.exists() and not _mark(target).exists()

def test_same_pictures_by_path_and_bytes(photos):
    f, cutter = photos/'0'/'000.jpg', Cutter(size=SIZE)
    a, b = cutter(dict(path=[str(f)])), cutter(dict(path=['x'], bytes=[f.read_bytes()]))
    assert a['png'][0] == b['png'][0]

def test_a_worker_is_killed(photos, tmp_path):
    ray = pytest.importorskip('ray')
    out, result = tmp_path/'out', {}
    job = threading.Thread(target=lambda: result.update(scale(photos, out, 'ray', workers=2, batch=8, size=SIZE)))
    job.start()
    wait_for(lambda: n_done(out) > 60 or not job.is_alive())
    victims = workers_of_ray()
    assert victims, 'no worker found'
    os.kill(victims[0], signal.SIGKILL)
    job.join(300)
    ray.shutdown()
    assert not job.is_alive()
    check(photos, out, result)

def test_the_driver_is_killed(photos, tmp_path):
    pytest.importorskip('ray')
    out = tmp_path/'out'
    command = [sys.executable, '-W', 'ignore', '-c', 'import sys; from dim_nb.scale import dim_scale; sys.exit(dim_scale())',
               '--in', str(photos), '--out', str(out), '--engine', 'ray', '--batch', '8', '--size', str(SIZE)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: n_done(out) > 80 or first.poll() is not None)
    first.kill()
    first.wait()
    time.sleep(5)   # its workers end with it
    before = {f: f.stat().st_mtime_ns for f in out.rglob('*.png')}
    assert 80 < len(before) < 288
    second = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert second.returncode == 1, second.stderr
    assert '288 of 300 cut out' in second.stdout and '12 failed' in second.stdout
    assert all(f.stat().st_mtime_ns == t for f,t in before.items())   # what stood was not done again
    table = pd.read_parquet(out/'manifest.parquet')
    check(photos, out, {r['target']: r for r in table.to_dict('records')})

def test_arguments(tmp_path, monkeypatch, capsys):
    for words, said in ((['--in', str(tmp_path/'no'), '--out', str(tmp_path/'o')], 'no such folder'),
                        (['--in', '.', '--out', 'o', '--workers', '0'], '--workers 0'), (['--out', 'o'], '--in and --out')):
        monkeypatch.setattr(sys, 'argv', ['dim_scale', *words])
        assert dim_scale() == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(sys, 'argv', ['dim_scale', '--in', '.', '--out', 'o', '--engine', 'spark'])
    with pytest.raises(SystemExit) as e: dim_scale()
    assert e.value.code == 2
