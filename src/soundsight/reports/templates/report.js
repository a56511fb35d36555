
// The report's own parts: confusion matrix, sortable table, clips. Drawing comes from draw.js, above.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const inPercent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Confusion matrix

const totals = data.confusion.map((row) => row.reduce((sum, n) => sum + n, 0));
const recall = data.confusion.map((row, i) => (totals[i] ? row[i] / totals[i] : 1));
const orders = {
  name: [...data.names.keys()].sort((a, b) => data.names[a].localeCompare(data.names[b])),
  confused: data.order,
  recall: [...data.names.keys()].sort((a, b) => recall[a] - recall[b]),
};
const matrix = byId("matrix");
let layout = null; // {left, top, side, order}
let chosen = null; // [row, column] on the canvas

function drawMatrix() {
  if (!matrix) return; // with several labels per clip there is none
  const order = orders[byId("order").value];
  const size = order.length;
  const font = size > 30 ? 11 : 13;
  const style = getComputedStyle(matrix);
  const context = matrix.getContext("2d");
  context.font = `${font}px ${style.fontFamily}`;
  const left = Math.min(Math.ceil(Math.max(...data.names.map((name) => context.measureText(name).width))) + 12, 0.4 * matrix.parentElement.clientWidth);
  const room = matrix.parentElement.clientWidth - 29 - left;
  const side = Math.max(font + 3, Math.min(46, Math.floor(room / size)));
  const width = left + side * size + 1;
  const ratio = window.devicePixelRatio || 1;
  matrix.width = width * ratio;
  matrix.height = width * ratio;
  matrix.style.width = matrix.style.height = `${width}px`;
  context.scale(ratio, ratio);
  context.font = `${font}px ${style.fontFamily}`;
  layout = { left, side, order };
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--cell");
  const share = byId("share").checked;
  const errors = byId("errors").checked;
  const value = (r, c) => (share ? data.confusion[r][c] / Math.max(totals[r], 1) : data.confusion[r][c]);
  const top = Math.max(...order.flatMap((r) => order.map((c) => (errors && r === c ? 0 : value(r, c)))), 1e-9);
  order.forEach((r, y) => {
    order.forEach((c, x) => {
      const shown = errors && r === c ? 0 : value(r, c);
      context.fillStyle = `rgba(${colour}, ${shown ? 0.07 + 0.93 * Math.sqrt(shown / top) : 0})`;
      context.fillRect(left + x * side, left + y * side, side, side);
      if (shown && side >= 20) number(context, share ? Math.round(100 * shown) || "<1" : shown, x, y, shown / top);
    });
  });
  names(context, order, style.color);
  frame(context, style.color);
}

function number(context, text, x, y, strength) {
  const { left, side } = layout;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  context.fillStyle = (strength > 0.35) === dark ? "#1d1a22" : "#fff";
  if (strength <= 0.35) context.fillStyle = getComputedStyle(matrix).color;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, left + (x + 0.5) * side, left + (y + 0.5) * side + 1);
}

function names(context, order, ink) {
  const { left, side } = layout;
  context.fillStyle = ink;
  context.textBaseline = "middle";
  order.forEach((index, place) => {
    context.textAlign = "right";
    context.fillText(data.names[index], left - 6, left + (place + 0.5) * side);
    context.save();
    context.translate(left + (place + 0.5) * side, left - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(data.names[index], 0, 0);
    context.restore();
  });
  context.globalAlpha = 0.6;
  context.textAlign = "left";
  context.fillText("true \u2193", 2, left - 22);
  context.fillText("named \u2192", 2, left - 8);
  context.globalAlpha = 1;
}

function frame(context, ink) {
  const { left, side, order } = layout;
  context.strokeStyle = ink;
  context.globalAlpha = 0.18;
  context.lineWidth = 0.5;
  context.beginPath();
  for (let i = 0; i <= order.length; i++) {
    context.moveTo(left, left + i * side);
    context.lineTo(left + order.length * side, left + i * side);
    context.moveTo(left + i * side, left);
    context.lineTo(left + i * side, left + order.length * side);
  }
  context.stroke();
  context.globalAlpha = 1;
  if (!chosen) return;
  context.lineWidth = 2;
  context.strokeRect(left + chosen[1] * side, left + chosen[0] * side, side, side);
}

function choose(cell, list) {
  chosen = cell;
  drawMatrix();
  if (!cell) return;
  const [r, c] = cell.map((place) => layout.order[place]);
  const count = data.confusion[r][c];
  const share = inPercent(count / Math.max(totals[r], 1));
  byId("cell").textContent =
    r === c
      ? `${count} of ${totals[r]} clips of ${data.names[r]} were named so (${share}).`
      : `${count} of ${totals[r]} clips of ${data.names[r]} were taken for ${data.names[c]} (${share}).`;
  if (list) {
    byId("cell-clips").replaceChildren(...(data.wrong[`${r},${c}`] ?? []).map((text) => element("li", { textContent: text })));
  }
}

function cellAt(event) {
  const box = matrix.getBoundingClientRect();
  const place = [event.clientY - box.top, event.clientX - box.left].map((p) => Math.floor((p - layout.left) / layout.side));
  return place.every((p) => p >= 0 && p < layout.order.length) ? place : null;
}

matrix?.addEventListener("mousemove", (event) => choose(cellAt(event), false));
matrix?.addEventListener("click", (event) => choose(cellAt(event), true));
matrix?.addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const clamp = (p) => Math.max(0, Math.min(layout.order.length - 1, p));
  choose(chosen ? [clamp(chosen[0] + step[0]), clamp(chosen[1] + step[1])] : [0, 0], true);
});
for (const id of ["order", "share", "errors"]) byId(id)?.addEventListener("change", () => choose(null, false));

