"When to look again, where, and what a verdict is worth: by networks that see brightness, and by the shipped ones."
import warnings
from pathlib import Path
import cv2, numpy as np, pytest
from dim_nb.images import LOOK_SIZE, read_image
from dim_nb.looks import FOUND, NOBODY, WINDOWS, Look, _joined, agreement, believed, best_turn, decided, find_people, look_at
from dim_nb.pipeline import Clock, PortraitMatter
from scenes import group

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='session')
def matter(): return PortraitMatter.load(device='cpu')

def iou(a, b): return ((a > .5)&(b > .5)).sum()/max(1, ((a > .5)|(b > .5)).sum())

class Bright:
    "In place of the networks: what is bright is a person, unknown in a band of some pixels; counts its looks"
    def __init__(self): self.looked = 0
    def trimap_probs(self, image, size=LOOK_SIZE):
        self.looked += 1
        k = size/max(image.shape[:2])
        bright = cv2.resize(image[..., 0], None, fx=k, fy=k, interpolation=cv2.INTER_AREA)/255
        inside = cv2.erode(np.float32(bright > .5), np.ones((9, 9)), borderValue=1)
        unknown = np.clip(cv2.dilate(np.float32(bright > .4), np.ones((5, 5)))-inside, 0, 1)
        return np.dstack([1-inside-unknown, unknown, inside])

def discs(size, *circles):
    picture = np.zeros((*size, 3), np.uint8)
    for x, y, radius in circles: cv2.circle(picture, (x, y), radius, (255, 255, 255), -1)
    return picture

def test_one_look_is_enough_for_a_portrait():
    nets = Bright()
    seen = find_people(nets, discs((600, 600), (300, 300, 250)))
    assert nets.looked == 1 and seen.looks == [seen.first] and seen.certainty > .99

@pytest.mark.parametrize('size, circles', [
    ((1000, 1500), [(900, 700, 90)]), ((600, 1400), [(200, 300, 110), (1200, 300, 110)]),
    ((800, 2000), [(150, 600, 100), (1000, 600, 90), (1800, 600, 120)]), ((300, 1800), [(1400, 150, 120)]),
    ((1800, 300), [(150, 400, 120)])], ids=['small', 'two', 'three', 'wide', 'tall'])
def test_each_is_looked_at_closely(size, circles):
    seen = find_people(Bright(), discs(size, *circles))
    assert len(seen.looks) == len(circles) and seen.certainty >= FOUND and not seen.turn
    for x, y, r in circles:
        around = [o for o in seen.looks if o.box[0].start <= y-r < y+r <= o.box[0].stop
                  and o.box[1].start <= x-r < x+r <= o.box[1].stop]
        assert len(around) == 1 and max(around[0].shape) < 8*r

@pytest.mark.parametrize('size', [(1, 1), (3, 900), (900, 3), (600, 800), (300, 3000)])
def test_nobody_in_a_dark_picture_of_any_size(size):
    nets = Bright()
    seen = find_people(nets, discs(size))
    assert seen.looks == [] and seen.certainty == 0 and nets.looked <= WINDOWS+6

def test_boxes_that_overlap_become_one():
    assert _joined([[0, 2, 0, 2], [5, 9, 5, 9], [1, 6, 1, 6], [20, 30, 0, 5]]) == [[0, 9, 0, 9], [20, 30, 0, 5]]
    assert _joined([]) == []

def test_agreement_of_two_looks():
    picture = discs((600, 600), (300, 300, 120))
    wide, near = look_at(Bright(), picture), look_at(Bright(), picture, np.s_[100:500, 100:500])
    assert agreement(wide, near) > .85
    elsewhere = Look(near.box, near.small, np.roll(near.probs, 80, 1))
    assert agreement(wide, elsewhere) < .5

