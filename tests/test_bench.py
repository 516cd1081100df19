"Seconds and memory: what is run in which process, what is foreseen, what is said when a method fails; dim_bench."
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from dim_nb import bench as be
from dim_nb.bench import BenchJob, BenchMethod, bench, bench_image, bench_methods, bench_report, dim_bench, run_job, stage_times
from dim_nb.images import write_png
from onnx_by_hand import tiny_onnx
from scenes import FakeMatter, scene

ROOT = Path(__file__).resolve().parent.parent

def test_measured_in_a_process_of_its_own(tmp_path, capsys):
    assert dim_bench(sizes='64x80', device='cpu', repeats=2, out=str(tmp_path)) == 0
    assert sorted(o.name for o in tmp_path.iterdir()) == ['bench.csv', 'bench.json']
    ours, = json.loads((tmp_path/'bench.json').read_text())['rows']
    assert ours['method'] == 'ours' and ours['size'] == '64x80' and ours['repeats'] == 2
    assert 0 < ours['matting'] < ours['whole'] and 0 < ours['trimap'] and ours['total_mb'] > 50 and ours['start_s'] > 0
    assert '64x80' in capsys.readouterr().out

def test_a_classical_method_gets_a_trimap(tmp_path):
    im, _, t = scene(0)
    job = BenchJob(BenchMethod('cf'), (48, 40), str(write_png(tmp_path/'i.png', im)),
                   str(write_png(tmp_path/'t.png', t)), 1)
    cf = run_job(job)
    assert cf['whole'] > 0 and cf['repeats'] == 1
    smaller = str(write_png(tmp_path/'s.png', t[::2, ::2]))   # drawn at no more than 512 px
    assert run_job(replace(job, trimap=smaller))['whole'] > 0

def test_methods_are_data():
    found = bench_methods(['cf'], ['modnet=m.onnx'], ['cpu'], ['torch', 'onnx'], 'w')
    assert [o.name for o in found] == ['ours', 'ours torch', 'ours onnx', 'cf', 'modnet']
    assert [o.backend for o in found] == [None, 'torch', 'onnx', None, None]
    assert [o.classical for o in found] == [False, False, False, True, False] and found[0].weights == 'w'
    assert not bench_methods([], ['cf=m.onnx'])[1].classical

def test_the_backend_reaches_the_pipeline(monkeypatch):
    asked = []
    monkeypatch.setattr(be.PortraitMatter, 'load', lambda weights=None, **
                        kw: asked.append((weights, kw)) or FakeMatter())
    for method in bench_methods(devices=['cpu'], backends=['torch', 'bf16']):
        method.load()
    assert asked == [(None, dict(device='cpu')), (None, dict(device='cpu', backend='torch')),
                     (None, dict(device='cpu', backend='torch', half=True))]

def test_the_command_is_timed_from_start_to_end(tmp_path):
    photo = str(write_png(tmp_path/'p.png', scene(0)[0]))
    job = BenchJob(BenchMethod('ours command', 'cpu', 'command'), (48, 40), photo, repeats=1)
    done = be.run_in_process(job)   # where no other test has started anything
    assert done['whole'] > .2 and 50 < done['total_mb'] < 2000 and done['repeats'] == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ['p.png']
    with pytest.raises(subprocess.CalledProcessError): run_job(replace(job, image=str(tmp_path/'none.png')))

def test_an_onnx_peer_is_timed(tmp_path):
    pytest.importorskip('onnxruntime')
    f = tiny_onnx(tmp_path/'m.onnx', ['n', 3, 'h', 'w'])
    row, = bench(bench_methods([], [f'tiny={f}'])[1:], [(64, 48)], repeats=1)
    assert row['method'] == 'tiny' and row['whole'] > 0 and row['total_mb'] > 0

def test_what_does_not_fit_is_foreseen(monkeypatch):
    tried = []
    def run(job, limit):
        tried.append((job.method.name, job.size))
        return dict(whole=1., growth_mb=1000., total_mb=1100., repeats=1)
    monkeypatch.setattr(be, 'run_in_process', run)
    monkeypatch.setattr(be._Pictures, 'trimap', lambda *a: 't.png')
    monkeypatch.setattr(be._Pictures, 'image', lambda *a: 'i.png')
    monkeypatch.setattr(be, 'memory_free', lambda: 50_000)
    rows = bench(bench_methods(['cf']), [(6000, 4000), (100, 100), (400, 400)])
    assert tried == [(m, s) for s in ((100, 100), (400, 400)) for m in ('ours', 'cf')] + [('ours', (6000, 4000))]
    assert 'GB are free' in rows[-1]['skipped'] and 'skipped' in bench_report(rows)
    monkeypatch.setattr(be, 'memory_free', lambda: np.inf)
    assert 'would take' in bench(bench_methods(['cf']), [(100, 100), (6000, 4000)], limit_s=60)[-1]['skipped']

def test_why_a_method_failed(monkeypatch):
    job = BenchJob(BenchMethod('nobody'), (8, 8), 'i.png')
    r = be.run_in_process(job, 60)
    assert r['failed'] and 'nobody' in r['skipped']
    monkeypatch.setattr(be.subprocess, 'run', lambda *a, **k: SimpleNamespace(returncode=-9, stdout='', stderr=''))
    assert 'memory' in be.run_in_process(job, 60)['skipped']

def test_a_failed_method_is_status_1(monkeypatch, capsys):
    monkeypatch.setattr(be, 'run_in_process', lambda *a: dict(skipped='no luck', failed=True))
    assert dim_bench(sizes='64x80', device='cpu') == 1
    assert 'no luck' in capsys.readouterr().out

@pytest.mark.parametrize('arguments, names', [
    (dict(sizes='12'), '--sizes'), (dict(sizes=''), '--sizes'), (dict(sizes='0x9'), '--sizes'), (dict(sizes='axb'), '--sizes'),
    (dict(peers='nobody'), 'nobody'), (dict(peer_onnx='m=none.onnx'), 'none.onnx'), (dict(image='none.png'), 'none.png'),
    (dict(weights='none'), 'none'), (dict(repeats=0), '--repeats'), (dict(backends='tpu'), 'tpu'), (dict(threads=0), '--threads')])
def test_wrong_arguments(arguments, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dim_bench(**arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and names in err

def test_bench_image():
    for w,h in ((178, 218), (600, 100), (9, 300)):
        assert bench_image(w, h).shape == (h, w, 3)

def test_stages_come_from_the_cut_out():
    class Noting(FakeMatter):
        def __call__(self, image, trimap=None):
            cut = super().__call__(image, trimap)
            cut.times = dict(trimap=.001, matting=.002)
            return cut
    t = stage_times(Noting(), scene(0)[0])
    assert t['trimap'] == .001 and t['matting'] == .002 and t['refinement'] == 0 and t['whole'] > 0

def test_the_worker_imports_only_what_it_needs():
    heavy = ('pandas', 'matplotlib', 'torch', 'fastai', 'onnxruntime', 'pymatting', 'mediapipe', 'IPython')
    code = f'import sys, dim_nb.bench; print(*[m for m in {heavy} if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0 and not r.stdout.split(), r.stdout+r.stderr
