// Follows docs/tutorial.md as it is written, in an empty folder, with only the package's tarball.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { packageDir } from '../node/support.mjs'
import { launch, openPage } from './support.mjs'

const run = promisify(execFile)
const text = await readFile('docs/tutorial.md', 'utf8')

/** The contents of the file that the tutorial shows under this name. */
const file = (name) => {
  const found = new RegExp(`\`${name.replace('.', '\\.')}\`:\\n\\n\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(text)
  assert.ok(found, `the tutorial has ${name}`)
  return found[1]
}

describe('the tutorial', () => {
  let folder, server, browser, address
  before(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-tutorial-'))
    const npm = path.dirname(packageDir)
    const tarball = path.join(npm, (await readdir(npm)).find((name) => name.endsWith('.tgz')))
    await run('npm', ['init', '-y'], { cwd: folder })
    await run('npm', ['install', '--offline', '--no-audit', '--no-fund', tarball], { cwd: folder })
    for (const name of ['index.html', 'app.js', 'serve.mjs']) await writeFile(path.join(folder, name), file(name))
    server = spawn(process.execPath, ['serve.mjs'], { cwd: folder, env: { ...process.env, PORT: '0' } })
    const [line] = await once(server.stdout, 'data')
    address = /http:\S+/.exec(String(line))[0]
    browser = await launch()
  })
  after(async () => {
    await browser.close()
    server.kill()
    await once(server, 'exit')
    await rm(folder, { recursive: true })
  })

  it('gives an app that works as it says', async () => {
    const context = await browser.newContext()
    const open = () => openPage(context, address)
    const add = async (page, thing) => {
      await page.fill('input', thing)
      await page.press('input', 'Enter')
    }
    const shows = (page, things) =>
      page.waitForFunction((things) => [...document.querySelectorAll('li')].map((li) => li.textContent).join() === things.join(), things)
    const [one, two] = [await open(), await open()]
    await add(one, 'milk')
    await shows(one, ['milk'])
    await shows(two, ['milk'])
    await add(two, 'milk')
    await two.waitForSelector('p:has-text("milk is on the list")')
    await add(two, 'eggs')
    await shows(one, ['milk', 'eggs'])
    await one.click('li:has-text("milk")')
    await shows(two, ['eggs'])
    await one.close()
    await two.close()
    const later = await open()
    await shows(later, ['eggs'])
    await context.close()
  })

  it('runs the README’s first example in two tabs', async () => {
    const readme = await readFile('README.md', 'utf8')
    const code = /```js\n([\s\S]*?)```/.exec(readme)[1]
    const script = code.replace("'conflux-wasm'", "'./node_modules/conflux-wasm/browser.js'")
    await writeFile(path.join(folder, 'readme.js'), `${script}\nglobalThis.node = node\n`)
    const context = await browser.newContext()
    const open = async () => {
      const page = await openPage(context, address)
      await page.addScriptTag({ type: 'module', url: 'readme.js' })
      return page
    }
    const says = (page, count) => page.waitForFunction((count) => globalThis.node?.getState().length === count, count)
    const one = await open()
    await says(one, 1)
    const two = await open()
    for (const page of [one, two]) await says(page, 2)
    assert.deepEqual(await one.evaluate(() => globalThis.node.getState()), ['hello', 'hello'])
    await context.close()
  })
})
