// Classify photos in Node as saccade does: node predict.mjs a.jpg b.jpg
// Needs `npm install onnxruntime-node sharp`, and the folder `export` of a run beside it (or $SACCADE_EXPORT).
import { readFile } from "node:fs/promises";
import { argv, env } from "node:process";
import { pathToFileURL } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

const folder = env.SACCADE_EXPORT ?? "export";
const settings = JSON.parse(await readFile(`${folder}/classes.json`, "utf8"));
const session = await InferenceSession.create(`${folder}/model.onnx`);

// The answer for one image file: [{label, score}], the best first; top_k 0 means every class. Each says of the image,
// too: abstained (rather ask a person), unfamiliar (unlike the training images; null where the model does not tell)
export async function classify(file, top_k = 5) {
  const { probabilities, unfamiliar } = await session.run({ image: await pixels(file) });
  const ranked = settings.classes.map((label, place) => ({ label, score: probabilities.data[place] }));
  ranked.sort((one, other) => other.score - one.score);
  const [{ label, score }] = ranked;
  const needed = new Map(Object.entries(settings.asking?.by_class ?? {})).get(label) ?? settings.asking?.threshold ?? 0;
  const ofImage = { abstained: score < needed, unfamiliar: unfamiliar ? unfamiliar.data[0] > 1 : null };
  return (top_k ? ranked.slice(0, top_k) : ranked).map((answer) => ({ ...answer, ...ofImage }));
}

// uint8 RGB (1, height, width, 3), upright, without colour profiles, as saccade decodes
async function pixels(file) {
  const bytes = await readFile(file);
  const { space, format, hasAlpha } = await sharp(bytes).metadata();
  if (format === "heif") throw new Error(`${file}: AVIF and HEIC are decoded otherwise here, convert it to PNG`);
  const gray = space === "grey16" && !(hasAlpha && bytes[25] === 4); // of PNG: gray with real alpha
  const kind = space === "cmyk" ? "cmyk" : gray ? "grey16" : "srgb";
  let image = sharp(bytes, { ignoreIcc: true }).rotate();
  if (kind === "srgb") image = image.toColourspace("srgb").ensureAlpha();
  else image = (gray ? image.removeAlpha() : image).pipelineColourspace(kind).toColourspace(kind);
  const { data, info } = await image.raw({ depth: gray ? "ushort" : "uchar" }).toBuffer({ resolveWithObject: true });
  const values = gray ? new Uint16Array(data.buffer, data.byteOffset, data.length / 2) : data;
  const rgb = new Uint8Array(info.width * info.height * 3);
  for (let place = 0, from = 0; place < rgb.length; from += info.channels)
    for (let channel = 0; channel < 3; channel++) rgb[place++] = toRgb[kind](values, from, channel);
  return new Tensor("uint8", rgb, [1, info.height, info.width, 3]);
}

// One channel of one pixel; transparent pixels lie on the background, rounded as Pillow does
const [background, white] = [settings.background ?? [255, 255, 255], settings.gray_maximum || 65535];
const toRgb = {
  srgb(values, from, channel) {
    const alpha = values[from + 3];
    const sum = 128 * (values[from + channel] * alpha + background[channel] * (255 - alpha)) + 16384;
    return ((sum >> 8) + sum) >> 15;
  },
  cmyk: (values, from, channel) => Math.floor(((255 - values[from + channel]) * (255 - values[from + 3])) / 255),
  grey16: (values, from) => Math.min(255, Math.floor((255 * values[from] + (white >> 1)) / white)),
};

if (import.meta.url === pathToFileURL(argv[1]).href) {
  for (const file of argv.slice(2)) {
    const [{ label, score }] = await classify(file, 1);
    console.log(`${file}: ${label} ${(100 * score).toFixed(1)}%`);
  }
}
