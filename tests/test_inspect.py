"The inspector and the fixer: what a notebook cell is the wrong place for"
import ast,asyncio,json,sys,types
from pathlib import Path
import numpy as np,pytest
from hypothesis import given,settings,strategies as st

pytest.importorskip('ipycanvas')
from dim_nb.inspect import *
from dim_nb.inspect import GAP,BAR

REPO = Path(__file__).resolve().parents[1]
size = st.integers(1,5000)

def events(canvas, *evs):
    for kind,x,y in evs: canvas._handle_frontend_event(None, dict(event=f'mouse_{kind}',x=x,y=y), None)

def photo(h, w): return np.random.default_rng(0).integers(0,256,(h,w,3),np.uint8)

def test_leaf():
    "Only notebooks import dim_nb.inspect, and of dim_nb it imports core and metrics alone"
    def names(p): return [f"{'.'*getattr(n,'level',0)}{getattr(n,'module','') or ''}" for n in ast.walk(ast.parse(p.read_text())) if isinstance(n,ast.ImportFrom)]
    for p in (REPO/'dim_nb').glob('*.py'):
        if p.stem not in ('inspect','_modidx'): assert not {'.inspect','dim_nb.inspect'}&set(names(p)), p
    assert {n for n in names(REPO/'dim_nb'/'inspect.py') if n.startswith(('.','dim_nb'))}=={'.core','.metrics'}

@pytest.mark.parametrize('nb', sorted((REPO/'nbs').glob('*.ipynb')), ids=lambda o: o.stem)
def test_notebooks_hold_no_dead_widgets(nb):
    "A saved reference to a widget shows as an error to whoever opens the notebook; dim_nb.inspect.strip_widgets takes it out"
    d = json.loads(nb.read_text(encoding='utf-8'))
    assert 'widgets' not in d['metadata']
    for c in d['cells']:
        for o in c.get('outputs',[]): assert 'application/vnd.jupyter.widget-view+json' not in o.get('data',{}), ''.join(c['source'])[:80]

@given(st.integers(1,8), size, size)
def test_panes_fit(n, w, h):
    "Every pane lies on the canvas, none overlaps another, all are equal, and the canvas is no wider than its room"
    boxes,cw,ch = pane_boxes(n, w, h, 960, 600)
    assert len(boxes)==n and len({o[2:] for o in boxes})==1 and cw<=960+n
    for x,y,pw,ph in boxes: assert x>=0 and y>=BAR and x+pw<=cw and y+ph<=ch
    for i,(x,y,pw,ph) in enumerate(boxes):
        for X,Y,_,_ in boxes[:i]: assert abs(x-X)>=pw+GAP or abs(y-Y)>=ph+BAR

@given(size, size, st.integers(1,900), st.integers(1,200), st.sampled_from([2,4,8,16]), st.data())
def test_loupe_stays_inside(w, h, lw, lh, zoom, data):
    "The loupe's window lies in the photo and holds the spot"
    x,y = data.draw(st.integers(0,w-1)),data.draw(st.integers(0,h-1))
    bx,by,bw,bh = loupe_box((x,y), (w,h), lw, lh, zoom)
    assert 0<=bx<=x<bx+bw<=w and 0<=by<=y<by+bh<=h

@given(st.integers(0,2**32-1), st.integers(1,6))
def test_bands(seed, px):
    "Growing adds unknown pixels only, shrinking takes away only, and neither invents a class"
    rng = np.random.default_rng(seed)
    t = np.repeat(np.repeat(rng.choice([0,128,255],(5,6)).astype(np.uint8),8,0),8,1)
    g,s = grow_band(t,px),shrink_band(t,px)
    assert ((g==128)>=(t==128)).all() and ((s==128)<=(t==128)).all()
    assert (g[g!=128]==t[g!=128]).all() and (s[t!=128]==t[t!=128]).all()
    assert set(np.unique(s))<=set(np.unique(t)) and set(np.unique(g))<=set(np.unique(t))

@settings(max_examples=20, deadline=None)
@given(st.integers(1,40), st.integers(1,40))
def test_tiny_items(h, w):
    "Any size can be shown, wiped, magnified and saved"
    a = np.linspace(0,1,h*w,dtype=np.float32).reshape(h,w)
    insp = inspect_mattes(Item(photo(h,w), np.full((h,w),128,np.uint8), a, a, a), layers=tuple(LAYERS))
    insp.later.flush(); insp.key('w'); insp.later.flush()
    events(insp.canvas[-1], ('move',1,BAR+1),('down',1,BAR+1)); insp.later.flush()
    assert insp.picture().shape[:2]==(h+BAR,w) and insp.loupe.value[:4]==b'\x89PNG'

