// The networks live here, so that the page stays awake while they work.
import { cutOut } from './chain.js';

let ort, nets, config, loaded = 0;
const say = (type, what = {}, move = []) => postMessage({ type, ...what }, move);

async function bytes(url, total, done) { // a file, with a word as it arrives
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is missing on this server (${answer.status})`);
  const parts = [], reader = answer.body.getReader();
  for (;;) {
    const { done: end, value } = await reader.read();
    if (end) break;
    parts.push(value);
    loaded += value.length;
    done(loaded, total);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load(base, wantGpu) {
  config = await (await fetch(new URL('config.json', base))).json();
  const gpu = wantGpu && 'gpu' in navigator && (await navigator.gpu.requestAdapter().catch(() => null)) !== null;
  ort = await import(gpu ? './ort/ort.webgpu.min.mjs' : './ort/ort.wasm.min.mjs');
  ort.env.wasm.wasmPaths = new URL('ort/', base).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  const total = Object.values(config.files).reduce((a, b) => a + b, 0), progress = (now, all) => say('progress', { now, all });
  nets = {};
  for (const name of ['trimap', 'matting', 'refine']) {
    const graph = await bytes(new URL(`weights/${name}.onnx`, base), total, progress);
    const data = await bytes(new URL(`weights/${name}.safetensors`, base), total, progress);
    nets[name] = await ort.InferenceSession.create(graph, {
      executionProviders: [gpu ? 'webgpu' : 'wasm'], externalData: [{ path: `${name}.safetensors`, data }], logSeverityLevel: 3,
    });
  }
  say('ready', { megabytes: total / 1e6, device: gpu ? 'WebGPU' : `${ort.env.wasm.numThreads} thread${ort.env.wasm.numThreads > 1 ? 's' : ''}`, config });
}

onmessage = async ({ data }) => {
  try {
    if (data.type === 'load') return await load(data.base, data.gpu);
    const tell = (stage, what) => say('stage', { id: data.id, stage, ...what });
    const out = await cutOut(ort, nets, config, data.photo, data.trimap, tell);
    say('done', { id: data.id, ...out }, [out.cut.buffer]);
  } catch (e) {
    say('failed', { id: data.id, why: String(e.message || e), loading: data.type === 'load' });
  }
};
