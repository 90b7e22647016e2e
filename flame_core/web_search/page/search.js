// The search page: asks the JSON interface of the same server, and shows what it answers.
const $ = (id) => document.getElementById(id);
const COLOURS = ["#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#e8a500", "#0c8599"];
let about, asked = {}, latest = 0, shown = null;

async function request(path, body) {
  const answer = await fetch(path, body === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })
    .catch(() => { throw new Error("The server does not answer: is `flame serve` still running?"); });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

const picture = (index, number, side, square = false) =>
  "/api/picture?" + new URLSearchParams({ index, number, side, square });

function say(text, style) {
  $("said").textContent = text;
  $("said").className = "pill " + style;
  $("said").hidden = !text;
}

async function search() {
  if (!Object.keys(asked).length) return;
  const own = ++latest, index = $("index").value;
  document.body.classList.add("busy");
  const facets = asked.text === undefined ? 0 : Number($("facets").value);
  const slow = setTimeout(() => say("Searching; the first text that is new also waits for the LLM to be loaded.", ""), 1500);
  try {
    const found = await request("/api/search", { ...asked, index, top: 24, facets });
    if (own !== latest) return;
    clearTimeout(slow);
    say(found.nearness.said, found.nearness.near ? "" : "far");
    $("hits").replaceChildren(...found.hits.map((hit) => card(hit, index)));
  } catch (error) {
    if (own === latest) { clearTimeout(slow); say(error.message, "wrong"); $("hits").replaceChildren(); }
  } finally {
    clearTimeout(slow);
    if (own === latest) document.body.classList.remove("busy");
  }
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/* A picture is known by its number in the index that was searched, which may no longer be the chosen one. */
function card(hit, index) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const image = new Image();
  image.loading = "lazy";
  image.alt = hit.caption || hit.key;
  image.src = picture(index, hit.number, 320);
  const caption = element("div", "caption", hit.caption);
  caption.dir = "auto";
  const words = element("div", "active", hit.words.map(([word, share]) => `${word} ${share.toFixed(2)}`).join(" · "));
  words.dir = "auto";
  button.append(image, element("b", "", hit.score.toFixed(3)), caption, words, element("div", "key", hit.key));
  button.addEventListener("click", () => open(hit, index));
  item.append(button);
  return item;
}

function askText(text) {
  asked = text.trim() ? { [$("by-words").checked ? "words" : "text"]: text } : {};
  $("asked").hidden = true;
  history.replaceState(null, "", text.trim() ? "#" + new URLSearchParams({ text }) : " ");
  return search();
}

function askPicture(encoded, address) {
  asked = encoded;
  $("text").value = "";
  $("asked").src = address;
  $("asked").hidden = false;
  history.replaceState(null, "", " ");
  return search();
}

function askFile(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.addEventListener("load", () => askPicture({ picture: reader.result.split(",")[1] || "" }, URL.createObjectURL(file)));
  reader.readAsDataURL(file);
}

async function open(hit, index) {
  shown = { hit, index, patches: null };
  $("view").src = picture(index, hit.number, 640, true);
  $("view").alt = $("detail-title").textContent = hit.caption || hit.key;
  $("detail-key").textContent = `${hit.key} · ${hit.score.toFixed(3)}`;
  $("modes").hidden = !about.patches;
  $("likeness-label").hidden = asked.text === undefined;
  $("given-label").hidden = !hit.words.length;
  document.querySelector("[name=mode][value=none]").checked = true;
  draw();
  $("detail").showModal();
}

async function draw() {
  const mode = document.querySelector("[name=mode]:checked").value;
  $("cells").replaceChildren();
  $("words").replaceChildren();
  $("detail-said").textContent = "";
  if (mode === "none") return;
  const own = shown;
  try {
    own.patches ??= await request("/api/patches",
      { index: own.index, number: own.hit.number, ...(asked.text === undefined ? {} : { text: asked.text }),
        ...(own.hit.words.length ? { words: own.hit.words.map(([word]) => word).join(", ") } : {}) });
  } catch (error) {
    $("detail-said").textContent = error.message;
    return;
  }
  if (own !== shown) return;
  const [rows, columns] = own.patches.grid;
  $("cells").style.grid = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
  if (mode === "words") drawWords(own.patches.words);
  else if (mode === "given") drawGiven(own.patches.given, own.hit.words, 0);
  else drawLikeness(own.patches.likeness);
}

