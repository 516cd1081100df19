"Judging on a folder: what is scored, resumed, left out and said; dim_eval and dim_bench."
import json, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import cv2, numpy as np, pandas as pd, pytest
from PIL import Image
from dim_nb import evaluation as ev
from dim_nb.core import read_alpha, read_image, write_png
from dim_nb.evaluation import *
from dim_nb.metrics import all_metrics, conn, grad, trimap_scores
from dim_nb.pipeline import Cutout

ROOT = Path(__file__).resolve().parent.parent
METRICS = ['sad', 'mse', 'mad', 'grad', 'conn']

class FakeMatter:
    "Takes the brightness for alpha, and counts its calls; `weights` stands for the networks"
    def __init__(self, weights=1., stop_at=None):
        import torch
        self.device, self.size, self.net, self.calls, self.stop_at = 'cpu', 64, torch.nn.Linear(1, 1), 0, stop_at
        torch.nn.init.constant_(self.net.weight, weights); torch.nn.init.zeros_(self.net.bias)
    def __call__(self, image, trimap=None):
        self.calls += 1
        if self.calls == self.stop_at: raise KeyboardInterrupt
        im = read_image(image); rough = (im.mean(2)/255).astype(np.float32)
        t = np.where(rough > .9, 255, np.where(rough < .1, 0, 128)).astype(np.uint8) if trimap is None else trimap
        alpha = np.clip(rough*1.1, 0, 1)
        if trimap is not None: alpha, rough = (np.where(t == 128, a, t/255).astype(np.float32) for a in (alpha, rough))
        return Cutout(im, t, rough, alpha, im)

def scene(seed, h=40, w=48):
    "A photograph whose brightness is nearly its alpha; alpha; a trimap"
    rng = np.random.default_rng(seed); y,x = np.mgrid[:h,:w]
    a = np.clip((h*.35-np.hypot(y-h*.55, x-w/2))/6+.5, 0, 1); a = np.rint(a*255)/255
    im = np.clip(a*235+10+rng.normal(0, 6, (h,w)), 0, 255)
    t = np.where(a == 1, 255, np.where(a == 0, 0, 128)).astype(np.uint8)
    return np.repeat(im[...,None], 3, 2).astype(np.uint8), a.astype(np.float32), t

SUBSETS = dict(a='plain', b='dark', c='lowcontrast', d='plain')

def make_set(d, trimaps=True, subsets=True):
    for n in ('images', 'alphas', *(['trimaps'] if trimaps else [])): (d/n).mkdir(parents=True)
    for i,(s,suffix) in enumerate(zip(SUBSETS, ('.png', '.bmp', '.png', '.tif'))):
        im, a, t = scene(i)
        Image.fromarray(im).save(d/f'images/{s}{suffix}'); write_png(d/f'alphas/{s}.png', a)
        if trimaps: write_png(d/f'trimaps/{s}.png', t)
    if subsets: pd.DataFrame(SUBSETS.items(), columns=['stem', 'subset']).to_csv(d/'subsets.csv', index=False)
    return d

@pytest.fixture
def folder(tmp_path): return make_set(tmp_path/'set')

@pytest.fixture
def fake(monkeypatch):
    m = FakeMatter(); monkeypatch.setattr(ev, '_load_matter', lambda p, a: m)
    return m

def row(df, stem, method): return df[(df.stem == stem)&(df.method == method)].iloc[0]

def test_pictures_are_found(folder):
    (folder/'images/.hidden.png').write_text('x'); (folder/'images/notes.txt').write_text('x')
    items, problems = eval_items(folder)
    assert {o.stem: o.subset for o in items} == SUBSETS and not problems and all(o.trimap for o in items)
    Image.fromarray(scene(0)[0]).save(folder/'images/a.jpg'); (folder/'alphas/b.png').unlink(); (folder/'trimaps/c.png').unlink()
    items, problems = eval_items(folder)
    assert [o.stem for o in items] == ['c', 'a', 'd'] and items[0].trimap is None
    assert len(problems) == 2 and 'same stem' in problems[0] and 'no alpha b' in problems[1]

def test_limit_is_spread_over_subsets(folder):
    assert [len(eval_items(folder, limit=n)[0]) for n in (1, 2, 3, 4, 99)] == [1, 2, 3, 4, 4]
    assert [o.subset for o in eval_items(folder, limit=2)[0]] == ['lowcontrast', 'plain']
    assert [o.stem for o in eval_items(folder, subset='plain')[0]] == ['a', 'd']

