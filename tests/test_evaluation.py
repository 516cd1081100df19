"Judging on a folder: what is scored, resumed, left out and said; dim_eval."
import json, os, shutil, subprocess, sys
from pathlib import Path
import cv2, numpy as np, pandas as pd, pytest
from PIL import Image
from dim_nb import evaluation as ev
from dim_nb.evaluation import (BENCHMARKS, Scene, benchmark_report, celeba_rows, code_digest, dim_eval, edge_light, eval_items,
                               evaluate, find_benchmark, matte_signs, report, summary, worst_sheet)
from dim_nb.images import read_alpha, write_png
from dim_nb.metrics import all_metrics, conn, error_maps, grad, trimap_scores
from dim_nb.peers import Peer, load_peers
from onnx_by_hand import tiny_onnx
from scenes import SUBSETS, FakeMatter, make_set, scene

ROOT = Path(__file__).resolve().parent.parent
METRICS = ['sad', 'mse', 'mad', 'grad', 'conn']

@pytest.fixture
def folder(tmp_path): return make_set(tmp_path/'set')

@pytest.fixture
def fake(monkeypatch):
    m = FakeMatter()
    monkeypatch.setattr(ev, 'load_matter', lambda *a, **k: m)
    return m

def row(df, stem, method): return df[(df.stem == stem)&(df.method == method)].iloc[0]

# --- what is found ---

def test_pictures_are_found(folder):
    (folder/'images/.hidden.png').write_text('x')
    (folder/'images/notes.txt').write_text('x')
    items, problems = eval_items(folder)
    assert {o.stem: o.subset for o in items} == SUBSETS and not problems and all(o.trimap for o in items)
    Image.fromarray(scene(0)[0]).save(folder/'images/a.jpg')
    (folder/'alphas/b.png').unlink()
    (folder/'trimaps/c.png').unlink()
    items, problems = eval_items(folder)
    assert [o.stem for o in items] == ['c', 'a', 'd'] and items[0].trimap is None
    assert len(problems) == 2 and 'same stem' in problems[0] and 'no alpha b' in problems[1]

def test_limit_is_spread_over_subsets(folder):
    assert [len(eval_items(folder, limit=n)[0]) for n in (1, 2, 3, 4, 99)] == [1, 2, 3, 4, 4]
    assert [o.subset for o in eval_items(folder, limit=2)[0]] == ['lowcontrast', 'plain']
    assert [o.stem for o in eval_items(folder, subset='plain')[0]] == ['a', 'd']

def test_wrong_folders_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match='images'):
        eval_items(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='dark, lowcontrast, plain'):
        eval_items(folder, subset='night')
    (folder/'subsets.csv').write_text('name,kind\na,b\n')
    with pytest.raises(ValueError, match='needs stem and subset'):
        eval_items(folder)
    (folder/'subsets.csv').write_bytes(b'')
    with pytest.raises(ValueError, match='subsets.csv'):
        eval_items(folder)

# --- what is scored ---

def test_values_equal_those_by_hand(folder):
    m = FakeMatter()
    df = evaluate(folder, m, load_peers(['cf']), bar=False)
    methods = ['ours', 'ours rough', 'ours given', 'ours given rough', 'cf', 'cf given']
    assert len(df) == 4*6 and df.method.drop_duplicates().tolist() == methods
    assert (df.region == np.where(df.method.str.contains('given'), 'unknown', 'whole')).all()
    for i,s in enumerate(SUBSETS):
        im, a, t = scene(i)
        a = np.rint(a*255)/255
        r, c = row(df, s, 'ours'), m(im)
        d = c.alpha.astype(np.float64)-a
        by_hand = [np.abs(d).sum()/1000, (d**2).mean(), np.abs(d).mean(), grad(c.alpha, a), conn(c.alpha, a)]
        assert r.subset == SUBSETS[s] and (r.height, r.width) == a.shape and r.seconds > 0
        np.testing.assert_allclose(r[METRICS].astype(float), by_hand, rtol=1e-6)
        g, d = row(df, s, 'ours given'), (m(im, t).alpha-a)[t == 128]
        by_hand = [np.abs(d).sum()/1000, (d**2).mean(), np.abs(d).mean()]
        np.testing.assert_allclose(g[METRICS[:3]].astype(float), by_hand, rtol=1e-5)
        rough = row(df, s, 'ours rough')[METRICS].astype(float)
        np.testing.assert_allclose(rough, [all_metrics(c.rough, a)[k] for k in METRICS], rtol=1e-6)
        sc = trimap_scores(c.trimap, a)
        assert all(r[k] == pytest.approx(sc[k]) for k in ('fatal', 'unknown'))
        assert np.isnan(row(df, s, 'cf').fatal) and 0 < r.iou_fg <= 1

