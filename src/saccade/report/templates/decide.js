"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const images = [...document.querySelectorAll("#images > li")];
const part = (id) => document.getElementById(id);
const PLACE = `saccade decisions ${data.key}`; // where the browser keeps what is decided
const made = new Map(remembered()); // number of an image -> {decision, label}
const past = []; // [number, what was decided before]
let at = 0;

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) ?? [];
  } catch {
    return []; // a browser that keeps nothing for files
  }
}

function remember() {
  try {
    localStorage.setItem(PLACE, JSON.stringify([...made]));
  } catch {
    // the decisions then live as long as the page
  }
}

function decide(decision, label = "") {
  past.push([at, made.get(at)]);
  made.set(at, { decision, label });
  remember();
  const said = `${at + 1}: ${inWords(at)}. `;
  show(at + 1, said);
}

function undo() {
  if (!past.length) return;
  const [number, before] = past.pop();
  if (before) made.set(number, before);
  else made.delete(number);
  remember();
  show(number, "Undone. ");
}

function inWords(number) {
  const found = made.get(number);
  if (!found) return "not decided";
  return { keep: "kept", drop: "dropped", relabel: `relabelled as ${found.label}` }[found.decision];
}

function show(number, said = "") {
  at = Math.min(Math.max(number, 0), images.length - 1);
  images.forEach((image, i) => { image.hidden = i !== at; });
  const { label, others } = data.shown[at];
  part("told").textContent =
    `${said}Image ${at + 1} of ${images.length}, labelled ${label}, looks like ${others[0]}: ` +
    `${inWords(at)}. ${made.size} decided.`;
  part("others").replaceChildren(...others.map(relabelButton));
  part("any").value = "";
  part("undo").disabled = !past.length;
  const now = made.get(at)?.decision;
  for (const id of ["keep", "relabel", "drop"]) part(id).setAttribute("aria-pressed", String(id === now));
}

function relabelButton(name, number) {
  const button = document.createElement("button");
  const key = document.createElement("kbd");
  key.textContent = number + 1;
  button.type = "button";
  button.append(`${name} `, key);
  button.setAttribute("aria-keyshortcuts", number + 1);
  button.addEventListener("click", () => {
    decide("relabel", name);
    part("keep").focus(); // the button itself is gone
  });
  return button;
}

// -- the file ------------------------------------------------------------------------------------

function asCsv() {
  const decided = [...made].map(([number, { decision, label }]) => {
    const image = data.shown[number];
    return [image.path, image.label, decision, label, ""];
  });
  const again = new Set(decided.map(([path]) => path));
  const kept = data.earlier.filter(([path, , , , other]) => other || !again.has(path)); // a pair says nothing of a label
  const rows = [...kept, ...decided];
  return ["path,label,decision,new_label,other", ...rows.map((row) => row.map(cell).join(","))].join("\n") + "\n";
}

function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text; // else a spreadsheet runs it as a formula
  return `"${safe.replaceAll('"', '""')}"`;
}

// UTF-8, and for a name that is none its own bytes, which stand as U+DC80 to U+DCFF in the data
function bytes(text) {
  const encoder = new TextEncoder();
  const pieces = [...text].map((sign) => {
    const code = sign.codePointAt(0);
    return code >= 0xdc80 && code <= 0xdcff ? Uint8Array.of(code - 0xdc00) : encoder.encode(sign);
  });
  return new Blob(pieces, { type: "text/csv" });
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(bytes(asCsv()));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// -- keys and buttons ----------------------------------------------------------------------------

const relabel = (number) => {
  const name = data.shown[at].others[number];
  if (name !== undefined) decide("relabel", name);
};
const ACTIONS = {
  keep: () => decide("keep"),
  relabel: () => relabel(0),
  drop: () => decide("drop"),
  undo,
  before: () => show(at - 1),
  after: () => show(at + 1),
  download,
};
const KEYS = { k: "keep", r: "relabel", d: "drop", u: "undo", s: "download", arrowleft: "before", arrowright: "after" };

for (const [id, action] of Object.entries(ACTIONS)) part(id).addEventListener("click", action);

part("any").append(new Option("…", ""), ...data.classes.map((name) => new Option(name, name)));
part("any").addEventListener("change", (event) => {
  event.target.blur(); // so that the next key decides again
  if (event.target.value) decide("relabel", event.target.value);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("select, input:not([type=checkbox])");
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !part("keys").checked) return;
  const id = KEYS[event.key.toLowerCase()];
  if (id) ACTIONS[id]();
  else if (/^[1-9]$/.test(event.key)) relabel(Number(event.key) - 1);
  else return;
  event.preventDefault();
});

part("tools").hidden = false;
document.body.classList.add("deciding");
show(0);
