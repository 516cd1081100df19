// The page: files in, stages shown as they arrive, the brush, the picture behind, the download.
import { readPhoto } from './files.js';

const $ = (id) => document.getElementById(id);
const TINT = { 0: [40, 90, 230], 128: [255, 170, 0], 255: [30, 170, 70] };   // background, unknown, foreground
const state = { photo: null, name: '', trimap: null, predicted: null, undo: [], cut: null, backdrop: null, id: 0, ready: false };

function fail(what) { $('error').textContent = what; $('error').hidden = !what; }
function tell(what) { $('status').textContent = what; }

// ---- the networks

const lacks = [['WebAssembly', 'WebAssembly'], ['Worker', 'workers'], ['OffscreenCanvas', 'off-screen canvases'], ['createImageBitmap', 'image bitmaps']]
  .filter(([name]) => !(name in globalThis)).map(([, what]) => what);
let worker;

function start() {
  if (lacks.length) { $('bar').hidden = true; tell(''); return fail(`This browser lacks ${lacks.join(' and ')}. A current Chrome, Edge, Firefox or Safari has what is needed.`); }
  if (location.protocol === 'file:') { $('bar').hidden = true; tell(''); return fail('Opened as a file, a page may not load its networks. Serve the folder: python3 -m http.server, then open http://localhost:8000'); }
  worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  worker.onerror = (e) => fail(`The networks could not be started: ${e.message || 'this browser lacks module workers'}.`);
  worker.onmessage = ({ data }) => handlers[data.type](data);
  const gpu = new URLSearchParams(location.search).get('gpu') !== '0';
  worker.postMessage({ type: 'load', base: new URL('.', location.href).href, gpu });
}

const handlers = {
  progress({ now, all }) { $('bar').value = now / all; tell(`Loading the networks: ${(now / 1e6).toFixed(0)} of ${(all / 1e6).toFixed(0)} MB`); },
  ready({ megabytes, device, config }) {
    state.ready = true;
    state.config = config;
    $('bar').hidden = true;
    tell(`Ready: ${megabytes.toFixed(0)} MB of networks, on ${device}.`);
    if (state.photo) cut();
  },
  stage(what) {
    if (what.id !== state.id) return;
    if (what.stage === 'trimap') {
      state.trimap = what.data; state.size = [what.w, what.h];
      if (!state.drawn) state.predicted = what.data.slice();
      drawTrimap();
    } else drawGrey($(what.stage), what);
    tell({ trimap: 'Trimap …', rough: 'Rough alpha …', alpha: 'Colours …' }[what.stage]);
  },
  done({ id, w, h, cut: pixels, nobody, seconds }) {
    if (id !== state.id) return;
    state.cut = new ImageData(pixels, w, h);
    drawCut();
    const all = Object.values(seconds).reduce((a, b) => a + b, 0);
    $('times').textContent = `${all.toFixed(1)} s (${Object.entries(seconds).map(([k, v]) => `${k} ${v.toFixed(1)}`).join(', ')})`;
    tell(nobody ? 'Nobody was found in this picture: its alpha is empty. Paint foreground on the person to help.' : `Done in ${all.toFixed(1)} s.`);
    document.body.dataset.state = 'done';
    document.body.dataset.done = id;
  },
  failed({ id, why, loading }) {
    if (!loading && id !== state.id) return;
    $('bar').hidden = true;
    tell('');
    fail(loading ? `The networks could not be loaded: ${why}.` : `${state.name} could not be cut out: ${why}.`);
    document.body.dataset.state = 'failed';
  },
};

function cut() { // with the painted trimap, if there is one
  if (!state.ready || !state.photo) return;
  state.id++;
  document.body.dataset.state = 'working';
  worker.postMessage({ type: 'cut', id: state.id, photo: state.photo, trimap: state.drawn ? state.trimap : null });
}

// ---- a photograph

