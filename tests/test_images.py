"Images as people have them: formats, faults, properties. Files are made here, so that each holds exactly one difficulty."
import io, os, pickle, struct, subprocess, sys, threading, warnings, zlib
from pathlib import Path
import cv2, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
import dim_nb.images as C
from dim_nb.images import MAX_PIXELS, ImageError, composite, read_alpha, read_image, read_rgba, write_png

H,W = 40,60
RNG = np.random.default_rng(0)
YY,XX = np.mgrid[:H,:W]
RGB = np.stack([XX*255//W, YY*255//H, (XX+YY)*2], 2).astype(np.uint8)
GREY = RGB[...,0]

def enc(im, fmt='PNG', **kw):
    b = io.BytesIO(); im.save(b, fmt, **kw)
    return b.getvalue()

def chunk(t, d): return struct.pack('>I',len(d))+t+d+struct.pack('>I',zlib.crc32(t+d))
def png(w, h, depth, kind, data): return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR',struct.pack('>IIBBBBB',w,h,depth,kind,0,0,0))+chunk(b'IDAT',data)+chunk(b'IEND',b'')
def png16(a):
    "16-bit PNG of HxW or HxWx2/3/4 uint16"
    raw = b''.join(b'\0'+r.astype('>u2').tobytes() for r in a)
    return png(a.shape[1], a.shape[0], 16, {1:0,2:4,3:2,4:6}[1 if a.ndim==2 else a.shape[2]], zlib.compress(raw))
def rand16(*shape): return RNG.integers(0, 65536, shape, dtype=np.uint16)
def to8(a): return np.rint(a/257).astype(np.uint8)
def over(rgb, alpha, bg): return np.rint(rgb*alpha[...,None]+np.array(bg)*(1-alpha[...,None]))

# --- formats -----------------------------------------------------------------

@pytest.mark.parametrize('fmt', ['JPEG','PNG','TIFF','WEBP'])
@pytest.mark.parametrize('o', range(1,9))
def test_exif(o, fmt):
    ex = Image.Exif(); ex[274] = o
    b = enc(Image.fromarray(RGB), fmt, exif=ex, **(dict(lossless=True) if fmt=='WEBP' else {}))
    want = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(b))).convert('RGB'))
    assert want.shape[:2]==((H,W) if o<5 else (W,H))
    assert np.array_equal(read_image(b), want)
    assert np.array_equal(read_image(Image.open(io.BytesIO(b))), want)
    assert read_alpha(b).shape==read_rgba(b)[1].shape==want.shape[:2]

@pytest.mark.parametrize('o', [1,6,7])
def test_exif_16bit(o):
    a = rand16(H,W,3)
    b = png16(a); ex = Image.Exif(); ex[274] = o
    b = b[:33]+chunk(b'eXIf', ex.tobytes()[6:] if ex.tobytes()[:4]==b'Exif' else ex.tobytes())+b[33:]
    assert np.array_equal(read_image(b), C._orient(to8(a), o))

def test_bad_exif_is_no_obstacle():
    b = enc(Image.fromarray(RGB), 'JPEG')
    b = b[:2]+b'\xff\xe1'+struct.pack('>H',12)+b'Exif\0\0\xff\xff\xff\xff'+b[2:]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert read_image(b).shape==(H,W,3)

def test_palette():
    p = Image.fromarray(RGB).quantize(64)
    want = np.array(p.convert('RGB'))
    assert np.array_equal(read_image(enc(p)), want)
    assert np.array_equal(read_image(enc(p,'GIF')), want)
    i = int(np.array(p)[3,4]); hole = np.array(p)==i
    for kw,fmt in ((dict(transparency=i),'PNG'), (dict(transparency=i),'GIF'), (dict(transparency=bytes(0 if k==i else 255 for k in range(256))),'PNG')):
        b = enc(p, fmt, **kw)
        assert np.array_equal(read_alpha(b)==0, hole), fmt
        assert np.array_equal(read_image(b, bg=(9,8,7)), np.where(hole[...,None], [9,8,7], want))
        assert np.array_equal(read_rgba(b)[1], 1-hole)

