"Files: written whole, found whatever they are called, known by their sums"
import hashlib, io, os, stat, struct, subprocess, sys, threading, warnings, zlib
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from dim_nb.files import cache_dir, file_sha256, find_images, image_files, progress, shown_name, write_atomic

RGB = np.arange(8*9*3, dtype=np.uint8).reshape(8,9,3)

def picture(path, fmt='PNG'): Image.fromarray(RGB).save(path, fmt)

# --- writing -----------------------------------------------------------------

def write_text(text): return lambda p: p.write_text(text)

def test_written_whole_or_not_at_all(tmp_path):
    f = write_atomic(tmp_path/'new'/'a.txt', write_text('one'))
    def dies(p):
        p.write_text('tw')
        raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='No space'):
        write_atomic(f, dies)
    assert f.read_text()=='one' and os.listdir(f.parent)==['a.txt']
    assert write_atomic(str(f), write_text('two'))==f and f.read_text()=='two'

def test_the_mode_is_the_umask_s(tmp_path):
    m = os.umask(0o027)
    try:
        f = write_atomic(tmp_path/'a', write_text('x'))
        g = write_atomic(tmp_path/'b', lambda p: (p.unlink(), p.write_text('x'), p.chmod(0o600)))
    finally:
        os.umask(m)
    assert {stat.S_IMODE(o.stat().st_mode) for o in (f,g)}=={0o640}

@pytest.mark.parametrize('name', ['x'*255, 'ü'*127, '写'*85, os.fsdecode(b'latin1_\xe9\xff.bin'), 'a\nb'])
def test_any_name_can_be_written(tmp_path, name):
    write_atomic(tmp_path/name, write_text('x'))
    assert os.listdir(tmp_path)==[name]

def dead_pid():
    p = subprocess.Popen([sys.executable,'-c',''])
    p.wait()
    return p.pid

def test_leftovers_of_dead_processes_go(tmp_path):
    dead = dead_pid()
    gone = [
    f'.a.png.{dead}.00ff00ff.tmp',
    f'.{"x"*100}.{dead}.12345678.tmp',
    f'.a\nb.{dead}.12345678.tmp',
     f'.a.{10**30}.12345678.tmp']
    stay = [
    f'.a.png.{os.getpid()}.00ff00ff.tmp',
    '.a.png.1.00ff00ff.tmp',
    f'a.png.{dead}.00ff00ff.tmp',
    f'.a.{dead}.tmp',
    f'.a.{dead}.00ff00ff.tmp2',
    f'.b.{dead}.0000000g.tmp',
     'mine.tmp']
    for n in gone+stay:
        (tmp_path/n).write_bytes(b'half')
    write_atomic(tmp_path/'new.txt', write_text('x'))
    assert sorted(os.listdir(tmp_path))==sorted(stay+['new.txt'])

def test_a_killed_writer_leaves_nothing_for_long(tmp_path):
    code = f"""import os, signal
from dim_nb.files import write_atomic
def w(p): p.write_bytes(bytes(1000)); os.kill(os.getpid(), signal.SIGKILL)
write_atomic({str(tmp_path/'a.bin')!r}, w)"""
    subprocess.run([sys.executable,'-c',code])
    assert len(os.listdir(tmp_path))==1
    write_atomic(tmp_path/'b.bin', lambda p: p.write_bytes(b'b'))
    assert os.listdir(tmp_path)==['b.bin']

