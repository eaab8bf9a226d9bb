// What a person sees: photos in, bars out. Every text from outside is set as text, never as HTML.

const SHOWN_CLASSES = 5;
const element = (id) => document.getElementById(id);

/** Start the page. `classify(blob)` gives every class; `selfTest` and `ready` are given where the model runs here. */
export async function startPage({ about, classify, ready, selfTest, promise }) {
  element("promise").textContent = promise;
  listen((files) => answerAll(files, classify));
  try {
    const [description] = await Promise.all([about(), selfTest && tellDifferences(selfTest)]);
    describe(description);
    await ready?.();
    say("Ready.");
    document.body.dataset.state = "ready";
  } catch (error) {
    say(`The model could not be started: ${error.message}`, "bad");
    document.body.dataset.state = "failed";
  }
}

// -- photos in -----------------------------------------------------------------------------------------

function listen(take) {
  for (const id of ["file", "camera"]) {
    element(id).addEventListener("change", ({ target }) => {
      take([...target.files]);
      target.value = "";
    });
  }
  const zone = element("zone");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || zone.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
}

async function answerAll(files, classify) {
  const cards = files.map(newCard);
  element("answers").prepend(...cards);
  cards[0]?.scrollIntoView({ block: "nearest" });
  for (const [place, file] of files.entries()) {
    const card = cards[place];
    say(files.length > 1 ? `Looking at photo ${place + 1} of ${files.length} …` : "Looking at the photo …");
    await painted();
    try {
      const began = performance.now();
      const answer = await classify(file);
      showAnswer(card, answer, (performance.now() - began) / 1000);
      say(`${file.name || "The photo"}: ${answer[0].label}, ${percent(answer[0].score)}.`);
    } catch (error) {
      showProblem(card, error.message);
      say(`${file.name || "The photo"}: ${error.message}`, "bad");
    }
  }
}

// Let the browser draw before it is busy.
const painted = () => new Promise((go) => setTimeout(go, 30));

// -- answers out ---------------------------------------------------------------------------------------

function newCard(file) {
  const card = element("card").content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name || "the photo";
  picture.addEventListener("error", () => picture.replaceWith("no preview"));
  card.querySelector(".name").textContent = file.name;
  return card;
}

function showAnswer(card, answer, seconds) {
  card.querySelector("h3").replaceChildren(...title(answer));
  card.querySelector(".seconds").textContent = `${seconds.toFixed(2)} s`;
  card.querySelector(".problem").textContent = doubts(answer[0]).join(" ");
  const list = card.querySelector("ol");
  list.append(...answer.map(bar));
  for (const item of [...list.children].slice(SHOWN_CLASSES)) item.hidden = true;
  const more = card.querySelector("button");
  more.hidden = answer.length <= SHOWN_CLASSES;
  more.textContent = `All ${answer.length} classes`;
  more.addEventListener("click", () => {
    for (const item of list.children) item.hidden = false;
    more.hidden = true;
  });
  card.dataset.state = "answered";
}

// The best class with its score; of several labels those that are named.
function title(answer) {
  if (answer[0].named === undefined) return [isolated(answer[0].label), ` ${percent(answer[0].score)}`];
  const named = answer.filter(({ named }) => named).map(({ label }) => isolated(label));
  return named.length ? named.flatMap((name, place) => (place ? [", ", name] : [name])) : ["No label"];
}

function doubts({ abstained, unfamiliar }) {
  return [
    ...(abstained ? ["Not sure enough: ask a person."] : []),
    ...(unfamiliar ? ["Unlike the photos that the model has learnt from: do not rely on the answer."] : []),
  ];
}

function bar({ label, score, named = true }) {
  const item = document.createElement("li");
  item.classList.toggle("unnamed", !named);
  const [name, value, track, fill] = ["span", "span", "span", "i"].map((kind) => document.createElement(kind));
  name.append(isolated(label));
  name.className = "label";
  value.textContent = percent(score);
  value.className = "value";
  track.className = "bar";
  track.setAttribute("aria-hidden", "true");
  fill.style.width = `${100 * score}%`;
  track.append(fill);
  item.append(name, " ", value, track);
  return item;
}

function showProblem(card, message) {
  card.querySelector("h3").textContent = "Not read";
  card.querySelector(".problem").textContent = message;
  card.dataset.state = "refused";
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// A name may be written from right to left, or hold signs that turn the text around it.
function isolated(label) {
  const name = document.createElement("bdi");
  name.textContent = label;
  return name;
}

function say(words, kind = "") {
  element("status").textContent = words;
  element("status").className = kind;
}

// -- the model -----------------------------------------------------------------------------------------

function describe(model) {
  document.title = model.name;
  element("name").replaceChildren(isolated(model.name));
  element("classes-count").textContent = `${model.classes.length} classes`;
  element("classes").replaceChildren(...model.classes.map((label) => {
    const item = document.createElement("li");
    item.append(isolated(label));
    return item;
  }));
  const { accuracy, certificate } = model;
  element("accuracy").textContent = accuracy ? percent(accuracy.value) : "not known";
  const ranking = accuracy?.figure === "mean_average_precision";
  element("interval").textContent = ranking
    ? `mean average precision on ${accuracy.images} ${accuracy.part} photos, which the model was not trained on; with 95 % confidence ${span(accuracy)}`
    : accuracy ? `of ${accuracy.images} ${accuracy.part} photos, which the model was not trained on, are named right; with 95 % confidence ${span(accuracy)}`
    : "The files at hand do not say how good this model is.";
  element("certificate").textContent = certificateWords(certificate);
  fact("Photos are scaled to", model.image_size && `${model.image_size} × ${model.image_size} pixels`);
  fact("Licence of the pretrained weights", model.licence);
  fact("Written by", `saccade ${model.saccade}`);
  fact("Model file (SHA-256)", model.sha256, "code");
}

function span({ low, high }) {
  return `${(100 * low).toFixed(1)} to ${percent(high)}`;
}

function certificateWords(certificate) {
  if (!certificate) return "None lies beside the model.";
  const where = (certificate.runtimes ?? []).map(({ runtime, version }) => `${runtime} ${version}`).join(", ");
  const share = certificate.top1_agreement === 1 ? "all" : `${percent(certificate.top1_agreement)} of`;
  const same = `same ${certificate.same ?? "first class"} as the trained model on ${share} ${certificate.images} photos`;
  const most = `largest difference of a probability ${certificate.max_probability_difference.toPrecision(1)}`;
  return `${certificate.passed ? "Passed" : "Not passed"}: ${same}, ${most}${where && ` (${where})`}.`;
}

function fact(name, value, kind = "span") {
  if (!value) return;
  const [term, detail, words] = ["dt", "dd", kind].map((tag) => document.createElement(tag));
  term.textContent = name;
  words.textContent = value;
  detail.append(words);
  element("facts").append(term, detail);
}

async function tellDifferences(selfTest) {
  const found = await selfTest();
  const words = found.map(({ name, differing, levels }) =>
    `${name}: ${percent(differing)} of the pixels, by up to ${levels} of 255 levels`);
  element("differs").hidden = found.length === 0;
  element("differs-how").textContent = words.join("; ");
  fact("This browser", found.length ? "decodes differently, see above" : "decodes a JPEG and a PNG as the model was trained (tested when the page was opened)");
  document.body.dataset.decodes = found.length ? "differently" : "alike";
}
