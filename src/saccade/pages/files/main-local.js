import { about, classify, ready, selfTest } from "./app.js";
import { decode } from "./decode.js";
import { startPage } from "./page.js";

globalThis.saccade = { about, classify, decode, ready, selfTest }; // for the console, and for tests
startPage({
  about,
  classify: (file) => classify(file, { top_k: 0 }),
  ready,
  selfTest,
  promise: "The photo stays on this device: the model runs in this page.",
});
const oneFile = document.querySelector("script[data-part]") !== null;
if (!oneFile && globalThis.isSecureContext) navigator.serviceWorker?.register("sw.js");