def test_closed_form_gets_both_trimaps(folder):
    import pymatting
    m = FakeMatter()
    df = evaluate(folder, m, load_peers(['cf']), bar=False)
    im, a, t = scene(0)
    a = np.rint(a*255)/255
    for method, tri, region in (('cf', m(im).trimap, None), ('cf given', t, t)):
        p = np.clip(pymatting.estimate_alpha_cf(im/255., tri/255.), 0, 1)
        scores = all_metrics(p, a, region)
        np.testing.assert_allclose(row(df, 'a', method)[METRICS].astype(
            float), [scores[k] for k in METRICS], rtol=1e-3, atol=1e-5)

def test_masks_are_scored_over_the_judged_pixels(tmp_path):
    m = FakeMatter()
    df = evaluate(make_set(tmp_path/'s', trimaps=False, masks=True), m, load_peers(['cf']), bar=False)
    assert set(df.method) == {'ours', 'ours rough', 'cf'} and set(df.region) == {'judged'} and not df.attrs['problems']
    for i,s in enumerate(SUBSETS):
        im, _, mask = scene(i)
        alpha, judged, person = m(im).alpha, mask != 128, mask == 255
        r = row(df, s, 'ours')
        assert r.mask_mad == pytest.approx(np.abs(alpha-person)[judged].mean(), abs=1e-6)
        assert r.mask_iou == pytest.approx(((alpha > .5)&person).sum()/(((alpha > .5)|person)&judged).sum(), abs=1e-6)
    text = report(summary(df))
    assert 'IoU' in text and 'MAD ×10³' in text and 'judged' in text and 'SAD' not in text and 'hard' in text

def test_perfect_masks(tmp_path):
    d = make_set(tmp_path/'s', trimaps=False, masks=True)
    def truth(im): return next(t/255 for i in range(4) for p, _, t in [scene(i)] if np.array_equal(p, im))
    df = evaluate(d, FakeMatter(), [Peer('truth', truth)], bar=False)
    o = df[df.method == 'truth']
    assert (o.mask_iou == 1).all() and (o.mask_mad == 0).all()

def test_summary_is_made_of_means(folder):
    df = evaluate(folder, FakeMatter(), bar=False)
    s = summary(df).set_index(['subset', 'method'])
    assert s.index.get_level_values(0).drop_duplicates().tolist() == ['dark', 'lowcontrast', 'plain', 'hard', 'all']
    o = df[df.method == 'ours'].set_index('stem')
    assert s.loc[('plain', 'ours'), 'sad'] == pytest.approx(o.sad[['a', 'd']].mean())
    assert s.loc[('hard', 'ours'), 'grad'] == pytest.approx(o.grad[['b', 'c']].mean())
    assert s.loc[('all', 'ours'), 'fatal'] == pytest.approx(o.fatal.mean()) and s.loc[('all', 'ours'), 'pictures'] == 4
    assert s.loc[('all', 'ours'), 'seconds'] == pytest.approx(o.seconds.median())
    text = report(summary(df))
    for t in ('whole image', 'unknown region', 'fatal %', 'ours given rough', f'{o.sad.mean():.2f}'):
        assert t in text
    assert 'nan' not in text.lower()

