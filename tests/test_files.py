"Files: written whole, found, known by their sums"
from dim_nb.files import image_files

def test_image_files(tmp_path):
    for n in ('b.jpg','A.PNG','._b.jpg','.hidden.png','notes.txt','c.webp','d.heic'): (tmp_path/n).write_bytes(b'')
    (tmp_path/'sub.jpg').mkdir(); (tmp_path/'sub.jpg'/'e.jpg').write_bytes(b'')
    assert [o.name for o in image_files(tmp_path)]==['A.PNG','b.jpg','c.webp','d.heic']
    assert image_files([str(tmp_path/'notes.txt'), tmp_path/'none.jpg'])==[tmp_path/'notes.txt', tmp_path/'none.jpg']
    assert [o.name for o in image_files([tmp_path/'b.jpg', tmp_path])]==['b.jpg','A.PNG','c.webp','d.heic']
    assert image_files([])==[]