def test_transparent_colour_key():
    im = RGB.copy(); im[:5] = (1,2,3)
    b = enc(Image.fromarray(im), transparency=(1,2,3))
    assert read_alpha(b)[0,0]==0 and read_alpha(b)[-1,-1]==1
    g = GREY.copy(); g[:5] = 7
    b = enc(Image.fromarray(g), transparency=7)
    assert np.array_equal(read_alpha(b)==0, g==7)

def test_one_bit():
    m = GREY>100
    b = enc(Image.fromarray(m))
    assert Image.open(io.BytesIO(b)).mode=='1'
    assert np.array_equal(read_image(b), np.repeat(m[...,None]*np.uint8(255),3,2))
    assert np.array_equal(read_alpha(b), m.astype(np.float32))

@pytest.mark.parametrize('fmt', ['PNG','JPEG','TIFF','BMP','WEBP'])
def test_grey(fmt):
    b = enc(Image.fromarray(GREY), fmt)
    got = read_image(b)
    assert got.shape==(H,W,3) and np.abs(got.astype(int)-GREY[...,None]).mean()<3
    if fmt in ('PNG','TIFF','BMP'): assert np.array_equal(read_alpha(b), GREY.astype(np.float32)/255)

def test_grey_alpha():
    a = RNG.integers(0,256,(H,W),dtype=np.uint8)
    b = enc(Image.merge('LA',[Image.fromarray(GREY),Image.fromarray(a)]))
    assert np.array_equal(read_alpha(b), a.astype(np.float32)/255)
    assert np.array_equal(read_alpha(b, channel='grey'), GREY.astype(np.float32)/255)
    assert np.array_equal(read_image(b, bg=None)[...,1], GREY)
    assert np.abs(read_image(b)-over(np.repeat(GREY[...,None],3,2), a/255, (255,)*3)).max()<=1

def test_rgba():
    a = RNG.integers(0,256,(H,W),dtype=np.uint8)
    for fmt in ('PNG','TIFF'):
        b = enc(Image.fromarray(np.dstack([RGB,a])), fmt)
        rgb,al = read_rgba(b)
        assert np.array_equal(rgb, RGB) and np.array_equal(al, a.astype(np.float32)/255)
        assert np.array_equal(read_image(b, bg=None), RGB)
        for bg in ((255,255,255),(0,0,0),(10,200,30)): assert np.abs(read_image(b, bg=bg)-over(RGB,a/255,bg)).max()<=1

def test_alpha_only():
    "A shape in A, nothing in RGB, as some tools save mattes"
    a = RNG.integers(0,256,(H,W),dtype=np.uint8)
    b = enc(Image.fromarray(np.dstack([RGB*0,a])))
    assert np.array_equal(read_alpha(b), a.astype(np.float32)/255)
    assert np.abs(read_image(b)[...,0].astype(int)-(255-a)).max()<=1

def test_16bit_grey():
    for a in (rand16(H,W), np.arange(65536,dtype=np.uint16).reshape(256,256)):
        for b in (png16(a), enc(Image.fromarray(a),'TIFF')):
            assert np.array_equal(read_image(b)[...,0], to8(a))
            assert np.array_equal(read_alpha(b), a.astype(np.float32)/65535)
            assert len(np.unique(read_alpha(b)))==len(np.unique(a))

def test_16bit_grey_alpha():
    a = rand16(H,W,2)
    assert np.array_equal(read_alpha(png16(a)), a[...,1].astype(np.float32)/65535)
    assert np.array_equal(read_image(png16(a), bg=None)[...,2], to8(a[...,0]))

@pytest.mark.parametrize('n', [3,4])
@pytest.mark.parametrize('fmt', ['png','tiff'])
def test_16bit_colour(n, fmt):
    a = rand16(H,W,n)
    b = png16(a) if fmt=='png' else cv2.imencode('.tiff', a[...,[2,1,0,3][:n]])[1].tobytes()
    assert np.array_equal(read_image(b, bg=None), to8(a[...,:3]))
    if n==4: assert np.array_equal(read_alpha(b), a[...,3].astype(np.float32)/65535)
    else: assert np.array_equal(read_alpha(png16(np.repeat(a[...,:1],3,2))), a[...,0].astype(np.float32)/65535)

