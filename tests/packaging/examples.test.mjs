// Tests of the examples, started as their readers start them, with the packed package.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, readdir, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify, stripVTControlCharacters } from 'node:util'
import { launch, openPage } from '../browser/support.mjs'
import { freePort } from '../node/support.mjs'
import { startRedis } from '../node/servers.mjs'

const running = new Set()
const folder = path.join(process.env.CONFLUX_PACKAGING, 'examples')

/** Runs `npm start` in an example. Returns its address and a function that stops it. */
const start = async (name, args = [], env = {}) => {
  const options = { cwd: path.join(folder, name), env: { ...process.env, ...env }, detached: true, stdio: ['ignore', 'pipe', 'inherit'] }
  const child = spawn('npm', ['start', '--silent', ...args], options)
  let text = ''
  for await (const chunk of child.stdout) {
    text += chunk
    // Some tools colour their output even when it does not go to a terminal.
    const found = /http:\/\/[\w.]+:\d+/.exec(stripVTControlCharacters(text))
    if (!found) continue
    child.stdout.resume()
    const stop = async () => {
      running.delete(stop)
      // Kill the whole process group: npm and the processes that it has started.
      process.kill(-child.pid)
      await once(child, 'exit')
    }
    running.add(stop)
    return { address: found[0], stop }
  }
  return assert.fail(`${name} ended: ${text}`)
}

describe('examples', () => {
  let browser
  before(async () => {
    // Vite serves only files in the workspace, and this file marks the folder as one.
    await writeFile(path.join(process.env.CONFLUX_PACKAGING, 'lerna.json'), '{}')
    browser = await launch()
  })
  after(async () => {
    // Stop what failed tests have left running.
    await Promise.all([...running].map((stop) => stop()))
    await browser.close()
  })

  /** Opens two tabs of one browser profile. */
  const twoTabs = async (address) => {
    const context = await browser.newContext()
    return { context, tabs: [await openPage(context, address), await openPage(context, address)] }
  }
  const shows = (page, text) => page.waitForFunction((text) => document.body.innerText.includes(text), text, { timeout: 20_000 })
  const submit = async (page, text) => {
    await page.fill('form input', text)
    await page.press('form input', 'Enter')
  }
  const vite = async (name) => start(name, ['--', '--host', '127.0.0.1', '--port', String(await freePort()), '--strictPort'])

  it('tutorial: the files are those that docs/tutorial.md shows', async () => {
    const text = await readFile('docs/tutorial.md', 'utf8')
    for (const name of ['index.html', 'app.js', 'serve.mjs']) {
      const file = await readFile(path.join(folder, 'tutorial', name), 'utf8')
      assert.ok(text.includes(`\`${name}\`:\n\n\`\`\`${path.extname(name).slice(1).replace('mjs', 'js')}\n${file}\`\`\``), name)
    }
  })

  it('each example can be installed by itself, and the README lists all of them', async () => {
    const list = await readFile(path.join(folder, 'README.md'), 'utf8')
    const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map(({ name }) => name)
    assert.deepEqual(names.toSorted(), ['node-redis', 'react', 'redux', 'tutorial'])
    for (const name of names) {
      assert.ok(list.includes(`cargo xtask example ${name}`), name)
      const { dependencies, scripts } = JSON.parse(await readFile(path.join(folder, name, 'package.json'), 'utf8'))
      assert.ok(dependencies['conflux-wasm'] && scripts.start, name)
    }
  })

  it('tutorial: the other tab shows what one tab adds', async () => {
    // There is no build, so the page loads the package from the node_modules beside it.
    await symlink(path.join(process.env.CONFLUX_PACKAGING, 'node_modules'), path.join(folder, 'tutorial/node_modules'))
    const { address, stop } = await start('tutorial', [], { PORT: '0' })
    const { context, tabs: [one, two] } = await twoTabs(address)
    await submit(one, 'milk')
    await shows(two, 'milk')
    await context.close()
    await stop()
  })

  it('react: tabs share suggestions and votes, and a suggestion that is there already is refused', async () => {
    const { address, stop } = await vite('react')
    const { context, tabs: [one, two] } = await twoTabs(address)
    await submit(one, 'Soup')
    await shows(two, 'Soup')
    await submit(two, 'Soup')
    await shows(two, 'Soup is on the list')
    await one.click('text=Soup')
    await two.click('button.place')
    await shows(one, '2 votes')
    await shows(two, '2 votes')
    await one.click('button.place')
    await shows(two, 'one vote')
    await context.close()
    await stop()
  })

  it('redux: tabs share the to-dos, which are still there after all tabs were closed', async () => {
    const { address, stop } = await vite('redux')
    const { context, tabs: [one, two] } = await twoTabs(address)
    await submit(one, 'write')
    await submit(two, 'read')
    await shows(one, 'read')
    await shows(two, '2 open')
    await one.click('text=write')
    await shows(two, '1 open')
    await two.click('text=Clear what is done')
    await one.waitForFunction(() => !document.body.innerText.includes('write'))
    await one.close()
    await two.close()
    const three = await openPage(context, address)
    await shows(three, 'read')
    await context.close()
    await stop()
  })

  it('node-redis: each of twelve jobs is done once, although a worker is killed', async () => {
    const port = await freePort()
    const stopRedis = await startRedis(port)
    running.add(stopRedis)
    const env = { ...process.env, REDIS_URL: `redis://127.0.0.1:${port}` }
    const { stdout } = await promisify(execFile)(process.execPath, ['start.mjs'], { cwd: path.join(folder, 'node-redis'), env, timeout: 60_000 })
    running.delete(stopRedis)
    await stopRedis()
    assert.match(stdout, /bob {3}is dead/)
    const jobs = stdout.slice(stdout.indexOf('\n\n')).match(/job \d+/g)
    assert.deepEqual(jobs, Array.from({ length: 12 }, (_, i) => `job ${i + 1}`))
    assert.match(stdout, /12 jobs, each done once; all three agree/)
  })
})