function drawWords(words) {
  if (!words) {
    $("detail-said").textContent = "This model's space has no words: it was not trained on facets of an LLM, or the LLM is not here.";
    return;
  }
  const counts = new Map();
  for (const word of words.flat()) counts.set(word, (counts.get(word) || 0) + 1);
  const common = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, COLOURS.length);
  const colour = new Map(common.map(([word], place) => [word, COLOURS[place]]));
  $("cells").replaceChildren(...words.flat().map((word) => {
    const cell = element("span", "", word);
    if (colour.has(word)) cell.style.background = colour.get(word) + "73";
    return cell;
  }));
  $("words").replaceChildren(...common.map(([word, count]) => {
    const item = element("li", "", `${word} ${Math.round(100 * count / words.flat().length)} %`);
    const dot = document.createElement("i");
    dot.style.background = colour.get(word);
    item.prepend(dot);
    return item;
  }));
}

function drawHeat(grid) {
  const flat = grid.flat();
  const low = Math.min(...flat), high = Math.max(...flat);
  $("cells").replaceChildren(...flat.map((value) => {
    const cell = element("span", "", value.toFixed(2));
    cell.style.background = `rgb(217 72 15 / ${(0.75 * (value - low) / Math.max(high - low, 1e-9)).toFixed(2)})`;
    return cell;
  }));
  return $("cells").children[flat.indexOf(high)];
}

function drawLikeness(likeness) {
  drawHeat(likeness);
  $("detail-said").textContent = "Cosine of every patch with the text; the strongest colour is the nearest patch.";
}

function drawGiven(given, words, chosen) {
  drawHeat(given[chosen].patches).classList.add("largest");
  $("words").replaceChildren(...words.map(([word, share], place) => {
    const item = element("li", ""), button = element("button", "", `${word} ${share.toFixed(2)}`);
    button.type = "button";
    button.setAttribute("aria-pressed", place === chosen);
    button.addEventListener("click", () => drawGiven(given, words, place));
    item.append(button);
    return item;
  }));
  $("detail-said").textContent = `What every patch gives to “${given[chosen].word}”: the framed one gives the picture its weight.`;
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); askText($("text").value); });
$("index").addEventListener("change", () => {
  if (asked.number === undefined) { search(); return; }
  latest++;
  asked = {};
  $("asked").hidden = true;
  $("hits").replaceChildren();
  document.body.classList.remove("busy");
  say("A picture of another index was asked: look for a text, or choose a picture.", "");
});
$("facets").addEventListener("input", () => { $("weight").textContent = $("facets").value; });
$("facets").addEventListener("change", search);
$("by-words").addEventListener("change", () => askText($("text").value));
$("file").addEventListener("change", () => {
  askFile($("file").files[0]);
  $("file").value = ""; /* so that the same file can be chosen again */
});
$("similar").addEventListener("click", () => {
  $("detail").close();
  $("index").value = shown.index;
  askPicture({ number: shown.hit.number }, picture(shown.index, shown.hit.number, 96));
});
for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", draw);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") askFile(event.dataTransfer.files[0]);
  });
}

about = await request("/api/model").catch((error) => { say(error.message, "wrong"); throw error; });
$("model").textContent = `${about.title} · ${about.dimensions} dimensions`;
$("index").replaceChildren(...about.indexes.map((name) => new Option(name, name)));
$("index-label").hidden = about.indexes.length < 2;
$("facets-label").hidden = !about.facets;
$("by-words-label").hidden = !about.words;
const linked = new URLSearchParams(location.hash.slice(1)).get("text");
if (linked) { $("text").value = linked; askText(linked); }
