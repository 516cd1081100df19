"Resumable training of a small learner: what is refused, what is kept."
import json, os
from pathlib import Path
import pytest, torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn
from dim_nb.training import Diverged, RunError, WeightAverage, fit_resumable

def learner(width=8):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=g)
    pairs = list(zip(x, x.sum(1, keepdim=True).sin()))
    set_seed(1)
    net = nn.Sequential(nn.Linear(4,width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(.2), nn.Linear(width,1))
    return Learner(DataLoaders(DataLoader(pairs, bs=8), DataLoader(pairs[:8], bs=8), device='cpu'), net, nn.MSELoss())

def fit(run, epochs=3, learn=None, **kwargs): return fit_resumable(learn or learner(), epochs, 1e-2, run, **kwargs)
def rows(history): return history.drop(columns='seconds').values.tolist()

class Stop(Callback):
    order = -100
    def __init__(self, epoch, batch): self.at = epoch, batch
    def before_batch(self):
        if self.training and (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('schedule', ['one_cycle', 'flat_cos'])
@pytest.mark.parametrize('average', [0, .9])
def test_stopped_anywhere_it_ends_the_same(schedule, average, tmp_path):
    how = dict(schedule=schedule, average=average)
    whole = rows(fit(tmp_path/'whole', **how))
    for epoch in range(3):
        for batch in (0, 3):
            run, stopped = tmp_path/f'{epoch}{batch}', learner()
            stopped.add_cb(Stop(epoch, batch))
            with pytest.raises(KeyboardInterrupt): fit(run, learn=stopped, **how)
            assert rows(fit(run, **how)) == whole
            for f in (tmp_path/'whole').glob('*.safetensors'): assert f.read_bytes() == (run/f.name).read_bytes()

def test_the_average_is_the_moving_mean_and_can_be_the_best(tmp_path):
    weights, learn = [], learner()
    class Watch(Callback):
        order = 200
        def after_step(self): weights.append(self.model[0].weight.detach().clone())
    average = WeightAverage(.9)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2, cbs=[Watch(), average])
    mean = weights[0]
    for step, w in enumerate(weights[1:], 1): mean = mean + (w-mean)*(1-min(.9, step/(10+step)))
    assert torch.allclose(average.ema.module[0].weight, mean, atol=1e-6)
    history = fit(tmp_path/'run', 3, average=.9)
    state = torch.load(tmp_path/'run/last.pt', weights_only=True)
    assert state['best'] == min(history.valid_loss.min(), history.average_valid_loss.min())

def test_other_arguments_fewer_epochs_and_other_networks_are_refused(tmp_path):
    fit(tmp_path, args=dict(lr=1, files='a'))
    for how, words in ((dict(args=dict(lr=2, files='a')), 'lr: 1 before, 2 now'), (dict(args=dict(lr=1)), "files: 'a' before, None now"),
                       (dict(args=dict(lr=1, files='a'), epochs=2), '3 epochs already')):
        with pytest.raises(RunError, match=words): fit(tmp_path, **how)
    with pytest.raises(RunError, match='another network'): fit(tmp_path, 4, learner(16), args=dict(lr=1, files='a'))
    with pytest.raises(ValueError, match='one_cycle or flat_cos'): fit(tmp_path/'x', schedule='cosine')

def test_lost_or_damaged_arguments(tmp_path):
    fit(tmp_path, args=dict(lr=1))
    for damage in (lambda f: f.unlink(), lambda f: f.write_text(''), lambda f: f.write_text('{"lr": 2'), lambda f: (f.unlink(), os.mkfifo(f))):
        damage(tmp_path/'args.json')
        with pytest.raises(RunError, match='lr: 1 before, 2 now'): fit(tmp_path, args=dict(lr=2))
    with pytest.raises(OSError, match='args.json'): fit(tmp_path, args=dict(lr=1))   # nothing is written in a pipe's place
    (tmp_path/'args.json').unlink()
    fit(tmp_path, args=dict(lr=1))                       # the checkpoint has them; the file is written anew
    assert json.loads((tmp_path/'args.json').read_text()) == dict(lr=1, epochs=3)
    for text in ('', '[1, 2]', 'text'):                  # before the first epoch is over there is no checkpoint
        new = tmp_path/'new'
        new.mkdir(exist_ok=True)
        (new/'args.json').write_text(text)
        with pytest.raises(RunError, match='args.json is damaged'): fit(new)

def test_damaged_checkpoints_are_named(tmp_path):
    fit(tmp_path)
    last = tmp_path/'last.pt'
    raw = last.read_bytes()
    middle = len(raw)//2
    for bad in (b'', b'text', raw[:middle], raw[:-4], raw[:middle] + bytes([raw[middle]^4]) + raw[middle+1:]):
        last.write_bytes(bad)
        with pytest.raises(RunError, match='last.pt'): fit(tmp_path)
    torch.save(dict(model={}, epoch=2), last)
    with pytest.raises(RunError, match='no checkpoint of this version'): fit(tmp_path)
    last.unlink()
    os.mkfifo(last)
    with pytest.raises(RunError, match='is no file'): fit(tmp_path)

def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path):
    fit(tmp_path)
    state = torch.load(tmp_path/'last.pt', weights_only=True)
    state['model']['0.weight'][0,0] = float('nan')
    torch.save(state, tmp_path/'last.pt')
    with pytest.raises(RunError, match='not finite'): fit(tmp_path, 4)

def test_no_pickle_is_executed(tmp_path):
    import pickle
    fit(tmp_path)
    class Evil:
        def __reduce__(self): return (Path.touch, (tmp_path/'owned',))
    torch.save(dict(model=Evil()), tmp_path/'last.pt', pickle_module=pickle)
    with pytest.raises(RunError, match='last.pt is damaged'): fit(tmp_path)
    assert not (tmp_path/'owned').exists()

def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    class Poison(Callback):
        def before_epoch(self):
            if self.epoch == 2: self.model[0].weight.data[0,0] = float('nan')
    learn = learner()
    learn.add_cb(Poison())
    with pytest.raises(Diverged, match='epoch 2'): fit(tmp_path, 4, learn)
    assert torch.load(tmp_path/'last.pt', weights_only=True)['epoch'] == 2
