// A player of HLS with CMAF segments, over Media Source Extensions: enough of
// one to behave like a viewer. It plays a title as if it were a live channel:
// from where the wall clock stands in it, and over and over.

const AHEAD = 12; // seconds fetched before they are played

/**
 * Plays until the signal aborts or a request fails, and rejects with the reason.
 *
 * @param {HTMLVideoElement} video which has autoplay
 * @param {URL} master the multivariant playlist
 * @param {(url: URL) => Promise<Response>} get rejects what is not to be played
 * @param {AbortSignal} signal
 */
export async function play(video, master, get, signal) {
  const Source = self.MediaSource ?? self.ManagedMediaSource; // the latter on iPhones
  if (!Source) throw new Error("this browser has no Media Source Extensions");
  const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const source = new Source();
  const url = URL.createObjectURL(source);
  const watch = async () => {
    const tracks = await open(master, get);
    signal.throwIfAborted();
    video.src = url;
    await event(source, "sourceopen");
    source.duration = Infinity;
    const buffers = tracks.map((track) => source.addSourceBuffer(track.type));
    await Promise.all(tracks.map(async (track, i) => append(buffers[i], await get(track.init))));
    // Segments of all tracks line up, so that one number serves for all.
    const { segments, length } = tracks[0];
    const first = Math.floor((((Date.now() / 1000) % length) / length) * segments.length);
    const start = segments[first].start;
    await Promise.all(tracks.map((track, i) => feed(buffers[i], track.segments, { first, start, length }, video, get, signal)));
  };
  try {
    signal.throwIfAborted();
    await Promise.race([aborted, watch()]);
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(url);
  }
}

/** Fetches a track's segments, a few ahead of the playhead, and starts again at its end. */
async function feed(buffer, segments, { first, start, length }, video, get, signal) {
  for (let n = first; ; n++) {
    const segment = segments[n % segments.length];
    const offset = Math.floor(n / segments.length) * length - start;
    while (offset + segment.start > video.currentTime + AHEAD) await event(video, "timeupdate");
    signal.throwIfAborted();
    const response = await get(segment.url);
    buffer.timestampOffset = offset;
    await append(buffer, response);
  }
}

async function append(buffer, response) {
  const bytes = await response.arrayBuffer();
  buffer.appendBuffer(bytes);
  await event(buffer, "updateend");
}

/** Reads the best rendition's video and its audio. */
async function open(master, get) {
  const lines = await read(master, get);
  const streams = lines.flatMap(({ name, attributes }, i) =>
    name === "EXT-X-STREAM-INF" ? [{ ...attributes, url: lines[i + 1].url }] : []);
  const best = streams.reduce((a, b) => (Number(b.BANDWIDTH) > Number(a.BANDWIDTH) ? b : a));
  const audio = lines.find(({ attributes: a }) => a?.TYPE === "AUDIO" && a["GROUP-ID"] === best.AUDIO);
  const [videoCodec, audioCodec] = best.CODECS.split(",");
  return Promise.all([
    track(best.url, `video/mp4; codecs="${videoCodec}"`, get),
    track(new URL(audio.attributes.URI, audio.base), `audio/mp4; codecs="${audioCodec}"`, get),
  ]);
}

async function track(playlist, type, get) {
  const segments = [];
  let init, duration = 0, length = 0;
  for (const line of await read(playlist, get)) {
    if (line.name === "EXT-X-MAP") init = new URL(line.attributes.URI, line.base);
    if (line.name === "EXTINF") duration = parseFloat(line.value);
    if (line.url) {
      segments.push({ url: line.url, start: length });
      length += duration;
    }
  }
  return { type, init, segments, length };
}

/** Reads a playlist's lines: tags with their attributes, and URLs. They go by where the request was sent on to. */
async function read(playlist, get) {
  const response = await get(playlist);
  const base = response.url;
  const text = await response.text();
  return text.split(/\r?\n/).filter(Boolean).map((line) => {
    if (!line.startsWith("#")) return { url: new URL(line, base) };
    const [, name, value] = line.match(/^#([^:]*):?(.*)$/);
    const attributes = Object.fromEntries(
      Array.from(value.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g), ([, key, quoted, bare]) => [key, quoted ?? bare]));
    return { name, value, attributes, base };
  });
}

function event(target, name) {
  return new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
}
