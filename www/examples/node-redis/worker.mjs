// One worker: claims jobs until all are done.
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from './queue.mjs'

const [, , id] = process.argv
const node = join(id)

// The parent process sends methods to perform, and says when to leave: a worker that was left alone, without a
// majority, could not learn that all jobs are done.
process.on('message', async ([name, ...args]) => {
  if (name === 'leave') {
    await node.close()
    process.disconnect()
    return
  }
  await node.perform(name, args)
  process.send(['performed', name])
})

/** Waits until the state differs from this one. */
const changed = async (state) => {
  if (node.getState() !== state) return
  await new Promise((resolve) => {
    const stop = node.subscribe(() => resolve(stop()))
  })
}

// The parent process has ended.
process.on('disconnect', () => process.exit())

await node.read()
for (;;) {
  const jobs = node.getState()
  if (jobs.length > 0 && jobs.every(({ done }) => done > 0)) break
  const claimed = await node.perform('claim', [id])
  if (!claimed) {
    await changed(jobs)
    continue
  }
  // The job itself.
  await sleep(150)
  try {
    await node.perform('finish', [claimed.name, id])
    process.send(['finished', claimed.name])
  } catch (error) {
    console.log(error.message)
  }
}
process.send(['result', node.getState()])