def test_without_trimaps_and_subsets(tmp_path):
    df = evaluate(make_set(tmp_path/'s', trimaps=False, subsets=False), FakeMatter(), load_peers(['cf']), bar=False)
    assert set(
    df.method) == {
        'ours',
        'ours rough',
        'cf'} and not df.attrs['problems'] and set(
            summary(df).subset) == {'all'}
    assert 'unknown region' not in report(summary(df))

def test_given_can_be_left_out(folder):
    assert not evaluate(folder, FakeMatter(), given=False, bar=False).method.str.contains('given').any()

def test_error_maps_add_up_to_the_metrics():
    rng = np.random.default_rng(0)
    for _ in range(5):
        p, g = cv2.GaussianBlur(rng.random((2, 30, 26)).transpose(1, 2, 0), None, 2).transpose(2, 0, 1)
        m, v = error_maps(p, g), all_metrics(p, g)
        sums = [m['sad'].sum()/1e3, m['mse'].mean(), m['grad'].sum()/1e3, m['conn'].sum()/1e3]
        np.testing.assert_allclose(sums, [v[k] for k in ('sad', 'mse', 'grad', 'conn')], rtol=1e-9)

# --- published benchmarks, in small made-up archives of the same layout ---

LAYOUTS = {   # folders of images, alphas, trimaps
    'P3M-500-P': ('blurred_image', 'mask', 'trimap'), 'P3M-500-NP': ('original_image', 'mask', 'trimap'),
    'PPM-100': ('image', 'matte', None), 'AIM-500': ('original', 'mask', 'trimap')}

def archive(root, name, stems=('p_1', 'p_2', 'o_3')):
    for i, stem in enumerate(stems):
        im, a, t = scene(i)
        for folder, pic in zip(LAYOUTS[name], (im, a, t)):
            if folder is None:
                continue
            (root/folder).mkdir(parents=True, exist_ok=True)
            suffix = '.jpg' if folder == LAYOUTS[name][0] else '.png'
            Image.fromarray(
    pic if pic.dtype == np.uint8 else np.rint(
        pic*
        255).astype(
            np.uint8)).save(
                root/
                folder/
                f'{stem}{suffix}')
    if name == 'AIM-500':
        kinds = {s: dict(type='SO', category='portrait' if s[0] == 'p' else 'animal') for s in stems}
        (root/'aim_category_type.json').write_text(json.dumps(kinds))
    return root

def composition_archive(root, size=(24, 30)):
    licensed, voc = root/'Adobe-licensed images', root/'VOC2012/JPEGImages'
    for d in (licensed/'fg', licensed/'alpha', licensed/'trimaps', voc):
        d.mkdir(parents=True)
    for i, name in enumerate('ab'):
        a = np.zeros(size, np.float32)
        a[4:12,4:12+i] = 1
        write_png(licensed/f'fg/{name}.png', np.full((*size, 3), 200, np.uint8))
        write_png(licensed/f'alpha/{name}.png', a)
        for k in range(20):
            write_png(licensed/f'trimaps/{name}_{k}.png', np.full(size, 128, np.uint8))
    for k in range(40):
        write_png(voc/f'{k}.png', np.full((60, 50, 3), k, np.uint8))
    (root/'test_fg_names.txt').write_text('a.png\nb.png\n')
    (root/'test_bg_names.txt').write_text(''.join(f'{k}.png\n' for k in range(40)))
    return root

@pytest.mark.parametrize('name', LAYOUTS)
def test_archives_are_known_by_their_layout(tmp_path, name, monkeypatch):
    root = archive(tmp_path/name, name)
    assert find_benchmark(root) == (name, root)
    monkeypatch.setenv('DIM_DATA', str(tmp_path))
    assert find_benchmark(name) == (name, root)
    items, problems = eval_items(name)
    assert [o.stem for o in items] == (['p_1', 'p_2'] if name == 'AIM-500' else ['o_3', 'p_1', 'p_2'])
    assert f'{BENCHMARKS[name].pictures} pictures, {len(items)} were found' in problems[-1]
    assert all(o.alpha and bool(o.trimap) == bool(LAYOUTS[name][2]) for o in items)

