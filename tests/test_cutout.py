"The command, on files as people have them."
import os, re, shutil, signal, subprocess, sys, time, warnings
from pathlib import Path
import cv2, numpy as np, pytest
from PIL import Image
from dim_nb import cutout
from dim_nb.cutout import UsageError, dim_cutout, result_mark
from dim_nb.images import read_alpha, read_image
from dim_nb.pipeline import Cutout, PortraitMatter
from made import SPACES, icc, in_space

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='session')
def matter(): return PortraitMatter.load(device='cpu')

@pytest.fixture(scope='session')
def photo(): return read_image(ROOT/'data/portraits/obama.png', bg=None)

class Quick:
    "In place of the networks: half of every picture is the person"
    class nets: backend, device = 'nothing', 'cpu'
    def __call__(self, image, trimap=None):
        image = np.asarray(image)
        alpha = np.zeros(image.shape[:2], np.float32)
        alpha[:, :max(1, alpha.shape[1]//2)] = 1
        if image.mean() == 0: raise ValueError('black')
        return Cutout(image, np.where(alpha > 0, 255, 0).astype(np.uint8), alpha, alpha, image)

@pytest.fixture
def quick(monkeypatch): monkeypatch.setattr(cutout, '_load', lambda *args: Quick())

@pytest.fixture
def real(monkeypatch, matter): monkeypatch.setattr(cutout, '_load', lambda *args: matter)

@pytest.fixture
def cli(monkeypatch):
    "The command as the shell calls it; its exit status"
    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['dim_cutout', *map(str, words)])
        try: return dim_cutout()
        except SystemExit as e: return e.code
    return call

def picture(path, colour=90, size=(24, 24)):
    "A small picture on disk"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (colour, 40, 40)).save(path)
    return path

def names(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())
def contents(folder): return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
def iou(a, b): return ((a > .5)&(b > .5)).sum()/((a > .5)|(b > .5)).sum()

COMMAND = [sys.executable, '-c', 'import sys; from dim_nb.cutout import dim_cutout; sys.exit(dim_cutout())']

# -- files as people have them

def odd_files(d, photo):
    "The same portrait in every format that people have; name -> size (w, h) that its cut-out must have"
    im = Image.fromarray(photo)
    w, h = im.size
    exif = Image.Exif()
    exif[274] = 6
    im.rotate(90, expand=True).save(d/'rotated.jpg', exif=exif)
    im.quantize(64).save(d/'palette.png')
    im.convert('L').save(d/'grey.png')
    im.convert('LA').save(d/'with_alpha.png')
    im.convert('CMYK').save(d/'cmyk.jpg')
    for name in ('UPPER.JPG', 'webp.webp', 'bmp.bmp'): im.save(d/name)
    cv2.imwrite(str(d/'deep.png'), photo[...,::-1].astype(np.uint16)*257)
    im.resize((60, 80)).save(d/'tiny.png')
    kinds = 'rotated.jpg palette.png grey.png with_alpha.png cmyk.jpg UPPER.JPG webp.webp bmp.bmp deep.png'.split()
    return {**{n: (w, h) for n in kinds}, 'tiny.png': (60, 80)}

