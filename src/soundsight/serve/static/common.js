// What all parts of the page share: its elements, the service, and how things are said.

export const $ = (id) => document.getElementById(id);
export const readable = (label) => label.replaceAll("_", " ");
export const percent = (p) => (p >= 0.9995 ? "100 %" : `${(100 * p).toFixed(1)} %`);

/** Send a recording to a route of the service; its answer, or an Error with its sentence. */
export async function ask(path, options, file) {
  const query = new URLSearchParams({ name: file.name, ...options });
  const headers = { "Content-Type": "application/octet-stream" };
  let reply;
  try {
    reply = await fetch(`${path}?${query}`, { method: "POST", headers, body: file });
  } catch {
    throw new Error("The service cannot be reached; see whether `soundsight serve` is still running.");
  }
  const said = await reply.json().catch(() => ({ error: "The service gave no answer that can be read." }));
  if (!reply.ok) throw new Error(said.error);
  return said;
}

/** Show a sentence that something is wrong; none takes it away. */
export function say(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

/** Show what is being waited for; nothing ends it. */
export function busy(text) {
  $("status-text").textContent = text;
  $("status").hidden = !text;
}
