// The page: a recording goes in, by file, by drop, by microphone or as an example.

import { $, ask, busy, readable, say } from "/static/common.js";
import { clock, readGrey } from "/static/draw.js";
import { Recorder, toWav } from "/static/sound.js";
import { hush, show, wireView } from "/static/view.js";

let model = null; // what /api/model says
let recorder = null;
let asked = 0; // number of the latest request; older answers are dropped

async function listen(file) {
  const number = ++asked;
  hush();
  say("");
  busy(`Listening to ${file.name} ...`);
  try {
    const sent = await readableBytes(file);
    if (sent.size > model.max_bytes) {
      throw new Error(`${file.name} is larger than the ${model.max_bytes / 1e6} MB that this service takes; send a shorter stretch.`);
    }
    const answer = await ask("/api/predict", { picture: true, hop_seconds: model.clip_seconds / 2 }, sent);
    const sound = await readGrey(answer.picture.png);
    if (number === asked) show({ file: sent, answer, sound });
  } catch (error) {
    if (number === asked) say(error.message);
  } finally {
    if (number === asked) busy("");
  }
}

/** The file itself, or its sound as WAV where the server knows no such format. */
async function readableBytes(file) {
  const suffix = file.name.includes(".") ? `.${file.name.split(".").pop().toLowerCase()}` : "";
  if (!suffix || model.formats.includes(suffix)) return file;
  try {
    return new File([await toWav(file)], file.name, { type: "audio/wav" });
  } catch {
    return file; // let the service say what it thinks of it
  }
}

// Recording

async function record() {
  if (recorder) {
    const done = recorder;
    recorder = null;
    setRecording(false);
    await listen(await done.stop());
    return;
  }
  say("");
  const mine = new Recorder(model.max_seconds, (seconds, peak) => {
    $("record-text").textContent = `Stop (${clock(seconds, 1)})`;
    $("level").style.width = `${Math.min(100, 100 + 20 * Math.log10(Math.max(peak, 1e-5)) * 1.7)}%`;
    if (seconds >= model.max_seconds - 0.2 && recorder === mine) record();
  });
  try {
    $("record").disabled = true;
    await mine.start();
    recorder = mine;
    setRecording(true);
  } catch (error) {
    say(error.message);
  } finally {
    $("record").disabled = false;
  }
}

function setRecording(on) {
  $("record").setAttribute("aria-pressed", on);
  $("record-text").textContent = on ? "Stop (0.0)" : "Record";
  $("meter").hidden = !on;
}

// Setting up

function wire() {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) listen(target.files[0]);
    target.value = "";
  });
  $("record").addEventListener("click", record);
  wireDrop();
}

function wireDrop() {
  let depth = 0;
  const hover = (change) => {
    depth = Math.max(0, depth + change);
    $("drop").hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && hover(1));
  addEventListener("dragleave", () => hover(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    hover(0);
    if (event.dataTransfer.files[0]) listen(event.dataTransfer.files[0]);
  });
}

async function tryExample({ name, title }) {
  busy(`Synthesising ${title.toLowerCase()} ...`);
  const reply = await fetch(`/api/examples/${name}.flac`);
  await listen(new File([await reply.blob()], `${name}.flac`, { type: "audio/flac" }));
}

async function start() {
  model = await (await fetch("/api/model")).json();
  const { names, clip_seconds, sample_rate } = model;
  $("model").textContent = `${names.length} classes · ${clip_seconds} s at a time · ${sample_rate / 1000} kHz`;
  $("known-title").textContent = `This model knows ${names.length} sounds`;
  for (const name of [...names].sort()) {
    const item = document.createElement("li");
    item.textContent = readable(name);
    $("known-names").append(item);
  }
  $("known").hidden = false;
  for (const example of model.examples) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example.title;
    button.addEventListener("click", () => tryExample(example));
    $("examples").append(button);
  }
  wireView(model);
  wire();
  document.documentElement.dataset.ready = "yes";
}

start();
