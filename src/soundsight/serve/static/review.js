// The page of `soundsight review`: one detection after the other, decided by one key.

import { $, percent, readable, say } from "/static/common.js";
import { clock, drawSound, readGrey } from "/static/draw.js";

const GUTTER = 44; // pixels left of the picture, for hertz
const FOOT = 24; // pixels below it, for seconds
const VERDICTS = { y: "yes", n: "no", u: "unsure" };
const SAID = { yes: "yes", no: "none of the classes", other: "another class", several: "several", unsure: "unsure" };

const audio = $("audio");
let state = null; // what /api/review says
let shown = null; // {picture, grey} of the item, null while it is on its way
let chooser = null; // {several, chosen, at} while classes are chosen
let waiting = false; // for the service
const pictures = new Map(); // by number: promises, the next one in advance

async function ask(path, body) {
  const how = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(path, how).catch(() => {
    throw new Error("The service cannot be reached; see whether `soundsight review` is still running.");
  });
  const said = await reply.json();
  if (!reply.ok) throw new Error(said.error);
  return said;
}

function picture(number) {
  if (!pictures.has(number)) {
    const coming = ask(`/api/review/${number}/picture`).then(async (found) => ({ ...found, grey: await readGrey(found.png) }));
    coming.catch(() => pictures.delete(number));
    pictures.set(number, coming);
  }
  return pictures.get(number);
}

/** Send a decision, or take the last one back, and show what is next. */
async function send(path, body) {
  if (waiting) return;
  waiting = true;
  try {
    const next = await ask(path, body);
    say("");
    await show(next);
  } catch (error) {
    say(error.message);
  } finally {
    waiting = false;
  }
}

async function show(next) {
  state = next;
  shown = null;
  const { item, total, left, verdicts } = state;
  audio.pause();
  $("left").textContent = `${total - left} of ${total} reviewed · ${left} left`;
  $("level").style.width = `${(100 * (total - left)) / Math.max(total, 1)}%`;
  $("verdicts").textContent = Object.entries(verdicts).map(([verdict, count]) => `${SAID[verdict]}: ${count}`).join(" · ");
  $("item").hidden = !item;
  $("done").hidden = Boolean(item);
  close();
  if (!item) return;
  $("label").textContent = `${readable(item.label)}?`;
  $("percent").textContent = percent(item.probability);
  $("recording").textContent = `${item.recording}, ${clock(item.start, 1)} to ${clock(item.end, 1)}${item.end < 60 ? " s" : ""}`;
  for (const part of ["span", "head"]) $(part).hidden = true;
  try {
    const found = await picture(item.number);
    if (state !== next) return;
    shown = found;
    audio.src = `/api/review/${item.number}/sound.wav`;
    paint();
    $("item").dataset.number = item.number;
    audio.play().catch(() => {}); // before the first key, browsers may forbid it
  } catch (error) {
    say(`${error.message} Decide U, unsure, to go on.`);
  }
  if (state.following !== null) picture(state.following).catch(() => {});
}

const place = (seconds) => GUTTER + (seconds / shown.duration) * ($("stage").clientWidth - GUTTER);

function paint() {
  if (!shown) return;
  const { item } = state;
  $("picture").setAttribute("aria-label", `Spectrogram of ${item.recording} around ${clock(item.start, 1)}`);
  drawSound($("picture"), { sound: shown.grey, seconds: shown.seconds, duration: shown.duration, ticks: shown.ticks, gutter: GUTTER, foot: FOOT });
  const [from, to] = [item.start, item.end].map((time) => place(Math.min(time - item.shown_start, shown.duration)));
  $("span").hidden = false;
  $("span").style.left = `${from}px`;
  $("span").style.width = `${to - from}px`;
  for (const part of ["span", "head"]) $(part).style.bottom = `${FOOT}px`;
  head();
}

function head() {
  $("head").hidden = !shown;
  if (shown) $("head").style.left = `${place(Math.min(audio.currentTime, shown.duration))}px`;
  if (!audio.paused) requestAnimationFrame(head);
}

