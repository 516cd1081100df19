"300 damaged files through reader, command, evaluation and data checks: each is read as Pillow reads it, or it is named"
import io, warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from dim_nb.cutout import dim_cutout
from dim_nb.datasets import backgrounds
from dim_nb.evaluation import evaluate
from dim_nb.images import ImageError, read_image, write_png
from dim_nb.pipeline import PortraitMatter

FORMATS = dict(JPEG='jpg', PNG='png', WEBP='webp', GIF='gif', BMP='bmp', TIFF='tif', ICO='ico', TGA='tga', PPM='ppm', JPEG2000='jp2')
SIZE = 48, 40
LIMIT = 10_000_000   # pixels: a flipped bit in a header may claim any number of them


def damaged(data, k, rng):
    "The file with a flipped bit, cut off, with eight bytes of zeros, or with twenty bytes missing"
    i = int(rng.integers(len(data)))
    flipped = data[:i]+bytes([data[i]^(1 << int(rng.integers(8)))])+data[i+1:]
    return [flipped, data[:i], data[:i]+bytes(8)+data[i+8:], data[:i]+data[i+20:]][k%4]

def pillows(data):
    "What Pillow reads, upright, in RGB"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        im = Image.open(io.BytesIO(data))
        im.load()
        im = ImageOps.exif_transpose(im)
    return np.array((im.convert('RGBA') if 'transparency' in im.info else im).convert('RGB'))

@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory):
    "The folder of pictures, and {name: pixels, or None where the reader refuses}"
    folder = tmp_path_factory.mktemp('fuzz')/'images'
    folder.mkdir()
    rng, seen = np.random.default_rng(5), {}
    y, x = np.mgrid[:SIZE[1],:SIZE[0]]
    photo = np.dstack([x*5, y*6, (x*y)%256]).astype(np.uint8)
    for fmt,suffix in FORMATS.items():
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, fmt, **(dict(sizes=[SIZE]) if fmt == 'ICO' else {}))
        for k in range(30):
            f = folder/f'{fmt.lower()}_{k:02}.{suffix}'
            f.write_bytes(damaged(buffer.getvalue(), k, rng))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    seen[f.name] = read_image(f, bg=None, max_pixels=LIMIT)
            except ImageError as e:
                assert f.name in str(e) and e.reason
                seen[f.name] = None
    assert len(seen) == 300
    return folder, seen

def refused(seen): return {n for n,a in seen.items() if a is None}


def test_reader(fuzzed):
    folder, seen = fuzzed
    assert 60 < len(refused(seen)) < 280
    for name in seen.keys()-refused(seen):
        assert np.array_equal(seen[name], pillows((folder/name).read_bytes())), name

@pytest.mark.filterwarnings('ignore')
def test_data_checks(fuzzed):
    folder, seen = fuzzed
    good, report = backgrounds(folder, workers=0, progress=False, cache=folder.parent/'cache')
    named = {str(p).split('/')[-1] for p in report.path}
    assert {f.name for f in good} | named == set(seen)
    assert not {f.name for f in good} & refused(seen)

@pytest.mark.filterwarnings('ignore')
def test_command(fuzzed, tmp_path, capfd):
    folder, seen = fuzzed
    status = dim_cutout([str(folder)], out=str(tmp_path/'out'), size=96, max_pixels=LIMIT, jobs=1)
    said = ''.join(capfd.readouterr())
    assert status == 1
    made = {f.stem for f in (tmp_path/'out').glob('*.png')}
    for name in seen:
        stem = name.split('.')[0]
        assert (stem in made) == (seen[name] is not None), name
        if seen[name] is None: assert name in said, name
    for f in (tmp_path/'out').glob('*.png'):
        name = next(n for n in seen if n.startswith(f'{f.stem}.'))
        assert Image.open(f).size == seen[name].shape[1::-1]
    assert not [f for f in (tmp_path/'out').iterdir() if f.suffix != '.png']

@pytest.mark.filterwarnings('ignore')
def test_evaluation(fuzzed, tmp_path):
    folder, seen = fuzzed
    alphas = folder.parent/'alphas'
    alphas.mkdir()
    alpha = np.zeros(SIZE[::-1], np.float32)
    alpha[10:,10:38] = 1
    for name in seen: write_png(alphas/f'{name.split(".")[0]}.png', alpha)
    rows = evaluate(folder.parent, PortraitMatter.load(device='cpu', size=96), given=False, bar=False)
    problems, scored = '\n'.join(rows.attrs['problems']), set(rows.stem)
    for name,pixels in seen.items():
        stem = name.split('.')[0]
        fits = pixels is not None and pixels.shape[:2] == alpha.shape
        assert (stem in scored) == fits, name
        if not fits: assert name in problems or f'{stem}.png' in problems, name