@pytest.mark.parametrize('turn', [1, 2, 3])
def test_a_turn_is_found_back(turn):
    "Networks that know only what stands: bright below, dark above"
    class Upright(Bright):
        def trimap_probs(self, image, size=LOOK_SIZE):
            probs = super().trimap_probs(image, size)
            h, w = probs.shape[:2]
            if probs[h//2:, :, 2].sum() > 1.5*probs[:h//2, :, 2].sum(): return probs
            probs[..., 1] += probs[..., 2]/2
            probs[..., 2] /= 2
            return probs
    picture = discs((600, 600), (300, 480, 180))
    assert decided(Upright().trimap_probs(picture)) > .8
    lying = np.ascontiguousarray(np.rot90(picture, -turn))
    assert best_turn(Upright(), look_at(Upright(), lying)) == turn
    assert find_people(Upright(), lying).turn == turn and find_people(Upright(), picture).turn == 0

def test_which_looks_are_believed():
    def look(box, peak, agreed=1., band=0.):
        "With a person of that peak; `band` of her is unknown"
        probs = np.zeros((20, 20, 3), np.float32)
        probs[..., 0], probs[2:8, 2:8] = 1, (1-peak, band, peak-band)
        return Look(tuple(slice(*o) for o in box), None, probs, agreed)
    whole, part, other = ((0, 90), (0, 90)), ((0, 40), (0, 40)), ((50, 90), (50, 90))
    agrees, nearly, differs, nobody = (look(*o) for o in ((part, .9, .9), (part, .9, .7), (other, .9, .3), (other, .9, .1)))
    assert believed(look(whole, .9), [nobody]) == []
    assert believed(look(whole, .9), [agrees, nobody]) == [agrees]
    kept, = believed(look(whole, .9), [agrees, differs])        # another story: what the first look saw stays
    assert kept.box == look(whole, 1).box and kept.agreed == .9
    kept, = believed(look(whole, .9), [nearly])                 # the first look saw her clearly, and a part of her is lost
    assert kept.box == look(whole, 1).box and kept.agreed == .7
    assert believed(look(whole, .9, band=.7), [nearly]) == [nearly]   # it saw little more than a band
    assert believed(look(whole, .2), [nearly]) == [nearly]
    assert believed(look(whole, .2), [agrees, differs]) == [agrees]   # it had seen nobody
    assert believed(look(whole, .2), [differs]) == [differs]
    closer = look(whole, .9, .9)
    assert believed(look(whole, .9), [agrees, closer]) == [closer]     # it holds the others
    kept, = believed(look(whole, .9), [look(other, .9, .9)])   # leaves out what the first look saw
    assert kept.box == look(whole, 1).box

# -- with the shipped networks

SCENES = dict(
    small=((1000, 1500), 'brick', ('astronaut', .3, 120, 1)), wide=((400, 2000), 'gravel', ('obama', .65, 380, 1)),
    two=((800, 1500), 'grass', ('grace_hopper', .12, 320, 1), ('astronaut', .85, 280, 1)))

@pytest.mark.parametrize('name', SCENES)
def test_people_in_made_scenes(matter, name):
    photo, truth = group(*SCENES[name])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        cut = matter(photo)
    before = matter.cut_look(photo, look_at(matter.nets, photo, size=matter.size), None, Clock())[2]
    assert not cut.nobody and cut.alpha.shape == truth.shape
    assert iou(cut.alpha, truth) > max(.75, iou(before, truth)-.15)

def test_both_backends_look_at_the_same(matter):
    by_torch = PortraitMatter.load(device='cpu', backend='torch')
    photo, _ = group(*SCENES['small'])
    a, b = (find_people(o.nets, photo) for o in (matter, by_torch))
    assert [o.box for o in a.looks] == [o.box for o in b.looks] and abs(a.certainty-b.certainty) < .02

def test_a_portrait_on_its_side(matter):
    photo = read_image(ROOT/'data/portraits/obama.png', bg=None)
    upright = matter(photo)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        cut = matter(np.ascontiguousarray(np.rot90(photo)))
    assert upright.turn == 0 and iou(np.rot90(cut.alpha, -1), upright.alpha) > .85
    assert bool(cut.turn) == any('side' in str(o.message) for o in said)

def test_verdicts(matter):
    portrait = matter(read_image(ROOT/'data/portraits/biden.png', bg=None))
    assert (portrait.verdict, portrait.looks, portrait.doubts) == ('found', 1, [])
    with pytest.warns(UserWarning, match='nobody'): wall = matter(np.full((300, 400, 3), 90, np.uint8))
    assert (wall.verdict, wall.looks) == ('nobody', 0) and wall.certainty < NOBODY
    wall.alpha = wall.alpha+1
    wall.certainty = (NOBODY+FOUND)/2
    assert wall.verdict == 'unsure' and 'unsure' in wall.doubts[0]