@pytest.mark.parametrize('h,w', [(10,4000),(4000,10),(3000,4000)])
def test_odd_shapes(h, w, tmp_path):
    "Panoramas, towers and 12 megapixels"
    insp = inspect_mattes([dict(photo=photo(h,w)), dict(photo=photo(5,5))], save_to=tmp_path)
    insp.later.flush(); insp.key('n'); insp.key('p'); insp.later.flush()
    assert max(insp.canvas.width,insp.canvas.height)<=1000 and insp.sent<2_000_000
    assert insp.save().exists()

def test_nothing_is_an_error():
    with pytest.raises(ValueError, match='nothing to inspect'): inspect_mattes([])

def test_faults_do_not_spread(tmp_path):
    "Truncated files, mattes of another size and functions that raise are named; the next item opens"
    (tmp_path/'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n'); (tmp_path/'text.jpg').write_text('hello')
    def boom(): raise RuntimeError('no such net')
    insp = inspect_mattes([tmp_path/'cut.png', tmp_path/'text.jpg', boom, (photo(4,5),np.zeros((5,4),np.float32)), photo(6,6)])
    for i,word in enumerate(('cut.png','text.jpg','no such net','truth is 4x5')):
        insp.later.flush()
        assert insp.index==i and word in insp.problem and word in insp.title.value
        insp.key('n')
    insp.later.flush()
    assert insp.problem=='' and insp.item.photo.shape==(6,6,3)

def test_generator_and_custom_sequence():
    "Anything that can be listed, or that has a length and numbers"
    class Lazy:
        asked = []
        def __len__(self): return 10**6
        def __getitem__(self, i): self.asked.append(i); return dict(photo=partial_photo, name=str(i))
    partial_photo = photo(8,8)
    insp = inspect_mattes(Lazy()); insp.later.flush(); insp.key('p'); insp.later.flush()
    assert insp.index==10**6-1 and len(set(Lazy.asked))<=24+2   # two items and two pages of thumbnails
    assert len(inspect_mattes(photo(4,4) for _ in range(3)).items)==3

def test_touch_and_leaving_the_canvas():
    "A stroke also ends where the pointer leaves, and a finger paints like a mouse"
    t = np.zeros((60,80),np.uint8); t[:,40:] = 255; t[:,35:45] = 128
    fix = fix_trimap(ClosedFormMatter(t), photo(60,80)); c = fix.canvas[-1]; s = fix.scale
    fix.paint.value,fix.radius.value = 'unknown',3
    events(c, ('down',10*s,10*s),('move',20*s,10*s),('out',0,0)); assert fix.trimap[10,15]==128 and len(fix.past)==1
    events(c, ('move',10*s,50*s)); assert fix.trimap[50,10]==0   # no button, no paint
    for kind,at in (('start',[dict(x=10*s,y=40*s)]),('move',[dict(x=20*s,y=40*s)]),('end',[])): c._handle_frontend_event(None, dict(event=f'touch_{kind}',touches=at), None)
    assert fix.trimap[40,15]==128 and len(fix.past)==2

def test_history_is_bounded():
    t = np.zeros((20,30),np.uint8); t[:,15:] = 255; t[:,12:18] = 128
    fix = fix_trimap(ClosedFormMatter(t), photo(20,30))
    fix.matter = lambda im,tri: fix.cut
    for i in range(60): fix.set_trimap(np.full((20,30),(0,255)[i%2],np.uint8))
    assert len(fix.past)==50
    for _ in range(70): fix.undo()
    assert not fix.past and len(fix.future)==50

def test_two_inspectors_share_nothing():
    "What is done in one does not show in another, even over the same items"
    items = [photo(8,8),photo(9,9),photo(10,10)]
    a,b = inspect_mattes(items),inspect_mattes(items)
    a.key('n'); a.key('w'); a.zoom.value,a.opacity.value = 8,.9; a.toggles['truth'].value = True
    a.later.flush(); b.later.flush()
    assert (b.index,b.wiping,b.zoom.value,b.opacity.value,b.toggles['truth'].value)==(0,False,4,.45,False)
    assert not {id(o) for o in vars(a).values() if isinstance(o,(dict,list))}&{id(o) for o in vars(b).values() if isinstance(o,(dict,list)) and o is not items}