def test_wrong_folders_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match='images'): eval_items(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='dark, lowcontrast, plain'): eval_items(folder, subset='night')
    (folder/'subsets.csv').write_text('name,kind\na,b\n')
    with pytest.raises(ValueError, match='needs stem and subset'): eval_items(folder)
    (folder/'subsets.csv').write_bytes(b'')
    with pytest.raises(ValueError, match='subsets.csv'): eval_items(folder)

def test_values_equal_those_by_hand(folder):
    m = FakeMatter(); df = evaluate(folder, m, load_peers(['cf']), progress=False)
    assert len(df) == 4*6 and df.method.drop_duplicates().tolist() == ['ours', 'ours rough', 'ours given', 'ours given rough', 'cf', 'cf given']
    assert (df.region == np.where(df.method.str.contains('given'), 'unknown', 'whole')).all()
    for i,s in enumerate(SUBSETS):
        im, a, t = scene(i); a = np.rint(a*255)/255; r = row(df, s, 'ours'); c = m(im); d = c.alpha.astype(np.float64)-a
        assert r.subset == SUBSETS[s] and (r.height, r.width) == a.shape and r.seconds > 0
        np.testing.assert_allclose(r[METRICS].astype(float), [np.abs(d).sum()/1000, (d**2).mean(), np.abs(d).mean(), grad(c.alpha, a), conn(c.alpha, a)], rtol=1e-6)
        g = row(df, s, 'ours given'); d = (m(im, t).alpha-a)[t == 128]
        np.testing.assert_allclose(g[METRICS[:3]].astype(float), [np.abs(d).sum()/1000, (d**2).mean(), np.abs(d).mean()], rtol=1e-5)
        np.testing.assert_allclose(row(df, s, 'ours rough')[METRICS].astype(float), list(all_metrics(c.rough, a).values()), rtol=1e-6)
        sc = trimap_scores(c.trimap, a)
        assert all(r[k] == pytest.approx(sc[k]) for k in ('fatal', 'unknown')) and np.isnan(row(df, s, 'cf').fatal) and 0 < r.iou_fg <= 1

def test_closed_form_gets_both_trimaps(folder):
    import pymatting
    m = FakeMatter(); df = evaluate(folder, m, load_peers(['cf']), progress=False)
    im, a, t = scene(0); a = np.rint(a*255)/255
    for method, tri, region in (('cf', m(im).trimap, None), ('cf given', t, t)):
        p = np.clip(pymatting.estimate_alpha_cf(im/255., tri/255.), 0, 1)
        np.testing.assert_allclose(row(df, 'a', method)[METRICS].astype(float), list(all_metrics(p, a, region).values()), rtol=1e-3, atol=1e-5)

def test_summary_is_made_of_means(folder):
    df = evaluate(folder, FakeMatter(), progress=False); s = summary(df).set_index(['subset', 'method'])
    assert s.index.get_level_values(0).drop_duplicates().tolist() == ['dark', 'lowcontrast', 'plain', 'hard', 'all']
    o = df[df.method == 'ours'].set_index('stem')
    assert s.loc[('plain', 'ours'), 'sad'] == pytest.approx(o.sad[['a', 'd']].mean())
    assert s.loc[('hard', 'ours'), 'grad'] == pytest.approx(o.grad[['b', 'c']].mean())
    assert s.loc[('all', 'ours'), 'fatal'] == pytest.approx(o.fatal.mean()) and s.loc[('all', 'ours'), 'pictures'] == 4
    assert s.loc[('all', 'ours'), 'seconds'] == pytest.approx(o.seconds.median())
    text = report(summary(df))
    for t in ('whole image', 'unknown region', 'fatal %', 'ours given rough', f'{o.sad.mean():.2f}'): assert t in text

def test_without_trimaps_and_subsets(tmp_path):
    df = evaluate(make_set(tmp_path/'s', trimaps=False, subsets=False), FakeMatter(), load_peers(['cf']), progress=False)
    assert set(df.method) == {'ours', 'ours rough', 'cf'} and not df.attrs['problems'] and set(summary(df).subset) == {'all'}
    assert 'unknown region' not in report(summary(df))

def test_given_can_be_left_out(folder):
    assert not evaluate(folder, FakeMatter(), given=False, progress=False).method.str.contains('given').any()

