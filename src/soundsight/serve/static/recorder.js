// Runs beside the page's own thread and hands over what the microphone hears, a tenth of a second at a time.

class RecorderProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 10);
    this.start();
  }

  start() {
    this.chunk = new Float32Array(this.size);
    this.filled = 0;
  }

  process([input]) {
    for (const value of input[0] ?? []) {
      this.chunk[this.filled++] = value;
      if (this.filled === this.size) {
        this.port.postMessage(this.chunk, [this.chunk.buffer]);
        this.start();
      }
    }
    return true;
  }
}

registerProcessor("recorder", RecorderProcessor);