// Table

function sortBy(column) {
  const heads = [...document.querySelectorAll("#classes thead th")];
  const up = heads[column].getAttribute("aria-sort") === "descending" || (column === 0 && !heads[0].ariaSort);
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = document.querySelector("#classes tbody");
  const key = (row) => {
    const cell = row.children[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)));
  body.replaceChildren(...rows);
}

document.querySelectorAll("#classes thead button").forEach((button, i) => button.addEventListener("click", () => sortBy(i)));

// Clips

const painters = [];

function card(index) {
  const clip = data.clips[index];
  const truth = clip.rank === 1 ? [] : [clip.true, " taken for "];
  const title = element("h4", {}, ...truth, element("em", { textContent: clip.predicted }), `, ${inPercent(clip.probability)}`);
  const rank = data.multi ? clip.rank > 1 && `${clip.rank - 1} wrong, ${clip.label} the most` : `true class on rank ${clip.rank}`;
  const where = [clip.name, clip.fold && `fold ${clip.fold}`, rank].filter(Boolean).join(" · ");
  const made = element("article", { className: "card" }, title, element("p", { className: "soft", textContent: where }));
  if (clip.note) made.append(element("p", { className: "soft", textContent: clip.note }));
  if (clip.picture) made.append(...pictured(clip));
  return made;
}

function pictured(clip) {
  const canvas = element("canvas");
  const head = element("div", { className: "head", hidden: true });
  const stage = element("div", { className: "stage" }, canvas, head);
  const row = element("div", { className: "row" });
  const state = { hot: false, sound: null, grey: null };
  const gutter = 40;
  const paint = () => {
    if (!state.sound) return;
    const heat = state.hot ? { grey: state.grey, start: 0, seconds: data.span, end: data.span } : null;
    drawSound(canvas, { sound: state.sound, heat, seconds: data.span, duration: clip.seconds, ticks: data.ticks, gutter, foot: 22 });
  };
  painters.push({ canvas, paint, load: async () => {
    state.sound = await readGrey(clip.picture);
    state.grey = clip.heat ? await readGrey(clip.heat) : null;
  } });
  if (clip.audio) row.append(player(clip, stage, head, gutter));
  if (clip.heat) {
    const why = element("button", { type: "button", textContent: `Why ${clip.label}?` });
    why.setAttribute("aria-pressed", "false");
    why.addEventListener("click", () => {
      state.hot = !state.hot;
      why.setAttribute("aria-pressed", state.hot);
      paint();
    });
    row.append(why);
  }
  return [stage, row];
}

function player(clip, stage, head, gutter) {
  const audio = element("audio", { controls: true, preload: "none", src: clip.audio });
  const follow = () => {
    head.hidden = false;
    head.style.left = `${gutter + (audio.currentTime / clip.seconds) * (stage.clientWidth - gutter)}px`;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", follow);
  stage.addEventListener("click", async (event) => {
    const share = (event.clientX - stage.getBoundingClientRect().left - gutter) / (stage.clientWidth - gutter);
    await audio.play();
    audio.currentTime = Math.max(0, share) * clip.seconds;
  });
  return audio;
}

function showClips() {
  for (const place of ["mistakes", "best"]) {
    const cards = data[place].map(card);
    byId(place)?.append(...(cards.length ? cards : [element("p", { textContent: "There are none." })]));
  }
  if (data.multi) return;
  for (const pair of data.pairs) {
    const [right, wrong] = [pair.true, pair.predicted].map((name) => name.replaceAll("_", " "));
    const count = element("span", { textContent: ` ${pair.clips} clips, ${inPercent(pair.share, 0)} of ${right}` });
    const heading = element("h3", {}, `${right} taken for ${wrong}`, count);
    const cards = element("div", { className: "cards" }, ...pair.shown.map(card));
    byId("pairs").append(element("div", { className: "pair" }, heading, cards));
  }
  if (!data.pairs.length) byId("pairs").append(element("p", { textContent: "There are none." }));
}

/** Images are read and rendered when they come near the screen. */
function watchClips() {
  const watcher = new IntersectionObserver(async (entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      watcher.unobserve(entry.target);
      const item = painters.find(({ canvas }) => canvas === entry.target);
      await item.load();
      item.paint();
    }
  }, { rootMargin: "300px" });
  painters.forEach(({ canvas }) => watcher.observe(canvas));
}

function redraw() {
  drawMatrix();
  painters.forEach(({ paint }) => paint());
}

showClips();
watchClips();
drawMatrix();
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
document.documentElement.dataset.ready = "yes";
