// Pictures as planes of floats, and what matting does with them: the same steps as dim_nb's images, trimaps, guided and labels.
// A plane is {w, h, c, data}: Float32Array, row by row, c values a pixel.

export const BG = 0, UNKNOWN = 128, FG = 255;

export function plane(w, h, c = 1, fill = 0) {
  const data = new Float32Array(w * h * c);
  if (fill) data.fill(fill);
  return { w, h, c, data };
}

const clamp = (v, lo, hi) => (v < lo ? lo : v > hi ? hi : v);

// ---- sizes

export function workSize(w, h, largest, smallest) {
  const longest = Math.max(w, h), k = Math.min(largest, Math.max(smallest, longest)) / longest;
  return [Math.max(1, Math.round(w * k)), Math.max(1, Math.round(h * k))];
}

export function lookSize(w, h, size, multiple = 32) {
  const k = size / Math.max(w, h);
  return [w, h].map((n) => Math.max(multiple, Math.round((n * k) / multiple) * multiple));
}

function cubic(t) { // OpenCV's bicubic curve
  const a = -0.75, x = Math.abs(t);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

// For each of N places: which of n places it is made of, and with which weights
function taps(n, N, how) {
  const scale = n / N, out = [];
  for (let i = 0; i < N; i++) {
    const pairs = [];
    if (how === 'area') {
      const lo = i * scale, hi = lo + scale;
      for (let j = Math.floor(lo); j < Math.min(n, Math.ceil(hi - 1e-9)); j++) {
        pairs.push([j, (Math.min(hi, j + 1) - Math.max(lo, j)) / scale]);
      }
    } else if (how === 'nearest') pairs.push([Math.min(n - 1, Math.floor(i * scale)), 1]);
    else {
      const at = (i + 0.5) * scale - 0.5, low = Math.floor(at), t = at - low;
      const span = how === 'cubic' ? [-1, 0, 1, 2] : [0, 1];
      for (const d of span) pairs.push([clamp(low + d, 0, n - 1), how === 'cubic' ? cubic(t - d) : d ? t : 1 - t]);
    }
    out.push(pairs);
  }
  return out;
}

export function resize(p, W, H, how) {
  if (p.w === W && p.h === H) return p;
  const c = p.c, across = taps(p.w, W, how), down = taps(p.h, H, how);
  const middle = plane(W, p.h, c), out = plane(W, H, c);
  for (let y = 0; y < p.h; y++) {
    for (let x = 0; x < W; x++) {
      for (const [j, weight] of across[x]) {
        for (let k = 0; k < c; k++) middle.data[(y * W + x) * c + k] += weight * p.data[(y * p.w + j) * c + k];
      }
    }
  }
  for (let y = 0; y < H; y++) {
    for (const [j, weight] of down[y]) {
      const from = j * W * c, to = y * W * c;
      for (let i = 0; i < W * c; i++) out.data[to + i] += weight * middle.data[from + i];
    }
  }
  return out;
}

// By area where it shrinks, by the bicubic curve where it grows
export function resizeTo(p, W, H) { return resize(p, W, H, W * H < p.w * p.h ? 'area' : 'cubic'); }

export function clip01(p) {
  for (let i = 0; i < p.data.length; i++) p.data[i] = clamp(p.data[i], 0, 1);
  return p;
}

export function crop(p, x, y, w, h) {
  const out = plane(w, h, p.c);
  for (let r = 0; r < h; r++) {
    const from = ((y + r) * p.w + x) * p.c;
    out.data.set(p.data.subarray(from, from + w * p.c), r * w * p.c);
  }
  return out;
}

export function paste(into, p, x, y) {
  for (let r = 0; r < p.h; r++) into.data.set(p.data.subarray(r * p.w, (r + 1) * p.w), (y + r) * into.w + x);
}

// ---- trimaps

function withoutIslands(mask, w, h, least) { // 4-connected parts that are too small are taken out, in place
  const seen = new Uint8Array(w * h), stack = new Int32Array(w * h);
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || seen[start]) continue;
    let top = 0, n = 0;
    const members = [];
    stack[top++] = start; seen[start] = 1;
    while (top) {
      const i = stack[--top], x = i % w;
      n++;
      if (members.length <= least) members.push(i);
      for (const [j, ok] of [[i - 1, x > 0], [i + 1, x < w - 1], [i - w, i >= w], [i + w, i < w * (h - 1)]]) {
        if (ok && mask[j] && !seen[j]) { seen[j] = 1; stack[top++] = j; }
      }
    }
    if (n < least) for (const i of members) mask[i] = 0;
  }
  return mask;
}

