// Sound in the browser: the microphone as WAV, and formats that the server does not decode turned into WAV.

const RECORDER = "/static/recorder.js";

/** 16-bit mono WAV of Float32 samples in [-1, 1]. */
export function encodeWav(chunks, rate) {
  const samples = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples));
  const text = (at, value) => [...value].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  let at = 44;
  for (const chunk of chunks) {
    for (const value of chunk) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

/** Decode what the browser can play (M4A, WebM, ...) to a mono WAV at 48 kHz. */
export async function toWav(file) {
  const context = new OfflineAudioContext(1, 1, 48000);
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    const channel = sound.getChannelData(c);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / sound.numberOfChannels;
  }
  return encodeWav([mono], sound.sampleRate);
}

/** The microphone, as it is: no echo cancelling, noise suppression or automatic gain. */
export class Recorder {
  constructor(maxSeconds, onLevel) {
    this.maxSeconds = maxSeconds;
    this.onLevel = onLevel; // (seconds, peak)
    this.chunks = [];
    this.samples = 0;
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("This browser gives pages a microphone over https or from 127.0.0.1 only; drop a file instead.");
    }
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new Error(
        error.name === "NotFoundError"
          ? "No microphone was found; connect one, or drop a file instead."
          : "The microphone may not be used by this page; allow it in the browser, or drop a file instead.",
      );
    }
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(RECORDER);
    await this.context.resume();
    const source = this.context.createMediaStreamSource(this.stream);
    this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0, channelCount: 1 });
    this.node.port.onmessage = ({ data }) => this.take(data);
    source.connect(this.node);
  }

  take(chunk) {
    this.chunks.push(chunk);
    this.samples += chunk.length;
    const seconds = this.samples / this.context.sampleRate;
    this.onLevel(seconds, chunk.reduce((top, value) => Math.max(top, Math.abs(value)), 0));
  }

  async stop() {
    const rate = this.context.sampleRate;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    const name = `recording-${new Date().toTimeString().slice(0, 8).replaceAll(":", "")}.wav`;
    return new File([encodeWav(this.chunks, rate)], name, { type: "audio/wav" });
  }
}
