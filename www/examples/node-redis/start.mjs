// Starts three workers and gives them twelve jobs. One worker is killed on the way and started again.
import { fork } from 'node:child_process'

const jobs = Array.from({ length: 12 }, (_, i) => `job ${i + 1}`)
const workers = new Map()
const results = new Map()
let finished = 0

const log = (who, what) => console.log(`${who.padEnd(5)} ${what}`)

const start = (name) => {
  const worker = fork(new URL('worker.mjs', import.meta.url), [name])
  workers.set(name, worker)
  worker.on('message', ([what, value]) => {
    switch (what) {
      case 'finished':
        log(name, `has finished ${value}`)
        if (++finished === 4) workers.get('bob').kill('SIGKILL')
        break
      case 'performed':
        if (value === 'release') start('bob')
        break
      case 'result':
        results.set(name, value)
        if (results.size === workers.size) report()
    }
  })
  worker.on('exit', (code, signal) => {
    if (signal) {
      log(name, 'is dead: its jobs become free, and then it comes back without its memory')
      workers.get('ada').send(['release', name])
    } else if (code !== 0) {
      process.exit(code)
    }
  })
}

const report = () => {
  console.log()
  const result = results.get('ada')
  for (const { name, worker } of result) log(worker, name)
  const same = new Set([...results.values()].map((result) => JSON.stringify(result))).size === 1
  const once = result.every(({ done }) => done === 1)
  console.log(`\n${result.length} jobs, ${once ? 'each done once' : 'not each done once'}; ${same ? 'all three agree' : 'they do not agree'}.`)
  for (const worker of workers.values()) worker.send(['leave'])
}

for (const name of ['ada', 'bob', 'cem']) start(name)
workers.get('ada').send(['add', jobs])