@pytest.mark.parametrize('fmt', ['JPEG','TIFF'])
def test_cmyk(fmt):
    b = enc(Image.fromarray(RGB).convert('CMYK'), fmt, **(dict(quality=95) if fmt=='JPEG' else {}))
    if fmt=='JPEG': assert b'Adobe' in b[:64]   # inverted, as Photoshop writes it
    assert np.abs(read_image(b).astype(int)-RGB).mean()<2

@pytest.mark.parametrize('fmt', ['GIF','PNG','WEBP','TIFF'])
def test_first_frame(fmt):
    fr = [Image.fromarray(np.full((5,6,3),v,np.uint8)) for v in (10,200)]
    assert np.abs(read_image(enc(fr[0],fmt,save_all=True,append_images=fr[1:])).astype(int)-10).max()<=2

def test_float_tiff():
    a = (GREY/255).astype(np.float32)
    assert np.array_equal(read_alpha(enc(Image.fromarray(a),'TIFF')), a)
    with pytest.raises(ImageError, match='floats run from'): read_image(enc(Image.fromarray(a*255),'TIFF'))

@pytest.mark.parametrize('shape', [(1,1),(1,1,1),(1,1,3),(1,1,4),(1,7),(9,1,3)])
def test_small(shape):
    a = RNG.integers(0,256,shape,dtype=np.uint8)
    assert read_image(a).shape==(*shape[:2],3) and read_alpha(a).shape==shape[:2]
    assert np.array_equal(read_image(enc(Image.fromarray(a[...,0] if a.shape[2:]==(1,) else a)),bg=None), read_image(a,bg=None))

def test_arrays():
    assert np.array_equal(read_image(GREY), np.repeat(GREY[...,None],3,2))
    assert np.array_equal(read_image(RGB.astype(np.uint16)*257), RGB)
    for d in (np.float16,np.float32,np.float64): assert np.abs(read_image((RGB/255).astype(d)).astype(int)-RGB).max()<=(d==np.float16)
    assert np.array_equal(read_image(RGB[::-1,::2]), RGB[::-1,::2])
    assert read_image(RGB[::-1,::-1]).flags.c_contiguous

@given(hnp.arrays(np.uint8, st.tuples(st.integers(1,9),st.integers(1,9),st.just(4))))
@settings(max_examples=50, deadline=None)
def test_png_roundtrip(a):
    rgb,al = read_rgba(enc(Image.fromarray(a)))
    assert np.array_equal(rgb, a[...,:3]) and np.array_equal(np.rint(al*255), a[...,3])
    im = read_image(a)
    assert (im[a[...,3]==0]==255).all() and np.array_equal(im[a[...,3]==255], a[...,:3][a[...,3]==255])

# --- faults ------------------------------------------------------------------

def fails(src, *says, **kw):
    with pytest.raises(ImageError) as e: read_image(src, **kw)
    for s in says: assert s in str(e.value)
    assert e.value.reason and str(e.value).endswith('.')
    return e.value

NOISE = RNG.integers(0,256,(200,300,3),dtype=np.uint8)

@pytest.mark.parametrize('fmt', ['JPEG','PNG','WEBP','GIF','BMP','TIFF'])
@pytest.mark.parametrize('part', [.1,.5,.9])
def test_truncated(tmp_path, fmt, part):
    b = enc(Image.fromarray(NOISE), fmt); f = tmp_path/f'cut.{fmt.lower()}'
    f.write_bytes(b[:int(len(b)*part)])
    assert fails(f, 'cut.', 'damaged or truncated').path==str(f)
    fails(b[:int(len(b)*part)], '<bytes>')

