"dim_nb.loaders: the same batches with any number of workers"
from pathlib import Path
import pytest
from dim_nb.labels import prepare_foregrounds
from dim_nb.compose import Composer
from dim_nb.loaders import matting_dls

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return prepare_foregrounds([(f,None) for f in FACES], tmp_path_factory.mktemp('prepared')), sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))

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
    for o,c in ((x,4),(y,1),(planes,7)): assert o.shape==(4,c,96,96) and str(o.dtype)=='torch.float32' and 0<=o.min() and .5<o.max()<=1
    assert set((x[:,3]*255).round().unique().tolist())<={0.,128.,255.} and (x[:,3]==planes[:,6]).all()
    x,y = loaders(sources,'trimap',0).one_batch()
    assert str(y.dtype)=='torch.int64' and set(y.unique().tolist())<={0,1,2} and x.max()<=1
