// Drives one Chromium for the Go tests. A line of JSON on stdin is a call,
// {id, call, tab, args}; its answer is a line on stdout, {id, value} or
// {id, error}. Chromium ends with stdin, however the tests end.
import { createInterface } from 'node:readline'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

// How long to wait is up to the tests.
const timeout = 0
const browser = await chromium.launch({
	timeout,
	executablePath: process.argv[2],
	chromiumSandbox: false, // which root cannot have
	ignoreDefaultArgs: ['--disable-back-forward-cache'], // a user's browser has it
	args: [
		'--disable-gpu',
		'--disable-quic',
		'--no-first-run',
		'--disable-background-networking',
		'--disable-component-update',
		'--disable-sync',
		'--disable-features=' + [
			// Pages of its own for each window, which nobody sees.
			'WebUIOmniboxPopup', 'WebUIOmniboxAimPopup',
			// What Playwright cannot live with. The last such option is the only one.
			'AvoidUnnecessaryBeforeUnloadCheckSync', 'BoundaryEventDispatchTracksNodeRemoval', 'DestroyProfileOnBrowserClose',
			'DialMediaRouteProvider', 'GlobalMediaControls', 'HttpsUpgrades', 'LensOverlay', 'MediaRouter', 'PaintHolding',
			'ThirdPartyStoragePartitioning', 'Translate', 'RenderDocument', 'OptimizationHints',
		].join(),
		'--autoplay-policy=no-user-gesture-required',
		'--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
	],
})

const tabs = new Map()

async function openIn(context, tab, url) {
	context.setDefaultTimeout(timeout)
	const page = await context.newPage()
	page.log = []
	page.on('console', (message) => page.log.push(message.text()))
	page.on('pageerror', (error) => page.log.push(String(error)))
	page.on('requestfailed', (request) => page.log.push(`${request.url()}: ${request.failure()?.errorText}`))
	tabs.set(tab, page)
	await page.goto(url)
}

const ready = (tab) => tabs.get(tab).waitForFunction(() => document.title === 'ready')

const calls = {
	// A user's browser, with cookies of its own.
	async open(tab, url, cookies) {
		const context = await browser.newContext()
		await context.addCookies(Object.entries(cookies).map(([name, value]) => ({ name, value, domain: new URL(url).hostname, path: '/' })))
		await openIn(context, tab, url)
		await ready(tab)
	},
	// A page that is not of these tests, in a window of this size, light or dark.
	async visit(tab, url, width, height, colorScheme = 'light') {
		await openIn(await browser.newContext({ viewport: { width, height }, colorScheme }), tab, url)
	},
	press: (tab, key) => tabs.get(tab).keyboard.press(key),
	// What axe-core finds wrong with a page, by rule and element.
	async violations(tab) {
		const page = tabs.get(tab)
		await page.evaluate(axe.source)
		const { violations } = await page.evaluate(() => window.axe.run())
		return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`))
	},
	click: (tab, selector) => tabs.get(tab).click(selector),
	texts: (tab, selector) => tabs.get(tab).locator(selector).allInnerTexts(),
	evaluate: (tab, expression) => tabs.get(tab).evaluate(expression),
	screenshot: (tab, path) => tabs.get(tab).screenshot({ path, fullPage: true }).then(() => null),
	// Another tab of the same browser.
	async openBeside(tab, url, beside) {
		await openIn(tabs.get(beside).context(), tab, url)
		await ready(tab)
	},
	// A function of the page. Its null is an argument left out.
	run: (tab, name, ...args) => tabs.get(tab).evaluate(([name, args]) => window[name](...args), [name, args]),
	log: (tab) => tabs.get(tab).log,
	// A hidden tab that the browser has put to sleep: nothing of it runs.
	async freeze(tab, frozen) {
		const page = tabs.get(tab)
		page.cdp ??= await page.context().newCDPSession(page)
		// Chromium wakes a frozen page that it shows: its scripts are stopped too.
		if (frozen) {
			await page.cdp.send('Debugger.enable')
			await page.cdp.send('Debugger.pause')
		} else await page.cdp.send('Debugger.disable')
		await page.cdp.send('Page.setWebLifecycleState', { state: frozen ? 'frozen' : 'active' })
	},
	// As the user does it, with F5.
	async reload(tab) {
		await calls.renew(tab)
		await ready(tab)
	},
	// The same with a page that is not of these tests.
	renew: (tab) => tabs.get(tab).reload().then(() => null),
	// A link is followed to another page, and back: whether the page is as it was (bfcache).
	async leave(tab, url) {
		const page = tabs.get(tab)
		await page.evaluate(() => { window.left = true })
		await page.goto(url)
	},
	async back(tab) {
		await tabs.get(tab).goBack({ waitUntil: 'commit' })
		await ready(tab)
		return tabs.get(tab).evaluate(() => window.left === true)
	},
	// As the user does it.
	async close(tab) {
		const page = tabs.get(tab)
		const gone = page.waitForEvent('close')
		await page.close({ runBeforeUnload: true })
		await gone
	},
	quit: (tab) => tabs.get(tab).context().close(),
}

async function answer({ id, call, tab, args }) {
	let answer
	try {
		answer = { id, value: await calls[call](tab, ...args) }
	} catch (error) {
		answer = { id, error: String(error) }
	}
	process.stdout.write(JSON.stringify(answer) + '\n')
}

for await (const line of createInterface({ input: process.stdin })) answer(JSON.parse(line))
await browser.close()
