"dim_train, killed for real and gone on."
import os, signal, subprocess, sys, time
from pathlib import Path
import pandas as pd, pytest, torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent

def train(out, cache, *more):
    argv = ['matting', '--data', str(ROOT/'data'), '--epochs', '3', '--out', str(out), '--cache', str(cache), '--size', '64', '--samples', '16', '--valid', '8', '--bs', '4', '--scratch', *more]
    code = f'from dim_nb.refine import dim_train; dim_train({argv!r})'
    env = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '2'}
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def finish(p):
    out, _ = p.communicate(timeout=600)
    assert p.returncode == 0, out[-3000:]
    return out

def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    finish(train(tmp_path/'whole', tmp_path/'cache'))
    p = train(tmp_path/'halves', tmp_path/'cache')
    for line in p.stdout:
        if line.startswith('epoch 0'): break
    time.sleep(.3); p.send_signal(signal.SIGKILL); p.wait()
    done = torch.load(tmp_path/'halves/last.pt', weights_only=True)['epoch']
    assert 1 <= done < 3
    out = finish(train(tmp_path/'halves', tmp_path/'cache'))
    assert f'going on after epoch {done} of 3' in out
    a, b = (load_file(tmp_path/n/'matting.safetensors') for n in ('whole', 'halves'))
    assert all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()
    h = [pd.read_csv(tmp_path/n/'history.csv').drop(columns='seconds') for n in ('whole', 'halves')]
    assert h[0].equals(h[1])
    assert not list((tmp_path/'halves').glob('.*')), 'something half-written is left'

def test_other_arguments_are_refused(tmp_path):
    finish(train(tmp_path/'run', tmp_path/'cache'))
    p = train(tmp_path/'run', tmp_path/'cache', '--lr', '0.1')
    out, _ = p.communicate(timeout=600)
    assert p.returncode != 0 and 'lr' in out and 'other arguments' in out

def test_a_folder_without_data_is_named(tmp_path):
    from dim_nb.refine import dim_train
    with pytest.raises((SystemExit, Exception)) as e: dim_train(['trimap', '--data', str(tmp_path/'nothing'), '--epochs', '1', '--out', str(tmp_path/'run')])
    assert 'nothing' in str(e.value)

@pytest.mark.parametrize('argv', [['--part', '0'], ['--part', '1.5'], ['--layers', '1']])
def test_senseless_numbers_are_refused_at_once(argv, tmp_path, capsys):
    from dim_nb.refine import dim_train
    with pytest.raises(SystemExit) as e: dim_train(['matting', '--data', str(tmp_path), '--epochs', '1', '--out', str(tmp_path/'run'), *argv])
    assert e.value.code == 2 and argv[0] in capsys.readouterr().err and not (tmp_path/'run').exists()