def test_a_missing_archive_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('DIM_DATA', str(tmp_path))
    assert dim_eval(data='PPM-100') == 2
    err = capsys.readouterr().err
    assert 'DIM_DATA' in err and 'github.com/ZHKKKe/PPM' in err and len(err.splitlines()) == 1

def test_compositions_follow_the_lists(tmp_path):
    items, problems = eval_items(composition_archive(tmp_path/'c'))
    assert len(items) == 40 and '1000 pictures, 40 were found' in problems[-1]
    by_stem = {o.stem: o for o in items}
    for stem, back in (('a_0', 0), ('a_19', 19), ('b_0', 20), ('b_7', 27)):
        picture = Scene(by_stem[stem], None).image
        assert picture.shape == (24, 30, 3) and (picture[0,0] == back).all() and (picture[5,5] == 200).all()
    (tmp_path/'c/VOC2012/JPEGImages/3.png').unlink()
    items, problems = eval_items(tmp_path/'c')
    assert len(items) == 39 and any('3.png' in p and 'a_3' in p for p in problems)

def test_the_short_side_is_the_protocols(tmp_path):
    root = archive(tmp_path/'s', 'PPM-100')
    s = Scene(eval_items(root)[0][0], None)
    assert s.image.shape == (512, 614, 3) and s.truth.shape == (512, 614)

class Shifted(FakeMatter):
    "Knows the square of a foreground of the archive, `dx` px too far to the right"
    def __init__(self, dx):
        super().__init__()
        self.dx = dx
    def __call__(self, image, trimap=None):
        wide = ((image[5] == 200).all(-1)).sum()
        a = np.zeros(image.shape[:2], np.float32)
        a[4:12,4+self.dx:4+wide+self.dx] = 1
        cut = super().__call__(image, trimap)
        cut.alpha = cut.rough = a
        return cut

def test_a_perfect_matte_scores_0_and_a_shifted_one_what_can_be_counted(tmp_path, capsys):
    root = composition_archive(tmp_path/'c')
    for dx, wrong in ((0, 0), (1, 16), (2, 32)):
        df = evaluate(root, Shifted(dx), bar=False)
        given = df[df.method == 'ours given']
        assert len(given) == 40 and given.sad.values == pytest.approx(wrong/1000)
        assert given.mse.values == pytest.approx(wrong/(24*30)) and given.region.eq('unknown').all()
        assert dx or (given[['grad', 'conn']] == 0).all(axis=None)
    text = benchmark_report('Composition-1k', summary(df))
    assert 'ViTMatte-B' in text and '20.30' in text and 'this run' in text and 'given trimap' in text
    assert text.count('ours given') == 2 and 'whole image' not in text           # protocols are not mixed

# --- resuming ---

def test_an_interrupted_run_goes_on(folder, tmp_path):
    whole, done = evaluate(folder, FakeMatter(), bar=False), tmp_path/'out/done.csv'
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, FakeMatter(stop_at=5), done=done, bar=False)   # two calls a picture: in the third
    assert len(pd.read_csv(done)) == 2*4
    m = FakeMatter()
    df = evaluate(folder, m, done=done, bar=False)
    assert m.calls == 4 and df.attrs['new'] == 8
    cols = ['stem', 'subset', 'method', 'region', *METRICS, 'soft']
    pd.testing.assert_frame_equal(df[cols], whole[cols], check_dtype=False)
    m = FakeMatter()
    assert evaluate(folder, m, done=done, bar=False).attrs['new'] == 0 and m.calls == 0
    assert [p.name for p in done.parent.iterdir()] == ['done.csv']

