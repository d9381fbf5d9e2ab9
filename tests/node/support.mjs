// Helpers that the Node.js tests share.
import { createRequire } from 'node:module'
import { once } from 'node:events'
import net from 'node:net'
import { pathToFileURL } from 'node:url'
import path from 'node:path'

export const packageDir = process.env.CONFLUX_PACKAGE ?? path.resolve('target/npm/conflux-wasm')
const require = createRequire(pathToFileURL(path.join(packageDir, 'package.json')))

/** The package, loaded through `require` and through `import`. */
export const required = require('conflux-wasm')
export const imported = (await import(pathToFileURL(require.resolve('conflux-wasm').replace(/node\.cjs$/, 'node.js')).href)).default

/** Waits until `check` returns something truthy; checks again whenever one of the nodes changes. Fails after 20 s. */
export const until = (nodes, check, what = 'the condition') =>
  new Promise((resolve, reject) => {
    const stops = []
    const look = () => {
      const found = check()
      if (!found) return
      stops.forEach((stop) => stop())
      clearTimeout(timer)
      resolve(found)
    }
    const timer = setTimeout(() => {
      stops.forEach((stop) => stop())
      reject(new Error(`${what} was not met within 20 s`))
    }, 20_000)
    for (const node of nodes) stops.push(node.subscribe(look), node.on('status', look))
    look()
  })

let channels = 0

/** The methods of the original's README, and some more. */
export const methods = {
  append(thing) {
    return thing
  },
  foobar(foo, bar) {
    return { type: 'FOOBAR', foo, bar }
  },
  bonk() {
    return new Error('Whoops')
  },
  noop() {
    return null
  },
  nothing() {},
  explode() {
    throw new TypeError('Bang')
  },
  later() {
    return Promise.resolve('never')
  },
  cycle() {
    const list = []
    list.push({ list })
    return { list }
  },
  map() {
    return { deep: [{ table: new Map() }] }
  },
  nan() {
    return { number: NaN }
  },
  poison() {
    return { type: 'POISON' }
  },
  once(thing) {
    return this.getProvisionalState().includes(thing) ? new Error('again') : thing
  },
}

export const reduce = (state, action) => {
  state = state ?? []
  if (action === null) return state
  if (action.type === 'POISON') throw new Error('the reducer does not like it')
  return [...state, action]
}

/** Makes a cluster of `size` nodes on a memory channel of its own. */
export const cluster = (conflux, size, options = {}) => {
  const channel = { name: 'memory', channel: `test-${++channels}` }
  return Array.from({ length: size }, (_, i) =>
    conflux({ id: `n${i + 1}`, clusterSize: size, channel, methods, reduce, ...options }),
  )
}

export const leaderOf = (nodes) =>
  until(nodes, () => nodes.find((node) => node.status().role === 'leader'), 'a leader')

export const closeAll = (nodes) => Promise.all(nodes.map((node) => node.close()))

/** Returns a port on which nobody listens. */
export const freePort = async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** Starts the relay. Returns its address, its port and a function that stops it. */
export const startRelay = async ({ port = 0, args = [] } = {}) => {
  const { spawn } = await import('node:child_process')
  const process_ = spawn(
    process.env.CONFLUX_RELAY ?? 'target/debug/conflux-relay',
    ['--port', String(port), ...args],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  const [chunk] = await Promise.race([
    once(process_.stdout, 'data'),
    once(process_, 'exit').then(([code]) => {
      throw new Error(`the relay ended with code ${code}`)
    }),
  ])
  const address = /http:\/\/([^/]+)\//.exec(String(chunk))[1]
  const stop = async (signal = 'SIGTERM') => {
    if (process_.exitCode !== null || process_.signalCode !== null) return
    process_.kill(signal)
    await once(process_, 'exit')
  }
  return { address, port: Number(address.split(':')[1]), stop }
}
