import { startPage } from "./page.js";

const headers = {};
const MOST_CLASSES = 999999;

async function ask(address, options = {}) {
  const response = await fetch(address, { ...options, headers });
  if (response.status === 401 && askToken()) return ask(address, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(sentence(answer.error ?? `the server answered ${response.status}`));
  return answer;
}

function askToken() {
  const token = prompt("This server needs a token:");
  if (token) headers.authorization = `Bearer ${token}`;
  return Boolean(token);
}

function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

startPage({
  about: () => ask("about"),
  classify: (file) => ask(`predict?top_k=${MOST_CLASSES}`, { method: "POST", body: file }),
  promise: "The photo is sent to this server, answered, and not kept.",
});
