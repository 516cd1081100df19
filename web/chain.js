// Photograph → trimap → rough alpha → alpha → cut-out, with the networks in ONNX Runtime. The Python package's pipeline, step by step.
import { BG, FG, UNKNOWN, addDetail, clip01, crop, cutOutPixels, guidedAlpha, lookSize, paste, plane, probsToTrimap, resize, resizeTo, settle, workSize } from './planes.js';

// Planes of c channels, as the input of a network: 1 x channels x h x w, continued at the right and below to multiples of 32
function input(ort, planes, multiple = 1) {
  const { w, h } = planes[0], W = Math.ceil(w / multiple) * multiple, H = Math.ceil(h / multiple) * multiple;
  const channels = planes.reduce((n, p) => n + p.c, 0), x = new Float32Array(channels * W * H);
  let at = 0;
  for (const p of planes) for (let k = 0; k < p.c; k++, at++) {
    for (let y = 0; y < H; y++) for (let i = 0; i < W; i++) {
      x[(at * H + y) * W + i] = p.data[(Math.min(h - 1, y) * w + Math.min(w - 1, i)) * p.c + k];
    }
  }
  return { tensor: new ort.Tensor('float32', x, [1, channels, H, W]), W, H };
}

async function run(session, tensor) {
  const out = await session.run({ x: tensor });
  return out.y.data;
}

function mirrored(p) {
  const out = plane(p.w, p.h, p.c);
  for (let y = 0; y < p.h; y++) for (let x = 0; x < p.w; x++) for (let k = 0; k < p.c; k++) {
    out.data[(y * p.w + x) * p.c + k] = p.data[(y * p.w + p.w - 1 - x) * p.c + k];
  }
  return out;
}

async function glance(ort, nets, image, size, turned) { // at the picture, or at its mirror image
  const [w, h] = lookSize(image.w, image.h, size);
  const small = resize(image, w, h, Math.max(image.w, image.h) > size ? 'area' : 'linear');
  const y = await run(nets.trimap, input(ort, [turned ? mirrored(small) : small]).tensor), probs = plane(w, h, 3);
  for (let k = 0; k < 3; k++) for (let i = 0; i < w * h; i++) probs.data[i * 3 + k] = y[k * w * h + i];
  return turned ? mirrored(probs) : probs;
}

async function trimapProbs(ort, nets, image, size, shares) { // the mean of several glances, every second one at the mirror image
  let total = null;
  for (const [i, share] of shares.entries()) {
    const probs = await glance(ort, nets, image, 32 * Math.round(size * share / 32), i % 2);
    if (!total) { total = probs; continue; }
    const large = resize(probs, total.w, total.h, 'linear');
    for (let j = 0; j < large.data.length; j++) total.data[j] += large.data[j];
  }
  for (let j = 0; j < total.data.length; j++) total.data[j] /= shares.length;
  return total;
}

async function roughAlpha(ort, nets, image, trimap) {
  const t = plane(image.w, image.h);
  for (let i = 0; i < trimap.length; i++) t.data[i] = trimap[i] / 255;
  const { tensor, W } = input(ort, [image, t], 32), y = await run(nets.matting, tensor), out = plane(image.w, image.h);
  for (let r = 0; r < image.h; r++) for (let x = 0; x < image.w; x++) out.data[r * image.w + x] = y[r * W + x];
  return out;
}

function span(lo, hi, n, unit = 32) {
  lo = Math.max(0, lo); hi = Math.min(n, hi);
  const size = Math.min(n, Math.ceil((hi - lo) / unit) * unit);
  return [Math.min(lo, n - size), size];
}

async function refinedAlpha(ort, nets, image, rough, margin = 12) {
  let x0 = Infinity, x1 = -1, y0 = Infinity, y1 = -1;
  for (let y = 0; y < rough.h; y++) for (let x = 0; x < rough.w; x++) {
    const a = rough.data[y * rough.w + x];
    if (a > 0.01 && a < 0.99) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
  }
  if (x1 < 0) return rough;
  const [x, w] = span(x0 - margin, x1 + margin + 1, rough.w), [y, h] = span(y0 - margin, y1 + margin + 1, rough.h);
  const part = crop(image, x, y, w, h), alpha = crop(rough, x, y, w, h), guided = guidedAlpha(part, alpha);
  const out = { ...rough, data: rough.data.slice() };
  paste(out, { w, h, c: 1, data: await run(nets.refine, input(ort, [part, alpha, guided]).tensor) }, x, y);
  return out;
}

// photo: {w, h, pixels: RGBA bytes}. drawn: a trimap at the networks' size, from the brush. tell(stage, what) is called as results arrive.
export async function cutOut(ort, nets, config, photo, drawn, tell) {
  const { w, h, pixels } = photo, seconds = {}, n = w * h;
  let clock = performance.now();
  const lap = (stage) => { const now = performance.now(); seconds[stage] = (now - clock) / 1000; clock = now; };
  const image = plane(w, h, 3);
  for (let i = 0; i < n; i++) for (let k = 0; k < 3; k++) image.data[3 * i + k] = pixels[4 * i + k] / 255;
  const [sw, sh] = workSize(w, h, config.size, config.smallest), small = clip01(resizeTo(image, sw, sh));

  let known;
  if (drawn) known = { trimap: drawn, sure: new Uint8Array(sw * sh) };
  else known = probsToTrimap(await trimapProbs(ort, nets, small, config.look, config.glances), sw, sh, config);
  lap('trimap');
  tell('trimap', { w: sw, h: sh, data: known.trimap });

  const rough = known.trimap.includes(UNKNOWN) ? await roughAlpha(ort, nets, small, known.trimap) : settle(plane(sw, sh), known.trimap, known.sure, true);
  lap('matting');
  tell('rough', { w: sw, h: sh, data: rough.data });

  const settled = settle(rough, known.trimap, known.sure, Boolean(drawn));
  let coarse = settle(await refinedAlpha(ort, nets, small, settled), known.trimap, known.sure, Boolean(drawn));
  const nobody = !drawn && isNobody(coarse, known.peak, config);
  if (nobody) coarse = plane(sw, sh);
  let alpha = clip01({ ...resize(coarse, w, h, 'cubic') });
  if (alpha.data === coarse.data) alpha = { ...alpha, data: alpha.data.slice() };
  if (n > sw * sh && !nobody) {
    const where = new Uint8Array(sw * sh);
    for (let i = 0; i < where.length; i++) where[i] = drawn ? known.trimap[i] === UNKNOWN : coarse.data[i] > 0.01 && coarse.data[i] < 0.99;
    addDetail(alpha, pixels, small, coarse, where);
  }
  lap('refinement');
  tell('alpha', { w, h, data: alpha.data });

  const cut = cutOutPixels(pixels, alpha);
  lap('colours');
  return { w, h, cut, nobody, seconds };
}

function isNobody(alpha, peak, { seen, person: least }) {
  let person = 0;
  for (const a of alpha.data) person += a > 0.5;
  return peak < seen || person < least * alpha.data.length;
}

export { BG, FG, UNKNOWN };
