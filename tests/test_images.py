"Images as people have them: formats, faults, properties. Files are made here, so that each holds exactly one difficulty."
import io, os, pickle, struct, subprocess, sys, threading, warnings, zlib
from pathlib import Path
import cv2, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps
import dim_nb.images as C
from dim_nb.images import MAX_PIXELS, ImageError, ImageWarning, composite, cover, read_alpha, read_dpi, read_image, read_pixels, read_rgba, resize_to, row_strips, to_byte, work_size, write_png
from dim_nb.files import register_heif
from made import GREY, H, RGB, SPACES, SRGB_XYZ, W, enc, icc, in_space, srgb_profile

RNG = np.random.default_rng(0)

def chunk(t, d): return struct.pack('>I',len(d))+t+d+struct.pack('>I',zlib.crc32(t+d))
def png(w, h, depth, kind, data): return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR',
        struct.pack('>IIBBBBB',w,h,depth,kind,0,0,0))+chunk(b'IDAT',data)+chunk(b'IEND',b'')
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
    ex = Image.Exif()
    ex[274] = o
    b = enc(Image.fromarray(RGB), fmt, exif=ex, **(dict(lossless=True) if fmt=='WEBP' else {}))
    want = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(b))).convert('RGB'))
    assert want.shape[:2]==((H,W) if o<5 else (W,H))
    assert np.array_equal(read_image(b), want)
    assert np.array_equal(read_image(Image.open(io.BytesIO(b))), want)
    assert read_alpha(b).shape==read_rgba(b)[1].shape==want.shape[:2]

@pytest.mark.parametrize('o', [1,6,7])
def test_exif_16bit(o):
    a = rand16(H,W,3)
    b = png16(a)
    ex = Image.Exif()
    ex[274] = o
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
    i = int(np.array(p)[3,4])
    hole = np.array(p)==i
    for kw,fmt in ((dict(transparency=i),'PNG'), (dict(transparency=i),'GIF'),
                   (dict(transparency=bytes(0 if k==i else 255 for k in range(256))),'PNG')):
        b = enc(p, fmt, **kw)
        assert np.array_equal(read_alpha(b)==0, hole), fmt
        assert np.array_equal(read_image(b, bg=(9,8,7)), np.where(hole[...,None], [9,8,7], want))
        assert np.array_equal(read_rgba(b)[1], 1-hole)

def test_transparent_colour_key():
    im = RGB.copy()
    im[:5] = (1,2,3)
    b = enc(Image.fromarray(im), transparency=(1,2,3))
    assert read_alpha(b)[0,0]==0 and read_alpha(b)[-1,-1]==1
    g = GREY.copy()
    g[:5] = 7
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
    if fmt in ('PNG','TIFF','BMP'):
        assert np.array_equal(read_alpha(b), GREY.astype(np.float32)/255)

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
        for bg in ((255,255,255),(0,0,0),(10,200,30)):
            assert np.abs(read_image(b, bg=bg)-over(RGB,a/255,bg)).max()<=1

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
    if n==4:
        assert np.array_equal(read_alpha(b), a[...,3].astype(np.float32)/65535)
    else:
        assert np.array_equal(read_alpha(png16(np.repeat(a[...,:1],3,2))), a[...,0].astype(np.float32)/65535)

@pytest.mark.parametrize('fmt', ['JPEG','TIFF'])
def test_cmyk(fmt):
    b = enc(Image.fromarray(RGB).convert('CMYK'), fmt, **(dict(quality=95) if fmt=='JPEG' else {}))
    if fmt=='JPEG':
        assert b'Adobe' in b[:64]   # inverted, as Photoshop writes it
    assert np.abs(read_image(b).astype(int)-RGB).mean()<2

@pytest.mark.parametrize('fmt', ['GIF','PNG','WEBP','TIFF'])
def test_first_frame(fmt):
    fr = [Image.fromarray(np.full((5,6,3),v,np.uint8)) for v in (10,200)]
    with pytest.warns(ImageWarning, match='<bytes>: 2 (frames|pages), the first used'):
        a = read_image(enc(fr[0],fmt,save_all=True,append_images=fr[1:]))
    assert np.abs(a.astype(int)-10).max()<=2