export function probsToTrimap(probs, w, h, { fg, bg, island, sure }) {
  const p = clip01(resize(probs, w, h, 'linear')), n = w * h;
  const trimap = new Uint8Array(n).fill(UNKNOWN), certain = new Uint8Array(n);
  for (const [k, least, code] of [[0, bg, BG], [2, fg, FG]]) {
    const mask = new Uint8Array(n);
    for (let i = 0; i < n; i++) mask[i] = p.data[3 * i + k] >= least ? 1 : 0;
    withoutIslands(mask, w, h, island * n);
    for (let i = 0; i < n; i++) if (mask[i]) trimap[i] = code;
  }
  for (let i = 0; i < n; i++) {
    certain[i] = (trimap[i] === BG && p.data[3 * i] >= sure) || (trimap[i] === FG && p.data[3 * i + 2] >= sure) ? 1 : 0;
  }
  return { trimap, sure: certain, peak: peak(probs) };
}

// The largest mean, over 5x5 pixels, of p(foreground) + half of p(unknown)
export function peak(probs) {
  let best = 0;
  for (let y = 2; y < probs.h - 2; y++) for (let x = 2; x < probs.w - 2; x++) {
    let sum = 0;
    for (let v = -2; v <= 2; v++) for (let u = -2; u <= 2; u++) {
      const i = 3 * ((y + v) * probs.w + x + u);
      sum += probs.data[i + 2] + probs.data[i + 1] / 2;
    }
    best = Math.max(best, sum / 25);
  }
  return best;
}

export function settle(alpha, trimap, sure, drawn, tolerance = 0.1) {
  const out = plane(alpha.w, alpha.h);
  for (let i = 0; i < trimap.length; i++) {
    const known = trimap[i] === FG ? 1 : 0, a = alpha.data[i];
    const take = trimap[i] !== UNKNOWN && (drawn || sure[i] || Math.abs(a - known) <= tolerance);
    out.data[i] = take ? known : a;
  }
  return out;
}

// ---- the guided filter (He et al. 2010)

function windowMean(src, w, h, r) { // of what there is of each window
  const rows = new Float64Array(w * h), out = new Float32Array(w * h);
  for (let y = 0; y < h; y++) {
    let sum = 0;
    for (let x = 0; x < Math.min(r, w); x++) sum += src[y * w + x];
    for (let x = 0; x < w; x++) {
      if (x + r < w) sum += src[y * w + x + r];
      if (x - r - 1 >= 0) sum -= src[y * w + x - r - 1];
      rows[y * w + x] = sum / (Math.min(w - 1, x + r) - Math.max(0, x - r) + 1);
    }
  }
  for (let x = 0; x < w; x++) {
    let sum = 0;
    for (let y = 0; y < Math.min(r, h); y++) sum += rows[y * w + x];
    for (let y = 0; y < h; y++) {
      if (y + r < h) sum += rows[(y + r) * w + x];
      if (y - r - 1 >= 0) sum -= rows[(y - r - 1) * w + x];
      out[y * w + x] = sum / (Math.min(h - 1, y + r) - Math.max(0, y - r) + 1);
    }
  }
  return out;
}

// a_r, a_g, a_b, b: near each pixel alpha is about a·I + b. image: 0..1, three values a pixel
export function guideCoefficients(image, alpha, radius, eps) {
  const { w, h } = alpha, n = w * h, mean = (f) => {
    const o = new Float64Array(n);
    for (let i = 0; i < n; i++) o[i] = f(i);
    return windowMean(o, w, h, radius);
  };
  const I = image.data, p = alpha.data;
  const mI = [0, 1, 2].map((k) => mean((i) => I[3 * i + k])), mp = mean((i) => p[i]);
  const pairs = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]];
  const mII = pairs.map(([j, k]) => mean((i) => I[3 * i + j] * I[3 * i + k]));
  const mIp = [0, 1, 2].map((k) => mean((i) => I[3 * i + k] * p[i]));
  const a = [0, 1, 2].map(() => new Float32Array(n)), b = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const [rr, rg, rb, gg, gb, bb] = pairs.map(([j, k], q) => mII[q][i] - mI[j][i] * mI[k][i] + (j === k ? eps : 0));
    const y = mIp.map((m, k) => m[i] - mI[k][i] * mp[i]);
    const g1 = rg / rr, b1 = rb / rr, pg = Math.max(1e-7, gg - rg * g1), gb2 = gb - rg * b1, b2 = gb2 / pg;
    const pb = Math.max(1e-7, bb - rb * b1 - gb2 * b2), yg = y[1] - g1 * y[0];
    const xb = (y[2] - b1 * y[0] - b2 * yg) / pb, xg = yg / pg - b2 * xb, xr = y[0] / rr - g1 * xg - b1 * xb;
    a[0][i] = xr; a[1][i] = xg; a[2][i] = xb;
    b[i] = mp[i] - (xr * mI[0][i] + xg * mI[1][i] + xb * mI[2][i]);
  }
  const out = plane(w, h, 4);
  [...a, b].map((o) => windowMean(o, w, h, radius)).forEach((o, k) => { for (let i = 0; i < n; i++) out.data[4 * i + k] = o[i]; });
  return out;
}