def test_an_interrupted_run_goes_on(folder, tmp_path):
    whole = evaluate(folder, FakeMatter(), progress=False); done = tmp_path/'out/done.csv'
    with pytest.raises(KeyboardInterrupt): evaluate(folder, FakeMatter(stop_at=5), done=done, progress=False)   # two calls a picture: in the third
    assert len(pd.read_csv(done)) == 2*4
    m = FakeMatter(); df = evaluate(folder, m, done=done, progress=False)
    assert m.calls == 4 and df.attrs['new'] == 8
    cols = ['stem', 'subset', 'method', 'region', *METRICS, 'soft']
    pd.testing.assert_frame_equal(df[cols], whole[cols], check_dtype=False)
    m = FakeMatter(); assert evaluate(folder, m, done=done, progress=False).attrs['new'] == 0 and m.calls == 0
    assert [p.name for p in done.parent.iterdir()] == ['done.csv']

def test_what_has_changed_is_done_again(folder, tmp_path):
    done = tmp_path/'done.csv'; peers = load_peers(['cf'])
    new = lambda m=None, p=peers: evaluate(folder, m or FakeMatter(), p, done=done, progress=False).attrs['new']
    assert new(p=[]) == 16
    assert new() == 8                                       # a peer was added
    assert new(FakeMatter(weights=2.)) == 20                # other weights: all but closed form from the given trimaps
    im = scene(7)[0]; Image.fromarray(im).save(folder/'images/a.png'); cv2.imwrite(str(folder/'images/a.png'), im[:,::-1])
    assert new(FakeMatter(weights=2.)) == 6                 # one picture was replaced
    done.write_text('half a li'); assert new() == 24
    done.write_bytes(b'\xff\xfe\x00'); assert new() == 24

def test_stems_that_look_like_numbers(tmp_path):
    d = make_set(tmp_path/'s')
    for n in ('images', 'alphas', 'trimaps'):
        for f in (d/n).glob('a.*'): f.rename(f.with_stem('000001'))
    assert evaluate(d, FakeMatter(), done=tmp_path/'done.csv', progress=False).attrs['new'] == 16
    df = evaluate(d, FakeMatter(), done=tmp_path/'done.csv', progress=False)
    assert df.attrs['new'] == 0 and '000001' in set(df.stem)