def bad_files(d, photo):
    Image.fromarray(photo).save(d/'whole.tmp', 'JPEG')
    data = (d/'whole.tmp').read_bytes()
    (d/'whole.tmp').unlink()
    (d/'truncated.jpg').write_bytes(data[:len(data)//2])
    (d/'empty.png').write_bytes(b'')
    (d/'text.jpg').write_text('not a picture')
    return ['truncated.jpg', 'empty.png', 'text.jpg']

def test_a_mixed_folder(tmp_path, photo, capsys, cli, real):
    src, out = tmp_path/'in', tmp_path/'out'
    src.mkdir()
    good, bad = odd_files(src, photo), bad_files(src, photo)
    (src/'.hidden.jpg').write_text('x')
    (src/'notes.txt').write_text('x')
    status = cli(src, '--out', out, '--alpha', '--trimap', '--bg', 'white', '--sheet')
    got = capsys.readouterr()
    assert status == 1
    for n in bad: assert n in got.err
    for n in good: assert n not in got.err
    stems = {Path(n).stem for n in good}
    ends = ('', '_alpha', '_trimap', '_bg')
    assert set(names(out)) == {f'{n}{s}.png' for n in stems for s in ends} | {'contact_sheet.png'}
    for n, size in good.items():
        im = Image.open(out/f'{Path(n).stem}.png')
        assert im.mode == 'RGBA' and im.size == size, n
    ref = read_alpha(out/'UPPER.png')
    for n in ('rotated', 'webp', 'bmp', 'deep', 'cmyk', 'palette'): assert iou(read_alpha(out/f'{n}.png'), ref) > .95, n

def test_what_is_skipped_is_named_and_counted(tmp_path, capsys, cli, quick):
    picture(tmp_path/'in/a.jpg')
    shutil.copy(picture(tmp_path/'in/b.png'), tmp_path/'in/no_suffix')
    (tmp_path/'in/notes.txt').write_text('x')
    (tmp_path/'in/sub').mkdir()
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 0
    out = capsys.readouterr().out
    assert '3 of 3 cut out' in out and '1 file and 1 folder skipped' in out and 'notes.txt (not an image)' in out

def test_what_is_odd_about_a_file_stands_in_its_line(tmp_path, cli, quick, capsys):
    frames = [Image.new('RGB', (24, 24), (value, 40, 40)) for value in (90, 150, 210)]
    frames[0].save(tmp_path/'moving.gif', save_all=True, append_images=frames[1:])
    assert cli(tmp_path/'moving.gif', picture(tmp_path/'still.png'), '--out', tmp_path/'out') == 0
    moving, still = [line for line in capsys.readouterr().out.splitlines() if line.startswith('[')]
    assert '3 frames, the first used' in moving and 'frames' not in still

@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
def test_the_resolution_is_carried(tmp_path, cli, quick, suffix):
    "To all results; where the file notes none, none is noted"
    Image.new('RGB', (24, 24), (90, 40, 40)).save(tmp_path/f'scan.{suffix}', dpi=(300, 300))
    picture(tmp_path/'plain.png')
    words = tmp_path/f'scan.{suffix}', tmp_path/'plain.png', '--out', tmp_path/'out', '--alpha', '--bg', 'white'
    assert cli(*words) == 0
    for end in ('', '_alpha', '_bg'):
        assert [round(o) for o in Image.open(tmp_path/f'out/scan{end}.png').info['dpi']] == [300, 300]
        assert 'dpi' not in Image.open(tmp_path/f'out/plain{end}.png').info

def test_colours_of_another_profile_are_right_in_the_cut_out(tmp_path, cli, quick):
    "A strong green of Display-P3 is another one in sRGB; the result carries no profile, so its numbers are sRGB"
    green = np.full((24, 24, 3), (60, 180, 60), np.uint8)
    Image.fromarray(in_space(green, 'p3')).save(tmp_path/'phone.png', icc_profile=icc(*SPACES['p3']))
    assert cli(tmp_path/'phone.png', '--out', tmp_path/'out') == 0
    result = Image.open(tmp_path/'out/phone.png')
    person = np.asarray(result)[:, :12, :3].astype(int)
    assert np.abs(person-green[:, :12]).max() <= 2 and 'icc_profile' not in result.info
    assert np.abs(in_space(green, 'p3').astype(int)-green).max() > 10

def test_a_folder_without_pictures(tmp_path, capsys, cli, quick):
    assert cli(tmp_path, '--out', tmp_path/'out') == 1
    assert 'no images' in capsys.readouterr().err

# -- names

def test_same_stem_twice(tmp_path, cli, quick):
    for n in ('me.jpg', 'me.png'): picture(tmp_path/'in'/n)
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 0
    assert names(tmp_path/'out') == ['me.jpg.png', 'me.png.png']

def test_names_do_not_depend_on_the_neighbours(tmp_path, cli, quick):
    "A second run with another file of the same stem does not put another person under the first one's name"
    picture(tmp_path/'in/a.png', 200)
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 0
    first = result_mark(tmp_path/'out/a.png')
    picture(tmp_path/'in/a.jpg', 10)
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 0
    assert result_mark(tmp_path/'out/a.png') == first and names(tmp_path/'out') == ['a.jpg.png', 'a.png', 'a.png.png']

def test_one_input_named_as_anothers_alpha(tmp_path, cli, quick):
    for n in ('me.jpg', 'me_alpha.jpg', 'contact_sheet.jpg'): picture(tmp_path/'in'/n)
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--alpha', '--sheet') == 0
    assert names(tmp_path/'out') == ['contact_sheet.jpg.png', 'contact_sheet.jpg_alpha.png', 'contact_sheet.png',
                                     'me.jpg.png', 'me.jpg_alpha.png', 'me_alpha.jpg.png', 'me_alpha.jpg_alpha.png']

def test_the_same_name_from_two_folders(tmp_path, cli, quick):
    a, b = picture(tmp_path/'a/me.jpg'), picture(tmp_path/'b/me.jpg')
    assert cli(a, b, '--out', tmp_path/'out') == 0
    assert names(tmp_path/'out') == ['a_me.jpg.png', 'b_me.jpg.png']

def test_recursive_keeps_the_tree(tmp_path, cli, quick):
    for n in ('a.jpg', 'x/a.jpg', 'x/y/a.png', 'x/y/a.jpg'): picture(tmp_path/'in'/n)
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--recursive', '--alpha') == 0
    assert names(tmp_path/'out') == sorted(['a.png', 'a_alpha.png', 'x/a.png', 'x/a_alpha.png', 'x/y/a.png.png',
                                            'x/y/a.png_alpha.png', 'x/y/a.jpg.png', 'x/y/a.jpg_alpha.png'])

@pytest.mark.skipif(sys.platform != 'linux', reason='file names are bytes on Linux')
def test_a_name_that_is_not_utf8_under_a_strict_terminal(tmp_path, photo):
    raw = os.fsencode(tmp_path)+b'/latin1_\xe9\xff.jpg'
    picture(tmp_path/'b\x1b[31m.jpg')
    shutil.move(picture(tmp_path/'a.jpg'), os.fsdecode(raw))
    strict = {**os.environ, 'PYTHONIOENCODING': 'ascii:strict'}
    words = [*COMMAND, str(tmp_path), '--out', str(tmp_path/'out')]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, env=strict)
    assert done.returncode == 0, done.stderr
    assert rb'latin1_\xe9\xff' in done.stdout and b'\x1b' not in done.stdout
    assert len(os.listdir(os.fsencode(tmp_path/'out'))) == 2

# -- what is asked for

def test_wildcards_that_the_shell_left(tmp_path, cli, quick, capsys):
    for n in ('a.jpg', 'b.jpg', 'c.png'): picture(tmp_path/'in'/n)
    assert cli(tmp_path/'in/*.jpg', '--out', tmp_path/'out') == 0
    assert names(tmp_path/'out') == ['a.png', 'b.png']
    assert cli(tmp_path/'in/*.tiff', '--out', tmp_path/'out') == 1
    assert 'no file fits' in capsys.readouterr().err

def test_a_web_address_is_to_be_downloaded_first(tmp_path, cli, quick, capsys):
    assert cli('https://example.org/me.jpg', '--out', tmp_path/'out') == 1
    assert 'Download it first' in capsys.readouterr().err

def test_a_missing_file_does_not_stop_the_others(tmp_path, cli, quick, capsys):
    assert cli(tmp_path/'missing.jpg', picture(tmp_path/'a.jpg'), '--out', tmp_path/'out') == 1
    assert 'missing.jpg' in capsys.readouterr().err and names(tmp_path/'out') == ['a.png']

def test_standard_input_to_standard_output(tmp_path, photo):
    im = Image.fromarray(photo).resize((96, 96))
    im.save(tmp_path/'p.png')
    data = (tmp_path/'p.png').read_bytes()
    done = subprocess.run([*COMMAND, '-', '--device', 'cpu'], cwd=ROOT, input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    (tmp_path/'o.png').write_bytes(done.stdout)
    assert Image.open(tmp_path/'o.png').mode == 'RGBA' and Image.open(tmp_path/'o.png').size == (96, 96)
    assert b'1 of 1 cut out' in done.stderr

def test_standard_input_to_a_folder(tmp_path, cli, quick, monkeypatch):
    data = picture(tmp_path/'p.png').read_bytes()
    monkeypatch.setattr(sys, 'stdin', type('In', (), {'buffer': type('B', (), {'read': staticmethod(lambda: data)})}))
    assert cli('-', '--out', tmp_path/'out') == 0
    assert names(tmp_path/'out') == ['stdin.png']

def test_one_named_result(tmp_path, cli, quick):
    a = picture(tmp_path/'a.jpg')
    assert cli(a, '--out', tmp_path/'o/cut.png', '--alpha') == 0
    assert names(tmp_path/'o') == ['cut.png', 'cut_alpha.png']
    assert cli(a, '--out', tmp_path/'o/cut.jpg', '--bg', 'white') == 0
    assert Image.open(tmp_path/'o/cut.jpg').format == 'JPEG'
    assert cli(a, '--out', tmp_path/'o/cut.jpg') == 2
    assert cli(a, picture(tmp_path/'b.jpg'), '--out', tmp_path/'o/new.png') == 2
    assert cli(tmp_path, '--out', tmp_path/'o/new.png') == 2

def test_dashes_and_underscores(tmp_path, cli, quick):
    a = picture(tmp_path/'a.jpg')
    for option in ('--skip-existing', '--skip_existing'): assert cli(a, '--out', tmp_path/'out', option) == 0
    for option in ('--max-pixels=100', '--max_pixels=100'): assert cli(a, '--out', tmp_path/'small', option) == 1

def test_the_function_takes_values(tmp_path, quick):
    assert dim_cutout(picture(tmp_path/'a.jpg'), tmp_path/'out', alpha=True) == 0
    assert names(tmp_path/'out') == ['a.png', 'a_alpha.png']
    with pytest.raises(UsageError): dim_cutout('a.jpg')

def test_max_pixels(tmp_path, cli, quick, capsys):
    picture(tmp_path/'in/a.jpg', size=(40, 40))
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--max_pixels', 1000) == 1
    assert '1,600 pixels' in capsys.readouterr().err
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--max_pixels', 1600) == 0

def test_max_pixels_goes_beyond_pillows_own_limit(tmp_path, cli, quick, capsys, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert cli(picture(tmp_path/'a.png', size=(40, 40)), '--out', tmp_path/'out', '--max_pixels', 1600) == 0
    assert 'failed' not in capsys.readouterr().err

@pytest.mark.parametrize('words', [
    ['x.jpg'], ['--out', 'o'], ['x.jpg', '--out', 'a.png/out'], ['a.png', '--out', 'o', '--weights', 'nowhere'],
    *(['x.jpg', '--out', 'o', *o.split()] for o in (
        '--bg no-such-colour', '--size 1', '--trimap_in nowhere', '--device tpu', '--jobs 0', '--backend jax',
        '--max_pixels 0'))])
def test_wrong_arguments_exit_with_2(words, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path/'a.png')
    assert cli(*words) == 2

def test_a_folder_that_cannot_be_made_is_one_line_before_the_networks(tmp_path, cli, capsys, monkeypatch):
    monkeypatch.setattr(cutout, '_load', lambda *args: pytest.fail('the networks were loaded'))
    assert cli(picture(tmp_path/'a.png'), '--out', tmp_path/'a.png/out') == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and 'a.png' in err

# -- drawn trimaps

def test_one_drawn_trimap_for_one_file(tmp_path, photo, matter, cli, real):
    Image.fromarray(photo).save(tmp_path/'p.jpg')
    Image.fromarray(matter(photo).trimap).save(tmp_path/'t.png')
    assert cli(tmp_path/'p.jpg', '--out', tmp_path/'out', '--trimap_in', tmp_path/'t.png') == 0
    assert cli(tmp_path/'missing.jpg', '--out', tmp_path/'out') == 1

def test_drawn_trimaps(tmp_path, photo, matter, capsys, cli, real):
    src = tmp_path/'in'
    src.mkdir()
    for n in ('a', 'b', 'c'): Image.fromarray(photo).save(src/f'{n}.jpg')
    tri = matter(photo).trimap
    (tmp_path/'tri').mkdir()
    Image.fromarray(tri).save(tmp_path/'tri/a.png')
    Image.fromarray(tri[:-3]).save(tmp_path/'tri/b_trimap.png')
    assert cli(src, '--out', tmp_path/'out', '--trimap_in', tmp_path/'tri', '--alpha') == 1
    err = capsys.readouterr().err
    assert 'b' in err and 'c.jpg' in err and 'no trimap' in err
    a = np.asarray(Image.open(tmp_path/'out/a_alpha.png'))
    assert (a[tri == 0] == 0).all() and (a[tri == 255] == 255).all()

# -- nothing of the user's is ever destroyed

def test_never_overwrites_its_input(tmp_path, capsys, cli, quick):
    me = picture(tmp_path/'me.png')
    before = me.read_bytes()
    assert cli(me, '--out', tmp_path) == 1
    assert 'overwrite' in capsys.readouterr().err and me.read_bytes() == before

def test_a_folder_cut_out_into_itself(tmp_path, cli, quick, capsys):
    "Another photograph that has the name of a result stays, and a second run adds nothing"
    for n in ('p.jpg', 'p.png', 'q.jpg'): picture(tmp_path/n)
    before = contents(tmp_path)
    assert cli(tmp_path, '--out', tmp_path) == 0
    assert {p: p.read_bytes() for p in before} == before
    after = names(tmp_path)
    assert cli(tmp_path, '--out', tmp_path) == 0 and names(tmp_path) == after
    assert 'an earlier result' in capsys.readouterr().out

def test_a_foreign_file_stays(tmp_path, cli, quick, capsys):
    picture(tmp_path/'p.jpg')
    picture(tmp_path/'p.png', 200)
    picture(tmp_path/'q.jpg')
    before = (tmp_path/'p.png').read_bytes()
    assert cli(tmp_path/'p.jpg', tmp_path/'q.jpg', '--out', tmp_path) == 1
    assert 'p.png' in capsys.readouterr().err and (tmp_path/'q.png').exists()
    assert (tmp_path/'p.png').read_bytes() == before

def test_drawn_trimaps_stay(tmp_path, cli, quick):
    a = picture(tmp_path/'a.jpg')
    (tmp_path/'t').mkdir()
    for n in ('a.png', 'a_trimap.png'): Image.new('L', (24, 24), 128).save(tmp_path/'t'/n)
    before = contents(tmp_path/'t')
    assert cli(a, '--trimap_in', tmp_path/'t', '--out', tmp_path/'t', '--trimap') == 1
    assert contents(tmp_path/'t') == before

def test_the_background_stays(tmp_path, cli, quick):
    "Under another name of the same file, too"
    me, bg = picture(tmp_path/'me.jpg'), picture(tmp_path/'o/me_bg.png', 200)
    before = bg.read_bytes()
    (tmp_path/'link.png').symlink_to(bg)
    assert cli(me, '--bg', tmp_path/'link.png', '--out', tmp_path/'o') == 1
    assert bg.read_bytes() == before and names(tmp_path/'o') == ['me_bg.png']

@pytest.mark.parametrize('read, words', [
    ('me.png', ['{read}']), ('me_trimap.png', ['{me}', '--trimap_in', '{read}', '--trimap']),
    ('me_bg.png', ['{me}', '--bg', '{read}'])], ids=['input', 'trimap', 'background'])
def test_own_results_that_are_read_stay(tmp_path, cli, quick, capsys, read, words):
    "A result of an earlier run that is now input, trimap (drawn over, perhaps) or background"
    me, out = picture(tmp_path/'me.jpg'), tmp_path/'out'
    assert cli(me, '--out', out, '--trimap', '--bg', 'white') == 0
    before = contents(out)
    assert cli(*[word.format(me=me, read=out/read) for word in words], '--out', out) == 1
    err = capsys.readouterr().err
    assert read in err and 'overwrite' in err and contents(out) == before

def test_a_foreign_contact_sheet_stays(tmp_path, cli, quick, capsys):
    sheet = picture(tmp_path/'out/contact_sheet.png')
    before = sheet.read_bytes()
    assert cli(picture(tmp_path/'a.jpg'), '--out', tmp_path/'out', '--sheet') == 1
    assert 'contact_sheet.png' in capsys.readouterr().err and (tmp_path/'out/a.png').exists()
    assert sheet.read_bytes() == before

def test_own_results_may_be_replaced(tmp_path, cli, quick):
    a = picture(tmp_path/'a.jpg')
    for _ in range(2): assert cli(a, '--out', tmp_path/'out', '--sheet', '--alpha') == 0
    assert names(tmp_path/'out') == ['a.png', 'a_alpha.png', 'contact_sheet.png']

def test_skip_existing_goes_on(tmp_path, cli, quick, capsys):
    for n in ('a.jpg', 'b.jpg'): picture(tmp_path/'in'/n)
    assert cli(tmp_path/'in/a.jpg', '--out', tmp_path/'out') == 0
    old = (tmp_path/'out/a.png').stat().st_mtime_ns
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--skip_existing') == 0
    assert (tmp_path/'out/a.png').stat().st_mtime_ns == old and (tmp_path/'out/b.png').exists()
    assert '1 of 1 cut out' in capsys.readouterr().out
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--skip_existing') == 0
    assert '2 done before' in capsys.readouterr().out
    picture(tmp_path/'in/a.jpg', size=(90, 90))      # another photograph under the same name
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--skip_existing') == 0
    assert Image.open(tmp_path/'out/a.png').size == (90, 90)

def test_all_results_of_an_input_or_none(tmp_path, cli, quick, monkeypatch, capsys):
    "A disk that fills names each picture that is missing, and leaves no part of it"
    for n in ('a.jpg', 'b.jpg', 'c.jpg'): picture(tmp_path/'in'/n)
    save = cutout._save
    def full(make, mark, dpi, suffix, tmp):
        if tmp.name.startswith('.b_alpha'): raise OSError(28, 'No space left on device', str(tmp))
        return save(make, mark, dpi, suffix, tmp)
    monkeypatch.setattr(cutout, '_save', full)
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--alpha', '--trimap') == 1
    err = capsys.readouterr().err
    assert 'b.jpg' in err and 'No space' in err and 'a.jpg' not in err
    assert names(tmp_path/'out') == [f'{n}{s}.png' for n in 'ac' for s in ('', '_alpha', '_trimap')]

def test_a_full_disk_under_the_sheet_is_said(tmp_path, cli, quick, monkeypatch, capsys):
    save = cutout._save
    def full(make, mark, dpi, suffix, tmp):
        if 'contact' in tmp.name: raise OSError(28, 'No space left on device')
        return save(make, mark, dpi, suffix, tmp)
    monkeypatch.setattr(cutout, '_save', full)
    assert cli(picture(tmp_path/'a.jpg'), '--out', tmp_path/'out', '--sheet') == 1
    assert 'no contact sheet' in capsys.readouterr().err and names(tmp_path/'out') == ['a.png']

def test_an_unexpected_error_is_one_line(tmp_path, cli, quick, capsys):
    picture(tmp_path/'in/a.jpg')
    Image.new('RGB', (24, 24)).save(tmp_path/'in/black.png')
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 1
    got = capsys.readouterr()
    assert 'black' in got.err and '1 of 2 cut out' in got.out and '1 failed' in got.out

# -- long folders, interrupts

def test_a_long_folder_shows_a_bar_and_writes_its_sheets_page_by_page(tmp_path, capsys, cli, quick):
    for i in range(43): picture(tmp_path/'in'/f'{i:03}.png')
    picture(tmp_path/'in/contact_sheet_2.png')
    (tmp_path/'in/020b.png').write_bytes((tmp_path/'in/001.png').read_bytes()[:60])
    assert cli(tmp_path/'in', '--out', tmp_path/'out', '--sheet') == 1
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith('[')]
    assert len(lines) == 44 and err.count('failed') == 1 and '020b.png' in err
    assert '45/45' in err      # the bar ends full
    assert '44 of 45 cut out in' in out and 'images a second' in out and '1 failed' in out
    found = set(names(tmp_path/'out'))
    assert {'contact_sheet.png', 'contact_sheet_2.png', 'contact_sheet_2.png.png'} <= found and len(found) == 46
    a, b = (Image.open(tmp_path/'out'/f'contact_sheet{k}.png').size for k in ('', '_2'))
    assert a == (1000, 24+40*220) and b == (1000, 24+4*220)

def test_a_short_folder_shows_no_bar(tmp_path, capsys, cli, quick):
    cli(picture(tmp_path/'a.png'), '--out', tmp_path/'out')
    assert '%|' not in capsys.readouterr().err

def test_images_a_second_counts_what_succeeded(tmp_path, cli, quick, capsys):
    for i in range(3): (tmp_path/f'{i}.jpg').write_text('x')
    assert cli(tmp_path, '--out', tmp_path/'out') == 1
    out = capsys.readouterr().out
    assert '0 of 3 cut out' in out and '0.0 images a second' in out and names(tmp_path/'out') == []

def test_several_at_a_time_are_the_same(tmp_path, cli, real, photo):
    for i, flip in enumerate((1, -1)*2): Image.fromarray(photo[:, ::flip]).resize((64+i, 64)).save(tmp_path/f'{i}.png')
    for n in (1, 3): assert cli(tmp_path, '--out', tmp_path/f'out{n}', '--jobs', n) == 0
    for i in range(4):
        one, three = (read_alpha(tmp_path/f'out{n}/{i}.png') for n in (1, 3))
        assert np.abs(one-three).max() < .01

def test_the_device_is_said(tmp_path, cli, real, capsys):
    assert cli(picture(tmp_path/'a.png'), '--out', tmp_path/'out') == 0
    out = capsys.readouterr().out
    assert 'ONNX Runtime on cpu' in out and '1 with nobody: a.png' in out

def test_networks_from_the_shipped_set_are_said(tmp_path, cli, capsys, monkeypatch):
    def load(*args):
        warnings.warn('own holds no trimap: the shipped ones are used')
        return Quick()
    monkeypatch.setattr(cutout, '_load', load)
    assert cli(picture(tmp_path/'a.png'), '--out', tmp_path/'out') == 0
    assert 'the shipped ones are used' in capsys.readouterr().out.splitlines()[0]

def test_the_same_portrait_as_png_and_as_webp(tmp_path, cli, real, photo, capsys):
    "Squeezed, it is still the same person, and as surely somebody"
    small = Image.fromarray(photo).resize((192, 192))
    small.save(tmp_path/'in.png')
    small.save(tmp_path/'squeezed.webp', quality=60)
    assert cli(tmp_path/'in.png', tmp_path/'squeezed.webp', '--out', tmp_path/'out') == 0
    a, b = (read_alpha(tmp_path/f'out/{n}.png') for n in ('in', 'squeezed'))
    assert iou(a, b) > .95 and np.abs(a-b).mean() < .03
    assert 'unsure' not in capsys.readouterr().out

def test_the_unsure_and_the_empty_are_named(tmp_path, cli, monkeypatch, capsys):
    class Doubtful(Quick):
        def __call__(self, image, trimap=None):
            cut = super().__call__(image, trimap)
            cut.certainty = image[0, 0, 0]/255
            if cut.certainty < .2: cut.alpha = cut.alpha*0
            return cut
    monkeypatch.setattr(cutout, '_load', lambda *args: Doubtful())
    for name, colour in dict(sure=250, perhaps=130, empty=20, void=21).items(): picture(tmp_path/f'in/{name}.png', colour)
    assert cli(tmp_path/'in', '--out', tmp_path/'out') == 0
    out = capsys.readouterr().out
    assert '4 of 4 cut out' in out and '1 unsure: perhaps.png' in out and '2 with nobody: empty.png, void.png' in out

SLOW = '''
import sys, time
from dim_nb import cutout
sys.path.insert(0, 'tests')
from test_cutout import Quick
class Slow(Quick):
    def __call__(self, *args):
        time.sleep(.5)
        return super().__call__(*args)
cutout._load = lambda *args: Slow()
sys.exit(cutout.dim_cutout())'''

@pytest.mark.skipif(os.name == 'nt', reason='signals')
@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, sign):
    "It says how far it came, writes the sheet's rows, leaves nothing half done, and status 130"
    for i in range(40): picture(tmp_path/'in'/f'{i:02}.jpg')
    words = [str(tmp_path/'in'), '--out', str(tmp_path/'out'), '--sheet', '--alpha', '--jobs', '2']
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, '-c', SLOW, *words], cwd=ROOT, **pipes)
    while not (tmp_path/'out/01.png').exists() and process.poll() is None: time.sleep(.05)
    process.send_signal(sign)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    n = int(re.search(r'interrupted after (\d+) of 40', err)[1])
    made = names(tmp_path/'out')
    assert 0 < n < 40 and len(made) == 2*n+1 and 'contact_sheet.png' in made
    assert Image.open(tmp_path/'out/contact_sheet.png').size == (1000, 24+220*n)