def test_writing_from_threads(tmp_path):
    ts = [threading.Thread(target=write_atomic, args=(tmp_path/'a', write_text(str(i)*1000))) for i in range(8)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    assert os.listdir(tmp_path)==['a'] and len(set((tmp_path/'a').read_text()))==1

def test_no_file_takes_the_place_of_a_pipe_or_a_folder(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'sub').mkdir()
    for name in ('pipe','sub'):
        with pytest.raises(OSError):
            write_atomic(tmp_path/name, write_text('x'))
    assert stat.S_ISFIFO((tmp_path/'pipe').stat().st_mode) and sorted(os.listdir(tmp_path))==['pipe','sub']

def test_a_folder_that_may_not_be_listed_can_be_written(tmp_path, monkeypatch):
    def no(folder): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(os, 'scandir', no)
    assert write_atomic(tmp_path/'a', write_text('x')).read_text()=='x'

def test_sums(tmp_path):
    f = tmp_path/os.fsdecode(b'\xff')
    f.write_bytes(os.urandom(3_000_001))
    assert file_sha256(f)==hashlib.sha256(f.read_bytes()).hexdigest()==file_sha256(os.fsencode(f))

# --- caches ------------------------------------------------------------------

def test_cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('DIM_CACHE', str(tmp_path/'mine'))
    assert cache_dir()==tmp_path/'mine' and (tmp_path/'mine').is_dir() and not os.listdir(tmp_path/'mine')
    monkeypatch.delenv('DIM_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'xdg'))
    assert cache_dir()==tmp_path/'xdg'/'dim_nb'
    (tmp_path/'file').write_bytes(b'')
    monkeypatch.setenv('DIM_CACHE', str(tmp_path/'file'))
    with pytest.warns(UserWarning, match='cannot be written.*Set DIM_CACHE'):
        assert cache_dir().is_dir()

# --- names -------------------------------------------------------------------

@pytest.mark.parametrize('name,want', [(b'latin1_\xe9\xff.jpg', r'latin1_\xe9\xff.jpg'), ('a\x1b[2Jb\r\n\t.png', r'a\x1b[2Jb\r\n\t.png'), ('Zoë 写真 👩\u3000.jpg','Zoë 写真 👩\u3000.jpg'),
    ('\u202egpj', r'\u202egpj'), ('\x9b31m', r'\x9b31m'), ('\ud800', r'\ud800'), (Path('x')/'y z.png', str(Path('x')/'y z.png')), ('a\\b','a\\b'), ('','')])
def test_shown_name(name, want):
    assert shown_name(name)==want==shown_name(want)
    want.encode('utf-8')

# --- finding -----------------------------------------------------------------

def test_image_files(tmp_path):
    for n in ('b.jpg','A.PNG','._b.jpg','.hidden.png','notes.txt','c.webp','d.heic'):
        (tmp_path/n).write_bytes(b'')
    (tmp_path/'sub.jpg').mkdir()
    (tmp_path/'sub.jpg'/'e.jpg').write_bytes(b'')
    assert [o.name for o in image_files(tmp_path)]==['A.PNG','b.jpg','c.webp','d.heic']
    assert image_files([str(tmp_path/'notes.txt'), tmp_path/'none.jpg'])==[tmp_path/'notes.txt', tmp_path/'none.jpg']
    assert [o.name for o in image_files([tmp_path/'b.jpg', tmp_path])]==['b.jpg','A.PNG','c.webp','d.heic']
    assert image_files([])==[]

def test_what_pillow_opens_is_taken_whatever_its_suffix(tmp_path):
    for fmt in ('JPEG','PNG','WEBP','GIF','TIFF','BMP','PPM','ICO','TGA','PCX','JPEG2000','DDS','QOI'):
        if fmt in Image.SAVE or Image.init() and fmt in Image.SAVE:
            picture(tmp_path/fmt.lower(), fmt)
    for fmt in ('JPEG','PNG'):
        picture(tmp_path/f'{fmt}.txt', fmt)
    n = len(os.listdir(tmp_path))
    assert n>10
    (tmp_path/'notes').write_text('text')
    (tmp_path/'none').write_bytes(b'')
    (tmp_path/'film').write_bytes(b'\0\0\1\xb3'+bytes(range(64)))
    (tmp_path/'clip.mp4').write_bytes(b'\0\0\0\x18ftypmp42'+bytes(64))
    (tmp_path/'page.html').write_text('<html>')
    files,skipped = find_images(tmp_path)
    assert [
    o.name for o,
    _ in skipped]==[
        'clip.mp4',
        'film',
        'none',
        'notes',
        'page.html'] and {
            w for _,
            w in skipped}=={'not an image'}
    assert len(files)==n and files==sorted(files)

def test_everything_skipped_has_its_reason(tmp_path):
    for d in ('sub','.git','sub/deep'):
        (tmp_path/d).mkdir()
    picture(tmp_path/'a')
    picture(tmp_path/'sub'/'b.png')
    picture(tmp_path/'sub'/'deep'/'c.png')
    picture(tmp_path/'z.png')
    (tmp_path/'._a').write_bytes(b'\0\5\x16\7')
    (tmp_path/'note.txt').write_text('x')
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'loop').symlink_to(tmp_path, target_is_directory=True)
    (tmp_path/'broken').symlink_to(tmp_path/'nowhere')
    files,skipped = find_images(tmp_path)
    name = lambda o: str(o.relative_to(tmp_path))
    assert list(map(name,files))==['a','z.png']
    want = {
    '._a':'hidden',
    '.git':'hidden',
    'note.txt':'not an image',
    'pipe':'neither a file nor a folder',
    'loop':'link to a folder',
     'broken':'neither a file nor a folder'}
    assert {name(o):w for o,w in skipped}=={**want, 'sub':'folder'}
    files,skipped = find_images(tmp_path, recursive=True)
    assert list(map(name,files))==['a','sub/b.png','sub/deep/c.png','z.png'] and {name(o):w for o,w in skipped}==want
    assert image_files([tmp_path/'z.png', tmp_path, tmp_path/'a'], recursive=True)==[tmp_path/ \
                       'z.png', *(o for o in files if o.name!='z.png')]

def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def no(self): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Path, 'iterdir', no)
    assert find_images(tmp_path)==([], [(tmp_path,'cannot be read (Permission denied)')])

