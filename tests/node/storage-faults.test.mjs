// Tests of storage that throws instead of answering: the user is told once, and nothing waits for ever. The shell and the
// core are those of the package; only what the platform lends them is made here.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'
import { describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { methods, packageDir, reduce } from './support.mjs'

const require = createRequire(pathToFileURL(path.join(packageDir, 'package.json')))
const { createConflux } = await import(pathToFileURL(path.join(packageDir, 'shell.js')))
const load = () => require(path.join(packageDir, 'conflux.cjs')).CoreNode

const broken = () => {
  throw new Error('the disk is on fire')
}

/** What a node reports, and how a perform and a read of it end. */
const outcomes = async (node) => {
  const errors = []
  node.on('error', ({ code, message }) => errors.push(`${code}: ${message}`))
  const ends = await Promise.allSettled([node.perform('append', ['x']), node.read()])
  const codes = ends.map(({ reason }) => reason?.code)
  await node.close()
  return { errors, codes, phase: node.status().phase }
}

describe('storage that throws', () => {
  it('stops a node on files with one error', async () => {
    const files = (options, core) => {
      queueMicrotask(() => core.restored(undefined))
      return { write: broken, close: async () => {} }
    }
    const node = createConflux(load, { missing: () => 'a browser', files })({
      id: 'a', clusterSize: 1, channel: { name: 'memory', channel: 'fire' }, storage: { name: 'file', path: '/nowhere' }, methods, reduce,
    })
    assert.deepEqual(await outcomes(node), {
      errors: ['STORAGE_FAILED: the disk is on fire'], codes: ['STORAGE_FAILED', 'STORAGE_FAILED'], phase: 'closed',
    })
  })

  for (const [what, tabs] of [
    ['a question', { ask: broken, write: broken }],
    ['a write', { write: broken }],
  ]) {
    it(`stops a node of an elastic cluster with one error, if ${what} throws`, async () => {
      /** A browser that is empty and whose locks are free. */
      const answering = (core) => (question, generation, node, value) => {
        const answer = (...rest) => queueMicrotask(() => core.answer(...rest))
        const lock = () => answer('lock', generation, node, true)
        const answers = {
          read: () => answer('registry', generation, node, undefined),
          found: () => answer('registry', generation, node, { incarnation: value, nodes: [node] }),
          create: () => answer('created', generation, node, undefined),
          try: lock,
          await: lock,
        }
        answers[question]?.()
      }
      const platform = {
        missing: () => undefined,
        tabs: (options, core) => ({ ask: answering(core), close() {}, destroyed: new Promise(() => {}), ...tabs }),
      }
      const node = createConflux(load, platform)({ cluster: `fire-${what}`, channel: { name: 'broadcast' }, methods, reduce })
      const { errors, codes, phase } = await outcomes(node)
      assert.equal(errors.length, 1, errors.join())
      assert.match(errors[0], /^STORAGE_FAILED: .*the disk is on fire/)
      assert.deepEqual({ codes, phase }, { codes: ['STORAGE_FAILED', 'STORAGE_FAILED'], phase: 'closed' })
    })
  }
})
