// Tests of the package as npm installs it, and of the README's example as it is written.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { packageDir } from './support.mjs'

const run = promisify(execFile)
const readme = await readFile('README.md', 'utf8')
/** The README's second example: a fixed cluster in one process. The first one needs a browser. */
const example = [...readme.matchAll(/```js\n([\s\S]*?)```/g)][1][1]

const tarball = async () => {
  const folder = path.dirname(packageDir)
  const name = (await readdir(folder)).find((file) => file.endsWith('.tgz'))
  return path.join(folder, name)
}

for (const [what, source] of [['the folder', async () => packageDir], ['the tarball', tarball]]) {
  describe(`npm install of ${what}`, () => {
    let folder
    const node = async (name, text) => {
      await writeFile(path.join(folder, name), text)
      // Without NODE_PATH, so that only packages that are installed next to this one are found.
      const env = { ...process.env, NODE_PATH: '' }
      const { stdout } = await run(process.execPath, [name], { cwd: folder, env, timeout: 20_000 })
      return stdout
    }
    before(async () => {
      folder = await mkdtemp(path.join(os.tmpdir(), 'conflux-install-'))
      await writeFile(path.join(folder, 'package.json'), '{"private": true}')
      await run('npm', ['install', '--offline', '--no-audit', '--no-fund', await source()], { cwd: folder })
    })
    after(() => rm(folder, { recursive: true }))

    it('the README’s example of a fixed cluster runs as written', async () => {
      const out = await node('example.mjs', example)
      const expected = ['c sees hello', 'c sees hello world', 'Error: hello is there already']
      assert.deepEqual(out.trim().split('\n').toSorted(), expected.toSorted())
    })

    it('runs through require', async () => {
      const out = await node('example.cjs', `
        const conflux = require('conflux-wasm')
        const node = conflux({ id: 'a', clusterSize: 1, channel: { name: 'memory' },
          methods: { append: (x) => x }, reduce: (s = [], a) => (a === null ? s : [...s, a]) })
        node.perform('append', ['x'], (error, action) => {
          console.log(error, action, node.getState())
          node.close()
        })`)
      assert.equal(out.trim(), "null x [ 'x' ]")
    })

    it('contains exactly these files', async () => {
      const files = await readdir(path.join(folder, 'node_modules/conflux-wasm'))
      assert.deepEqual(files.toSorted(), [
        'LICENSE', 'README.md', 'browser.js', 'channels.js', 'conflux.cjs', 'conflux.js', 'conflux_bg.inline.js', 'conflux_bg.wasm', 'files.cjs',
        'index.d.ts', 'inline.d.ts', 'inline.js', 'node.cjs', 'node.d.cts', 'node.js', 'package.json',
        'react.cjs', 'react.d.cts', 'react.d.ts', 'react.js', 'redux.cjs', 'redux.d.cts', 'redux.d.ts', 'redux.js',
        'slim.d.ts', 'slim.js', 'shell.cjs', 'shell.js', 'socket.io.cjs', 'socket.io.d.cts', 'socket.io.d.ts', 'socket.io.js',
        'tabs.js', 'timer.js', 'errors.js',
      ].toSorted())
    })

    // npm installs a folder as a link, so other packages are looked up where the link leads. The remaining tests must
    // know which packages are found.
    if (source !== tarball) return

    it('exports exactly these names, through import and require', async () => {
      const pinned = {
        'conflux-wasm': ['conflux', 'default'],
        'conflux-wasm/react': ['useConflux'],
        'conflux-wasm/redux': ['createStore', 'reduxOptions'],
        'conflux-wasm/socket.io': ['enhanceServerForSocketIOChannel'],
        'conflux-wasm/inline': ['conflux', 'default'],
        'conflux-wasm/slim': ['load'],
      }
      const out = await node('names.mjs', `
        import { createRequire } from 'node:module'
        import { mkdirSync, writeFileSync } from 'node:fs'
        const require = createRequire(import.meta.url)
        // A stub of React is enough, because the hook is not called.
        mkdirSync('node_modules/react', { recursive: true })
        writeFileSync('node_modules/react/index.js', 'exports.useCallback = exports.useMemo = exports.useSyncExternalStore = () => {}')
        const names = {}
        for (const entry of ${JSON.stringify(Object.keys(pinned))}) {
          names[entry] = Object.keys(await import(entry)).sort()
          if (['/inline', '/slim'].some((end) => entry.endsWith(end))) continue
          const required = Object.keys(require(entry)).sort()
          if (String(required) !== String(names[entry])) throw new Error(entry + ' requires ' + required)
        }
        console.log(JSON.stringify(names))`)
      assert.deepEqual(JSON.parse(out), pinned)
      const { exports } = JSON.parse(await readFile(path.join(folder, 'node_modules/conflux-wasm/package.json'), 'utf8'))
      const entries = Object.keys(pinned).map((entry) => entry.replace('conflux-wasm', '.'))
      assert.deepEqual(Object.keys(exports), [...entries, './conflux_bg.wasm', './package.json'])
    })

    it('names the version of redis that the channel needs if an older one is installed', async () => {
      const [modules, old] = [path.join(folder, 'node_modules'), path.resolve('node_modules/gaggle/node_modules/redis')]
      await symlink(old, path.join(modules, 'redis'))
      const out = await node('old.mjs', `
        import conflux from 'conflux-wasm'
        try {
          conflux({ id: 'a', clusterSize: 1, methods: {}, reduce: (state = 0) => state, channel: { name: 'redis' } })
        } catch (error) {
          console.log(error.code + ': ' + error.message)
        }`)
      await rm(path.join(modules, 'redis'))
      const message = 'the channel `redis` needs the npm package redis 5 or newer, and an older one is installed'
      assert.equal(out.trim(), `MISSING_PEER: ${message}: npm install redis@latest`)
    })

    it('names the npm package that a channel needs if it is not installed', async () => {
      const out = await node('peer.mjs', `
        import conflux from 'conflux-wasm'
        const options = { id: 'a', clusterSize: 1, methods: {}, reduce: (state = 0) => state }
        for (const channel of [{ name: 'redis' }, { name: 'socket.io', host: 'http://localhost:1', channel: 'c' }]) {
          try {
            conflux({ ...options, channel })
          } catch (error) {
            console.log(error.code + ': ' + error.message)
          }
        }`)
      assert.deepEqual(out.trim().split('\n'), [
        'MISSING_PEER: the channel `redis` needs the npm package redis: npm install redis',
        'MISSING_PEER: the channel `socket.io` needs the npm package socket.io-client: npm install socket.io-client',
      ])
    })
  })
}
