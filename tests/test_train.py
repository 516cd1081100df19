"dim_train: killed for real and gone on; refusals of one line; any weights file to start from."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pandas as pd, pytest, torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '2'}
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
    with pytest.raises(SystemExit) as e: dim_train()
    err = capsys.readouterr().err
    assert e.value.code == 2 and argv.split()[0] in one_line(err) and not (tmp_path/'run').exists()

def test_too_few_samples_for_a_batch_train_nothing(tmp_path):
    from dim_nb.train import dim_train
    with pytest.raises(ValueError, match='no batch of 4'): dim_train('matting', data=tmp_path, epochs=1, out=tmp_path/'run', samples=2, bs=4)

def test_old_names_and_dashes_work(tmp_path, monkeypatch, capsys):
    from dim_nb.train import dim_train
    for argv in (['--part', '0'], ['--data-share', '0'], ['--data_share=0']):
        monkeypatch.setattr(sys, 'argv', ['dim_train', 'matting', '--data', 'x', '--epochs', '1', '--out', str(tmp_path/'run'), *argv])
        import warnings
        with warnings.catch_warnings(record=True) as caught, pytest.raises(SystemExit):
            warnings.simplefilter('always')
            dim_train()
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
        with pytest.raises(SystemExit) as e: dim_train()
        err = capsys.readouterr().err
        assert e.value.code == 2 and path.name in one_line(err) and words in err, name

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
