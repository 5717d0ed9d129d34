// A page with one player, named in its query, as it is used where nobody has heard
// of a gate. Traces (testdata/traces) are recorded with it.
import { loadPlayer, seconds } from './library.mjs'

const name = new URLSearchParams(location.search).get('player')
await loadPlayer(name)

const video = () => document.querySelector('video') // video.js makes new ones
const absolute = (url) => new URL(url, location).href
const type = (url) => (url.includes('.mpd') ? 'application/dash+xml' : 'application/vnd.apple.mpegurl')
let load // what the player loads another URL with

// How each player is started. cmcd is how it says it: query or header; without it, it does not.
const players = {
	hls(cmcd) {
		const hls = new Hls({
			cmcd: cmcd && { useHeaders: cmcd === 'header' },
			xhrSetup: (xhr) => { xhr.withCredentials = true },
		})
		hls.attachMedia(video())
		return (url) => hls.loadSource(url)
	},
	dash(cmcd) {
		const player = dashjs.MediaPlayer().create()
		player.updateSettings({ streaming: { cmcd: { enabled: Boolean(cmcd), mode: cmcd ?? 'query' } } })
		player.setXHRWithCredentialsForType(null, true)
		player.initialize(video(), null, true)
		return (url) => player.attachSource(url)
	},
	async shaka(cmcd) {
		const player = new shaka.Player()
		await player.attach(video())
		player.configure({ cmcd: { enabled: Boolean(cmcd), useHeaders: cmcd === 'header' } })
		player.getNetworkingEngine().registerRequestFilter((_, request) => { request.allowCrossSiteCredentials = true })
		return (url) => player.load(url).catch(() => {}) // another one may come before it has loaded
	},
	video() {
		const player = videojs(video(), { html5: { vhs: { withCredentials: true, overrideNative: true } } })
		return (url) => player.src({ src: url, type: type(url) })
	},
	native() {
		return (url) => { video().src = url }
	},
}

// Calls of the recorder.
Object.assign(window, {
	async play(url, cmcd) {
		load = await players[name](cmcd)
		load(absolute(url))
	},
	load: (url) => { load(absolute(url)) },
	pause: () => video().pause(),
	resume: () => video().play(),
	seek: (time) => { video().currentTime = time },
	state: () => ({ time: video().currentTime, played: seconds(video().played), refusals: [] }),
})
document.title = 'ready'
