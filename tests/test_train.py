"dim_train: killed for real and gone on; two processes as one; refusals of one line; any weights file to start from; its folder everywhere."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pandas as pd, pytest, torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
POCKET = ['--data', str(ROOT/'data'), '--size', '64', '--samples', '16', '--valid', '8', '--bs', '4', '--scratch', '--widths', '16,16,8,8']

def command(*argv):
    code = "import sys; sys.argv[0] = 'dim_train'; from dim_nb.train import dim_train; sys.exit(dim_train())"
    return subprocess.Popen([sys.executable, '-c', code, *map(str, argv)], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def train(out, cache, *more): return command('matting', *POCKET, '--epochs', '3', '--out', out, '--cache', cache, *more)

def finish(p, status=0):
    out, _ = p.communicate(timeout=600)
    assert p.returncode == status, out[-3000:]
    return out

def one_line(out): # no traceback, no second line
    assert out.startswith('dim_train: ') and out.count('\n') == 1, out
    return out

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    d = tmp_path_factory.mktemp('whole')
    finish(train(d/'run', d/'cache'))
    return d

def test_a_killed_run_ends_as_one_that_was_not(whole, tmp_path):
    p = train(tmp_path/'halves', whole/'cache')
    for line in p.stdout:
        if line.startswith('epoch 0'): break
    time.sleep(.3)
    p.send_signal(signal.SIGKILL)
    p.wait()
    done = torch.load(tmp_path/'halves/last.pt', weights_only=True)['epoch']
    assert 1 <= done < 3
    out = finish(train(tmp_path/'halves', whole/'cache'))
    assert f'going on after epoch {done} of 3' in out
    a, b = (load_file(d/'matting.safetensors') for d in (whole/'run', tmp_path/'halves'))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    h = [pd.read_csv(d/'history.csv').drop(columns='seconds') for d in (whole/'run', tmp_path/'halves')]
    assert h[0].equals(h[1])
    assert not list((tmp_path/'halves').glob('.*')), 'something half-written is left'
    for name in ('matting.safetensors', 'average.safetensors', 'best.safetensors', 'sha256.json', 'args.json'): # equal runs, equal bytes
        assert (whole/'run'/name).read_bytes() == (tmp_path/'halves'/name).read_bytes(), name

def test_a_finished_run_goes_on_only_as_itself(whole, capsys):
    from dim_nb.train import dim_train
    run = whole/'run'
    how = dict(data=ROOT/'data', size=64, samples=16, valid=8, bs=4, scratch=True, widths='16,16,8,8', epochs=3, out=run, cache=whole/'cache')
    def refused(words, **more):
        with pytest.raises(ValueError, match=words): dim_train('matting', **dict(how, **more))
    refused('other arguments .lr: 0.001 before, 0.1 now', lr=.1)
    refused('3 epochs already', epochs=2)
    (run/'args.json').unlink()                            # the checkpoint knows the arguments, too
    refused('lr: 0.001 before, 0.1 now', lr=.1)
    state = (run/'last.pt').read_bytes()
    (run/'last.pt').write_bytes(state[:5000] + bytes([state[5000]^1]) + state[5001:])
    refused('last.pt is damaged')
    (run/'last.pt').write_bytes(state)
    dim_train('matting', **how)
    assert 'finished, 3 epochs' in capsys.readouterr().out
    assert 'other arguments' in one_line(finish(train(run, whole/'cache', '--lr', '0.1'), 2))

def test_other_data_are_noticed(whole, tmp_path):
    import shutil
    data = tmp_path/'data'
    for part in ('portraits', 'backgrounds'): shutil.copytree(ROOT/'data'/part, data/part)
    from dim_nb.train import dim_train
    how = dict(data=data, epochs=1, out=tmp_path/'run', cache=whole/'cache', size=64, samples=8, valid=4, bs=4, scratch=True, widths='16,16,8,8', average=0)
    dim_train('trimap', **how)
    os.utime(data/'backgrounds/brick.jpg', (1, 1))
    with pytest.raises(ValueError, match='other data'): dim_train('trimap', **how)
    h = dim_train('trimap', **dict(how, epochs=2), other_data=True)
    assert len(h) == 2

def test_a_folder_without_data_is_named(tmp_path):
    out = finish(command('trimap', '--data', tmp_path/'nothing', '--epochs', 1, '--out', tmp_path/'run'), 2)
    assert 'nothing' in one_line(out)

@pytest.mark.parametrize('argv', ['--data_share 0', '--data_share 1.5', '--layers 1', '--lr 0', '--bs 0', '--hard 7', '--perturb nan', '--own_share 5', '--epochs 0',
                                  '--widths 1,2', '--class_weights 1,-2,1', '--repeat voc', '--taken -1', '--average 1', '--seed -1', '--size 0', '--schedule cosine'])
def test_senseless_numbers_are_refused_at_once(argv, tmp_path, capsys, monkeypatch):
    from dim_nb.train import dim_train
    monkeypatch.setattr(sys, 'argv', ['dim_train', 'matting', '--data', str(tmp_path), '--epochs', '1', '--out', str(tmp_path/'run'), *argv.split()])
    assert dim_train() == 2
    err = capsys.readouterr().err
    assert argv.split()[0] in one_line(err) and not (tmp_path/'run').exists()

def test_too_few_samples_for_a_batch_train_nothing(tmp_path):
    from dim_nb.train import dim_train
    with pytest.raises(ValueError, match='no batch of 4'): dim_train('matting', data=tmp_path, epochs=1, out=tmp_path/'run', samples=2, bs=4)

def test_old_names_and_dashes_work(tmp_path, monkeypatch, capsys):
    from dim_nb.train import dim_train
    for argv in (['--part', '0'], ['--data-share', '0'], ['--data_share=0']):
        monkeypatch.setattr(sys, 'argv', ['dim_train', 'matting', '--data', 'x', '--epochs', '1', '--out', str(tmp_path/'run'), *argv])
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            assert dim_train() == 2
        assert '--data_share 0' in capsys.readouterr().err
        assert any('--part is called --data_share now' in str(w.message) for w in caught) == (argv[0] == '--part')
    with pytest.warns(UserWarning, match='--low is called'), pytest.raises(ValueError, match='downscale_share 9'):
        dim_train('matting', data='x', epochs=1, out='y', low=9)

def damaged(folder):
    "Weights files with something wrong: {name: (path, what is said)}"
    good = ROOT/'dim_nb/weights/matting.safetensors'
    raw = good.read_bytes()
    files = dict(cut=raw[:len(raw)//2], empty=b'', text=b'weights, honestly')
    for name, content in files.items(): (folder/f'{name}.safetensors').write_bytes(content)
    os.mkfifo(folder/'pipe.safetensors')
    found = {name: (folder/f'{name}.safetensors', 'cannot be read') for name in files}
    return found | dict(pipe=(folder/'pipe.safetensors', 'is no file'), missing=(folder/'missing.safetensors', 'is no file'),
                        other=(ROOT/'dim_nb/weights/trimap.safetensors', 'no matting network'))

@pytest.mark.parametrize('option', ['init', 'encoder_from', 'own_trimaps'])
def test_damaged_weights_are_one_line(option, tmp_path, monkeypatch, capsys):
    from dim_nb.train import dim_train
    for name, (path, words) in damaged(tmp_path).items():
        if option == 'own_trimaps' and name == 'other': continue
        monkeypatch.setattr(sys, 'argv', ['dim_train', 'matting', '--data', str(ROOT/'data'), '--epochs', '1', '--out', str(tmp_path/'run'), f'--{option}', str(path)])
        assert dim_train() == 2
        err = capsys.readouterr().err
        assert path.name in one_line(err) and words in err, name

def test_any_weights_file_is_a_start(whole, tmp_path):
    "A chain of small networks: own trimaps, refinement of three layers without guide, both together; each loads by its file alone"
    from dim_nb.train import dim_train
    from dim_nb.unet import load_net
    how = dict(data=ROOT/'data', cache=whole/'cache', epochs=1, size=64, samples=8, valid=4, bs=4, average=0)
    matting = whole/'run/matting.safetensors'
    shipped = ROOT/'dim_nb/weights/trimap.safetensors'
    dim_train('matting', init=matting, own_trimaps=shipped, own_share=1., out=tmp_path/'more', **how)
    dim_train('refine', matting=matting, layers=3, no_guide=True, width=8, out=tmp_path/'refine', **how)
    dim_train('refine', matting=matting, init=tmp_path/'refine/refine.safetensors', joint=True, out=tmp_path/'both', **how)
    specs = {f'{f.parent.name}/{f.stem}': load_net(f)[1]['net'] for f in tmp_path.glob('*/*.safetensors') if f.stem in ('matting','refine')}
    assert specs.keys() == {'more/matting', 'refine/refine', 'both/refine', 'both/matting'}
    assert specs['both/refine'] == dict(decoder='refine', width=8, layers=3, guide=False)
    assert specs['more/matting']['widths'] == [16,16,8,8]
    assert json.loads((tmp_path/'more/args.json').read_text())['init'].startswith('matting.safetensors ')

# Several processes. Batch norm is frozen: on the CPU each process has its own statistics.

LAUNCHED = """
import os, runpy, sys
from torch import nn
nn.modules.batchnorm._BatchNorm.train = lambda self, mode=True: nn.Module.train(self, False)
replace = os.replace
def noted(source, target):
    with open({log!r}, 'a') as f: f.write(os.environ.get('RANK', '0') + ' ' + str(target) + chr(10))
    replace(source, target)
os.replace = noted
runpy.run_module('dim_nb.train', run_name='__main__', alter_sys=True)
"""

def launch(folder, processes, bs):
    "A training of 2 epochs by so many processes, which note what they write"
    (folder/'launched.py').write_text(LAUNCHED.format(log=str(folder/'log')))
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)] if processes > 1 else []
    argv = ['matting', *POCKET, '--epochs', '2', '--bs', str(bs), '--out', str(folder/'run'), '--cache', str(folder/'cache')]
    env = {**ENV, 'DIM_CACHE': str(folder/'checks')}
    return subprocess.Popen([sys.executable, *launcher, str(folder/'launched.py'), *argv], cwd=ROOT, env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)

def test_two_processes_are_one_with_the_batch_doubled(tmp_path):
    pytest.importorskip('accelerate')
    one, two = tmp_path/'one', tmp_path/'two'
    for folder in (one, two): folder.mkdir()
    finish(launch(one, 1, 8))
    first = launch(two, 2, 4)
    said = ''
    for line in first.stdout:
        said += line
        if line.startswith('epoch 0'): break
    first.send_signal(signal.SIGTERM)      # the launcher ends its processes
    said += first.communicate(timeout=120)[0]
    assert said.count('epoch 0  ') == 1 and 'epoch 1  ' not in said, said
    said = finish(launch(two, 2, 4))
    assert said.count('going on after epoch 1 of 2') == said.count('epoch 1  ') == said.count('wrote run/matting') == 1, said
    a, b = (load_file(d/'run/best.safetensors') for d in (one, two))
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-4, atol=1e-5)
    h = [pd.read_csv(d/'run/history.csv').drop(columns='seconds') for d in (one, two)]
    pd.testing.assert_frame_equal(*h, rtol=1e-4)
    assert torch.load(two/'run/last.pt', weights_only=True)['epoch'] == 2
    written = [line.split(' ', 1) for line in (two/'log').read_text().splitlines()]
    assert {rank for rank, _ in written} == {'0'}
    counts = pd.Series([path for _, path in written]).value_counts()
    assert counts[[p for p in counts.index if '/cache/' in p]].eq(1).all()      # what the first process prepared, the second finds
    assert counts[str(two/'run/matting.safetensors')] == counts[str(two/'run/card.md')] == 1
    out = finish(launch(two, 1, 4), 2)
    assert 'processes: 2 before, 1 now' in out