def break_set(d):
    "Every way to be unusable but one picture"
    data = (d/'images/a.png').read_bytes(); (d/'images/a.png').write_bytes(data[:len(data)//2])
    write_png(d/'alphas/b.png', np.zeros((9,9), np.uint8)); write_png(d/'trimaps/c.png', np.full((40,48), 77, np.uint8))

def test_broken_files_cost_only_themselves(folder):
    break_set(folder); df = evaluate(folder, FakeMatter(), progress=False); p = df.attrs['problems']
    assert sorted(set(df.stem)) == ['c', 'd'] and set(df[df.stem == 'c'].method) == {'ours', 'ours rough'} and len(p) == 3
    assert 'a.png' in p[0]+p[1]+p[2] and any('9x9' in o for o in p) and any('77' in o for o in p)

def test_a_failing_peer_costs_only_itself(folder):
    def run(im): raise RuntimeError('no luck')
    df = evaluate(folder, FakeMatter(), [Peer('bad', run), Peer('short', lambda im: np.zeros((3,3)))], progress=False)
    assert set(df.method) == {'ours', 'ours rough', 'ours given', 'ours given rough'} and len(df.attrs['problems']) == 8
    assert sum('no luck' in o for o in df.attrs['problems']) == 4

def test_command(folder, tmp_path, fake, capsys):
    out = tmp_path/'out'
    assert dim_eval(['--data', str(folder), '--peers', 'cf', '--out', str(out)]) == 0
    text = capsys.readouterr().out
    for t in ('whole image', 'unknown region', 'cf given', 'hard', 'cores'): assert t in text
    assert sorted(o.name for o in out.iterdir()) == ['done.csv', 'eval.csv', 'eval.json', 'worst.png']
    rec = json.loads((out/'eval.json').read_text(encoding='utf-8')); df = pd.read_csv(out/'eval.csv')
    assert len(df) == 24 and rec['pictures'] == 4 and rec['problems'] == [] and rec['arguments']['data'] == 'set' and rec['cpus'] and rec['versions']['numpy']
    assert set(rec['weights']) == {f'{n}.safetensors' for n in ('trimap', 'matting', 'refine')} and rec['peers']['cf']['pymatting']
    assert str(tmp_path) not in (out/'eval.json').read_text()
    assert next(r for r in rec['table'] if r['subset'] == 'all' and r['method'] == 'ours')['sad'] == pytest.approx(df[df.method == 'ours'].sad.mean(), abs=1e-5)
    assert read_image(out/'worst.png').shape == (20+4*220, 1000, 3)
    calls = fake.calls; assert dim_eval(['--data', str(folder), '--peers', 'cf', '--out', str(out), '--worst', '0']) == 0 and fake.calls == calls

def test_worst_come_first(folder, fake):
    df = evaluate(folder, fake, progress=False); o = df[df.method == 'ours'].sort_values('sad', ascending=False)
    sheet = worst_sheet(df, folder, fake, n=2, side=48); assert sheet.shape == (20+2*68, 240, 3)
    i = list(SUBSETS).index(o.stem.iloc[0]); np.testing.assert_array_equal(sheet[24:64,:48], scene(i)[0])

def test_command_with_broken_files(folder, tmp_path, fake, capsys):
    break_set(folder); assert dim_eval(['--data', str(folder), '--out', str(tmp_path/'out')]) == 1
    err = capsys.readouterr().err
    assert err.count('not scored') == 3 and 'a.png' in err and str(tmp_path) not in (tmp_path/'out/eval.json').read_text()
    for f in (folder/'images').iterdir(): f.write_text('x')
    assert dim_eval(['--data', str(folder), '--out', str(tmp_path/'out')]) == 1        # nothing could be scored
    for f in (folder/'images').iterdir(): f.unlink()
    assert dim_eval(['--data', str(folder)]) == 1
    assert not [p for p in tmp_path.rglob('*.tmp')]

@pytest.mark.parametrize('argv', [[], ['--data', 'nowhere'], ['--data', 'set', '--limit', '0'], ['--data', 'set', '--subset', 'night'], ['--data', 'set', '--peers', 'nobody'],
    ['--data', 'set', '--peer_onnx', 'm.onnx'], ['--data', 'set', '--peer_onnx', 'm=none.onnx'], ['--data', 'set', '--out', 'set/subsets.csv'], ['--data', 'set', '--device', 'tpu'],
    ['--data', 'set', '--weights', 'nowhere'], ['--data', 'set', '--threads', '0']])
def test_wrong_arguments_exit_with_2(argv, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SystemExit) as e: dim_eval(argv)
    assert e.value.code == 2

def test_with_the_shipped_weights(tmp_path, capsys):
    d = tmp_path/'s'
    for n in ('images', 'alphas', 'trimaps'): (d/n).mkdir(parents=True)
    im = Image.open(ROOT/'data/portraits/obama.png').resize((96, 96))
    im.convert('RGB').save(d/'images/o.jpg'); im.getchannel('A').save(d/'alphas/o.png')
    assert dim_eval(['--data', str(d), '--out', str(tmp_path/'out'), '--device', 'cpu']) == 0
    df = pd.read_csv(tmp_path/'out/eval.csv', keep_default_na=False, na_values=['']); assert df.method.tolist() == ['ours', 'ours rough'] and (df.mad < .1).all() and df.seconds[0] > 0

def test_mediapipe_missing(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'mediapipe', None)
    with pytest.raises(SystemExit) as e: dim_eval(['--data', str(folder), '--peers', 'mediapipe'])
    assert e.value.code == 2 and 'pip install mediapipe==0.10.21' in capsys.readouterr().err

def test_onnxruntime_missing(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(SystemExit) as e: dim_eval(['--data', str(folder), '--peer_onnx', 'm=m.onnx'])
    assert e.value.code == 2 and 'pip install onnxruntime' in capsys.readouterr().err

# --- a tiny ONNX file, written by hand: the mean of the three channels ---

def varint(v):
    out = b''
    while v > 127: out += bytes([v&127 | 128]); v >>= 7
    return out + bytes([v])

def field(n, v):
    "One protobuf field: a number, or bytes"
    if isinstance(v, int): return varint(n<<3) + varint(v)
    v = v.encode() if isinstance(v, str) else v
    return varint(n<<3 | 2) + varint(len(v)) + v

def value_info(name, dims):
    shape = b''.join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

def tiny_onnx(path, dims, axis=1):
    ints = field(5, field(1, 'axes') + field(8, axis) + field(20, 7))
    node = field(1, 'x') + field(2, 'y') + field(4, 'ReduceMean') + ints
    out = [1 if i == axis else d for i,d in enumerate(dims)]
    graph = field(1, node) + field(2, 'g') + field(11, value_info('x', dims)) + field(12, value_info('y', out))
    path.write_bytes(field(1, 7) + field(7, graph) + field(8, field(1, '') + field(2, 13)))
    return path

def test_onnx_peer(tmp_path, folder, fake):
    pytest.importorskip('onnxruntime')
    im = scene(0)[0]; f = tiny_onnx(tmp_path/'m.onnx', ['n', 3, 'h', 'w']); grey = im.astype(np.float32).mean(2)/255
    raw = '?mean=0&std=1&'
    a = load_peers([], [f'm={f}{raw}size=48x40'])[0](im)
    np.testing.assert_allclose(a, grey, atol=1e-5)
    fixed = tiny_onnx(tmp_path/'f.onnx', [1, 3, 40, 48])
    np.testing.assert_allclose(load_peers([], [f'm={fixed}{raw}size=999'])[0](im), grey, atol=1e-5)
    last = tiny_onnx(tmp_path/'l.onnx', ['n', 'h', 'w', 3], axis=3)
    np.testing.assert_allclose(load_peers([], [f'm={last}?mean=0&std=255&size=48x40'])[0](im), grey, atol=1e-5)
    np.testing.assert_allclose(load_peers([], [f'modnet={fixed}'])[0](im), np.clip((grey*255-127.5)/127.5, 0, 1), atol=1e-5)
    s = load_peers([], [f'm={fixed}?stretch=1'])[0](im); assert s.min() == 0 and s.max() == pytest.approx(1, abs=1e-5)
    assert dim_eval(['--data', str(folder), '--peer_onnx', f'tiny={fixed}{raw}', '--out', str(tmp_path/'out')]) == 0
    rec = json.loads((tmp_path/'out/eval.json').read_text()); assert rec['peers']['tiny']['file'] == 'f.onnx' and len(rec['peers']['tiny']['sha256']) == 64
    df = pd.read_csv(tmp_path/'out/eval.csv'); assert row(df, 'a', 'tiny').sad == pytest.approx(np.abs(grey-read_alpha(folder/'alphas/a.png')).sum()/1000, abs=1e-5)

def test_onnx_sizes(tmp_path):
    pytest.importorskip('onnxruntime')
    f = tiny_onnx(tmp_path/'m.onnx', ['n', 3, 'h', 'w'])
    size = lambda text, *hw: OnnxMatter(parse_onnx(text)[1], **parse_onnx(text)[2]).size(*hw)
    assert size(f'modnet={f}', 300, 200) == (768, 512) and size(f'x={f}', 300, 200) == (512, 352) and size(f'u2netp={f}', 300, 200) == (320, 320)
    assert size(f'x={f}?size=256&side=short&multiple=16', 300, 200) == (384, 256) and size(f'x={f}', 6000, 10) == (512, 32)

def test_files_that_are_no_models(tmp_path):
    pytest.importorskip('onnxruntime')
    (tmp_path/'bad.onnx').write_text('not a model')
    with pytest.raises(ValueError, match='cannot load'): load_peers([], [f'x={tmp_path/"bad.onnx"}'])
    with pytest.raises(ValueError, match='one of shape'): load_peers([], [f'x={tiny_onnx(tmp_path/"d.onnx", [3, 4])}'])
    with pytest.raises(ValueError, match='no number 3'): load_peers([], [f'x={tiny_onnx(tmp_path/"m.onnx", [1, 3, 32, 32])}?out=3'])

def test_error_maps_add_up_to_the_metrics():
    rng = np.random.default_rng(0)
    for _ in range(5):
        p, g = cv2.GaussianBlur(rng.random((2, 30, 26)).transpose(1, 2, 0), None, 2).transpose(2, 0, 1)
        m, v = error_maps(p, g), all_metrics(p, g)
        np.testing.assert_allclose([m['sad'].sum()/1e3, m['mse'].mean(), m['grad'].sum()/1e3, m['conn'].sum()/1e3], [v[k] for k in ('sad', 'mse', 'grad', 'conn')], rtol=1e-9)

# --- dim_bench ---

def test_bench_measures_in_a_process_of_its_own(tmp_path, capsys):
    assert dim_bench(['--sizes', '64x80', '--device', 'cpu', '--repeats', '2', '--out', str(tmp_path)]) == 0
    assert sorted(o.name for o in tmp_path.iterdir()) == ['bench.csv', 'bench.json']
    rows = json.loads((tmp_path/'bench.json').read_text())['rows']; ours, = rows
    assert ours['method'] == 'ours' and ours['size'] == '64x80' and ours['repeats'] == 2
    assert 0 < ours['matting'] < ours['whole'] and 0 < ours['trimap'] and ours['total_mb'] > 50
    cf = ev._bench_job(dict(method='cf', onnx=None, device='cpu', size=(40,30), image=None, repeats=1, trimap=write_png(tmp_path/'t.png', scene(0)[2])))
    assert cf['whole'] > 0 and cf['repeats'] == 1
    assert '64x80' in capsys.readouterr().out

def test_bench_foresees_what_does_not_fit(monkeypatch):
    tried = []
    def run(job, limit):
        tried.append((job['method'], job['size'])); return dict(whole=1., growth_mb=1000., total_mb=1100., repeats=1, device='cpu')
    monkeypatch.setattr(ev, '_in_process', run); monkeypatch.setattr(ev, '_bench_trimap', lambda *a: 't.png'); monkeypatch.setattr(ev, '_free_memory', lambda: 50_000)
    df = bench([(6000, 4000), (100, 100), (400, 400)], ['cf'])
    assert tried == [(m, s) for s in ((100, 100), (400, 400)) for m in ('ours', 'cf')] + [('ours', (6000, 4000))]
    assert 'GB are free' in df.skipped.iloc[-1] and 'skipped' in bench_report(df)
    monkeypatch.setattr(ev, '_free_memory', lambda: np.inf); assert 'would take' in bench([(100, 100), (6000, 4000)], ['cf'], limit_s=60).skipped.iloc[-1]

def test_bench_says_why_a_method_failed(monkeypatch):
    r = ev._in_process(dict(method='nobody', onnx=None, device=None), 60)
    assert r['failed'] and 'nobody' in r['skipped']
    monkeypatch.setattr(ev.subprocess, 'run', lambda *a, **k: SimpleNamespace(returncode=-9, stdout='', stderr=''))
    assert 'memory' in ev._in_process({}, 60)['skipped']

@pytest.mark.parametrize('argv', [['--sizes', '12'], ['--sizes', ''], ['--sizes', '0x9'], ['--sizes', 'axb'], ['--peers', 'nobody'], ['--peer_onnx', 'm=none.onnx'], ['--image', 'none.png'], ['--weights', 'none'], ['--repeats', '0']])
def test_bench_wrong_arguments(argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: dim_bench(argv)
    assert e.value.code == 2

def test_bench_image():
    for w,h in ((178, 218), (600, 100), (9, 300)): assert bench_image(w, h).shape == (h, w, 3)

def test_pipelines_own_times_come_first():
    m = FakeMatter(); im = scene(0)[0]; m.times = dict(trimap=.001, matting=.002, refinement=0., detail=0., foreground=0.)
    t = stage_times(m, im); assert t['trimap'] == .001 and t['matting'] == .002 and t['whole'] > 0

def test_saved_results_are_whole():
    "data/eval_val.* holds every row of the table that the notebook shows"
    rec = json.loads((ROOT/'data/eval_val.json').read_text(encoding='utf-8')); df = pd.read_csv(ROOT/'data/eval_val.csv', keep_default_na=False, na_values=[''])
    assert df.stem.nunique() == rec['pictures'] and not rec['problems'] and (df.groupby('method').size() == rec['pictures']).all()
    s = summary(df); assert len(s) == len(rec['table'])
    for a,b in zip(s.to_dict('records'), rec['table']): assert a['method'] == b['method'] and all(a[k] == pytest.approx(b[k], abs=2e-5) for k in METRICS)

def test_import_is_light():
    code = "import sys, dim_nb.evaluation; print(*[m for m in ('torch', 'fastai', 'nbdev', 'IPython', 'onnxruntime', 'mediapipe', 'pymatting') if m in sys.modules])"
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0 and not r.stdout.split(), r.stdout+r.stderr