def test_constructor_reads_one_file(monkeypatch):
    "999 files: one is read for the first face, thumbnails come one page at a time"
    import dim_nb.inspect as module
    read,real = [],module._pic
    monkeypatch.setattr(module, '_READ', {**module._READ, 'photo':lambda x: read.append(x) or real(photo(6,6))})
    monkeypatch.setattr(module, '_thumb', lambda x,o=None,n=68: read.append(('thumb',x)))
    insp = inspect_mattes([f'{i}.png' for i in range(999)])
    assert read==['0.png']
    insp.later.flush(); assert len(read)==1+12
    insp.key('End'); insp.later.flush(); assert '998.png' in read and len(read)==1+12+1+3

@pytest.fixture
def colab(monkeypatch):
    "A stand-in for google.colab that counts how often its widget manager was asked for"
    asked,output = [],types.ModuleType('google.colab.output')
    output.enable_custom_widget_manager = lambda: asked.append(1)
    pkg = types.ModuleType('google.colab'); pkg.output = output
    for k,v in {'google':types.ModuleType('google'),'google.colab':pkg,'google.colab.output':output}.items(): monkeypatch.setitem(sys.modules, k, v)
    return asked

def test_colab(colab, monkeypatch):
    "Colab's widget manager is turned on before anything is shown, and widgets are displayed, which is where Colab marks them"
    import dim_nb.inspect as module
    t = np.zeros((8,8),np.uint8); t[:,4:] = 255
    shown = []
    monkeypatch.setattr(module, 'display', lambda data,raw=False: shown.append((data,raw)))
    for w in (inspect_mattes(photo(8,8)), fix_trimap(ClosedFormMatter(t),photo(8,8))): w._ipython_display_()
    assert enable_colab() and len(colab)==3
    for data,raw in shown: assert raw and set(data)=={'application/vnd.jupyter.widget-view+json','image/jpeg','text/plain'}

def test_all_canvases_are_in_the_page():
    "Colab makes only the widgets that a page contains; one that waits for a canvas outside it would wait for ever"
    def inside(w): return [w]+[p for o in (*getattr(w,'children',()),*getattr(w,'_canvases',())) for p in inside(o)]
    for n in (1,2):
        insp = inspect_mattes([photo(8,8)]*n)
        assert {id(o) for o in (*insp.off,insp.strip,insp.canvas[0],insp.canvas[1])}<={id(o) for o in inside(insp.ui)}

def test_metrics_do_not_hold_the_kernel_up(monkeypatch):
    "In a running loop the metrics are computed on a thread; who leafs on does not wait for them"
    import time,dim_nb.inspect as module
    def slow(p, g): time.sleep(.3); return 7.
    slow.__name__ = 'conn'
    monkeypatch.setattr(module, '_SLOW', (slow,))
    a = np.linspace(0,1,64,dtype=np.float32).reshape(8,8)
    async def leaf():
        insp = inspect_mattes([Item(photo(8,8),alpha=a,truth=a)]*2)
        gaps,last,end = [],time.monotonic(),time.monotonic()+20
        while '7.00' not in insp.table.value and time.monotonic()<end:
            await asyncio.sleep(.01); gaps.append(time.monotonic()-last); last = time.monotonic()
        return insp.table.value,sorted(gaps)[-3]
    table,gap = asyncio.run(leaf())
    assert '7.00' in table and gap<.25

def test_static_picture_is_small():
    "What stays in a saved notebook, at worst: four panes of noise, which JPEG cannot pack"
    a = np.random.default_rng(0).random((600,800),np.float32)
    insp = inspect_mattes(Item(photo(600,800),np.full((600,800),128,np.uint8),a,a,a))
    assert len(insp._repr_mimebundle_()['image/jpeg'])<250_000

def test_bad_upload_is_said():
    insp = inspect_mattes(photo(8,8))
    insp.upload = types.SimpleNamespace(value={'x.png':dict(content=b'no picture')}); insp.uploaded()
    assert 'x.png' in insp.saved.value and insp.on.value=='checkerboard'