def test_truncated_16bit():
    b = png16(rand16(200,300,3)); fails(b[:len(b)//2], 'truncated')

@pytest.mark.parametrize('name,data,says', [('empty.jpg',b'','empty (0 bytes)'), ('text.jpg',b'This is a text.\n','holds text'), ('umlaut.png','grüße an alle'.encode(),'holds text'),
    ('noise.png',bytes(NOISE[0].ravel()),'not an image'), ('iphone.heic',b'\0\0\0\x18ftypheic\0\0\0\0mif1heic','heic'), ('page.jpg',b'<!DOCTYPE html><html>','holds text')])
def test_not_an_image(tmp_path, name, data, says):
    f = tmp_path/name; f.write_bytes(data)
    fails(f, name, says); fails(str(f), name, says); fails(data, says)
    for fn in (read_alpha,read_rgba):
        with pytest.raises(ImageError, match=name): fn(f)

def test_no_file(tmp_path):
    fails(tmp_path, 'folder'); fails(tmp_path/'none.jpg', 'none.jpg', 'no such file'); fails(tmp_path/'none.jpg'/'x', 'none.jpg')
    for o in ('', 'a\0b'): fails(o, 'not a file name')
    for o in (None, 3, [1,2], object()): fails(o, 'not an image')

def test_no_permission(tmp_path, monkeypatch):
    f = tmp_path/'mine.png'; f.write_bytes(enc(Image.fromarray(RGB)))
    if os.geteuid():
        f.chmod(0)
    else: monkeypatch.setattr('builtins.open', lambda *a,**k: (_ for _ in ()).throw(PermissionError(13,'Permission denied')))
    fails(f, 'mine.png', 'may not read')

def test_pixel_limit(tmp_path):
    f = tmp_path/'wide.png'; f.write_bytes(png(20000, 7000, 8, 2, zlib.compress(b'')))   # 140 M pixels, 70 bytes: the header alone is read
    with warnings.catch_warnings():
        warnings.simplefilter('error'); fails(f, 'wide.png', '20000x7000', f'{MAX_PIXELS:,}')
    fails(png(60000, 60000, 8, 2, b''), 'more than the limit')    # PIL's own bomb error
    with warnings.catch_warnings():
        warnings.simplefilter('error'); fails(png(10000, 10000, 8, 2, b''), 'truncated')   # within our limit, over PIL's warning
    fails(RGB, 'over the limit of 100', max_pixels=100); fails(Image.fromarray(RGB), 'over the limit', max_pixels=100)
    assert read_image(RGB, max_pixels=None).shape==RGB.shape==read_image(RGB, max_pixels=H*W).shape

@pytest.mark.parametrize('a,says', [(np.zeros(3),'shape'), (np.zeros((3,40,50)),'shape'), (np.zeros((2,3,4,3)),'shape'), (np.zeros((4,4,5),np.uint8),'shape'), (np.zeros(()),'shape'),
    (np.full((3,3),np.nan),'NaN'), (np.full((3,3),np.inf),'NaN or inf'), (np.full((3,3),7.),'0..1'), (np.full((3,3),-.5),'0..1'), (np.zeros((0,4),np.uint8),'empty'),
    (np.zeros((3,3),np.int64),'dtype'), (np.zeros((3,3),complex),'dtype'), (np.array([['a']]),'dtype'), (np.array([[None]]),'dtype')])
def test_bad_arrays(a, says): fails(a, '<array>', says)

def test_error_pickles():
    e = pickle.loads(pickle.dumps(ImageError(Path('a')/'b.jpg','it is bad','Mend it.')))
    assert isinstance(e, ValueError) and (e.path,e.reason,e.todo)==(str(Path('a')/'b.jpg'),'it is bad','Mend it.') and str(e).endswith('b.jpg: it is bad. Mend it.')

def test_nothing_left_open(tmp_path):
    f = tmp_path/'a.png'; f.write_bytes(enc(Image.fromarray(RGB)))
    with warnings.catch_warnings():
        warnings.simplefilter('error', ResourceWarning)
        read_image(f); fails(tmp_path)
    f.unlink()

def test_24_megapixels(tmp_path):
    f = tmp_path/'big.jpg'; Image.fromarray(np.tile(NOISE,(20,20,1))).save(f, quality=80)    # 4000x6000
    assert read_image(f).shape==(4000,6000,3)

# --- composite ---------------------------------------------------------------

@given(hnp.arrays(np.uint8,(3,4,3)), hnp.arrays(np.uint8,(3,4,3)), hnp.arrays(np.float32,(3,4),elements=st.floats(0,1,width=32)))
@settings(max_examples=100, deadline=None)
def test_composite(f, b, a):
    got = composite(f, b, a)
    want = f.astype(float)*a[...,None]+b*(1-a[...,None].astype(float))
    assert got.dtype==np.uint8 and np.abs(got-want).max()<=.5+1e-4
    assert np.abs(composite(f/255, b/255, a)-want/255).max()<1e-6
    assert np.array_equal(composite(f, f, a), f)
    import torch
    ch = lambda o: torch.from_numpy(o).permute(2,0,1)
    assert np.array_equal(composite(ch(f), ch(b), torch.from_numpy(a)[None]).permute(1,2,0), got)

def test_composite_batches():
    import torch
    f,b,a = torch.rand(5,3,4,6),torch.rand(5,3,4,6),torch.rand(5,1,4,6)
    want = a*f+(1-a)*b
    assert torch.allclose(composite(f,b,a), want, atol=1e-6) and torch.allclose(composite(f,b,a[:,0]), want, atol=1e-6)
    assert torch.allclose(composite(f,b[:1],a), a*f+(1-a)*b[:1], atol=1e-6)
    assert torch.allclose(composite(f,(0.,1.,0.),a)[:,1], (a*f)[:,1:2][:,0]+(1-a)[:,0], atol=1e-6)
    n = lambda o: o.permute(0,2,3,1).numpy()
    assert np.allclose(composite(n(f),n(b),a[:,0].numpy()), n(want), atol=1e-6)
    assert composite(n(f)[0],n(b),a[:,0].numpy()).shape==(5,4,6,3)
    f.requires_grad_(); composite(f,b,a).sum().backward(); assert torch.allclose(f.grad, a.expand_as(f))

# --- writing and finding -----------------------------------------------------

def test_write_png_is_atomic(tmp_path, monkeypatch):
    f = tmp_path/'a.png'; write_png(f, RGB)
    monkeypatch.setattr(Image.Image, 'save', lambda self,fp,*a,**k: (fp.write(b'half'), 1/0))
    with pytest.raises(ZeroDivisionError): write_png(f, RGB*0)
    monkeypatch.undo()
    assert np.array_equal(read_image(f), RGB) and os.listdir(tmp_path)==['a.png']
    with pytest.raises(OSError): write_png(tmp_path/'no'/'a.png', RGB)
    assert oct(f.stat().st_mode&0o777)==oct(0o666&~_umask())

def _umask():
    m = os.umask(0); os.umask(m); return m

def test_write_png_from_threads(tmp_path):
    ts = [threading.Thread(target=write_png, args=(tmp_path/'a.png', np.full((50,50),i*20,np.uint8))) for i in range(8)]
    [t.start() for t in ts]; [t.join() for t in ts]
    assert os.listdir(tmp_path)==['a.png'] and len(np.unique(read_image(tmp_path/'a.png')))==1

@pytest.mark.parametrize('a', [RGB, GREY, np.dstack([RGB,GREY]), np.dstack([GREY,GREY]), GREY>9, GREY/255])
def test_write_png_kinds(tmp_path, a):
    f = write_png(tmp_path/'ü mit Leerzeichen.png', a)
    assert np.array_equal(read_rgba(f)[0], read_rgba(a)[0]) and np.allclose(read_rgba(f)[1], read_rgba(a)[1])

# --- imports ------------------------------------------------------------------

def test_imports_nothing_heavy():
    code = "import sys, dim_nb.images, dim_nb.files, dim_nb.show, dim_nb.trimaps; bad=[m for m in ('torch','fastai','matplotlib','pandas','nbdev','IPython') if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable,'-c',code], check=True, env={**os.environ,'PYTHONPATH':str(Path(C.__file__).parents[1])})
