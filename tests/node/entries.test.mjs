// Tests of the package's entries: of how each gets the WebAssembly module, and of what it offers to nodes.
// `conflux-wasm/slim` is given the module by the application, and the script of `conflux-wasm/inline` contains it.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { methods, packageDir, reduce, required } from './support.mjs'

const entry = (name) => pathToFileURL(path.join(packageDir, `${name}.js`)).href
const bytes = await readFile(path.join(packageDir, 'conflux_bg.wasm'))

const works = async (conflux, channel) => {
  const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory', channel }, methods, reduce })
  assert.equal(await node.perform('append', ['x']), 'x')
  await node.close()
}

describe('load() of conflux-wasm/slim', () => {
  it('refuses nothing as the module', async () => {
    const { load } = await import(entry('slim'))
    for (const nothing of [undefined, null]) {
      await assert.rejects(load(nothing), { code: 'INVALID_ARGUMENT', message: /and got nothing/ })
    }
  })

  it('tries again after a module that cannot be loaded, and then loads it once', async () => {
    const { load } = await import(entry('slim'))
    await assert.rejects(load(new Uint8Array([1, 2, 3])), { code: 'CANNOT_LOAD', message: /cannot be loaded: ./ })
    await assert.rejects(load(Promise.reject(new Error('no line'))), { code: 'CANNOT_LOAD', message: /no line$/ })
    const conflux = await load(bytes)
    await works(conflux, 'slim')
    // The module is there, so what is given now is not looked at.
    await works(await load(new Uint8Array([1, 2, 3])), 'slim-again')
  })
})

describe('the entry for require', () => {
  it('has no clusters that outlive their pages', () => {
    const make = () => required({ cluster: 'c', channel: { name: 'broadcast' }, methods, reduce })
    assert.throws(make, { code: 'UNSUPPORTED', message: /which needs a browser, and this is none: give a `clusterSize`$/ })
  })

  it('says what to do if a bundler has left the WebAssembly module behind', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-entries-'))
    await cp(packageDir, folder, { recursive: true })
    await rm(path.join(folder, 'conflux_bg.wasm'))
    const require = createRequire(path.join(folder, 'index.js'))
    const conflux = require('./node.cjs')
    const make = () => conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' }, methods, reduce })
    assert.throws(make, { code: 'CANNOT_LOAD', message: /^the WebAssembly module cannot be loaded: .*ENOENT.*; if a bundler has moved the package/s })
    await rm(folder, { recursive: true })
  })
})

describe('conflux-wasm/socket.io', () => {
  it('names the npm package that it needs, if that is not installed', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-entries-'))
    await cp(path.join(packageDir, 'socket.io.cjs'), path.join(folder, 'socket.io.cjs'))
    const program = `
      try {
        require('./socket.io.cjs').enhanceServerForSocketIOChannel({})
      } catch (error) {
        console.log(error.code + ': ' + error.message)
      }`
    // Without NODE_PATH, with which packages are found that are not installed next to this one.
    const env = { ...process.env, NODE_PATH: '' }
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { cwd: folder, env, timeout: 20_000 })
    assert.equal(stdout.trim(), 'MISSING_PEER: a server for the channel `socket.io` needs the npm package socket.io: npm install socket.io')
    await rm(folder, { recursive: true })
  })
})

describe('conflux-wasm/inline', () => {
  it('needs nothing but its script', async () => {
    // In a process of its own, because the entries share the module once one of them has loaded it.
    const program = `
      import { conflux, default as same } from ${JSON.stringify(entry('inline'))}
      const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' }, methods: { append: (x) => x }, reduce: (s = [], a) => (a ? [...s, a] : s) })
      console.log(conflux === same, await node.perform('append', ['x']))
      await node.close()`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { timeout: 20_000 })
    assert.equal(stdout.trim(), 'true x')
  })
})
