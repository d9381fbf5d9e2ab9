// Runs every snippet of docs/guide.md as it is written.
import assert from 'node:assert/strict'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { execFile } from 'node:child_process'
import { imported as conflux, packageDir } from './support.mjs'

const text = await readFile('docs/guide.md', 'utf8')
const snippets = text.split(/^## /m).flatMap((section) => {
  const [heading] = section.split('\n')
  return [...section.matchAll(/```jsx?\n([\s\S]*?)```/g)].map(([, code], i) => ({ name: i ? `${heading}, ${i + 1}` : heading, code }))
})
const snippet = (name) => snippets.find((one) => one.name === name).code

const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-guide-'))
await cp(packageDir, path.join(folder, 'node_modules/conflux-wasm'), { recursive: true })
for (const name of ['react', 'react-dom', 'redux']) await symlink(path.resolve('node_modules', name), path.join(folder, 'node_modules', name))
after(() => rm(folder, { recursive: true }))

/** Runs a module in a folder in which the package is installed; returns what it prints. */
const run = async (name, code) => {
  await writeFile(path.join(folder, name), code)
  const { stdout } = await promisify(execFile)(process.execPath, [name], { cwd: folder, timeout: 20_000 })
  return stdout.trim()
}

const alone = (more) => conflux({ id: 'guide', clusterSize: 1, channel: { name: 'memory', channel: 'guide' }, methods: {}, reduce: (state = null) => state, ...more })
const options = (code) => new Function(`return { ${code.trim().replace(/,$/, '')} }`)()

describe('the guide', () => {
  it('has only snippets that are run here', () => {
    assert.deepEqual(snippets.map(({ name }) => name), [
      'Writing a reducer', 'Writing a reducer, 2', 'Testing your app', 'Testing your app, 2', 'React', 'Redux', 'In your build',
    ])
  })

  it('shows how to put times and ids into actions', async () => {
    const node = alone({ ...options(snippet('Writing a reducer')), reduce: (state = [], action) => (action ? [...state, action] : state) })
    await node.perform('add', ['milk'])
    const [{ type, text, at, id }] = node.getState()
    assert.ok(type === 'ADD' && text === 'milk' && Math.abs(at - Date.now()) < 10_000 && id.length === 36)
    await node.close()
  })

  it('shows how snapshots carry a Map', async () => {
    const { serialize, deserialize } = options(snippet('Writing a reducer, 2'))
    const reduce = (state = new Map()) => state
    assert.throws(() => alone({ reduce }), { code: 'NOT_JSON' })
    await alone({ reduce, serialize, deserialize }).close()
    const map = new Map([['a', 1]])
    assert.deepEqual(deserialize(JSON.parse(JSON.stringify(serialize(map)))), map)
  })

  it('shows how to test an app and watch a node', async () => {
    const app = 'export const methods = { add: (x) => x }\nexport const reduce = (s = [], a) => (a === null ? s : [...s, a])\n'
    await writeFile(path.join(folder, 'app.js'), app)
    await writeFile(path.join(folder, 'package.json'), '{"type": "module"}')
    const test = snippet('Testing your app')
    const watch = snippet('Testing your app, 2')
    const [before, rest] = test.split("await node.perform('add'")
    const out = await run('test.js', `${before}${watch}await node.perform('add'${rest}`)
    assert.match(out, /^test leads\n\d+ 1 test milk$/)
  })

  it('shows a React component', async () => {
    const esbuild = await import('esbuild')
    const { code } = await esbuild.transform(snippet('React'), { loader: 'jsx', jsx: 'automatic' })
    const out = await run('component.js', `
      import { createElement } from 'react'
      import { renderToString } from 'react-dom/server'
      import conflux from 'conflux-wasm'
      const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' }, methods: {}, reduce: (s = { items: [1, 2, 3] }) => s })
      ${code}
      console.log(renderToString(createElement(Total)))
      await node.close()`)
    assert.equal(out, '<b>3</b>')
  })

  it('shows a Redux store', async () => {
    const out = await run('redux.js', `
      const notify = () => {}
      const reducer = (state = 0, action) => (action.type === 'add' ? state + 1 : state)
      ${snippet('Redux').replace("cluster: 'my-app', channel: { name: 'broadcast' }", "id: 'a', clusterSize: 1, channel: { name: 'memory' }")}
      await store.perform({ type: 'add' })
      console.log(store.getState())
      await node.close()`)
    assert.equal(out, '1')
  })

  it('shows how to load a WebAssembly module of one’s own', async () => {
    const out = await run('slim.js', `
      import { readFile } from 'node:fs/promises'
      const fetch = () => readFile('node_modules/conflux-wasm/conflux_bg.wasm').then((bytes) => new Response(bytes, { headers: { 'content-type': 'application/wasm' } }))
      ${snippet('In your build')}
      const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' }, methods: { add: (n) => n }, reduce: (s = 0, a) => s + (a ?? 0) })
      await node.perform('add', [7])
      console.log(node.getState())
      await node.close()
      try { await load() } catch ({ code, message }) { console.log(code, message) }`)
    assert.match(out, /^7\nINVALID_ARGUMENT load\(\) wants the WebAssembly module/)
  })

  it('is right that load() rejects a source that is not a module, and can be called again', async () => {
    const { load } = await import(pathToFileURL(path.join(folder, 'node_modules/conflux-wasm/slim.js')).href)
    await assert.rejects(load(new Uint8Array(8)), { code: 'CANNOT_LOAD', message: /cannot be loaded: .*magic/ })
    await assert.rejects(load(Promise.reject(new Error('no network'))), { code: 'CANNOT_LOAD', message: /no network/ })
    const loaded = await load(await readFile(path.join(packageDir, 'conflux_bg.wasm')))
    assert.equal(typeof loaded, 'function')
  })
})
