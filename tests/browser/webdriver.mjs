// The part of Playwright's page API that the tests need, over WebDriver, for browsers that Playwright cannot drive
// here. A WebDriver session does one thing at a time, in one tab, so commands are queued.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { freePort } from '../node/support.mjs'

const TIMEOUT = 60_000

/** Runs in the page: evaluates an expression, or calls a function with an argument. Returns the value or the error. */
const script = `
  const done = arguments[arguments.length - 1]
  const [source, isFunction, arg] = arguments
  const run = async () => {
    const value = (0, eval)(isFunction ? '(' + source + ')' : source)
    return isFunction ? value(arg) : value
  }
  run().then((value) => done({ value }), (error) => done({ error: String(error) + (error?.stack ?? '') }))`

class Session {
  #url
  #last = Promise.resolve()
  #current

  constructor(url) {
    this.#url = url
  }

  /** Runs one command; with a `handle`, in that tab. */
  command(method, path, body, handle) {
    const run = async () => {
      if (handle && handle !== this.#current) {
        await this.#send('POST', '/window', { handle })
        this.#current = handle
      }
      return this.#send(method, path, body)
    }
    const result = this.#last.then(run)
    this.#last = result.catch(() => {})
    return result
  }

  forget() {
    this.#current = undefined
  }

  async #send(method, path, body) {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      body: body && JSON.stringify(body),
      headers: { 'content-type': 'application/json' },
    })
    const { value } = await response.json()
    if (!response.ok) throw new Error(`${method} ${path}: ${value?.error}: ${value?.message}`)
    return value
  }
}

class Page {
  #session
  #handle

  constructor(session, handle) {
    this.#session = session
    this.#handle = handle
  }

  #command(method, path, body) {
    return this.#session.command(method, path, body, this.#handle)
  }

  // Page events are not supported: a test notices an error in the page by its consequences.
  on() {}

  goto(url) {
    return this.#command('POST', '/url', { url })
  }

  reload() {
    return this.#command('POST', '/refresh', {})
  }

  goBack() {
    return this.#command('POST', '/back', {})
  }

  async bringToFront() {
    await this.#command('GET', '/title')
  }

  async evaluate(source, arg) {
    const isFunction = typeof source === 'function'
    const args = [String(source), isFunction, arg ?? null]
    const { value, error } = await this.#command('POST', '/execute/async', { script, args })
    if (error) throw new Error(error)
    return value
  }

  async waitForFunction(source, arg, { timeout = TIMEOUT, polling = 50 } = {}) {
    const until = performance.now() + timeout
    for (;;) {
      // In a page that has just been reloaded, what the source refers to may not exist yet.
      const value = await this.evaluate(source, arg).catch(() => undefined)
      if (value) return value
      if (performance.now() > until) throw new Error(`Timeout ${timeout} ms: ${source}`)
      await new Promise((resolve) => setTimeout(resolve, polling))
    }
  }

  async close() {
    await this.#command('DELETE', '/window')
    this.#session.forget()
  }
}

class Context {
  #session
  #spare

  constructor(session, spare) {
    this.#session = session
    // Keep the window with which the browser starts, so that closing all pages does not end the browser.
    this.#spare = spare
  }

  async newPage() {
    const { handle } = await this.#session.command('POST', '/window/new', { type: 'tab' }, this.#spare)
    this.#session.forget()
    return new Page(this.#session, handle)
  }

  /** The window with which the browser started, the only visible one. */
  front() {
    return new Page(this.#session, this.#spare)
  }

  close() {
    return this.#session.command('DELETE', '')
  }
}

/** Launches WebKitGTK's MiniBrowser. Each context is a separate browser. */
export const launchWebKit = async () => {
  const folders = readdirSync('/usr/lib').filter((name) => name.endsWith('-linux-gnu'))
  const binary = `/usr/lib/${folders[0]}/webkit2gtk-4.1/MiniBrowser`
  const port = await freePort()
  const env = { ...process.env, WEBKIT_DISABLE_DMABUF_RENDERER: '1' }
  const driver = spawn('WebKitWebDriver', [`--port=${port}`], { env, stdio: 'ignore' })
  const url = `http://127.0.0.1:${port}`
  for (let tries = 0; ; tries++) {
    try {
      await fetch(`${url}/status`)
      break
    } catch (error) {
      if (tries > 100) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  return {
    newContext: async () => {
      const capabilities = { alwaysMatch: { 'webkitgtk:browserOptions': { binary, args: ['--automation'] } } }
      const response = await fetch(`${url}/session`, { method: 'POST', body: JSON.stringify({ capabilities }) })
      const { value } = await response.json()
      if (!response.ok) throw new Error(`WebKit does not start: ${value?.message}`)
      const session = new Session(`${url}/session/${value.sessionId}`)
      await session.command('POST', '/timeouts', { script: TIMEOUT, pageLoad: TIMEOUT })
      const spare = await session.command('GET', '/window')
      return new Context(session, spare)
    },
    close: async () => {
      const ended = once(driver, 'exit')
      driver.kill()
      await ended
    },
  }
}

/** A Puppeteer page with Playwright's interface. Unlike Playwright, Puppeteer lets Firefox really hide its tabs. */
class PuppeteerPage {
  #page

  constructor(page) {
    this.#page = page
    for (const name of ['on', 'goto', 'evaluate', 'bringToFront', 'reload', 'close']) this[name] = page[name].bind(page)
  }

  waitForFunction(source, arg, { timeout = TIMEOUT, polling = 50 } = {}) {
    return this.#page.waitForFunction(source, { timeout, polling }, ...(arg === undefined ? [] : [arg]))
  }
}

/** Launches a Firefox whose tabs really hide each other. */
export const launchFirefox = async (executablePath) => {
  const { default: puppeteer } = await import('puppeteer-core')
  const options = { browser: 'firefox', protocol: 'webDriverBiDi', executablePath, headless: true }
  const browser = await puppeteer.launch(options)
  const context = browser.defaultBrowserContext()
  return {
    context: { newPage: async () => new PuppeteerPage(await context.newPage()) },
    close: () => browser.close(),
  }
}
