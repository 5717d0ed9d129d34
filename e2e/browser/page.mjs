// A page with one player, named in its query. How the player is started and
// stopped is in docs/players.md; here is what only tests do to it.
import { nameOf, reason, release, releaseByBeacon, reserve, whenFree, withToken } from '/docs/streamguard.js'
import { loadPlayer, seconds } from './library.mjs'

const query = new URLSearchParams(location.search)
const name = query.get('player')
await loadPlayer(name)
const { play } = await import(`/docs/${name}.js`)

let started // of those that wait
const video = () => started ?? document.querySelector('video') // video.js makes new ones
const refusals = []
const absolute = (url) => new URL(url, location).href
let playing // what play returned
let held // the guard that this page has reserved for a player without a name, and the URL it was for
let interruptions = 0 // of the film, that are over
let waiting // how players are started that wait for it

// Calls of the tests. A call waits for the page to be ready.
Object.assign(window, {
	async play(url, playbackId) {
		playing = await play(video(), absolute(url), playbackId, (problem) => refusals.push({ ...problem, reason: reason(problem) }))
		playing.hls?.on(Hls.Events.INTERSTITIALS_PRIMARY_RESUMED, () => interruptions++)
	},
	// As docs/players.md has it.
	playNamed: (url) => window.play(url, nameOf(absolute(url))),
	// Players that show nothing before they are started.
	async wait(...urls) { waiting = await Promise.all(urls.map((url) => waits[name](newVideo(), absolute(url)))) },
	async begin(index) { started = await waiting[index]() },
	// The app's way: a slot first. Without one it waits, if it is told to.
	async reserveAndPlay(url, { playbackId, wait } = {}) {
		if (playbackId) { // the player reserves what it plays under by itself
			await (playing ? playing.load(absolute(url)) : window.play(url, playbackId))
			return
		}
		try {
			held = { url, ...await reserve(url) }
		} catch (problem) {
			refusals.push({ ...problem, reason: reason(problem) })
			if (wait) whenFree(problem, () => window.reserveAndPlay(url, { playbackId, wait }))
			return
		}
		await window.play(withToken(url, held.guardId))
	},
	load: (url) => playing.load(absolute(url)),
	stop: async () => {
		await playing.stop()
		if (held) await release(held.url, held.guardId)
	},
	closing(way) {
		if (held) addEventListener('pagehide', () => ({ keepalive: release, beacon: releaseByBeacon })[way](held.url, held.guardId))
	},
	pause: () => video().pause(),
	resume: () => video().play(),
	quality: (index) => switches[name].quality(index),
	seek: (time) => { video().currentTime = time },
	text: () => switches[name].text(),
	state: () => ({ time: video().currentTime, played: seconds(video().played), height: video().videoHeight, error: video().error?.message, refusals, interruptions }),
})
document.title = 'ready'

// How each player is told to change its rendition, the smallest being 0, and to
// show its first subtitles.
const switches = {
	hls: {
		quality: (index) => { playing.hls.currentLevel = index },
		text: () => { playing.hls.subtitleTrack = 0 },
	},
	dash: {
		quality(index) {
			playing.player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } })
			playing.player.setRepresentationForTypeByIndex('video', index, true)
		},
		text: () => playing.player.setTextTrack(0),
	},
	shaka: {
		quality(index) {
			playing.player.configure({ abr: { enabled: false } })
			const tracks = playing.player.getVariantTracks().sort((a, b) => a.height - b.height)
			playing.player.selectVariantTrack(tracks[index], true)
		},
		text: () => playing.player.selectTextTrack(playing.player.getTextTracks()[0]),
	},
	video: {
		quality(index) {
			const levels = [...playing.player.qualityLevels().levels_].sort((a, b) => a.height - b.height)
			levels.forEach((level, i) => { level.enabled = i === index })
		},
		text() {
			const subtitles = [...playing.player.textTracks().tracks_].find(({ kind }) => kind === 'subtitles')
			subtitles.mode = 'showing'
		},
	},
	native: {
		quality() {}, // it does not let itself be told
		text: () => { video().textTracks[0].mode = 'showing' },
	},
}

// How each player waits with a manifest at most, and starts.
const waits = {
	hls(video, url) {
		const hls = new Hls({ autoStartLoad: false })
		hls.loadSource(url)
		hls.attachMedia(video)
		return () => {
			hls.startLoad()
			return video
		}
	},
	async shaka(video, url) {
		const player = new shaka.Player()
		await player.attach(video)
		let begun
		const beginning = new Promise((resolve) => { begun = resolve })
		// It would preload segments, too.
		player.getNetworkingEngine().registerRequestFilter((type) => {
			if (type === shaka.net.NetworkingEngine.RequestType.SEGMENT) return beginning
		})
		const preloaded = await player.preload(url)
		return async () => {
			begun()
			await player.load(preloaded)
			return video
		}
	},
	native(video, url) {
		Object.assign(video, { autoplay: false, preload: 'none', src: url })
		return async () => {
			await video.play()
			return video
		}
	},
}

function newVideo() {
	const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true })
	document.body.append(video)
	return video
}