def test_a_huge_picture_is_taken_without_a_word(tmp_path):
    head = b'IHDR'+struct.pack('>IIBBBBB',60000,60000,8,2,0,0,0)
    (tmp_path/'big').write_bytes(b'\x89PNG\r\n\x1a\n'+struct.pack('>I',13)+ \
     head+struct.pack('>I',zlib.crc32(head))+bytes(4)+b'IDAT'+bytes(4))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert image_files(tmp_path)==[tmp_path/'big']

def test_names_that_are_not_utf8_survive(tmp_path):
    name = b'latin1_\xe9\xff'
    with open(os.path.join(os.fsencode(tmp_path),name),'wb') as f:
        Image.fromarray(RGB).save(f,'PNG')
    files = image_files(tmp_path)
    assert [os.fsencode(o.name) for o in files]==[name] and files==image_files(
        os.fsencode(tmp_path)) and files[0].read_bytes()
    assert image_files([os.fsencode(files[0])])==files
    assert image_files('x'*300)==[Path('x'*300)] and image_files('a\0b')==[Path('a\0b')]   # for the reader to refuse

# --- progress ----------------------------------------------------------------

def test_progress(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', err)
    assert list(progress(range(50)))==list(range(50)) and err.getvalue()==''   # nothing to wait for, nothing to see
    bar = progress(total=3, delay=0, leave=True)
    bar.update(3)
    bar.close()
    assert '3/3' in err.getvalue() and 'image/s' in err.getvalue()

def test_files_imports_nothing_heavy():
    code = "import sys, dim_nb.files; bad=[m for m in ('torch','fastai','matplotlib','pandas','IPython','cv2','numba','scipy') if m in sys.modules]; assert not bad, bad"
    subprocess.run([sys.executable,'-c',code], check=True)

# --- memory that is freed ------------------------------------------------------

ASKED = """
import ctypes
from dim_nb import files
asked = []
class Library:
    def __init__(self, name):
        if {missing}: raise OSError(name)
    def mallopt(self, *how): return asked.append(how) or 1
ctypes.CDLL = Library
said = [files.keep_heap(*o) for o in {calls}]
print(said, asked)
"""

def asked(calls, missing=False, **env):
    "What `keep_heap` says, and what it asks the C library for, in a fresh process"
    words = [sys.executable, '-c', ASKED.format(calls=calls, missing=missing)]
    return subprocess.check_output(words, text=True, env={**os.environ, **env}).strip()

def test_freed_memory_is_kept_as_asked_and_never_less():
    some = '[(-3, 256), (-1, 1024)'
    assert asked([(1024,)]) == f'[True] {some}]'
    assert asked([(1024,), (512,), (1024,)]) == f'[True, True, True] {some}]'
    assert asked([(1024,), (2048,)]) == f'[True, True] {some}, (-3, 512), (-1, 2048)]'
    everything = asked([()])
    assert asked([(), (1024,)]) == everything.replace('[True]', '[True, True]')   # all is more than some

def test_memory_is_left_as_it_is_where_glibc_is_not_or_the_user_has_decided():
    assert asked([(1024,), ()], missing=True) == '[False, False] []'
    assert asked([(1024,)], MALLOC_TRIM_THRESHOLD_='100000') == '[False] []'
