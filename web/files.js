// What a user may drop: looked at before it is decoded, so that what can't be used gets one clear sentence.

export const MAX_PIXELS = 40e6;

const text = (b, from, n) => String.fromCharCode(...b.subarray(from, from + n));
const big = (b, i, n = 4) => { let v = 0; for (let k = 0; k < n; k++) v = v * 256 + b[i + k]; return v; };
const little = (b, i, n = 4) => { let v = 0; for (let k = n - 1; k >= 0; k--) v = v * 256 + b[i + k]; return v; };

function jpegSize(b) {
  for (let i = 2; i + 9 < b.length;) {
    if (b[i] !== 0xff) return null;
    const marker = b[i + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return [big(b, i + 7, 2), big(b, i + 5, 2)];
    i += 2 + big(b, i + 2, 2);
  }
  return null;
}

// What kind of file these bytes are, and its size in pixels where the header tells
export function examine(b) {
  if (!b.length) return { why: 'is empty (0 bytes)' };
  if (b[0] === 0xff && b[1] === 0xd8) return { kind: 'JPEG', size: jpegSize(b) };
  if (text(b, 1, 3) === 'PNG') return { kind: 'PNG', size: [big(b, 16), big(b, 20)] };
  if (text(b, 0, 3) === 'GIF') return { kind: 'GIF', size: [little(b, 6, 2), little(b, 8, 2)] };
  if (text(b, 0, 4) === 'RIFF' && text(b, 8, 4) === 'WEBP') return { kind: 'WebP', size: null };
  if (text(b, 0, 2) === 'BM') return { kind: 'BMP', size: [little(b, 18), Math.abs(little(b, 22) | 0)] };
  if (text(b, 4, 4) === 'ftyp') {
    if (text(b, 8, 4).startsWith('avi')) return { kind: 'AVIF', size: null };
    return { kind: 'HEIC', size: null, maybe: 'is a HEIC picture, which this browser cannot read. Save it as JPEG: on an iPhone, Settings, Camera, Formats, Most Compatible' };
  }
  const head = b.subarray(0, 256);
  if (head.every((c) => c === 9 || c === 10 || c === 13 || (c >= 32 && c < 127) || c >= 128)) return { why: 'holds text, not a picture. Give a JPEG, PNG or WebP' };
  return { why: 'is no picture that a browser reads. Give a JPEG, PNG or WebP' };
}

function checkSize([w, h]) {
  if (w * h > MAX_PIXELS) throw new Error(`has ${w} x ${h} pixels, more than the ${MAX_PIXELS / 1e6} million that fit here. Make it smaller, or use the command dim_cutout`);
  if (w < 1 || h < 1) throw new Error('has no pixels');
}

// {w, h, pixels}: upright RGBA bytes on white. Throws an Error whose message follows the file's name
export async function readPhoto(blob) {
  const found = examine(new Uint8Array(await blob.slice(0, 262144).arrayBuffer()));
  if (found.why) throw new Error(found.why);
  if (found.size) checkSize(found.size);
  let bitmap;
  try { bitmap = await createImageBitmap(blob, { imageOrientation: 'from-image' }); }
  catch { throw new Error(found.maybe || `is a damaged ${found.kind}. Copy or download it again`); }
  checkSize([bitmap.width, bitmap.height]);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), ctx = canvas.getContext('2d', { willReadFrequently: true });
  ctx.fillStyle = 'white';
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { w: canvas.width, h: canvas.height, pixels: ctx.getImageData(0, 0, canvas.width, canvas.height).data };
}
