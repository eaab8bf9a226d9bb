// An image file to the pixels that saccade's own decoder makes of it.
//
// As there, what no decoder needs (colour profiles, gamma, further frames) is taken out first, and EXIF turns the
// pixels here. So nothing is left in which browsers differ but the pixels' own compression.

const DEFAULTS = { background: [255, 255, 255], gray_maximum: 0, max_pixels: 50_000_000, max_aspect: 20 };
const OPTIONS = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
const PNG_KEPT = ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"];
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const CONVERT = "Convert it to JPEG or PNG.";

/** A file that is not read here; its message says why and what to do. */
export class UnreadableImage extends Error {}

/** A Blob to {data, width, height}: RGB bytes, row by row, upright. Throws UnreadableImage. */
export async function decode(blob, settings = {}) {
  const wanted = { ...DEFAULTS, ...settings };
  const file = plainFile(new Uint8Array(await blob.arrayBuffer()));
  const stored = file.gray16 ? await gray16Pixels(file.gray16, wanted) : await browserPixels(file, wanted);
  return upright(stored, file.orientation);
}

async function browserPixels(file, wanted) {
  const bitmap = await createImageBitmap(new Blob([file.bytes], { type: file.type }), OPTIONS).catch(() => {
    throw new UnreadableImage(`This browser cannot read the file: it is damaged, or of a kind it does not know. ${CONVERT}`);
  });
  const { width, height } = bitmap;
  checkSize(width, height, wanted);
  const canvas = new OffscreenCanvas(width, height);
  // A canvas multiplies colour by alpha; in 8 bits that would lose a level, in 16 it loses none
  const colorType = file.type === "image/jpeg" ? "unorm8" : "float16";
  const context = canvas.getContext("2d", { willReadFrequently: true, colorType });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: onBackground(context.getImageData(0, 0, width, height).data, wanted.background), width, height };
}

function checkSize(width, height, wanted) {
  if (width * height > wanted.max_pixels)
    throw new UnreadableImage(`${width} × ${height} pixels are more than the limit of ${wanted.max_pixels / 1e6} million. Scale it down.`);
  if (Math.max(width, height) > wanted.max_aspect * Math.min(width, height))
    throw new UnreadableImage(`${width} × ${height} pixels: more than ${wanted.max_aspect} times as long as wide. Crop it.`);
}

// RGBA to RGB, rounded as Pillow's alpha_composite rounds.
function onBackground(rgba, background) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel++, to++) {
      const level = rgba[from + channel];
      const sum = 128 * (level * alpha + background[channel] * (255 - alpha)) + 16384;
      rgb[to] = alpha === 255 ? level : ((sum >> 8) + sum) >> 15;
    }
  }
  return rgb;
}

// Undo an EXIF orientation: 5 to 8 swap rows and columns; then some are mirrored.
function upright({ data, width, height }, orientation) {
  if (orientation === 1) return { data, width, height };
  const swapped = orientation > 4;
  const [columns, rows] = swapped ? [height, width] : [width, height];
  const turned = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < rows; y++) {
    const down = [3, 4, 7, 8].includes(orientation) ? rows - 1 - y : y;
    for (let x = 0; x < columns; x++, to += 3) {
      const across = [2, 3, 6, 7].includes(orientation) ? columns - 1 - x : x;
      const from = 3 * (swapped ? across * width + down : down * width + across);
      turned[to] = data[from];
      turned[to + 1] = data[from + 1];
      turned[to + 2] = data[from + 2];
    }
  }
  return { data: turned, width: columns, height: rows };
}

// -- what a file holds -----------------------------------------------------------------------------------

