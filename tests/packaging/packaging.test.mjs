// Tests of the packed package in bundlers, frameworks and package checkers. `$CONFLUX_PACKAGING` is a folder in which
// those tools and the tarball are installed, with the programs of `apps` next to them.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { launch } from '../browser/support.mjs'
import { freePort } from '../node/support.mjs'

const run = promisify(execFile)
const folder = process.env.CONFLUX_PACKAGING
const installed = path.join(folder, 'node_modules/conflux-wasm')
const require = createRequire(path.join(folder, 'package.json'))
const tool = (name) => import(pathToFileURL(require.resolve(name)).href)
const bin = (name) => path.join(folder, 'node_modules/.bin', name)
const app = (name) => path.join(folder, name)

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' }
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"

/** Starts a file server with a strict Content-Security-Policy. */
const serve = async (root, policy = POLICY) => {
  const server = http.createServer(async (request, response) => {
    const name = new URL(request.url, 'http://x').pathname
    // Browsers request this file by themselves.
    if (name === '/favicon.ico') return response.writeHead(204).end()
    try {
      const bytes = await readFile(path.join(root, name))
      response.writeHead(200, { 'content-type': TYPES[path.extname(name)] ?? 'text/plain', 'content-security-policy': policy })
      response.end(bytes)
    } catch {
      response.writeHead(404).end()
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { origin: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() }
}

let browser
before(async () => {
  browser = await launch()
})
after(() => browser.close())

/**
 * Opens a page in a browser profile of its own, so that it starts with an empty cluster. Returns the page's errors and
 * warnings.
 */
const visit = async (url, look) => {
  const context = await browser.newContext()
  const page = await context.newPage()
  const complaints = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`${message.text()} ${message.location().url}`)
  })
  page.on('requestfailed', (request) => complaints.push(`${request.url()} ${request.failure()?.errorText}`))
  await page.goto(url)
  try {
    await look(page, complaints)
  } catch (error) {
    error.message += `\nthe page said: ${complaints.join('\n') || 'nothing'}`
    throw error
  }
  await context.close()
  return complaints
}

/** Waits until the program has performed once and shows its state. */
const works = (page) => page.waitForFunction(() => document.title === 'state 7', undefined, { timeout: 20_000 })

/** Checks that what a build has written works with the strict policy, without errors or warnings. */
const worksIn = async (root, file = 'index.html') => {
  const { origin, stop } = await serve(root)
  const complaints = await visit(`${origin}/${file}`, works)
  stop()
  assert.deepEqual(complaints, [])
}

/** Makes a folder for a build's output, with a page that loads it. */
const output = async (name, script = '<script type="module" src="app.js"></script>') => {
  const root = app(`dist-${name}`)
  await mkdir(root, { recursive: true })
  await writeFile(path.join(root, 'index.html'), `<!doctype html><meta charset="utf-8"><title>${name}</title>${script}`)
  return root
}

const emitted = async (root) => (await readdir(root, { recursive: true })).filter((file) => file.endsWith('.wasm'))

describe('Vite', () => {
  const config = (more) => ({ root: app('vite'), configFile: false, logLevel: 'warn', ...more })

  it('works on the development server', async () => {
    const { createServer } = await tool('vite')
    const server = await createServer(config({ server: { port: 0, host: '127.0.0.1' }, cacheDir: app('vite/.cache') }))
    await server.listen()
    const { port } = server.httpServer.address()
    await visit(`http://127.0.0.1:${port}/`, works)
    await visit(`http://127.0.0.1:${port}/worker.html`, works)
    await server.close()
  })

  it('builds a page and a worker that work', async () => {
    const { build } = await tool('vite')
    const input = ['index.html', 'worker.html'].map((name) => path.join(app('vite'), name))
    const outDir = app('dist-vite')
    await build(config({ build: { outDir, emptyOutDir: true, rollupOptions: { input } }, worker: { format: 'es' } }))
    assert.equal((await emitted(outDir)).length >= 1, true)
    await worksIn(outDir)
    await worksIn(outDir, 'worker.html')
  })
})

describe('webpack', () => {
  it('builds a page and a worker that work', async () => {
    const { default: webpack } = await tool('webpack')
    const root = await output('webpack')
    const stats = await promisify(webpack)({
      mode: 'production',
      context: folder,
      entry: { app: app('app.js'), page: app('page.js') },
      output: { path: root, filename: '[name].js' },
      performance: { hints: false },
    })
    const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true })
    assert.deepEqual([...errors, ...warnings].map(({ message }) => message), [])
    await worksIn(root)
    await writeFile(path.join(root, 'worker.html'), '<!doctype html><title>worker</title><script src="page.js"></script>')
    await worksIn(root, 'worker.html')
  })
})