def test_what_has_changed_is_done_again(folder, tmp_path):
    done, cf = tmp_path/'done.csv', load_peers(['cf'])
    def new(m=None, peers=cf, **kw): return evaluate(folder,
            m or FakeMatter(), peers, done=done, bar=False, **kw).attrs['new']
    assert new(peers=[]) == 16
    assert new() == 8                                       # a peer was added
    assert new(FakeMatter(weights=2.)) == 20                # other weights: all but closed form from the given trimaps
    im = scene(7)[0]
    Image.fromarray(im[:,::-1]).save(folder/'images/a.png')
    assert new(FakeMatter(weights=2.)) == 6                 # one picture was replaced
    done.write_text('half a li')
    assert new() == 24
    done.write_bytes(b'\xff\xfe\x00')
    assert new() == 24

def test_files_of_weights_are_in_the_key(folder, tmp_path):
    done, weights = tmp_path/'done.csv', tmp_path/'weights'
    weights.mkdir()
    def new(): return evaluate(folder, FakeMatter(), done=done, bar=False, weights=weights).attrs['new']
    (weights/'matting.onnx').write_bytes(b'1')
    assert [new(), new()] == [16, 0]
    (weights/'matting.onnx').write_bytes(b'2')
    assert new() == 16

def test_the_source_of_what_inference_imports_is_in_the_key(tmp_path, monkeypatch):
    "In a copy of the package, a changed line in a module that is imported only within a function changes the sum."
    copy = tmp_path/'dim_nb'
    shutil.copytree(ROOT/'dim_nb', copy, ignore=shutil.ignore_patterns('weights', '__pycache__'))
    monkeypatch.setattr(sys.modules['dim_nb'], '__file__', str(copy/'__init__.py'))
    def sums():
        code_digest.cache_clear()
        return code_digest('pipeline'), code_digest('peers', imports=False), code_digest('metrics')
    before = sums()
    for name, changed in (('matting', [True, False, False]), ('images', [
                          True, False, True]), ('peers', [False, True, False])):
        text = (copy/f'{name}.py').read_text(encoding='utf-8')
        (copy/f'{name}.py').write_text(text+'# changed\n', encoding='utf-8')
        assert [a != b for a,b in zip(before, sums())] == changed, name
        (copy/f'{name}.py').write_text(text, encoding='utf-8')
    code_digest.cache_clear()

def test_versions_are_in_the_key(folder, tmp_path, monkeypatch):
    done = tmp_path/'done.csv'
    assert evaluate(folder, FakeMatter(), done=done, bar=False).attrs['new'] == 16
    monkeypatch.setattr(ev, 'machine_record', lambda: dict(versions=dict(numpy='0.1')))
    assert evaluate(folder, FakeMatter(), done=done, bar=False).attrs['new'] == 16

def test_stems_that_look_like_numbers(tmp_path):
    d = make_set(tmp_path/'s')
    for n in ('images', 'alphas', 'trimaps'):
        for f in (d/n).glob('a.*'):
            f.rename(f.with_stem('000001'))
    assert evaluate(d, FakeMatter(), done=tmp_path/'done.csv', bar=False).attrs['new'] == 16
    df = evaluate(d, FakeMatter(), done=tmp_path/'done.csv', bar=False)
    assert df.attrs['new'] == 0 and '000001' in set(df.stem)

@pytest.mark.skipif(sys.platform != 'linux', reason='names that are no UTF-8 need a file system that takes them')
def test_names_that_are_not_utf8_or_hold_control_characters(tmp_path, fake):
    d = make_set(tmp_path/'s')
    odd = os.fsdecode(b'latin1_\xe9\xff')
    for n in ('images', 'alphas', 'trimaps'):
        for old, new in (('a', odd), ('c', 'red\x1b[31m')):
            for f in (d/n).glob(f'{old}.*'):
                os.rename(f, f.with_name(new+f.suffix))
    out = tmp_path/'out'
    assert dim_eval(data=str(d), out=str(out)) == 0
    df = pd.read_csv(out/'eval.csv')
    assert {r'latin1_\xe9\xff', r'red\x1b[31m', 'b', 'd'} == set(df.stem) and (out/'worst.png').exists()
    assert evaluate(d, fake, done=out/'done.csv', bar=False, weights=ev.WEIGHTS).attrs['new'] == 0

# --- what is broken ---