export function guidedAlpha(image, alpha, radius = 4, eps = 1e-5) {
  const c = guideCoefficients(image, alpha, radius, eps).data, out = plane(alpha.w, alpha.h), I = image.data;
  for (let i = 0; i < out.data.length; i++) {
    out.data[i] = clamp(c[4 * i] * I[3 * i] + c[4 * i + 1] * I[3 * i + 1] + c[4 * i + 2] * I[3 * i + 2] + c[4 * i + 3], 0, 1);
  }
  return out;
}

// ---- the detail of a photograph that is larger than what the networks saw

function spread(where, w, h) { // dilated by 9x9, then a mean over 5x5 with the border mirrored as in OpenCV
  const near = new Float32Array(w * h), out = plane(w, h), rows = new Float32Array(w * h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    let m = 0;
    for (let d = Math.max(0, x - 4); d <= Math.min(w - 1, x + 4); d++) m = Math.max(m, where[y * w + d]);
    rows[y * w + x] = m;
  }
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    let m = 0;
    for (let d = Math.max(0, y - 4); d <= Math.min(h - 1, y + 4); d++) m = Math.max(m, rows[d * w + x]);
    near[y * w + x] = m;
  }
  const mirror = (i, n) => (n === 1 ? 0 : i < 0 ? -i : i >= n ? 2 * n - 2 - i : i);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    let s = 0;
    for (let j = -2; j <= 2; j++) for (let k = -2; k <= 2; k++) s += near[mirror(y + j, h) * w + mirror(x + k, w)];
    out.data[y * w + x] = s / 25;
  }
  return out;
}

export function addDetail(alpha, photo, small, coarse, where) { // photo: bytes RGBA at alpha's size; alpha is changed in place
  const { w, h } = coarse, band = spread(where, w, h), c = guideCoefficients(small, coarse, 2, 1e-4);
  const kx = w / alpha.w, ky = h / alpha.h, v = new Float32Array(5);
  for (let y = 0; y < alpha.h; y++) {
    const sy = clamp((y + 0.5) * ky - 0.5, 0, h - 1), y0 = Math.floor(sy), y1 = Math.min(h - 1, y0 + 1), ty = sy - y0;
    for (let x = 0; x < alpha.w; x++) {
      const sx = clamp((x + 0.5) * kx - 0.5, 0, w - 1), x0 = Math.floor(sx), x1 = Math.min(w - 1, x0 + 1), tx = sx - x0;
      const at = [y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1];
      if (!(band.data[at[0]] || band.data[at[1]] || band.data[at[2]] || band.data[at[3]])) continue;
      for (let k = 0; k < 5; k++) {
        const q = at.map((i) => (k < 4 ? c.data[4 * i + k] : band.data[i]));
        v[k] = (q[0] * (1 - tx) + q[1] * tx) * (1 - ty) + (q[2] * (1 - tx) + q[3] * tx) * ty;
      }
      const i = y * alpha.w + x, p = 4 * i;
      const fine = clamp((v[0] * photo[p] + v[1] * photo[p + 1] + v[2] * photo[p + 2]) / 255 + v[3], 0, 1);
      alpha.data[i] += v[4] * (fine - alpha.data[i]);
    }
  }
  return alpha;
}

// ---- foreground colours, by multi-level estimation (Germer et al. 2020)

function meanColour(image, alpha, keep) {
  const sum = [0, 0, 0];
  let n = 0;
  for (let i = 0; i < alpha.data.length; i++) if (keep(alpha.data[i])) { n++; for (let k = 0; k < 3; k++) sum[k] += image.data[3 * i + k]; }
  const out = plane(1, 1, 3);
  for (let k = 0; k < 3; k++) out.data[k] = n ? Math.floor(sum[k] / n) : 0;
  return out;
}

