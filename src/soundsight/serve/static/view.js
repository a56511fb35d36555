// The result: shown, played, moved through, and explained.

import { $, ask, busy, percent, readable, say } from "/static/common.js";
import { clock, drawSound, readGrey } from "/static/draw.js";

const GUTTER = 44; // pixels left of the picture, for hertz
const FOOT = 24; // pixels below it, for seconds
const PLAY = "M8 5v14l11-7z";
const PAUSE = "M7 5h4v14H7zm6 0h4v14h-4z";

const audio = $("audio");
let model = null; // what /api/model says
let shown = null; // {file, answer, sound, url, scope, at, heat, mute}

/** Show what the service said of a file. */
export function show({ file, answer, sound }) {
  if (shown) URL.revokeObjectURL(shown.url);
  const url = URL.createObjectURL(file);
  shown = { file, answer, sound, url, scope: "whole", heat: null, mute: false };
  audio.src = url;
  $("result").hidden = false;
  $("recording").textContent = `${answer.recording}, ${clock(answer.duration_seconds, 1)}${answer.duration_seconds < 60 ? " s" : " min"}`;
  document.body.classList.add("answered");
  headline(answer);
  $("scope").hidden = answer.windows.length < 2;
  $("damage").textContent = answer.damage;
  $("damage").hidden = !answer.damage;
  $("stage").setAttribute("aria-valuemax", answer.duration_seconds);
  $("picture").setAttribute("aria-label", `Spectrogram of ${answer.recording}`);
  $("caption").textContent = usualCaption();
  makeTracks();
  move(0);
  paint();
  bars();
  document.title = `${$("label").textContent} - Soundsight`;
  $("result").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

/** The labels of a part: all its classes, or else unknown, background or silence. */
const labelsOf = (part) => (part.labels.length ? part.labels : [part.label]);

/** One class and its probability; or, where there are several, which ones, the most frequent first. */
function headline(answer) {
  const counts = new Map();
  for (const label of answer.windows.flatMap(labelsOf)) counts.set(label, (counts.get(label) ?? 0) + 1);
  if (counts.size > 1) counts.delete("background");
  const labels = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).map(readable);
  const several = labels.length > 1;
  const rest = labels.length > 4 ? ` and ${labels.length - 3} more` : "";
  $("label").textContent = several ? labels.slice(0, rest ? 3 : 4).join(", ") + rest : readable(answer.label);
  $("label").classList.toggle("several", several);
  $("percent").textContent = several || !answer.top.length ? "" : percent(answer.probability);
}

function paint() {
  if (!shown) return;
  const { answer, sound, heat } = shown;
  const many = answer.windows.length > 1;
  const view = { sound, seconds: answer.picture.seconds, ticks: answer.picture.ticks, gutter: GUTTER, foot: FOOT };
  drawSound($("picture"), { ...view, heat: many ? null : heat, duration: answer.duration_seconds });
  $("detail").hidden = !(many && heat);
  if (many && heat) drawSound($("detail"), { ...view, heat, from: heat.start, duration: heat.end - heat.start });
  for (const [row, strip] of (answer.tracks?.strips ?? []).entries()) paintTrack($("tracks").children[row], strip);
  place();
}

function usualCaption() {
  const each = shown.answer.windows.length > 1 && model.reference === "clip";
  return each ? "One scale for the whole recording; the model processes each window relative to its own loudest point." : "";
}

const stamp = (seconds) => `${clock(seconds, 1)}${seconds < 60 ? " s" : ""}`;

function makeTracks() {
  const { tracks } = shown.answer;
  $("tracks").replaceChildren(
    ...(tracks?.classes ?? []).map((name) => {
      const row = document.createElement("div");
      row.className = "track";
      const title = document.createElement("span");
      title.textContent = readable(name);
      row.append(title, document.createElement("canvas"));
      return row;
    }),
  );
}

function paintTrack(row, strip) {
  const canvas = row.querySelector("canvas");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--track");
  const { edges } = shown.answer.tracks;
  const scale = canvas.width / shown.answer.duration_seconds;
  strip.forEach((value, i) => {
    const left = Math.round(edges[i] * scale);
    context.fillStyle = `rgba(${colour}, ${value ?? 0})`;
    context.fillRect(left, 0, Math.round(edges[i + 1] * scale) - left, canvas.height);
  });
}

/** The window whose middle is nearest to the play head. */
function here() {
  const distance = (w) => Math.abs((w.start + w.end) / 2 - shown.at);
  return shown.answer.windows.reduce((best, w) => (distance(w) < distance(best) ? w : best));
}