def test_float_tiff():
    a = (GREY/255).astype(np.float32)
    assert np.array_equal(read_alpha(enc(Image.fromarray(a),'TIFF')), a)
    with pytest.raises(ImageError, match='floats run from'):
        read_image(enc(Image.fromarray(a*255),'TIFF'))

@pytest.mark.parametrize('shape', [(1,1),(1,1,1),(1,1,3),(1,1,4),(1,7),(9,1,3)])
def test_small(shape):
    a = RNG.integers(0,256,shape,dtype=np.uint8)
    assert read_image(a).shape==(*shape[:2],3) and read_alpha(a).shape==shape[:2]
    assert np.array_equal(read_image(
        enc(Image.fromarray(a[...,0] if a.shape[2:]==(1,) else a)),bg=None), read_image(a,bg=None))

def test_arrays():
    assert np.array_equal(read_image(GREY), np.repeat(GREY[...,None],3,2))
    assert np.array_equal(read_image(RGB.astype(np.uint16)*257), RGB)
    for d in (np.float16,np.float32,np.float64):
        assert np.abs(read_image((RGB/255).astype(d)).astype(int)-RGB).max()<=(d==np.float16)
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
    with pytest.raises(ImageError) as e:
        read_image(src, **kw)
    for s in says:
        assert s in str(e.value)
    assert e.value.reason and str(e.value).endswith('.')
    return e.value

NOISE = RNG.integers(0,256,(200,300,3),dtype=np.uint8)

@pytest.mark.parametrize('fmt', ['JPEG','PNG','WEBP','GIF','BMP','TIFF'])
@pytest.mark.parametrize('part', [.1,.5,.9])
def test_truncated(tmp_path, fmt, part):
    b = enc(Image.fromarray(NOISE), fmt)
    f = tmp_path/f'cut.{fmt.lower()}'
    f.write_bytes(b[:int(len(b)*part)])
    assert fails(f, 'cut.', 'damaged or truncated').path==str(f)
    fails(b[:int(len(b)*part)], '<bytes>')

