"dim_nb.loaders: the same batches with any number of workers"
from pathlib import Path
import pytest, torch
from fastai.callback.core import Callback
import fastai.callback.schedule   # noqa: F401 (fit_one_cycle)
from fastai.learner import Learner
from torch import nn
from dim_nb.labels import prepare_foregrounds
from dim_nb.compose import Composer
from dim_nb.loaders import matting_dls
from dim_nb.training import fit_resumable

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    prepared = prepare_foregrounds([(f,None) for f in FACES], tmp_path_factory.mktemp('prepared'))
    return prepared, sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))

def loaders(sources, stage, workers):
    import torch
    tr,va = (Composer(*sources, stage=stage, size=96, seed=s) for s in (0,99))
    return matting_dls(tr, va, n=8, n_valid=8, bs=4, workers=workers, device=torch.device('cpu'))

@pytest.mark.parametrize('stage', ['trimap','matting'])
def test_same_batches_with_any_number_of_workers(sources, stage):
    import torch
    def all_of(w):
        dls = loaders(sources, stage, w)
        return [t for dl in dls.loaders for b in dl for t in b]
    a,b,c = (all_of(w) for w in (0,1,2))
    assert len(a)==len(b)==len(c)>4 and all(torch.equal(x,y) and torch.equal(x,z) for x,y,z in zip(a,b,c))

def test_batches_are_floats(sources):
    x,y,planes = loaders(sources,'matting',0).one_batch()
    for o,c in ((x,4),(y,1),(planes,7)):
        assert o.shape==(4,c,96,96) and str(o.dtype)=='torch.float32' and 0<=o.min() and .5<o.max()<=1
    assert set((x[:,3]*255).round().unique().tolist())<={0.,128.,255.} and (x[:,3]==planes[:,6]).all()
    x,y = loaders(sources,'trimap',0).one_batch()
    assert str(y.dtype)=='torch.int64' and set(y.unique().tolist())<={0,1,2} and x.max()<=1

# New samples in each epoch

class Notes(Callback):
    "The batches as the network was given them, for training and validation apart"
    def __init__(self, stop=None):
        self.train, self.valid, self.stop = [], [], stop

    def before_batch(self):
        (self.train if self.training else self.valid).append(self.xb[0].sum().item())
        if self.training and self.epoch == self.stop: raise KeyboardInterrupt

def toy(sources, workers=0, stop=None):
    "A network of one convolution on batches of four: (Learner, its notes)"
    train, valid = (Composer(*sources, size=32, seed=s) for s in (0,99))
    dls = matting_dls(train, valid, n=8, n_valid=4, bs=4, workers=workers, device=torch.device('cpu'))
    torch.manual_seed(0)
    notes = Notes(stop)
    loss = lambda pred, alpha, planes: (pred-alpha).abs().mean()
    return Learner(dls, nn.Conv2d(4,1,1), loss, cbs=notes), notes

@pytest.mark.parametrize('workers', [0,2])
def test_each_epoch_sees_new_samples(sources, workers):
    learn, notes = toy(sources, workers)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2)
        seen, same = notes.train, notes.valid
        learn.fit_one_cycle(1)
    assert len(set(seen+notes.train)) == 6                                # three epochs of two batches, no two alike
    assert len(set(same+notes.valid)) == 1                                # the validation set stays

def test_looking_at_a_batch_changes_nothing(sources):
    (learn, notes), (other, others) = toy(sources), toy(sources)
    for dl in learn.dls.loaders: dl.one_batch()
    learn.dls.show_batch(max_n=1)
    for o in (learn, other):
        with o.no_bar(), o.no_logging(): o.fit_one_cycle(2)
        o.dls.one_batch()
    assert notes.train == others.train

def test_validation_stays_though_both_are_one_composer(sources):
    c = Composer(*sources, size=32)
    dls = matting_dls(c, c, n=4, n_valid=4, bs=4, device=torch.device('cpu'))
    first = dls.valid.one_batch()[0]
    for _ in dls.train: pass
    assert c.epoch == 1 and torch.equal(dls.valid.one_batch()[0], first)

def test_a_resumed_run_sees_what_it_would_have_seen(sources, tmp_path):
    learn, notes = toy(sources)
    whole = fit_resumable(learn, 3, 1e-2, tmp_path/'whole')
    broken, before = toy(sources, stop=1)
    with pytest.raises(KeyboardInterrupt): fit_resumable(broken, 3, 1e-2, tmp_path/'halves')
    resumed, after = toy(sources)
    halves = fit_resumable(resumed, 3, 1e-2, tmp_path/'halves')
    assert before.train[:2]+after.train == notes.train and len(set(notes.train)) == 6
    assert all(torch.equal(a,b) for a,b in zip(learn.model.parameters(), resumed.model.parameters()))
    assert whole.drop(columns='seconds').equals(halves.drop(columns='seconds'))

@pytest.mark.parametrize('bs', [0,9])
def test_an_epoch_without_a_batch_is_refused(sources, bs):
    c = Composer(*sources, size=32)
    with pytest.raises(ValueError, match='bs: 1 to 8'): matting_dls(c, c, n=8, bs=bs)