function play() {
  if (!audio.paused) return audio.pause();
  if (audio.ended) audio.currentTime = 0;
  audio.play().catch(() => say("This browser cannot play the sound; the picture is right all the same."));
}

// Choosing classes

function open(several) {
  chooser = { several, chosen: [], at: 0 };
  $("chooser").hidden = false;
  $("chooser-text").textContent = several
    ? "Which classes? Type to find or to add a new one; Enter adds it, Enter on an empty line ends."
    : "Which class? Type to find or to add a new one; Enter takes it.";
  $("finish").hidden = !several;
  $("filter").value = "";
  list();
  $("filter").focus();
}

function close() {
  chooser = null;
  $("chooser").hidden = true;
  document.activeElement?.blur();
}

function found() {
  const text = $("filter").value.trim();
  const fits = (name) => readable(name).toLowerCase().includes(readable(text).toLowerCase());
  const names = state.names.filter((name) => fits(name) && !chooser.chosen.includes(name) && (chooser.several || name !== state.item.label));
  const known = state.names.some((name) => name.toLowerCase() === text.toLowerCase());
  return text && !known ? [...names, text] : names;
}

function list() {
  const names = found();
  chooser.at = Math.max(0, Math.min(chooser.at, names.length - 1));
  $("chosen").textContent = chooser.chosen.map(readable).join(", ");
  $("finish").disabled = !chooser.chosen.length;
  $("names").replaceChildren(
    ...names.map((name, row) => {
      const item = document.createElement("li");
      item.id = `name-${row}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", row === chooser.at);
      item.textContent = state.names.includes(name) ? readable(name) : `new class: ${name}`;
      item.addEventListener("click", () => take(name));
      return item;
    }),
  );
  $("filter").setAttribute("aria-activedescendant", names.length ? `name-${chooser.at}` : "");
  $("names").children[chooser.at]?.scrollIntoView({ block: "nearest" });
}

function take(name) {
  if (!chooser.several) return decide("other", [name]);
  chooser.chosen.push(name);
  $("filter").value = "";
  chooser.at = 0;
  list();
  $("filter").focus();
}

function choose(event) {
  const names = found();
  if (event.key === "Escape") close();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    chooser.at += event.key === "ArrowDown" ? 1 : -1;
    list();
  } else if (event.key === "Enter") {
    if (chooser.several && !$("filter").value.trim() && chooser.chosen.length) decide("several", chooser.chosen);
    else if (names.length) take(names[chooser.at]);
  } else if (event.key === "Done") decide("several", chooser.chosen);
  else return;
  event.preventDefault();
}

const decide = (verdict, labels = []) => send(`/api/review/${state.item.number}`, { verdict, labels });

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !state) return;
  if (event.key === "Enter" && event.target?.tagName === "BUTTON") return; // which it presses
  if (chooser) return choose(event);
  const pressed = event.key.toLowerCase();
  if (pressed === "z" || pressed === "backspace") send("/api/review/undo", {});
  else if (!state.item) return;
  else if (pressed in VERDICTS) decide(VERDICTS[pressed]);
  else if (pressed === "a" || pressed === "s") open(pressed === "s");
  else if (pressed === " ") play();
  else return;
  event.preventDefault();
}

async function start() {
  addEventListener("keydown", key);
  for (const button of document.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => {
      button.blur(); // so that the space bar plays
      key(new KeyboardEvent("keydown", { key: button.dataset.key }));
    });
  }
  $("filter").addEventListener("input", () => { chooser.at = 0; list(); });
  for (const event of ["play", "pause", "ended", "seeked"]) {
    audio.addEventListener(event, () => { $("play").textContent = audio.paused ? "Play" : "Pause"; head(); });
  }
  addEventListener("resize", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  try {
    await show(await ask("/api/review"));
  } catch (error) {
    say(error.message);
  }
  document.documentElement.dataset.ready = "yes";
}

start();