function solveLevel(F, B, image, alpha, rounds, whole) {
  const { w, h } = alpha, n = w * h, a = alpha.data, active = new Uint8Array(n);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const i = y * w + x;
    if (whole) { active[i] = 1; continue; }
    for (let k = 0; k < 3; k++) {
      if (a[i] >= 1) F.data[3 * i + k] = image.data[3 * i + k];
      if (a[i] <= 0) B.data[3 * i + k] = image.data[3 * i + k];
    }
    for (let j = Math.max(0, y - 1); j <= Math.min(h - 1, y + 1) && !active[i]; j++) {
      for (let q = Math.max(0, x - 1); q <= Math.min(w - 1, x + 1); q++) {
        const v = a[j * w + q];
        if (v >= 1e-4 && v <= 1 - 1e-4) { active[i] = 1; break; }
      }
    }
  }
  for (let round = 0; round < rounds; round++) for (const colour of [0, 1]) {
    for (let y = 0; y < h; y++) for (let x = (y + colour) % 2; x < w; x += 2) {
      const i = y * w + x;
      if (!active[i]) continue;
      const near = [x < w - 1 ? i + 1 : i, x > 0 ? i - 1 : i, y < h - 1 ? i + w : i, y > 0 ? i - w : i];
      const weight = near.map((j) => Math.abs(a[i] - a[j]) + 1e-5), total = weight[0] + weight[1] + weight[2] + weight[3];
      const share = 1 / (a[i] * a[i] + (1 - a[i]) * (1 - a[i]) + total);
      for (let k = 0; k < 3; k++) {
        let f = 0, b = 0;
        near.forEach((j, q) => { f += (weight[q] / total) * F.data[3 * j + k]; b += (weight[q] / total) * B.data[3 * j + k]; });
        const rest = share * (image.data[3 * i + k] - a[i] * f - (1 - a[i]) * b);
        F.data[3 * i + k] = Math.floor(clamp(f + a[i] * rest + 0.5, 0, 255));
        B.data[3 * i + k] = Math.floor(clamp(b + (1 - a[i]) * rest + 0.5, 0, 255));
      }
    }
  }
}

function rounded(p) {
  for (let i = 0; i < p.data.length; i++) p.data[i] = Math.round(p.data[i]);
  return p;
}

function estimate(image, alpha) { // image 0..255 → [F, B]
  let lo = 1, hi = 0;
  for (const v of alpha.data) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
  let F = meanColour(image, alpha, (v) => v >= 0.9 * hi), B = meanColour(image, alpha, (v) => v <= 0.1 + 0.9 * lo);
  const sizes = [[alpha.w, alpha.h]];
  while (Math.max(...sizes[sizes.length - 1]) > 1) sizes.push(sizes[sizes.length - 1].map((n) => Math.floor((n + 1) / 2)));
  for (const [w, h] of sizes.reverse()) {
    const copy = (p) => ({ ...p, data: p.data.slice() });
    F = rounded(copy(resize(F, w, h, 'linear'))); B = rounded(copy(resize(B, w, h, 'linear')));
    const whole = Math.max(w, h) <= 32;
    solveLevel(F, B, resize(image, w, h, 'nearest'), resize(alpha, w, h, 'nearest'), whole ? 10 : 4, whole);
  }
  return [F, B];
}

// RGBA bytes of the cut-out: the person's own colours, nothing where alpha is 0
export function cutOutPixels(photo, alpha, largest = 512) {
  const { w, h } = alpha, out = new Uint8ClampedArray(4 * w * h);
  const image = plane(w, h, 3);
  for (let i = 0; i < w * h; i++) for (let k = 0; k < 3; k++) image.data[3 * i + k] = photo[4 * i + k];
  const [sw, sh] = workSize(w, h, largest, 1);
  const [F, B] = estimate(rounded(resizeTo(image, sw, sh)), clip01(resizeTo(alpha, sw, sh))).map((p) => resize(p, w, h, 'linear'));
  for (let i = 0; i < w * h; i++) {
    const a = alpha.data[i];
    out[4 * i + 3] = Math.round(255 * a);
    if (!out[4 * i + 3]) continue;
    for (let k = 0; k < 3; k++) {
      const c = photo[4 * i + k], f = F.data[3 * i + k];
      out[4 * i + k] = a >= 1 ? c : f + a * (c - a * f - (1 - a) * B.data[3 * i + k]);
    }
  }
  return out;
}