function bars() {
  const { answer, scope, heat } = shown;
  const part = scope === "here" ? here() : answer;
  $("scope-whole").setAttribute("aria-pressed", scope === "whole");
  $("scope-here").setAttribute("aria-pressed", scope === "here");
  const several = answer.windows.length > 1;
  $("scope-text").textContent =
    scope === "here"
      ? `From ${stamp(part.start)} to ${stamp(part.end)}`
      : several
        ? `${model.labels === "multi" ? "Highest" : "Mean"} over ${answer.windows.length} windows of ${model.clip_seconds} s`
        : "Top five";
  const rows = part.top.map(({ label, probability }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = !model.explains;
    button.title = model.explains ? `Show what spoke for ${readable(label)}` : "";
    button.setAttribute("aria-pressed", heat?.label === label);
    const [name, value, rail, fill] = ["span", "span", "div", "div"].map((tag) => document.createElement(tag));
    name.className = "name";
    name.textContent = readable(label);
    value.className = "value";
    value.textContent = percent(probability);
    rail.className = "rail";
    fill.className = "fill";
    fill.style.width = `${100 * probability}%`;
    rail.append(fill);
    button.append(name, value, rail);
    button.addEventListener("click", () => (heat?.label === label ? cool() : reason(label)));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  const focused = [...$("bars").querySelectorAll("button")].indexOf(document.activeElement);
  $("bars").replaceChildren(...rows);
  if (focused >= 0) rows[focused]?.firstChild.focus();
  $("bars-caption").textContent = part.top.length
    ? model.explains ? "Press a class to see what spoke for it." : ""
    : "Nothing but digital silence here.";
  $("why").textContent = `Why ${readable(heat?.label ?? part.top[0]?.label ?? "")}?`;
  $("why").hidden = !model.explains || !part.top.length;
  $("why").setAttribute("aria-pressed", Boolean(heat));
  for (const [row, track] of [...$("tracks").children].entries()) {
    track.classList.toggle("best", labelsOf(part).includes(answer.tracks.classes[row]));
  }
}

// The reasons

async function reason(label) {
  const { answer, scope, file } = shown;
  const about = label ?? (scope === "here" ? here() : answer).top[0].label; // also where it is unknown
  const chance = (w) => w.top.find((found) => found.label === about)?.probability ?? 0;
  const best = answer.windows.reduce((a, b) => (chance(b) > chance(a) ? b : a));
  const part = scope === "here" ? here() : best;
  const mine = shown;
  busy(`Looking for what spoke for ${readable(about)} ...`);
  try {
    const said = await ask("/api/explain", { start: part.start, label: about }, file);
    const grey = await readGrey(said.png);
    if (mine !== shown) return;
    shown.heat = { ...said, grey };
    $("caption").textContent =
      `Bright: what spoke for ${readable(said.label)} (${percent(said.probability)}) ` +
      `from ${stamp(said.start)} to ${stamp(said.end)}; most of all at ${stamp(said.peak_seconds)} and ${said.peak_hz} Hz.`;
    say("");
  } catch (error) {
    say(error.message);
  } finally {
    busy("");
  }
  paint();
  bars();
}

function cool() {
  shown.heat = null;
  $("caption").textContent = usualCaption();
  paint();
  bars();
}

// Playing and moving

function move(seconds) {
  const end = shown.answer.duration_seconds;
  shown.at = Math.min(Math.max(seconds, 0), end);
  $("time").textContent = `${clock(shown.at, 1)} / ${clock(end, 1)}`;
  $("stage").setAttribute("aria-valuenow", shown.at.toFixed(1));
  $("stage").setAttribute("aria-valuetext", `${clock(shown.at, 1)} of ${clock(end, 1)}`);
  place();
}

function place() {
  const inner = $("stage").clientWidth - GUTTER;
  const x = (seconds) => GUTTER + (seconds / shown.answer.duration_seconds) * inner;
  $("head").style.left = `${x(shown.at)}px`;
  const many = shown.answer.windows.length > 1;
  $("span").hidden = !(many && (shown.scope === "here" || shown.heat));
  const part = shown.heat && shown.scope === "whole" ? shown.heat : here();
  $("span").style.left = `${x(part.start)}px`;
  $("span").style.width = `${x(Math.min(part.end, shown.answer.duration_seconds)) - x(part.start)}px`;
}

/** Go somewhere as a person does: the answers follow. */
function go(seconds) {
  move(seconds);
  if (!shown.mute) audio.currentTime = shown.at;
  follow(true);
}

function follow(chosen = false) {
  if (shown.answer.windows.length < 2) return;
  if (chosen || shown.scope === "here") {
    shown.scope = "here";
    const part = here();
    if (shown.heat && part.start !== shown.heat.start) cool();
    bars();
    place();
  }
}

async function play() {
  if (shown.at >= shown.answer.duration_seconds - 0.05) go(0);
  try {
    await audio.play();
  } catch (error) {
    if (error.name !== "NotSupportedError") return; // stopped before it had begun
    shown.mute = true;
    say("This browser cannot play that format; the answers hold all the same.");
  }
}

function tick() {
  if (audio.paused || !shown) return;
  const before = here();
  move(audio.currentTime);
  if (here() !== before) follow();
  requestAnimationFrame(tick);
}

function onPlayState() {
  $("play-shape").setAttribute("d", audio.paused ? PLAY : PAUSE);
  $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  tick();
}

/** Connect the answer's own controls. */
export function wireView(facts) {
  model = facts;
  $("play").addEventListener("click", () => (audio.paused ? play() : audio.pause()));
  $("why").addEventListener("click", () => (shown.heat ? cool() : reason()));
  $("scope-whole").addEventListener("click", () => setScope("whole"));
  $("scope-here").addEventListener("click", () => setScope("here"));
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, onPlayState);
  const stage = $("stage");
  stage.addEventListener("click", (event) => {
    const box = stage.getBoundingClientRect();
    const share = (event.clientX - box.left - GUTTER) / (box.width - GUTTER);
    go(share * shown.answer.duration_seconds);
    play();
  });
  stage.addEventListener("keydown", (event) => {
    const length = shown.answer.duration_seconds;
    const step = length > 30 ? model.clip_seconds : length / 20;
    const to = { ArrowRight: shown.at + step, ArrowLeft: shown.at - step, Home: 0, End: length }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === " " || event.key === "Enter") audio.paused ? play() : audio.pause();
    else return;
    event.preventDefault();
  });
  window.addEventListener("resize", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}

function setScope(scope) {
  shown.scope = scope;
  bars();
  place();
}

/** Stop playing, since another recording is on its way. */
export function hush() {
  audio.pause();
}
