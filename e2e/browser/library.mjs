// What the pages with one player have in common.
const libraries = {
	hls: 'hls.js/dist/hls.min.js',
	dash: 'dashjs/dist/modern/umd/dash.all.min.js',
	shaka: 'shaka-player/dist/shaka-player.compiled.js',
	video: 'video.js/dist/video.min.js',
}

export async function loadPlayer(name) {
	if (libraries[name]) await loadScript('node_modules/' + libraries[name])
}

export function seconds(ranges) {
	let sum = 0
	for (let i = 0; i < ranges.length; i++) sum += ranges.end(i) - ranges.start(i)
	return sum
}

function loadScript(src) {
	return new Promise((onload, onerror) => {
		document.head.append(Object.assign(document.createElement('script'), { src, onload, onerror }))
	})
}