async function take(blob, name) {
  fail('');
  document.body.dataset.state = 'reading';
  try {
    state.photo = await readPhoto(blob);
  } catch (e) {
    fail(`${name} ${e.message}.`);
    document.body.dataset.state = 'refused';
    return;
  }
  Object.assign(state, { name, drawn: false, undo: [], trimap: null, cut: null });
  $('result').hidden = false;
  for (const id of ['trimap', 'rough', 'alpha', 'cut']) { $(id).width = state.photo.w; $(id).height = state.photo.h; }
  paintPhoto();
  updateButtons();
  tell(state.ready ? 'Working …' : $('status').textContent);
  cut();
}

$('file').addEventListener('change', (e) => e.target.files[0] && take(e.target.files[0], e.target.files[0].name));
document.addEventListener('paste', (e) => {
  const item = [...e.clipboardData.files][0];
  if (item) take(item, item.name || 'The pasted picture');
});
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (e) => {
    e.preventDefault();
    $('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop' && e.dataTransfer.files[0]) take(e.dataTransfer.files[0], e.dataTransfer.files[0].name);
  });
}

async function showSamples() {
  const { samples } = await (await fetch('config.json')).json();
  for (const name of samples) {
    const button = document.createElement('button'), img = document.createElement('img');
    button.type = 'button';
    img.src = `samples/${name}`;
    img.alt = name.replace(/\.\w+$/, '').replace(/_/g, ' ');
    button.append(img);
    button.addEventListener('click', async () => take(await (await fetch(img.src)).blob(), name));
    $('samples').append(button);
  }
}

// ---- what is shown

function paintPhoto() {
  const c = $('trimap');
  c.getContext('2d').putImageData(new ImageData(new Uint8ClampedArray(state.photo.pixels), state.photo.w, state.photo.h), 0, 0);
}

function drawTrimap() { // the photograph, tinted
  const { w, h, pixels } = state.photo, [sw, sh] = state.size, out = new Uint8ClampedArray(pixels);
  for (let y = 0; y < h; y++) {
    const row = Math.floor((y * sh) / h) * sw;
    for (let x = 0; x < w; x++) {
      const tint = TINT[state.trimap[row + Math.floor((x * sw) / w)]], i = 4 * (y * w + x);
      for (let k = 0; k < 3; k++) out[i + k] = 0.55 * out[i + k] + 0.45 * tint[k];
    }
  }
  const ctx = $('trimap').getContext('2d');
  ctx.putImageData(new ImageData(out, w, h), 0, 0);
  if (document.activeElement === $('trimap') && state.cursor) {
    ctx.beginPath();
    ctx.lineWidth = Math.max(1, w / 300);
    ctx.arc((state.cursor[0] * w) / sw, (state.cursor[1] * h) / sh, (radius() * w) / sw, 0, 7);
    ctx.stroke();
  }
}

function drawGrey(canvas, { w, h, data }) {
  canvas.width = w; canvas.height = h;
  const out = new Uint8ClampedArray(4 * w * h);
  for (let i = 0; i < w * h; i++) { out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = Math.round(255 * data[i]); out[4 * i + 3] = 255; }
  canvas.getContext('2d').putImageData(new ImageData(out, w, h), 0, 0);
}

function drawCut() {
  if (!state.cut) return;
  const { width: w, height: h } = state.cut, ctx = $('cut').getContext('2d'), kind = document.querySelector('[name=behind]:checked').value;
  $('cut').width = w; $('cut').height = h;
  if (kind === 'picture' && state.backdrop) {
    const b = state.backdrop, k = Math.max(w / b.width, h / b.height);
    ctx.drawImage(b, (w - b.width * k) / 2, (h - b.height * k) / 2, b.width * k, b.height * k);
  } else if (kind === 'colour') {
    ctx.fillStyle = $('colour').value;
    ctx.fillRect(0, 0, w, h);
  } else {
    const side = Math.max(8, Math.round(w / 32));
    for (let y = 0; y * side < h; y++) for (let x = 0; x * side < w; x++) {
      ctx.fillStyle = (x + y) % 2 ? '#cccccc' : '#ffffff';
      ctx.fillRect(x * side, y * side, side, side);
    }
  }
  const layer = new OffscreenCanvas(w, h);
  layer.getContext('2d').putImageData(state.cut, 0, 0);
  ctx.drawImage(layer, 0, 0);
}