def test_truncated_16bit():
    b = png16(rand16(200,300,3))
    fails(b[:len(b)//2], 'truncated')

@pytest.mark.parametrize('name,data,says', [('empty.jpg',b'','empty (0 bytes)'), ('text.jpg',b'This is a text.\n','holds text'), ('umlaut.png','grüße an alle'.encode(),'holds text'),
    ('noise.png',bytes(NOISE[0].ravel()),'not an image'), ('iphone.heic',b'\0\0\0\x18ftypheic\0\0\0\0mif1heic','heic'), ('page.jpg',b'<!DOCTYPE html><html>','holds text')])
def test_not_an_image(tmp_path, name, data, says):
    f = tmp_path/name
    f.write_bytes(data)
    fails(f, name, says)
    fails(str(f), name, says)
    fails(data, says)
    for fn in (read_alpha,read_rgba):
        with pytest.raises(ImageError, match=name):
            fn(f)

def test_no_file(tmp_path):
    fails(tmp_path, 'folder')
    fails(tmp_path/'none.jpg', 'none.jpg', 'no such file')
    fails(tmp_path/'none.jpg'/'x', 'none.jpg')
    for o in ('', 'a\0b'):
        fails(o, 'not a file name')
    for o in (None, 3, [1,2], object()):
        fails(o, 'not an image')

def test_no_permission(tmp_path, monkeypatch):
    f = tmp_path/'mine.png'
    f.write_bytes(enc(Image.fromarray(RGB)))
    if os.geteuid():
        f.chmod(0)
    else:
        monkeypatch.setattr('builtins.open', lambda *a,**k: (_ for _ in ()
                            ).throw(PermissionError(13,'Permission denied')))
    fails(f, 'mine.png', 'may not read')

def test_pixel_limit(tmp_path):
    f = tmp_path/'wide.png'
    f.write_bytes(png(20000, 7000, 8, 2, zlib.compress(b'')))   # 140 M pixels, 70 bytes: the header alone is read
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fails(f, 'wide.png', '20000x7000', f'{MAX_PIXELS:,}')
    fails(png(60000, 60000, 8, 2, b''), 'more than the limit')    # PIL's own bomb error
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fails(png(10000, 10000, 8, 2, b''), 'truncated')   # within our limit, over PIL's warning
    fails(RGB, 'over the limit of 100', max_pixels=100)
    fails(Image.fromarray(RGB), 'over the limit', max_pixels=100)
    assert read_image(RGB, max_pixels=None).shape==RGB.shape==read_image(RGB, max_pixels=H*W).shape

@pytest.mark.parametrize('a,says', [(np.zeros(3),'shape'), (np.zeros((3,40,50)),'shape'), (np.zeros((2,3,4,3)),'shape'), (np.zeros((4,4,5),np.uint8),'shape'), (np.zeros(()),'shape'),
    (np.full((3,3),np.nan),'NaN'), (np.full((3,3),np.inf),'NaN or inf'), (np.full(
        (3,3),7.),'0..1'), (np.full((3,3),-.5),'0..1'), (np.zeros((0,4),np.uint8),'empty'),
    (np.zeros((3,3),np.int64),'dtype'), (np.zeros((3,3),complex),'dtype'), (np.array([['a']]),'dtype'), (np.array([[None]]),'dtype')])
def test_bad_arrays(a, says): fails(a, '<array>', says)

def test_error_pickles():
    e = pickle.loads(pickle.dumps(ImageError(Path('a')/'b.jpg','it is bad','Mend it.')))
    assert isinstance(e, ValueError) and (e.path,e.reason,e.todo)==(str(Path('a')/'b.jpg'),
                      'it is bad','Mend it.') and str(e).endswith('b.jpg: it is bad. Mend it.')

def test_nothing_left_open(tmp_path):
    f = tmp_path/'a.png'
    f.write_bytes(enc(Image.fromarray(RGB)))
    with warnings.catch_warnings():
        warnings.simplefilter('error', ResourceWarning)
        read_image(f)
        fails(tmp_path)
    f.unlink()

def test_24_megapixels(tmp_path):
    f = tmp_path/'big.jpg'
    Image.fromarray(np.tile(NOISE,(20,20,1))).save(f, quality=80)    # 4000x6000
    assert read_image(f).shape==(4000,6000,3)

# --- damaged ------------------------------------------------------------------

def idat(b):
    "Where the pixels of a PNG of one IDAT begin and end"
    i = b.index(b'IDAT')+4
    return i, i+struct.unpack('>I', b[i-8:i-4])[0]

def flipped(b, i, bit): return b[:i]+bytes([b[i]^(1<<bit)])+b[i+1:]

def test_a_flipped_bit_in_a_png_is_refused(tmp_path):
    "Seventy of them, deep ones and ones with EXIF and animation among them; by path, bytes and stream, for every reader"
    rng = np.random.default_rng(1)
    ex = Image.Exif()
    ex[274] = 6
    photo = np.where(NOISE>200, NOISE, np.mgrid[:200,:300][1][...,None]//2).astype(np.uint8)
    whole = [enc(Image.fromarray(photo)), enc(Image.fromarray(photo), exif=ex), png16(
        rand16(40,50,3)), png16(rand16(40,50)), enc(Image.fromarray(photo).quantize(50))]
    for k in range(70):
        b = whole[k%5]
        i,j = idat(b)
        b = flipped(b, int(rng.integers(i,j)), int(rng.integers(8)))
        f = tmp_path/f'{k}.png'
        f.write_bytes(b)
        for read in (read_image, read_alpha, read_rgba):
            with pytest.raises(ImageError, match=f'{k}.png.*damaged'):
                read(f)
        fails(b, '<bytes>', 'damaged')
        fails(io.BytesIO(b), 'damaged')

def test_a_damaged_pil_image_is_refused():
    b = enc(Image.fromarray(NOISE))
    i,j = idat(b)
    fails(Image.open(io.BytesIO(flipped(b,(i+j)//2,3))), '<PIL image>', 'damaged')

def test_damage_is_named_or_read_as_pillow_reads_it():
    rng = np.random.default_rng(2)
    a = NOISE[:40,:50]
    for fmt in ('JPEG','PNG','WEBP','GIF','BMP','TIFF','ICO','TGA','PPM','JPEG2000'):
        b = enc(Image.fromarray(a), fmt, **(dict(sizes=[(48,40)]) if fmt=='ICO' else {}))
        for k in range(30):
            i = int(rng.integers(len(b)))
            d = [flipped(b,i,int(rng.integers(8))), b[:i], b[:i]+bytes(8)+b[i+8:], b[:i]+b[i+20:]][k%4]
            try:
                got = read_image(d, bg=None, max_pixels=10_000_000)
            except ImageError as e:
                assert e.path=='<bytes>' and e.reason
                continue
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                im = Image.open(io.BytesIO(d))
                im.load()
                im = ImageOps.exif_transpose(im)
            want = np.array(im.convert('RGBA').convert('RGB') if 'transparency' in im.info else im.convert('RGB'))
            assert np.array_equal(got, want), (fmt, k)

@pytest.mark.parametrize('a,says', [(np.full((3,4),np.nan,np.float32),'NaN'), (np.full((3,4),-.5,np.float32),'floats run from -0.5'), (np.full((3,4),300.,np.float32),'floats run from'),
    (np.full((3,4),-7,np.int32),'values run from -7'), (np.full((3,4),70000,np.int32),'beyond 16 bits')])
def test_numbers_that_are_no_picture(tmp_path, a, says):
    f = tmp_path/'a.tif'
    Image.fromarray(a).save(f)
    for src in (f, f.read_bytes(), Image.open(f)):
        for read in (read_image, read_alpha, read_rgba):
            with pytest.raises(ImageError, match=says):
                read(src)

def test_icons_of_every_kind():
    a = np.random.default_rng(0).integers(0,256,(32,32,4),dtype=np.uint8)
    for fmt in ('ICO','ICNS'):
        b = enc(Image.fromarray(a), fmt)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            want = np.array(Image.open(io.BytesIO(b)).convert('RGBA'))
            rgb,al = read_rgba(b)
        assert np.array_equal(np.dstack([rgb,np.rint(al*255)]), want)

def test_an_icon_larger_than_it_says_is_refused():
    inner = enc(Image.fromarray(np.zeros((300,400,3),np.uint8)))
    b = struct.pack('<HHH',0,1,1)+struct.pack('<BBBBHHII',16,16,0,0,1,32,len(inner),22)+inner
    fails(b, 'over the limit of 1,000', max_pixels=1000)

# --- colour profiles -----------------------------------------------------------

def from_space(numbers, space):
    "The sRGB levels, not rounded, that 8-bit numbers of another space stand for, by the book"
    xyz,gamma = SPACES[space]
    v = numbers/255.
    lin = v**gamma if gamma else np.where(v<=.04045, v/12.92, ((v+.055)/1.055)**2.4)
    lin = np.clip(lin @ np.array(xyz) @ np.linalg.inv(np.array(SRGB_XYZ)), 0, 1)
    return 255*np.where(lin<=.0031308, lin*12.92, 1.055*np.maximum(lin,1e-9)**(1/2.4)-.055)

COLOURS = np.random.default_rng(3).integers(0,256,(60,80,3),dtype=np.uint8)

@pytest.mark.parametrize('space', SPACES)
@pytest.mark.parametrize('fmt', ['PNG','TIFF','WEBP','JPEG'])
def test_profiles_are_converted(space, fmt):
    q = in_space(COLOURS, space)
    kw = dict(WEBP=dict(lossless=True), JPEG=dict(quality=95)).get(fmt,{})
    b = enc(Image.fromarray(q), fmt, icc_profile=icc(*SPACES[space]), **kw)
    stored = np.array(Image.open(io.BytesIO(b))).astype(int)
    want = from_space(stored, space)
    got = read_image(b)
    assert np.abs(stored-want).mean()>2                    # as they stand, they are other colours
    assert np.abs(got-want).max()<=2 and np.abs(got-want).mean()<.5
    if fmt!='JPEG':
        assert np.abs(got.astype(int)-COLOURS).mean()<1
    for src in (Image.open(io.BytesIO(b)), io.BytesIO(b)):
        assert np.array_equal(read_image(src), got)
    assert np.array_equal(read_rgba(b)[0], got)

def test_profiles_leave_alphas_and_trimaps_alone():
    a = RNG.integers(0,256,(60,80),dtype=np.uint8)
    p = icc(*SPACES['prophoto'])
    b = enc(Image.fromarray(np.dstack([in_space(COLOURS,'prophoto'),a])), icc_profile=p)
    rgb,al = read_rgba(b)
    assert np.array_equal(al, a.astype(np.float32)/255) and np.abs(rgb.astype(int)-COLOURS).mean()<1
    grey = np.repeat(a[...,None],3,2)
    b = enc(Image.fromarray(grey), icc_profile=p)
    assert np.array_equal(
    read_alpha(b),
    a.astype(
        np.float32)/
        255) and np.array_equal(
            read_pixels(b)[0],
            grey) and not np.array_equal(
                read_image(b),
                 grey)

def test_profiles_of_palettes_and_16_bits():
    q = in_space(COLOURS, 'adobe')
    p = icc(*SPACES['adobe'])
    pal = Image.fromarray(q).quantize(64)
    few = np.array(pal.convert('RGB'))
    want = read_image(enc(Image.fromarray(few), icc_profile=p))
    assert np.array_equal(read_image(enc(pal, icc_profile=p)), want) and not np.array_equal(few, want)
    a = rand16(60,80)
    deep = np.dstack([q.astype(np.uint16)*257, a])
    b = png16(deep)
    b = b[:33]+chunk(b'iCCP', b'x\0\0'+zlib.compress(p))+b[33:]
    rgb,al = read_rgba(b)
    assert np.abs(rgb-from_space(q,'adobe')).max()<=2 and np.array_equal(al, a.astype(np.float32)/65535)

def test_srgb_or_nothing_changes_no_bit():
    for p in (srgb_profile(), icc(SRGB_XYZ)):
        assert np.array_equal(read_image(enc(Image.fromarray(NOISE), icc_profile=p)), NOISE)
    assert np.array_equal(read_image(enc(Image.fromarray(GREY), icc_profile=srgb_profile()))
                          [...,0], GREY)   # grey with a profile of colour

def test_profiles_from_threads():
    from concurrent.futures import ThreadPoolExecutor
    b = [enc(Image.fromarray(in_space(COLOURS,s)), icc_profile=icc(*SPACES[s])) for s in SPACES]
    want = [read_image(o) for o in b]
    with ThreadPoolExecutor(4) as ex:
        got = list(ex.map(read_image, b*10))
    assert all(np.array_equal(o,want[i%3]) for i,o in enumerate(got))

def gray_profile(gamma):
    "A grey ICC profile of one curve"
    tags = [(b'wtpt',b'XYZ \0\0\0\0'+struct.pack('>3i',63190,65536,54061)),
             (b'kTRC',b'curv\0\0\0\0'+struct.pack('>IH',1,round(gamma*256))+b'\0\0')]
    at,table,data = 128+4+24,struct.pack('>I',2),b''
    for n,d in tags:
        table += n+struct.pack('>II',at+len(data),len(d))
        data += d
    head = struct.pack('>I4sI4s4s4s',at+len(data),b'lcms',0x02400000,b'mntr',b'GRAY',b'XYZ ').ljust(36,b'\0')+b'acsp'
    return head.ljust(68,b'\0')+struct.pack('>3i',63190,65536,54061).ljust(60,b'\0')+table+data

def test_grey_profiles():
    g = np.arange(256,dtype=np.uint8).reshape(16,16)
    p = gray_profile(1.8)
    a = RNG.integers(0,256,(16,16),dtype=np.uint8)
    lin = (g/255.)**1.8
    want = 255*np.where(lin<=.0031308, lin*12.92, 1.055*np.maximum(lin,1e-9)**(1/2.4)-.055)
    for im in (Image.fromarray(g), Image.merge('LA',[Image.fromarray(g),Image.fromarray(a)])):
        assert np.abs(read_image(enc(im, icc_profile=p), bg=None)-want[...,None]).max()<=2
        assert np.array_equal(read_alpha(enc(im, icc_profile=p), channel='grey'), g.astype(np.float32)/255)
    assert np.array_equal(read_alpha(enc(im, icc_profile=p)), a.astype(np.float32)/255)

@pytest.mark.parametrize('p', [b'no profile', srgb_profile()[:200], gray_profile(2.2), b'\0'*200])
def test_a_broken_profile_is_ignored_with_a_warning(tmp_path, p):
    f = tmp_path/'a.png'
    Image.fromarray(RGB).save(f, icc_profile=p)
    with pytest.warns(ImageWarning, match='a.png: its colour profile cannot be used'):
        assert np.array_equal(read_image(f), RGB)

def test_lab_is_read():
    lab = ImageCms.applyTransform(Image.fromarray(COLOURS), ImageCms.buildTransform(
        ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), 'RGB', 'LAB'))
    assert np.abs(read_image(enc(lab,'TIFF')).astype(int)-COLOURS).mean()<3

# --- frames, pages, thin 16 bits -------------------------------------------------

def pages(*ims):
    "A TIFF of (array, NewSubfileType) pages"
    from PIL import TiffImagePlugin
    b = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(b, True) as w:
        for a,kind in ims:
            Image.fromarray(a).save(w, 'TIFF', tiffinfo={254:kind})
            w.newFrame()
    return b.getvalue()

def test_a_reduced_first_page_gives_the_full_one(tmp_path):
    small,full,mask = np.full((5,6,3),9,np.uint8), RGB, GREY
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for ims in ([(small,1),(full,0)], [(full,0),(small,1)], [(small,1),(mask,4),(full,0)]):
            assert np.array_equal(read_image(pages(*ims)), RGB)
        assert read_image(pages((small,1))).shape==(5,6,3)
    f = tmp_path/'scan.tif'
    f.write_bytes(pages((small,1),(full,0),(small,0)))
    with pytest.warns(ImageWarning, match='scan.tif: 2 pages, the first used'):
        assert np.array_equal(read_image(f), RGB)

def test_a_deep_page_behind_a_thumbnail():
    deep = rand16(H,W,3)
    ok,b = cv2.imencodemulti('.tiff', [np.zeros((5,6,3),np.uint16), deep[...,::-1]])
    b = bytearray(b.tobytes())
    t = Image.open(io.BytesIO(bytes(b)))
    at = t._TiffImageFile__first
    n = struct.unpack_from('<H',b,at)[0]
    tags = [struct.unpack_from('<HHI',b,at+2+12*i) for i in range(n)]
    i = next(i for i,o in enumerate(tags) if o[0]==254)
    struct.pack_into('<I',b,at+2+12*i+8,1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.array_equal(read_image(bytes(b)), to8(deep))

def test_a_phone_s_second_picture_is_no_frame():
    b = enc(Image.fromarray(RGB),'MPO',save_all=True,append_images=[Image.fromarray(RGB[:9,:9])])
    assert Image.open(io.BytesIO(b)).n_frames==2
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_image(b).shape==RGB.shape

def test_thin_16_bits_warn(tmp_path):
    f = tmp_path/'thin.png'
    write_png(f, GREY.astype(np.uint16))
    with pytest.warns(ImageWarning, match='thin.png: 16 bits a value, and none over 255'):
        read_image(f)
    with pytest.warns(ImageWarning, match='<bytes>: 16 bits'):
        read_image(enc(Image.fromarray(GREY.astype(np.int32)),'TIFF'))
    with pytest.warns(ImageWarning, match='<bytes>: 16 bits'):
        read_image(png16(RGB.astype(np.uint16)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_alpha(np.zeros((3,4),np.uint16))
        read_alpha(np.full((3,4),256,np.uint16))

# --- HEIC ------------------------------------------------------------------------

def test_heic_names_what_is_missing(tmp_path):
    "In an environment without pillow-heif"
    heic, video = tmp_path/'IMG_1.HEIC', tmp_path/'IMG_2.HEIC'
    heic.write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic')
    video.write_bytes(b'\0\0\0\x18ftypmp42\0\0\0\0mp42isom')
    code = f"""import sys; sys.modules['pillow_heif'] = None
from dim_nb.images import ImageError, read_image
for f in ({str(heic)!r}, {str(video)!r}):
    try: read_image(f)
    except ImageError as e: print(e)"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    one, two = done.stdout.splitlines()
    assert all(o in one for o in ('IMG_1.HEIC', 'pillow-heif is not installed', 'pip install dim_nb[heic]'))
    assert 'IMG_2.HEIC' in two and 'mp42' in two and 'video' in two

@pytest.mark.skipif(not register_heif(), reason='needs pillow-heif')
def test_heic(tmp_path):
    import pillow_heif
    f = tmp_path/'IMG_1'
    im = np.repeat(np.repeat(RGB,4,0),4,1)
    pillow_heif.from_pillow(Image.fromarray(im)).save(f, quality=95, format='HEIF')
    assert np.abs(read_image(f).astype(int)-im).mean()<4

# --- every door --------------------------------------------------------------------

def test_names_in_bytes(tmp_path):
    f = tmp_path/os.fsdecode(b'latin1_\xe9\xff\x1b[31m.png')
    write_png(f, RGB)
    with os.scandir(os.fsencode(tmp_path)) as it:
        entry = next(it)       # its path is bytes
    for src in (f, str(f), entry):
        assert np.array_equal(read_image(src), RGB)
    f.write_bytes(b'no picture')
    for src in (f, str(f), entry, open(f,'rb')):
        e = fails(src, r'latin1_\xe9\xff\x1b[31m.png')
        str(e).encode('utf-8')
        assert '\x1b' not in str(e)
        assert str(pickle.loads(pickle.dumps(e)))==str(e)

def test_bytes_are_never_a_name(tmp_path):
    f = write_png(tmp_path/'private.png', RGB)
    fails(os.fsencode(f), '<bytes>', 'text')

def test_open_files(tmp_path):
    import tempfile, zipfile
    f = write_png(tmp_path/'a.png', RGB)
    b = f.read_bytes()
    with zipfile.ZipFile(tmp_path/'z.zip','w') as z:
        z.write(f,'in/a.png')
    with zipfile.ZipFile(tmp_path/'z.zip') as z, z.open('in/a.png') as o:
        assert np.array_equal(read_image(o), RGB)
    with tempfile.SpooledTemporaryFile() as o:
        o.write(b)
        o.seek(0)
        assert np.array_equal(read_image(o), RGB)
    r,w = os.pipe()
    os.write(w,b[:2000])
    os.close(w)
    with open(r,'rb') as o:
        (fails(o,'damaged') if len(b)>2000 else read_image(o))                      # cannot seek
    for o in (open(f,'rb'), io.BytesIO(b), memoryview(b), bytearray(b)):
        assert np.array_equal(
    read_image(o), RGB) and np.array_equal(
        read_pixels(o)[0] if isinstance(
            o,(memoryview,bytearray)) else RGB, RGB)
    with open(f,'rb') as o:
        assert read_pixels(o)[1]==str(f)
    with open(__file__) as o:
        fails(o, 'opened as text')
    fails(io.BytesIO(b''), 'empty (0 bytes)')

def test_tensors():
    import torch
    t = torch.from_numpy(RGB).permute(2,0,1)
    for x in (t, t[None], t/255, t.double()/255, (t/255).requires_grad_(),
              t.contiguous(memory_format=torch.channels_last) if t.ndim==4 else t):
        assert np.array_equal(read_image(x), RGB)
    assert np.abs(read_image((t/255).bfloat16()).astype(int)-RGB).max()<=1
    g = torch.from_numpy(GREY)
    for x in (g, g[None], g[None,None]):
        assert np.array_equal(read_alpha(x), GREY.astype(np.float32)/255)
    assert np.array_equal(read_alpha(torch.cat([t,g[None]])), GREY.astype(np.float32)/255)
    for x,says in ((t[None].expand(2,-1,-1,-1),'shape is (2, 3'), (torch.zeros(9,9,9),'shape'),
                   (t.float(),'floats run'), (t.long(),'dtype'), (torch.full((3,3),float('nan')),'NaN')):
        fails(x, '<tensor>', says)

def test_dpi(tmp_path):
    f = write_png(tmp_path/'a.png', RGB, dpi=(300,150))
    for src in (f, str(f), f.read_bytes(), Image.open(f)):
        assert [round(o) for o in read_dpi(src)]==[300,150]
    assert read_dpi(write_png(f, RGB)) is None and read_dpi(RGB) is None
    with pytest.raises(ImageError, match='none.png'):
        read_dpi(tmp_path/'none.png')

# --- sizes -----------------------------------------------------------------------

def test_sizes():
    assert cover(
    NOISE,(50,50)).shape==(
        50,50,3) and np.array_equal(
            cover(
                RGB,(H,W)),RGB) and cover(
                    RGB,(1,500)).shape==(
                        1,500,3)
    wide = np.zeros((10,30,3),np.uint8)
    wide[:,10:20] = 200
    assert (cover(wide,(10,10))==200).all()                              # its middle
    assert resize_to(GREY,(H,W)) is GREY and resize_to(RGB,(7,5)).shape==(7,5,3)
    up = resize_to((GREY>99).astype(np.float32),(99,120))
    assert up.min()==0 and up.max()==1 and set(np.unique(resize_to(GREY,(9,9),cv2.INTER_NEAREST)))<=set(np.unique(GREY))
    assert np.array_equal(to_byte(GREY.astype(np.float32)/255), GREY)
    assert [(o.start,o.stop) for o in row_strips(5,2)]==[(0,2),(2,4),(4,5)] and work_size(1000,500,640)==(640,320)

# --- composite ---------------------------------------------------------------

@given(hnp.arrays(np.uint8,(3,4,3)), hnp.arrays(np.uint8,(3,4,3)),
       hnp.arrays(np.float32,(3,4),elements=st.floats(0,1,width=32)))
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
    f.requires_grad_()
    composite(f,b,a).sum().backward()
    assert torch.allclose(f.grad, a.expand_as(f))

# --- writing and finding -----------------------------------------------------

def test_write_png_is_atomic(tmp_path, monkeypatch):
    f = tmp_path/'a.png'
    write_png(f, RGB)
    monkeypatch.setattr(Image.Image, 'save', lambda self,fp,*a,**k: (fp.write(b'half'), 1/0))
    with pytest.raises(ZeroDivisionError):
        write_png(f, RGB*0)
    monkeypatch.undo()
    assert np.array_equal(read_image(f), RGB) and os.listdir(tmp_path)==['a.png']
    with pytest.raises(OSError):
        write_png(tmp_path/'no'/'a.png', RGB)
    assert oct(f.stat().st_mode&0o777)==oct(0o666&~_umask())

def _umask():
    m = os.umask(0)
    os.umask(m)
    return m

def test_write_png_from_threads(tmp_path):
    ts = [threading.Thread(target=write_png, args=(tmp_path/'a.png', np.full((50,50),i*20,np.uint8))) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert os.listdir(tmp_path)==['a.png'] and len(np.unique(read_image(tmp_path/'a.png')))==1

@pytest.mark.parametrize('a', [RGB, GREY, np.dstack([RGB,GREY]), np.dstack([GREY,GREY]), GREY>9, GREY/255])
def test_write_png_kinds(tmp_path, a):
    f = write_png(tmp_path/'ü mit Leerzeichen.png', a)
    assert np.array_equal(read_rgba(f)[0], read_rgba(a)[0]) and np.allclose(read_rgba(f)[1], read_rgba(a)[1])

# --- imports ------------------------------------------------------------------

def test_imports_nothing_heavy():
    code = "import sys, dim_nb.images, dim_nb.files, dim_nb.show, dim_nb.trimaps; bad=[m for m in ('torch','fastai','matplotlib','pandas','nbdev','IPython') if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable,'-c',code], check=True,
                   env={**os.environ,'PYTHONPATH':str(Path(C.__file__).parents[1])})