@pytest.mark.skipif(sys.platform != 'linux', reason='process ids')
def test_what_dead_processes_left_is_removed(tmp_path, cli, quick):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    (tmp_path/'out').mkdir()
    (tmp_path/f'out/.x.png.{dead.pid}.0123abcd.tmp').write_text('half')
    assert cli(picture(tmp_path/'a.jpg'), '--out', tmp_path/'out') == 0
    assert names(tmp_path/'out') == ['a.png']

# -- the whole command, in a fresh process

@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_24_megapixels_within_2_gb(tmp_path, photo):
    "The whole command, with everything it can write"
    Image.fromarray(photo[:427]).resize((6000, 4000)).save(tmp_path/'p.jpg', quality=90)
    code = f'''
import re, sys
from dim_nb.cutout import dim_cutout
status = dim_cutout(r"{tmp_path/'p.jpg'}", r"{tmp_path/'out'}",
                    device='cpu', alpha=True, trimap=True, bg='white', sheet=True)
print('peak', int(re.search('VmHWM: *([0-9]+)', open('/proc/self/status').read().replace(chr(9), ' '))[1])//1024)
sys.exit(status)'''
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    peak = int(r.stdout.split('peak')[-1])
    assert peak < 2000, f'{peak} MB'
    assert Image.open(tmp_path/'out/p.png').size == (6000, 4000)

def test_no_network_at_run_time(tmp_path, photo):
    "Sockets are forbidden while a photograph is cut out by a fresh process"
    Image.fromarray(photo).resize((128, 128)).save(tmp_path/'p.png')
    code = f'''
import socket, sys
class Forbidden(socket.socket):
    def __init__(self, *a, **k): raise OSError('the network was touched')
socket.socket = Forbidden
from dim_nb.cutout import dim_cutout
sys.exit(dim_cutout(r"{tmp_path/'p.png'}", r"{tmp_path/'out'}", device='cpu'))'''
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert (tmp_path/'out/p.png').exists()
