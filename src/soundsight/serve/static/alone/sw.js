// Keeps the page for use without a connection. All files of the folder are named in files.json, with a hash of them all.

async function keep() {
  const { hash, files } = await (await fetch("files.json", { cache: "no-store" })).json();
  for (const name of await caches.keys()) if (name !== hash) await caches.delete(name);
  await (await caches.open(hash)).addAll(["./", ...files]);
}

self.addEventListener("install", (event) => event.waitUntil(keep().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request, { ignoreSearch: true }).then((kept) => kept ?? fetch(event.request)));
});