def test_shares_that_do_not_come_out_even_are_refused(monkeypatch, whole):
    from dim_nb.train import stage_dls, training_sources
    monkeypatch.setenv('WORLD_SIZE', '2')
    *sources, _ = training_sources(ROOT/'data')
    def dls(n, n_valid): return stage_dls(sources, n, n_valid, 4, stage='matting', size=64, cache=whole/'cache', repeat={})
    with pytest.raises(ValueError, match='n_valid: 5 cannot be shared by 2'): dls(8, 5)
    with pytest.raises(ValueError, match='bs: 1 to 3'): dls(7, 4)
    assert [len(dl) for dl in dls(15, 4).loaders] == [1, 1]

# What a run leaves

def test_the_card_says_what_the_run_was(whole):
    record, text = json.loads((whole/'run/card.json').read_text()), (whole/'run/card.md').read_text()
    assert record['samples'] == 3*16 and record['epochs'] == 3 and record['license'] is None
    people = sum(record['data'][side]['people'] for side in ('train','valid'))
    assert people == 5 and record['data']['fingerprint'] == record['arguments']['data']
    history = pd.read_csv(whole/'run/history.csv')
    best = history[['valid_loss','average_valid_loss']].min().min()
    assert record['validation'][record['kept']]['valid_loss'] == pytest.approx(best, abs=1e-6)
    assert set(record['validation']) == {'raw','average'} and record['seconds'] == round(history.seconds.sum())
    assert record['files'] == json.loads((whole/'run/sha256.json').read_text())
    for words in ('Licence:** not stated yet', record['files']['matting.safetensors'], f"{record['kept']} (kept)", 'random numbers'): assert words in text

def test_its_folder_is_taken_everywhere(whole, tmp_path):
    "By torch, by ONNX Runtime once exported, by each command's --weights"
    import shutil, warnings
    from dim_nb.onnx import export_onnx
    from dim_nb.pipeline import PortraitMatter
    from dim_nb.cutout import dim_cutout
    from dim_nb.scale import scale
    from dim_nb.hub import fetch_weights
    own, face = tmp_path/'own', ROOT/'data/portraits/obama.png'
    shutil.copytree(whole/'run', own)
    assert fetch_weights(own) == own
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rough = PortraitMatter.load(own, 'cpu', 'torch', size=160)(face).rough
        assert abs(rough - PortraitMatter.load(device='cpu', backend='torch', size=160)(face).rough).max() > .1
        export_onnx(own)
        assert abs(PortraitMatter.load(own, 'cpu', 'onnx', size=160)(face).rough - rough).mean() < .01
        assert dim_cutout([str(face)], str(tmp_path/'cut'), weights=str(own), size=160) == 0
        (row,) = scale(str(face.with_suffix('.p*')), tmp_path/'scaled', weights=str(own), size=160).values()
        assert not row['error']