describe('esbuild', () => {
  const build = async (options) => {
    const esbuild = await tool('esbuild')
    const { errors, warnings } = await esbuild.build({ bundle: true, minify: true, logLevel: 'silent', absWorkingDir: folder, ...options })
    return [...errors, ...warnings].map(({ text }) => text)
  }

  it('builds a module that works with the two files copied next to it', async () => {
    const root = await output('esbuild')
    assert.deepEqual(await build({ entryPoints: [app('app.js')], outdir: root, format: 'esm' }), [])
    for (const name of ['conflux_bg.wasm', 'timer.js']) await cp(path.join(installed, name), path.join(root, name))
    await worksIn(root)
  })

  it('builds the inline entry as a plain script that needs no other file', async () => {
    const root = await output('inline', '<script src="inline.js" defer></script>')
    const options = { entryPoints: [app('inline.js')], outdir: root, format: 'iife', logOverride: { 'empty-import-meta': 'silent' } }
    assert.deepEqual(await build(options), [])
    assert.deepEqual(await emitted(root), [])
    await worksIn(root)
  })

  it('builds the slim entry, which loads the WebAssembly module that the program gives it', async () => {
    const root = await output('slim', '<script type="module" src="slim.js"></script>')
    assert.deepEqual(await build({ entryPoints: [app('slim.js')], outdir: root, format: 'esm' }), [])
    await cp(path.join(installed, 'timer.js'), path.join(root, 'timer.js'))
    await cp(path.join(installed, 'conflux_bg.wasm'), path.join(root, 'core.wasm'))
    await worksIn(root)
  })
})

describe('Rollup', () => {
  it('builds a module that works with the two files copied next to it', async () => {
    const { rollup } = await tool('rollup')
    const { nodeResolve } = await tool('@rollup/plugin-node-resolve')
    const warnings = []
    const bundle = await rollup({
      input: app('app.js'),
      plugins: [nodeResolve({ browser: true })],
      onwarn: (warning) => warnings.push(warning.message),
    })
    const root = await output('rollup')
    await bundle.write({ dir: root, format: 'es' })
    await bundle.close()
    assert.deepEqual(warnings, [])
    for (const name of ['conflux_bg.wasm', 'timer.js']) await cp(path.join(installed, name), path.join(root, name))
    await worksIn(root)
  })
})

describe('a plain page', () => {
  const plain = async (name) => {
    const root = await output(name, '<script type="module" src="main.js"></script>')
    await cp(installed, path.join(root, 'conflux-wasm'), { recursive: true })
    await cp(app('run.js'), path.join(root, 'run.js'))
    const program = await readFile(app('app.js'), 'utf8')
    await writeFile(path.join(root, 'main.js'), program.replace("'conflux-wasm'", "'./conflux-wasm/browser.js'"))
    return root
  }

  it('works from a static server, with a strict policy', async () => worksIn(await plain('plain')))

  it('needs wasm-unsafe-eval in the policy', async () => {
    const { origin, stop } = await serve(await plain('policy'), "script-src 'self'")
    await visit(`${origin}/index.html`, async (page, complaints) => {
      if (complaints.length === 0) await page.waitForEvent('pageerror')
      assert.match(complaints.join(), /wasm-unsafe-eval|unsafe-eval/)
    })
    stop()
  })
})

describe('Next.js', () => {
  it('renders on the server, and works in the browser', async () => {
    const cwd = app('next')
    const env = { ...process.env, NODE_ENV: 'production', NEXT_TELEMETRY_DISABLED: '1' }
    await run(bin('next'), ['build'], { cwd, env, timeout: 300_000 }).catch((error) => assert.fail(`${error.stdout}${error.stderr}`))
    const port = await freePort()
    const server = spawn(process.execPath, [path.join(folder, 'node_modules/next/dist/bin/next'), 'start', '-p', String(port), '-H', '127.0.0.1'], { cwd, env, stdio: ['ignore', 'pipe', 'inherit'] })
    for await (const chunk of server.stdout) if (String(chunk).includes('Ready')) break
    const html = await (await fetch(`http://127.0.0.1:${port}/`)).text()
    assert.match(html, /no node yet/)
    // Next.js moves the package into its bundle. A node on the server then fails with an error that says what to do.
    const { code, message } = await (await fetch(`http://127.0.0.1:${port}/node`)).json()
    assert.match(`${code} ${message}`, /^CANNOT_LOAD .*serverExternalPackages/)
    const shows = (page) => page.waitForFunction(() => document.querySelector('p').textContent === 'state 7', undefined, { timeout: 20_000 })
    const complaints = await visit(`http://127.0.0.1:${port}/`, shows)
    server.kill()
    await once(server, 'exit')
    assert.deepEqual(complaints.filter((text) => !text.includes('404')), [])
  })
})

describe('package checkers', () => {
  it('publint reports nothing', async () => {
    const { publint } = await tool('publint')
    const { messages } = await publint({ pkgDir: installed, strict: true, pack: 'npm' })
    assert.deepEqual(messages, [])
  })

  it('attw reports nothing', async () => {
    const npm = path.dirname(process.env.CONFLUX_PACKAGE)
    const tarball = path.join(npm, (await readdir(npm)).find((name) => name.endsWith('.tgz')))
    const attw = (...args) => run(bin('attw'), [tarball, '--format', 'ascii', '--no-color', ...args]).catch((error) => assert.fail(error.stdout))
    await attw('--entrypoints', '.', 'react', 'redux', 'socket.io', '--profile', 'node16')
    // These entries are for browsers and bundlers only.
    await attw('--entrypoints', 'inline', 'slim', '--profile', 'esm-only')
  })
})