for (const o of document.querySelectorAll('[name=behind]')) o.addEventListener('change', drawCut);
$('colour').addEventListener('input', () => { document.querySelector('[value=colour]').checked = true; drawCut(); });
$('backdrop').addEventListener('change', async (e) => {
  const file = e.target.files[0];
  if (!file) return;
  fail('');
  try {
    const { w, h, pixels } = await readPhoto(file);
    state.backdrop = await createImageBitmap(new ImageData(pixels, w, h));
    document.querySelector('[value=picture]').checked = true;
    drawCut();
  } catch (err) { fail(`${file.name} ${err.message}.`); }
});

$('download').addEventListener('click', async () => {
  const { width, height } = state.cut, layer = new OffscreenCanvas(width, height);
  layer.getContext('2d').putImageData(state.cut, 0, 0);
  const a = document.createElement('a');
  a.href = URL.createObjectURL(await layer.convertToBlob({ type: 'image/png' }));
  a.download = `${state.name.replace(/\.\w+$/, '') || 'portrait'}.png`;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10000);
});

// ---- the brush

const radius = () => Number($('brush').value);
const code = () => Number(document.querySelector('[name=paint]:checked').value);

function dab(x, y) {
  const [w, h] = state.size, r = radius(), v = code();
  for (let j = Math.max(0, Math.ceil(y - r)); j <= Math.min(h - 1, y + r); j++) {
    for (let i = Math.max(0, Math.ceil(x - r)); i <= Math.min(w - 1, x + r); i++) {
      if ((i - x) ** 2 + (j - y) ** 2 <= r * r) state.trimap[j * w + i] = v;
    }
  }
}

function stroke(from, to) {
  const n = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / Math.max(1, radius() / 3)));
  for (let k = 0; k <= n; k++) dab(from[0] + ((to[0] - from[0]) * k) / n, from[1] + ((to[1] - from[1]) * k) / n);
  drawTrimap();
}

function remember() {
  state.undo.push(state.trimap.slice());
  if (state.undo.length > 30) state.undo.shift();
  state.trimap = state.trimap.slice();
}

function updateButtons() { $('undo').disabled = !state.undo.length; $('reset').disabled = !state.drawn; }

function painted() { state.drawn = true; updateButtons(); cut(); }

function place(e) {
  const box = $('trimap').getBoundingClientRect(), [w, h] = state.size;
  return [((e.clientX - box.left) * w) / box.width, ((e.clientY - box.top) * h) / box.height];
}

let last = null;
$('trimap').addEventListener('pointerdown', (e) => {
  if (!state.trimap) return;
  $('trimap').setPointerCapture(e.pointerId);
  remember();
  last = place(e);
  stroke(last, last);
});
$('trimap').addEventListener('pointermove', (e) => { if (last) { const now = place(e); stroke(last, now); last = now; } });
for (const kind of ['pointerup', 'pointercancel']) $('trimap').addEventListener(kind, () => { if (last) { last = null; painted(); } });

$('trimap').addEventListener('keydown', (e) => {
  if (!state.trimap) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key], [w, h] = state.size;
  state.cursor ||= [w / 2, h / 2];
  if (step) {
    const far = Math.max(2, radius() / 2);
    state.cursor = [Math.min(w, Math.max(0, state.cursor[0] + far * step[0])), Math.min(h, Math.max(0, state.cursor[1] + far * step[1]))];
    drawTrimap();
  } else if (e.key === ' ') {
    remember();
    stroke(state.cursor, state.cursor);
    painted();
  } else return;
  e.preventDefault();
});

$('undo').addEventListener('click', () => { state.trimap = state.undo.pop(); state.drawn = state.undo.length > 0; drawTrimap(); updateButtons(); cut(); });
$('reset').addEventListener('click', () => { remember(); state.trimap = state.predicted.slice(); state.drawn = false; drawTrimap(); updateButtons(); cut(); });

document.body.dataset.state = 'loading';
showSamples();
start();
