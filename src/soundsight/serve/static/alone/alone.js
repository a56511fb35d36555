// The page without a server: ONNX Runtime computes the model in the browser, from samples to probabilities.

import * as ort from "./runtime/ort.wasm.min.mjs";

const $ = (id) => document.getElementById(id);
const LIVE_SECONDS = 600; // of the microphone; after that it stops
const WIDTH = 150; // pixels of a segment
const HEIGHT = 220;
const LANE = 34;

let model = null; // model.json: classes, thresholds, rate, clip in samples, rules of segments
let session = null;
let microphone = null;
let shown = { name: "", segments: [] };
let turn = Promise.resolve(); // one run at a time

function say(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function busy(text) {
  $("status-text").textContent = text;
  $("status").hidden = !text;
}

// From samples to segments, by the rules of `soundsight predict`

/** Where segments begin and how many samples they have. */
function cut(total) {
  const { clip, shortest, leastShare } = model;
  const found = [];
  for (let begin = 0; begin < total; begin += clip) {
    const samples = Math.min(clip, total - begin);
    if (begin && samples <= shortest) break;
    if (begin && samples < leastShare * clip) found.push([total - clip, clip]);
    else found.push([begin, samples]);
  }
  return found;
}

/** Class and probability of a row of probabilities; all are 0 in digital silence. */
function decide(row) {
  const order = [...row.keys()].sort((a, b) => row[b] - row[a]);
  const best = order[0];
  if (row[best] === 0) return { labels: ["silence"], probability: 0 };
  if (!model.multi) {
    return { labels: [row[best] >= model.least[best] ? model.names[best] : "unknown"], probability: row[best] };
  }
  const reported = order.filter((k) => row[k] >= model.least[k]);
  if (!reported.length) return { labels: ["background"], probability: 1 - row[best] };
  return { labels: reported.map((k) => model.names[k]), probability: row[reported[0]] };
}

/** The prediction of one segment. */
function predict(samples, begin) {
  const work = turn.then(async () => {
    const found = await session.run({ samples: new ort.Tensor("float32", samples, [1, samples.length]) });
    const row = Array.from(found.probabilities.data);
    const start = begin / model.rate;
    return { start, end: start + samples.length / model.rate, row, image: found.spectrogram.data, ...decide(row) };
  });
  turn = work.catch(() => {});
  return work;
}

async function readFile(file) {
  say("");
  busy(`Reading ${file.name} ...`);
  try {
    const sound = await decode(file);
    shown = { name: file.name, segments: [] };
    const parts = cut(sound.length);
    for (const [begin, samples] of parts) {
      busy(`Computing ${shown.segments.length + 1} of ${parts.length} segments ...`);
      shown.segments.push(await predict(sound.slice(begin, begin + samples), begin));
      show();
    }
    document.documentElement.dataset.done = file.name;
  } catch (error) {
    say(error.message);
  } finally {
    busy("");
  }
}

/** Mono samples at the model's rate; the browser resamples. */
async function decode(file) {
  const context = new OfflineAudioContext(1, 1, model.rate);
  let sound;
  try {
    sound = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is no sound that this browser can decode; convert it to WAV, MP3 or FLAC.`);
  }
  if (!sound.length) throw new Error(`${file.name} holds no sound.`);
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    const channel = sound.getChannelData(c);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / sound.numberOfChannels;
  }
  return mono;
}

// The microphone, a clip at a time

async function listen() {
  if (microphone) return stop();
  say("");
  try {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("This browser gives pages a microphone over https or from localhost only; drop a file instead.");
    }
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio }).catch(() => {
      throw new Error("The microphone may not be used, or there is none; allow it in the browser, or drop a file instead.");
    });
    const context = new AudioContext({ sampleRate: model.rate });
    microphone = { stream, context, clip: new Float32Array(model.clip), filled: 0, begin: 0 };
    shown = { name: `microphone-${new Date().toTimeString().slice(0, 8).replaceAll(":", "")}`, segments: [] };
    await context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1 });
    node.port.onmessage = ({ data }) => take(data);
    context.createMediaStreamSource(stream).connect(node);
    pressed(true);
  } catch (error) {
    say(error.message);
    stop();
  }
}

function take(chunk) {
  const mine = microphone;
  if (!mine) return;
  const peak = chunk.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
  $("level").style.width = `${Math.min(100, 100 + 34 * Math.log10(Math.max(peak, 1e-5)))}%`;
  for (const value of chunk) {
    mine.clip[mine.filled++] = value;
    if (mine.filled < model.clip) continue;
    const into = shown.segments;
    predict(mine.clip.slice(), mine.begin).then((segment) => {
      into.push(segment);
      show();
    }, (error) => say(error.message));
    mine.begin += model.clip;
    mine.filled = 0;
  }
  if (mine.begin / model.rate >= LIVE_SECONDS) stop();
}

function stop() {
  microphone?.stream.getTracks().forEach((track) => track.stop());
  microphone?.context.close();
  microphone = null;
  pressed(false);
}

function pressed(on) {
  $("record").setAttribute("aria-pressed", on);
  $("record-text").textContent = on ? "Stop" : "Microphone";
  $("meter").hidden = !on;
}

// What is shown

/** Neighbouring segments of one class as one event, with its highest probability. */
function events() {
  const found = [];
  for (const label of new Set(shown.segments.flatMap((segment) => segment.labels))) {
    let open = null;
    for (const segment of shown.segments) {
      const at = model.names.indexOf(label);
      const probability = segment.labels.length > 1 && at >= 0 ? segment.row[at] : segment.probability;
      if (!segment.labels.includes(label)) open = null;
      else if (open && segment.start <= open.end + 1e-6) {
        open.end = segment.end;
        open.probability = Math.max(open.probability, probability);
      } else found.push((open = { start: segment.start, end: segment.end, label, probability }));
    }
  }
  return found.sort((a, b) => a.start - b.start);
}

function csv() {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = events().map((event) =>
    [quoted(shown.name), event.start.toFixed(3), event.end.toFixed(3), quoted(event.label), event.probability.toFixed(6), 1].join(","),
  );
  return ["recording,start,end,label,probability,rank", ...rows, ""].join("\n");
}

function show() {
  const last = shown.segments.at(-1);
  $("result").hidden = false;
  $("recording").textContent = `${shown.name}, ${last.start.toFixed(1)} to ${last.end.toFixed(1)} s`;
  $("label").textContent = last.labels.join(", ").replaceAll("_", " ");
  $("percent").textContent = `${(100 * last.probability).toFixed(1)} %`;
  $("events").replaceChildren(
    ...events().map((event) => {
      const row = document.createElement("tr");
      const texts = [`${event.start.toFixed(1)} s`, `${event.end.toFixed(1)} s`, event.label.replaceAll("_", " "), `${(100 * event.probability).toFixed(1)} %`];
      row.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    }),
  );
  plot();
  window.soundsight = { segments: shown.segments, csv: csv() };
}

function plot() {
  const canvas = $("picture");
  const context = canvas.getContext("2d");
  const recent = shown.segments.slice(-100); // a canvas has a largest width
  canvas.width = WIDTH * recent.length;
  canvas.height = HEIGHT + LANE;
  const small = new OffscreenCanvas(model.size, model.size);
  recent.forEach((segment, k) => {
    const pixels = new ImageData(model.size, model.size);
    const area = model.size ** 2;
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round(255 * segment.image[c * area + i]);
      pixels.data[4 * i + 3] = 255;
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    const x = WIDTH * k;
    context.drawImage(small, x, 0, WIDTH, HEIGHT);
    const at = Math.max(0, model.names.indexOf(segment.labels[0]));
    context.fillStyle = model.names.includes(segment.labels[0]) ? `hsl(${(at * 137.5) % 360} 55% 42%)` : "#777";
    context.globalAlpha = 0.35 + 0.65 * segment.probability;
    context.fillRect(x, HEIGHT + 4, WIDTH - 1, LANE - 4);
    context.globalAlpha = 1;
    context.fillStyle = "#fff";
    context.font = "13px system-ui, sans-serif";
    context.fillText(segment.labels.join(", ").replaceAll("_", " "), x + 6, HEIGHT + 23, WIDTH - 12);
  });
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `${shown.name}.csv`;
  link.click();
}

// Setting up

function wire() {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) readFile(target.files[0]);
    target.value = "";
  });
  $("record").addEventListener("click", listen);
  $("save").addEventListener("click", save);
  let depth = 0;
  const hover = (change) => ($("drop").hidden = (depth = Math.max(0, depth + change)) === 0);
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && hover(1));
  addEventListener("dragleave", () => hover(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    hover(-depth);
    if (event.dataTransfer.files[0]) readFile(event.dataTransfer.files[0]);
  });
}

async function start() {
  try {
    model = await (await fetch("model.json")).json();
    $("model").textContent = `${model.names.length} classes · ${model.clip / model.rate} s at a time · ${model.rate / 1000} kHz`;
    ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
    ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
    session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  } catch (error) {
    busy("");
    return say(`The model cannot be loaded (${error.message}).`);
  }
  busy("");
  wire();
  $("choose").disabled = $("record").disabled = false;
  if ("serviceWorker" in navigator) await navigator.serviceWorker.register("sw.js").catch(() => {});
  document.documentElement.dataset.ready = "yes";
}

start();
