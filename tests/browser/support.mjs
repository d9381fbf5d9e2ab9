// Helpers that the browser tests share: browsers, a relay that serves the test page, and tabs.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { chromium, firefox } from 'playwright-core'
import { packageDir, startRelay } from '../node/support.mjs'
import { launchFirefox, launchWebKit } from './webdriver.mjs'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

const firefoxPath = process.env.FIREFOX ?? '/usr/bin/firefox-esr'

/** The engine under test: `chromium`, `firefox` or `webkit`. */
export const engine = process.env.CONFLUX_ENGINE ?? 'chromium'

/** Test options that skip a test, with a reason, in engines other than Chromium for which a reason is given. */
export const leftOut = (reasons) => ({ skip: engine === 'chromium' ? false : (reasons[engine] ?? reasons.others ?? false) })

export const launch = () => {
  switch (engine) {
    case 'chromium':
      return chromium.launch({ executablePath, args })
    case 'firefox':
      return firefox.launch({ channel: 'moz-firefox', executablePath: firefoxPath })
    case 'webkit':
      return launchWebKit()
    default:
      throw new Error(`there is no engine ${engine}`)
  }
}

/**
 * Launches Chromium as users run it: without Playwright's own settings, under which no page is ever frozen, hidden or
 * kept in the back/forward cache. `within` may change the command that starts it.
 */
export const launchPlain = async (more, within = (profile, command) => command) => {
  const profile = await mkdtemp(path.join(os.tmpdir(), 'conflux-profile-'))
  // Start with a blank page. The page for new tabs is replaced while it loads, and a client that connects at that
  // moment waits for ever.
  const options = [...args, ...more, '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank']
  const [program, ...rest] = within(profile, [executablePath, ...options])
  const chrome = spawn(program, rest, { stdio: ['ignore', 'ignore', 'pipe'] })
  const url = await new Promise((resolve, reject) => {
    let text = ''
    chrome.stderr.on('data', (data) => {
      text += data
      const found = /ws:\/\/\S+/.exec(text)
      if (found) resolve(found[0])
    })
    chrome.once('exit', () => reject(new Error(`Chromium ended: ${text}`)))
  })
  const browser = await chromium.connectOverCDP(url, { noDefaults: true }).catch((error) => {
    chrome.kill()
    throw error
  })
  return {
    context: browser.contexts()[0],
    close: async () => {
      const ended = once(chrome, 'exit')
      await browser.close()
      chrome.kill()
      await ended
      await rm(profile, { recursive: true, force: true, maxRetries: 20 })
    },
  }
}

/** Launches a browser whose tabs really hide each other, with one context. */
export const launchHiding = async () => {
  switch (engine) {
    case 'chromium':
      return launchPlain(['--headless'])
    case 'firefox':
      return launchFirefox(firefoxPath)
    default: {
      const browser = await launch()
      const context = await browser.newContext()
      return { context, close: () => context.close().then(() => browser.close()) }
    }
  }
}

/** Starts a relay that serves the test page and the package. */
export const startSite = async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-site-'))
  await cp(new URL('page.html', import.meta.url), path.join(folder, 'page.html'))
  await cp(packageDir, path.join(folder, 'conflux-wasm'), { recursive: true })
  const start = (port) => startRelay({ port, args: ['--static-dir', folder] })
  let relay = await start(0)
  const { port } = relay
  return {
    origin: `http://127.0.0.1:${port}`,
    restart: async () => {
      await relay.stop()
      relay = await start(port)
    },
    stop: async () => {
      await relay.stop()
      await rm(folder, { recursive: true })
    },
  }
}

/** Opens a page. An uncaught error in the page fails the test. */
export const openPage = async (context, address) => {
  const page = await context.newPage()
  page.on('pageerror', (error) => assert.fail(`the page threw: ${error.stack}`))
  await page.goto(address)
  return page
}

/** Opens one tab of an elastic cluster. `id` becomes part of the values that the tab performs. */
export const openTab = async (context, origin, name, id, more = {}) => {
  const page = await openPage(context, `${origin}/page.html?${new URLSearchParams({ name, id, ...more })}`)
  // Poll with a timer: by default Playwright waits for animation frames, which hidden pages do not have.
  await page.waitForFunction('window.tab !== undefined', null, { polling: 50 })
  return page
}

/** Kills a tab without any event in the page, as the system would. In engines where that is impossible, closes it. */
export const crash = async (page) => {
  if (engine !== 'chromium') return page.close()
  const session = await page.context().newCDPSession(page)
  const crashed = new Promise((resolve) => page.once('crash', resolve))
  // This call is never answered, because the tab crashes.
  session.send('Page.crash').catch(() => {})
  await crashed
  await page.close()
}

/** Opens the tabs of a fixed cluster all at once, spread over the browser profiles in `contexts`. */
export const openTabs = async (contexts, origin, { name, size, channel = 'broadcast', ...more }) => {
  const pages = await Promise.all(
    Array.from({ length: size }, (_, i) => contexts[i % contexts.length].newPage()),
  )
  await Promise.all(
    pages.map(async (page, i) => {
      page.on('pageerror', (error) => assert.fail(`the page threw: ${error.stack}`))
      const query = new URLSearchParams({ name, size, channel, id: `tab-${i + 1}`, ...more })
      await page.goto(`${origin}/page.html?${query}`)
      await page.waitForFunction('window.tab !== undefined')
    }),
  )
  return pages
}

export const state = (page) => page.evaluate('tab.state()')
export const acknowledged = (page) => page.evaluate('tab.acknowledged')

/** Waits for a leader; returns its tab. */
export const leader = async (pages) => {
  const handles = pages.map(async (page) => {
    await page.waitForFunction("tab.status().role === 'leader'", null, { timeout: 30_000 })
    return page
  })
  const first = await Promise.any(handles)
  // The other waits fail when their pages close.
  handles.forEach((handle) => handle.catch(() => {}))
  return first
}

/** Checks that all tabs have the same state, with every acknowledged value in it and no value twice. Returns it. */
export const check = async (pages, values) => {
  await Promise.all(pages.map((page) => page.evaluate('tab.node.read()')))
  const states = await Promise.all(pages.map(state))
  for (const other of states) assert.deepEqual(other, states[0])
  const counts = new Map()
  for (const value of states[0]) counts.set(value, (counts.get(value) ?? 0) + 1)
  for (const value of values) assert.equal(counts.get(value), 1, `${value} is there once`)
  for (const [value, count] of counts) assert.equal(count, 1, `${value} is there ${count} times`)
  return states[0]
}