def break_set(d):
    "Every way to be unusable but one picture"
    data = (d/'images/a.png').read_bytes()
    (d/'images/a.png').write_bytes(data[:len(data)//2])
    write_png(d/'alphas/b.png', np.zeros((9,9), np.uint8))
    write_png(d/'trimaps/c.png', np.dstack([np.full((40,48), v, np.uint8) for v in (0,128,255)]))

def test_broken_files_cost_only_themselves(folder):
    break_set(folder)
    df = evaluate(folder, FakeMatter(), bar=False)
    p = df.attrs['problems']
    assert sorted(set(df.stem)) == ['c', 'd'] and set(
        df[df.stem == 'c'].method) == {'ours', 'ours rough'} and len(p) == 3
    assert 'a.png' in p[0]+p[1]+p[2] and any('9x9' in o for o in p) and any('in colour' in o for o in p)

def test_a_failing_peer_costs_only_itself(folder):
    def run(im): raise RuntimeError('no luck')
    df = evaluate(folder, FakeMatter(), [Peer('bad', run), Peer('short', lambda im: np.zeros((3,3)))], bar=False)
    p = df.attrs['problems']
    assert set(df.method) == {'ours', 'ours rough', 'ours given', 'ours given rough'} and len(p) == 8
    assert sum('no luck' in o for o in p) == 4

# --- the command ---

def test_command(folder, tmp_path, fake, capsys):
    out = tmp_path/'out'
    assert dim_eval(data=str(folder), peers='cf', out=str(out)) == 0
    text = capsys.readouterr().out
    for t in ('whole image', 'unknown region', 'cf given', 'hard', 'cores'):
        assert t in text
    assert sorted(o.name for o in out.iterdir()) == ['done.csv', 'eval.csv', 'eval.json', 'worst.png']
    rec = json.loads((out/'eval.json').read_text(encoding='utf-8'))
    df = pd.read_csv(out/'eval.csv')
    assert len(df) == 24 and rec['pictures'] == 4 and rec['problems'] == [] and rec['arguments']['data'] == 'set'
    assert rec['cpus'] and rec['versions']['numpy'] and rec['peers']['cf']['pymatting']
    assert {f'{n}.safetensors' for n in ('trimap', 'matting', 'refine')} <= set(rec['weights'])
    assert str(tmp_path) not in (out/'eval.json').read_text()
    ours = next(r for r in rec['table'] if r['subset'] == 'all' and r['method'] == 'ours')
    assert ours['sad'] == pytest.approx(df[df.method == 'ours'].sad.mean(), abs=1e-5)
    calls = fake.calls
    assert dim_eval(data=str(folder), peers='cf', out=str(out), worst=0) == 0 and fake.calls == calls

def test_command_on_masks(tmp_path, fake, capsys):
    d = make_set(tmp_path/'s', trimaps=False, masks=True)
    assert dim_eval(data=str(d), out=str(tmp_path/'out')) == 0
    assert 'IoU' in capsys.readouterr().out
    rec = json.loads((tmp_path/'out/eval.json').read_text(encoding='utf-8'))
    assert all(0 < r['mask_iou'] <= 1 for r in rec['table']) and (tmp_path/'out/worst.png').exists()

def test_command_with_broken_files(folder, tmp_path, fake, capsys):
    break_set(folder)
    assert dim_eval(data=str(folder), out=str(tmp_path/'out')) == 1
    err = capsys.readouterr().err
    assert err.count('not scored') == 3 and 'a.png' in err and str(
        tmp_path) not in (tmp_path/'out/eval.json').read_text()
    for f in (folder/'images').iterdir():
        f.write_text('x')
    assert dim_eval(data=str(folder), out=str(tmp_path/'out')) == 1        # nothing could be scored
    for f in (folder/'images').iterdir():
        f.unlink()
    assert dim_eval(data=str(folder)) == 1
    assert not [p for p in tmp_path.rglob('*.tmp')]

def test_an_interrupted_command_says_so(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ev, 'load_matter', lambda *a, **k: FakeMatter(stop_at=5))
    assert dim_eval(data=str(folder), out=str(tmp_path/'out')) == 130
    assert 'interrupted' in capsys.readouterr().err and len(pd.read_csv(tmp_path/'out/done.csv')) == 2*4

@pytest.mark.parametrize('arguments, names', [
    (dict(data=None), '--data'), (dict(data='nowhere'), 'nowhere'), (dict(data='set',
     limit=0), '--limit'), (dict(data='set', threads=0), '--threads'),
    (dict(data='set', subset='night'), 'night'), (dict(data='set', peers='nobody'),
     'nobody'), (dict(data='set', peer_onnx='m.onnx'), 'm.onnx'),
    (dict(data='set', peer_onnx='m=none.onnx'), 'none.onnx'), (dict(data='set', out='set/subsets.csv'), 'subsets.csv'),
    (dict(data='set', weights='nowhere'), 'nowhere'), (dict(data='set',
     device='tpu'), 'tpu'), (dict(data='set', weights='cut'), 'cut'),
    (dict(data='set', weights='text'), 'text')])
def test_wrong_arguments_are_one_line_and_status_2(arguments, names, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    for name in ('cut', 'text'):
        shutil.copytree(ROOT/'dim_nb/weights', name)
        for f in Path(name).iterdir():
            f.write_bytes(f.read_bytes()[:1000] if name == 'cut' else b'these are no weights')
    assert dim_eval(**arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and names in err and 'Traceback' not in err

def command(*argv):
    code = 'import sys\nfrom dim_nb.evaluation import dim_eval\nif __name__ == "__main__": sys.exit(dim_eval())'
    script = Path(argv[0])/'dim_eval'
    script.write_text(code)
    return subprocess.run([sys.executable, str(script), *argv[1:]], cwd=ROOT, capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=str(ROOT)))

@pytest.mark.parametrize('argv, status', [([], 2), (['--data', 'set', '--device',
                         'tpu'], 2), (['--data', 'nowhere'], 2), (['--help'], 0)])
def test_from_the_shell(tmp_path, argv, status):
    r = command(tmp_path, *argv)
    assert r.returncode == status and 'Traceback' not in r.stderr, r.stderr

def test_with_the_shipped_weights(tmp_path, capsys):
    d = tmp_path/'s'
    for n in ('images', 'alphas', 'trimaps'):
        (d/n).mkdir(parents=True)
    im = Image.open(ROOT/'data/portraits/obama.png').resize((96, 96))
    im.convert('RGB').save(d/'images/o.jpg')
    im.getchannel('A').save(d/'alphas/o.png')
    assert dim_eval(data=str(d), out=str(tmp_path/'out'), device='cpu') == 0
    df = pd.read_csv(tmp_path/'out/eval.csv', keep_default_na=False, na_values=[''])
    assert df.method.tolist() == ['ours', 'ours rough'] and (df['mad'] < .1).all() and df.seconds[0] > 0

def test_any_folder_of_weights(tmp_path, folder):
    weights = shutil.copytree(ROOT/'dim_nb/weights', tmp_path/'weights')
    df = evaluate(folder, weights, limit=1, bar=False, done=tmp_path/'done.csv')
    assert df.method.tolist()[:2] == ['ours', 'ours rough']
    assert evaluate(folder, limit=1, bar=False, done=tmp_path/
    'done.csv').attrs['new'] == 0      # the shipped ones are the same

def test_mediapipe_missing(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'mediapipe', None)
    assert dim_eval(data=str(folder), peers='mediapipe') == 2
    assert 'pip install mediapipe==0.10.21' in capsys.readouterr().err

def test_onnxruntime_missing(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    assert dim_eval(data=str(folder), peer_onnx='m=m.onnx') == 2
    assert 'pip install onnxruntime' in capsys.readouterr().err

def test_onnx_peer_by_the_command(tmp_path, folder, fake):
    pytest.importorskip('onnxruntime')
    im = scene(0)[0]
    grey = im.astype(np.float32).mean(2)/255
    fixed = tiny_onnx(tmp_path/'f.onnx', [1, 3, 40, 48])
    assert dim_eval(data=str(folder), peer_onnx=f'tiny={fixed}?mean=0&std=1', out=str(tmp_path/'out')) == 0
    rec = json.loads((tmp_path/'out/eval.json').read_text())
    assert rec['peers']['tiny']['file'] == 'f.onnx' and len(rec['peers']['tiny']['sha256']) == 64
    df = pd.read_csv(tmp_path/'out/eval.csv')
    by_hand = np.abs(grey-read_alpha(folder/'alphas/a.png')).sum()/1000
    assert row(df, 'a', 'tiny').sad == pytest.approx(by_hand, abs=1e-5)

def test_worst_come_first(folder, fake, monkeypatch):
    df = evaluate(folder, fake, bar=False)
    shown = {}
    monkeypatch.setattr(ev, 'contact_sheet', lambda rows, titles, names, **
                        kw: shown.update(rows=rows, titles=titles, names=names))
    worst_sheet(df, folder, fake, n=2)
    o = df[df.method == 'ours'].sort_values('sad', ascending=False)
    assert len(shown['rows']) == 2 and shown['names'][0].startswith(o.stem.iloc[0])
    i = list(SUBSETS).index(o.stem.iloc[0])
    np.testing.assert_array_equal(shown['rows'][0][0], scene(i)[0])
    assert all(len(r) == len(shown['titles']) == 5 for r in shown['rows'])

def test_saved_results_are_whole():
    "data/eval_val.* holds every row of the table that the notebook shows"
    rec = json.loads((ROOT/'data/eval_val.json').read_text(encoding='utf-8'))
    df = pd.read_csv(ROOT/'data/eval_val.csv', keep_default_na=False, na_values=[''])
    assert df.stem.nunique() == rec['pictures'] and not rec['problems'] and (
        df.groupby('method').size() == rec['pictures']).all()
    s = summary(df)
    assert len(s) == len(rec['table'])
    for a,b in zip(s.to_dict('records'), rec['table']):
        assert a['method'] == b['method'] and all(a[k] == pytest.approx(b[k], abs=2e-5) for k in METRICS)

def test_import_is_light():
    heavy = ('torch', 'fastai', 'nbdev', 'IPython', 'onnxruntime', 'mediapipe', 'pymatting')
    code = f'import sys, dim_nb.evaluation; print(*[m for m in {heavy} if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0 and not r.stdout.split(), r.stdout+r.stderr

# --- signs ---

def signs(alpha): return matte_signs(alpha, np.where(alpha > .5, 255, 0).astype(np.uint8))

def test_pieces_are_counted():
    a = np.zeros((100, 100), np.float32)
    a[:30,:30] = a[60:90,60:90] = a[50,50] = 1   # the last one is a speck
    s = signs(a)
    assert s['pieces'] == 2 and s['unknown'] == 0 and s['soft'] == 0 and abs(s['person']-.1801) < 1e-4

def test_an_empty_alpha_has_no_pieces(): assert signs(np.zeros((20, 20), np.float32))['pieces'] == 0

def test_edge_light_sees_the_rims_and_nothing_else():
    a = np.zeros((80, 60), np.float32)
    a[20:, 20:40] = 1
    im = np.zeros((80, 60, 3), np.uint8)
    im[a > 0] = 180
    im[:5] = 255
    im[40:][a[40:] == 0] = 255   # far above and below: not beside the hair
    a[20:, 19] = a[20:, 40] = a[19, 19:41] = .5
    e = edge_light(im, a, 5)
    assert e['luminance'] < .02 and abs(e['contrast']-180/255) < .02
    assert np.isnan(edge_light(im, np.zeros((80, 60), np.float32))['contrast'])

def test_a_row_for_each_face():
    rows = celeba_rows(FakeMatter(), [scene(0)[0], scene(1)[0]])
    assert len(rows) == 2 and [p.shape[:2] for p in rows[0]] == [(40, 48)]*5
