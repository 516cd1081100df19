"Networks by name: files say what they are, damage is named, threads do not mix."
import json, os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file, save_file
from dim_nb.training import WeightsError, load_weights, save_weights
from dim_nb.unet import DECODERS, ENCODERS, ThinUnet, build_net, load_net, unet_splitter

WEIGHTS = Path(__file__).resolve().parent.parent/'dim_nb/weights'
SPECS = [dict(decoder='thin', encoder='lite0', n_in=3, n_out=3, widths=[16,16,8,8]), dict(decoder='thin', encoder='lite0', n_in=4, n_out=1, widths=[16,16,8,8,8], y_range=[-.02,1.02]),
         dict(decoder='dynamic', encoder='lite0', n_in=4, n_out=1, last_cross=True, y_range=[-.02,1.02]), dict(decoder='refine', width=8, layers=3, guide=False),
         dict(decoder='refine', width=16, layers=4, guide=True)]

def inputs(spec, size=64):
    g = torch.Generator().manual_seed(size)
    if spec['decoder'] == 'refine': return torch.rand(1, 3, size, size, generator=g), torch.rand(1, 1, size, size, generator=g)
    return (torch.rand(1, spec['n_in'], size, size, generator=g),)

@pytest.mark.parametrize('spec', SPECS, ids=lambda s: f'{s["decoder"]}{len(s)}')
def test_a_file_rebuilds_its_network(spec, tmp_path):
    net = build_net(spec).eval()
    save_weights(net, tmp_path/'w.safetensors', half=False, stage='x')
    again, meta = load_net(tmp_path/'w.safetensors')
    assert meta['net'] == net.spec and json.loads(json.dumps(net.spec)) == net.spec and not again.training
    with torch.no_grad(): assert torch.equal(again(*inputs(spec)), net(*inputs(spec)))

@pytest.mark.parametrize('encoder', ENCODERS)
@pytest.mark.parametrize('decoder', ['dynamic', 'thin'])
def test_every_pair_takes_odd_sizes(encoder, decoder):
    net = build_net(dict(decoder=decoder, encoder=encoder, n_in=4, n_out=1)).eval()
    with torch.no_grad(): assert net(torch.rand(1, 4, 75, 61)).shape == (1, 1, 75, 61)
    slow, fast = unet_splitter(net)
    assert slow and fast and len(slow)+len(fast) == len(list(net.parameters()))

@pytest.mark.parametrize('name, old', [('trimap', dict(decoder='dynamic', n_out=3)), ('matting', dict(decoder='dynamic', n_out=1)), ('refine', dict(layers=4, guide=True))])
def test_files_without_a_spec_are_known_by_their_tensors(name, old, tmp_path):
    tensors = {k: v for k,v in load_file(WEIGHTS/f'{name}.safetensors').items()}
    if 'unet.layers.0.0.weight' not in tensors and name != 'refine': pytest.skip('the shipped file is of a network that has a spec')
    save_file(tensors, tmp_path/f'{name}.safetensors')
    net, meta = load_net(tmp_path/f'{name}.safetensors')
    assert old.items() <= meta['net'].items()

@pytest.mark.parametrize('spec', SPECS, ids=lambda s: f'{s["decoder"]}{len(s)}')
def test_four_threads_get_what_one_gets(spec):
    net = build_net(spec).eval()
    asked = [inputs(spec, 32*k) for k in (1,2,3,4)]*20
    with torch.no_grad(): alone = [net(*x) for x in asked[:4]]*20
    def ask(x):
        with torch.no_grad(): return net(*x)
    with ThreadPoolExecutor(4) as pool: together = list(pool.map(ask, asked))
    assert all(torch.equal(a, b) for a,b in zip(alone, together))

@pytest.fixture
def file(tmp_path):
    save_weights(ThinUnet(widths=(8,8,8,8)), tmp_path/'w.safetensors', stage='trimap')
    return tmp_path/'w.safetensors'

def test_equal_networks_make_equal_files(file, tmp_path):
    net, _ = load_net(file)
    for name in 'ab': save_weights(net, tmp_path/name, args=dict(b=1, a=2), stage='trimap', more=[1])
    assert (tmp_path/'a').read_bytes() == (tmp_path/'b').read_bytes()

def test_damaged_files_are_named(file):
    raw = file.read_bytes()
    for bad in (b'', b'text', raw[:50], raw[:-1], b'\xff'*8 + raw[8:]):
        file.write_bytes(bad)
        with pytest.raises(WeightsError, match='w.safetensors.*cannot be read'): load_net(file)
    file.unlink()
    with pytest.raises(WeightsError, match='is no file'): load_net(file)
    os.mkfifo(file)
    with pytest.raises(WeightsError, match='is no file'): load_net(file)

def test_a_flipped_bit_is_noticed_where_there_is_a_checksum(file):
    import hashlib
    raw = file.read_bytes()
    (file.parent/'sha256.json').write_text(json.dumps({file.name: hashlib.sha256(raw).hexdigest()}))
    load_net(file)
    file.write_bytes(raw[:-9] + bytes([raw[-9]^1]) + raw[-8:])
    with pytest.raises(WeightsError, match='checksum'): load_net(file)

def test_the_shipped_files_fit_their_checksums():
    sums = json.loads((WEIGHTS/'sha256.json').read_text())
    for f in WEIGHTS.glob('*.safetensors'):
        assert f.name in sums
        load_net(f)

@pytest.mark.parametrize('change, words', [(lambda w: w.update({'head.bias': torch.full((3,), float('nan'))}), 'not finite'), (lambda w: w.update({'head.bias': torch.zeros(4)}), 'another network'),
                                           (lambda w: w.pop('head.bias'), 'another network'), (lambda w: w.update({'head.bias': torch.zeros(3, dtype=torch.int64)}), 'int64')])
def test_wrong_tensors_are_refused(file, change, words):
    net, _ = load_net(file)
    before = net.head.bias.clone()
    weights = {k: v.clone() for k,v in net.state_dict().items()}
    change(weights)
    save_file(weights, file)
    with pytest.raises(WeightsError, match=words): load_weights(net, file)
    assert torch.equal(net.head.bias, before)

@pytest.mark.parametrize('spec', [dict(decoder='none'), dict(decoder='thin', encoder='vgg'), dict(decoder='thin', encoder='lite0', depth=3), dict(decoder='refine', layers=3, n_in=3), 7, {}])
def test_a_file_with_a_wrong_spec_is_refused(file, spec):
    weights = load_file(file)
    save_file(weights, file, {'net': json.dumps(spec)})
    with pytest.raises(WeightsError, match='w.safetensors'): load_net(file)

def test_entries_are_found():
    assert set(DECODERS) == {'dynamic', 'thin', 'refine'} and {'lite0', 'resnet34'} <= set(ENCODERS)