const text = (bytes, start, end) => String.fromCharCode(...bytes.subarray(start, end));
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// {type, bytes, orientation, gray16?}: without what no decoder needs. Throws UnreadableImage for other kinds.
function plainFile(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return plainJpeg(bytes);
  if (text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return plainPng(bytes);
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP") return plainWebp(bytes);
  if (/^GIF8[79]a/.test(text(bytes, 0, 6))) return { type: "image/gif", bytes, orientation: 1 };
  if (text(bytes, 0, 2) === "BM") return plainBmp(bytes);
  if (text(bytes, 4, 12) === "ftypavif") return { type: "image/avif", bytes, orientation: 1 };
  throw new UnreadableImage(unknownKind(bytes));
}

function unknownKind(bytes) {
  const start = text(bytes, 0, 12);
  const names = [[/^(II[*+]\0|MM\0[*+])/, "a TIFF file"], [/^....ftyp(hei|hev|mif|msf)/s, "a HEIC photo"],
    [/^(\xff\x0a|\0\0\0\x0cJXL )/, "a JPEG XL file"], [/^P[1-6fF]\s/, "a PPM file"], [/^%PDF/, "a PDF document"]];
  const name = bytes.length ? names.find(([pattern]) => pattern.test(start))?.[1] : "an empty file";
  return name ? `This is ${name}, which is not read here. ${CONVERT}` : `This is not an image of a kind that is read here (JPEG, PNG, WebP, GIF, BMP, AVIF). ${CONVERT}`;
}

// JPEG (ITU-T T.81): segments before the first scan; EXIF, profiles and comments are left out.
function plainJpeg(bytes) {
  const data = view(bytes);
  const kept = [bytes.subarray(0, 2)];
  let orientation = 0;
  let place = 2;
  while (place + 4 <= bytes.length && bytes[place + 1] !== 0xda) {
    const marker = bytes[place + 1];
    if (bytes[place] !== 0xff || marker === 0xff || marker < 0x02 || (marker >= 0xd0 && marker < 0xd9)) {
      place += bytes[place] !== 0xff || marker === 0xff ? 1 : 2;
      continue;
    }
    const end = place + 2 + data.getUint16(place + 2);
    if (marker === 0xe1 && text(bytes, place + 4, place + 10) === "Exif\0\0") orientation ||= exifOrientation(bytes.subarray(place + 10, end));
    const needed = marker === 0xee || (marker === 0xe0 && text(bytes, place + 4, place + 8) === "JFIF");
    if (needed || !((marker >= 0xe0 && marker <= 0xef) || marker === 0xfe)) kept.push(bytes.subarray(place, end));
    place = end;
  }
  return { type: "image/jpeg", bytes: joined([...kept, bytes.subarray(place)]), orientation: orientation || 1 };
}

// PNG (third edition): five kinds of chunks decode; gamma, profiles and animation are left out.
function plainPng(bytes) {
  const data = view(bytes);
  const kept = [bytes.subarray(0, 8)];
  const packed = [];
  let orientation = 1;
  for (let place = 8; place + 12 <= bytes.length; ) {
    const name = text(bytes, place + 4, place + 8);
    const end = place + 12 + data.getUint32(place);
    if (PNG_KEPT.includes(name)) kept.push(bytes.subarray(place, end));
    if (name === "IDAT") packed.push(bytes.subarray(place + 8, end - 4));
    if (name === "eXIf") orientation = exifOrientation(bytes.subarray(place + 8, end - 4));
    place = name === "IEND" ? bytes.length : end;
  }
  const isGray16 = bytes[24] === 16 && bytes[25] === 0;
  const gray16 = isGray16 && { packed, width: data.getUint32(16), height: data.getUint32(20), interlaced: bytes[28] };
  return { type: "image/png", bytes: joined(kept), orientation, gray16 };
}

// WebP (RFC 9649): EXIF, XMP and profile get names that nobody reads, and their flags are cleared.
function plainWebp(given) {
  const bytes = given.slice();
  const data = view(bytes);
  let orientation = 1;
  for (let place = 12; place + 8 <= bytes.length; ) {
    const name = text(bytes, place, place + 4);
    const length = data.getUint32(place + 4, true);
    if (name === "EXIF") orientation = exifOrientation(bytes.subarray(place + 8, place + 8 + length));
    if (["EXIF", "XMP ", "ICCP"].includes(name)) bytes.fill(0x7e, place, place + 4);
    if (name === "VP8X") bytes[place + 8] &= ~0x2c;
    place += 8 + length + (length % 2);
  }
  return { type: "image/webp", bytes, orientation };
}

// Decoders disagree about bitmaps with 16 bits a pixel, about run lengths, and where palette and pixels overlap.
function plainBmp(bytes) {
  const data = view(joined([bytes.subarray(0, 54), new Uint8Array(54)]));
  const old = bytes[14] === 12;
  const bits = bytes[old ? 24 : 28];
  const compression = old ? 0 : bytes[30];
  const colours = old || bits > 8 ? 0 : data.getUint32(46, true);
  const overlap = data.getUint32(10, true) < 14 + bytes[14] + 4 * colours;
  if (![1, 4, 8, 24, 32].includes(bits) || ![0, 3].includes(compression) || overlap)
    throw new UnreadableImage(`This is a BMP of a rare kind, which is not read here. ${CONVERT}`);
  return { type: "image/bmp", bytes, orientation: 1 };
}

// Tag 0x0112 of the first directory (EXIF 2.32); 1 where there is none, or it is broken.
function exifOrientation(block) {
  const bytes = text(block, 0, 6) === "Exif\0\0" ? block.subarray(6) : block;
  const little = bytes[0] === 0x49;
  try {
    const data = view(bytes);
    const start = data.getUint32(4, little);
    for (let number = 0; number < data.getUint16(start, little); number++) {
      const entry = start + 2 + 12 * number;
      if (data.getUint16(entry, little) !== 0x0112) continue;
      const value = data.getUint16(entry + 2, little) === 4 ? data.getUint32(entry + 8, little) : data.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

// -- 16-bit gray PNG, of which browsers keep the upper 8 bits alone --------------------------------------

async function gray16Pixels({ packed, width, height, interlaced }, wanted) {
  checkSize(width, height, wanted);
  const raw = await inflated(packed);
  const white = wanted.gray_maximum || 65535;
  const data = new Uint8Array(3 * width * height);
  let place = 0;
  for (const [left, top, right, down] of interlaced ? ADAM7 : [[0, 0, 1, 1]]) {
    const columns = Math.max(0, Math.ceil((width - left) / right));
    let above = new Uint8Array(2 * columns);
    for (let y = top; columns && y < height; y += down, place += 1 + 2 * columns) {
      if (place + 1 + 2 * columns > raw.length) throw new UnreadableImage("This PNG is damaged or ends too early. Copy it again from its source.");
      above = unfiltered(raw[place], raw.subarray(place + 1, place + 1 + 2 * columns), above, 2);
      for (let column = 0; column < columns; column++) {
        const value = 256 * above[2 * column] + above[2 * column + 1];
        const level = Math.min(255, Math.floor((255 * value + (white >> 1)) / white));
        data.fill(level, 3 * (y * width + left + column * right), 3 * (y * width + left + column * right) + 3);
      }
    }
  }
  return { data, width, height };
}

async function inflated(parts) {
  try {
    const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new UnreadableImage("This PNG is damaged or ends too early. Copy it again from its source.");
  }
}

// PNG, chapter 9: each row is stored as the difference from a guess.
function unfiltered(filter, row, above, step) {
  const made = new Uint8Array(row.length);
  for (let i = 0; i < row.length; i++) {
    const left = i < step ? 0 : made[i - step];
    const corner = i < step ? 0 : above[i - step];
    made[i] = row[i] + [0, left, above[i], (left + above[i]) >> 1, paeth(left, above[i], corner)][filter];
  }
  return made;
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [byLeft, byAbove, byCorner] = [left, above, corner].map((value) => Math.abs(guess - value));
  if (byLeft <= byAbove && byLeft <= byCorner) return left;
  return byAbove <= byCorner ? above : corner;
}
