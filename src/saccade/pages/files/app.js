// The model in this browser: `classify(blob)` answers with a list of {label, score}, the best first. Each says of
// the image, too: `abstained` (rather ask a person), `unfamiliar` (unlike the training images; null: not known)
// and `unfamiliarity`. `in_set` is whether the image's set of labels holds this one. Where an image may have
// several labels, `named` is whether the score reaches its threshold.
//
//   import { classify } from "./app.js";
//   await classify(blob, { top_k: 3 });
//
// All parts lie in the page itself, or beside this file. Nothing is sent anywhere.
import { decode } from "./decode.js";

/** The answer for one image (a Blob or File); `top_k` 0 means every class. Without it there are 5, and at least all
 *  that are named or in the set. Throws where the image cannot be read. */
export async function classify(blob, { top_k } = {}) {
  const { about, session } = await ready();
  const image = await decode(blob, about.decoding);
  const { probabilities, unfamiliar } = await inTurn(() => run(session, image));
  const limits = about.thresholds, included = about.label_sets?.limits;
  const ranked = about.classes.map((label, place) => {
    const answer = { label, score: probabilities.data[place] };
    if (included) answer.in_set = answer.score >= (included[place] ?? included[0]);
    if (limits) answer.named = answer.score >= limits[label];
    return answer;
  });
  ranked.sort((one, other) => other.score - one.score);
  const unfamiliarity = unfamiliar ? unfamiliar.data[0] : null;
  const ofImage = {
    abstained: ranked[0].score < leastFor(ranked[0].label, about.asking),
    unfamiliar: unfamiliarity === null ? null : unfamiliarity > 1,
    unfamiliarity,
  };
  const chosen = ["in_set", "named"].map((word) => ranked.filter((answer) => answer[word]).length);
  const count = top_k ?? Math.max(5, ...chosen);
  return (count ? ranked.slice(0, count) : ranked).map((answer) => ({ ...answer, ...ofImage }));
}

// The score that an answer with this label needs; 0 where the model never abstains.
function leastFor(label, asking) {
  const own = asking?.by_class ?? {};
  return (Object.hasOwn(own, label) ? own[label] : asking?.threshold) ?? 0;
}

/** What the model is: its name, classes, accuracy, certificate. */
export const about = once(async () => JSON.parse(new TextDecoder().decode(await part("about.json"))));

/** What {name, differing, levels} this browser decodes differently: share of pixels, largest difference. */
export async function selfTest() {
  const probes = JSON.parse(new TextDecoder().decode(await part("probes.json")));
  const { decoding } = await about();
  const tested = await Promise.all(probes.map((probe) => tryProbe(probe, decoding)));
  return tested.filter(({ differing }) => differing > 0);
}

/** Resolves once the model can answer. */
export const ready = once(async () => {
  const [description, ort, model] = await Promise.all([about(), runtime(), part("model.onnx")]);
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return { about: description, session: { ort, session } };
});

async function run({ ort, session }, { data, width, height }) {
  return session.run({ image: new ort.Tensor("uint8", data, [1, height, width, 3]) });
}

async function runtime() {
  const code = "ort.wasm.bundle.min.mjs";
  const here = inPage(code);
  const address = here
    ? URL.createObjectURL(new Blob([await unpacked(here)], { type: "text/javascript" }))
    : new URL(code, import.meta.url).href;
  const ort = await import(address);
  ort.env.wasm.wasmBinary = await part("ort-wasm-simd-threaded.wasm");
  ort.env.wasm.numThreads = threads();
  return ort;
}

// Several only where the host isolates the page (see _headers); not on iPhones, where isolated pages hung.
function threads() {
  const apple = /iPhone|iPad|iPod/.test(navigator.userAgent);
  return globalThis.crossOriginIsolated && !apple ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
}

async function tryProbe({ name, file, pixels }, decoding) {
  const expected = fromBase64(pixels);
  try {
    const { data } = await decode(new Blob([fromBase64(file)]), decoding);
    return { name, ...difference(data, expected) };
  } catch {
    return { name, differing: 1, levels: 255 };
  }
}

function difference(data, expected) {
  let [wrong, levels] = [0, data.length === expected.length ? 0 : 255];
  for (let i = 0; i < expected.length; i += 3) {
    const most = Math.max(...[0, 1, 2].map((channel) => Math.abs(data[i + channel] - expected[i + channel])));
    wrong += most > 0;
    levels = Math.max(levels, most);
  }
  return { differing: levels === 255 && !wrong ? 1 : wrong / (expected.length / 3), levels };
}

// -- parts: within the page, or files beside it ------------------------------------------------------------

async function part(name) {
  const here = inPage(name);
  if (here) return unpacked(here);
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status}).`);
  return new Uint8Array(await response.arrayBuffer());
}

function inPage(name) {
  return globalThis.document?.querySelector(`script[data-part="${name}"]`)?.textContent;
}

async function unpacked(encoded) {
  const stream = new Blob([fromBase64(encoded)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(encoded) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(encoded);
  const letters = atob(encoded);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function once(make) {
  let made;
  return () => (made ??= make());
}

// A session answers one question at a time.
let last = Promise.resolve();
function inTurn(ask) {
  const answer = last.then(ask);
  last = answer.catch(() => undefined);
  return answer;
}
