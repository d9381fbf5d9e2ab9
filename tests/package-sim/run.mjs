// Runs the shipped package, WebAssembly and JavaScript, in pages of a browser of its own making, under faults.
//
//   node tests/package-sim/run.mjs [--seeds N] [--seed S] [--trace] [--twice] [--keep-going] [--progress]
//                                  [--mutant name] [--change tabs.js=path]
//
// The package is that in $CONFLUX_PACKAGE, or else what `cargo xtask build` has built.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { apply, bundle } from './bundle.mjs'
import { NAMED } from './named.mjs'
import { World } from './world.mjs'

const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    steps: { type: 'string' },
    trace: { type: 'boolean', default: false },
    twice: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
    progress: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    change: { type: 'string' },
  },
})

/** The file of the package that is changed, if one is. */
const changed = () => {
  const { mutant: name, change } = options
  if (change !== undefined) {
    const [file, path] = change.split('=')
    return { file, source: readFileSync(path, 'utf8') }
  }
  if (name === undefined) return undefined
  const mutant = NAMED.find((other) => other.name === name)
  if (!mutant) throw new Error(`there is no mutant ${name}: there are ${NAMED.map((other) => other.name).join(', ')}`)
  return apply(mutant)
}

const script = await bundle(changed())
const first = Number(options.seed)
const began = performance.now()
const total = { events: 0 }
let failed = 0

for (let seed = first; seed < first + Number(options.seeds); seed++) {
  const plan = { seed, trace: options.trace, ...(options.steps && { steps: Number(options.steps) }) }
  const report = await new World(script, plan).run()
  if (options.trace) console.log(report.trace.join('\n'))
  total.events += report.events
  for (const [name, value] of Object.entries(report.stats)) total[name] = (total[name] ?? 0) + value
  if (options.twice) {
    const again = await new World(script, plan).run()
    if (again.hash !== report.hash) report.failure ??= `a second run differs: ${report.hash} and ${again.hash}`
  }
  if (report.failure) {
    failed += 1
    console.log(`seed ${seed}: ${report.failure}`)
    if (!options['keep-going']) break
  } else if (options.progress) {
    console.log(`seed ${seed}: passed`)
  }
}

const seconds = ((performance.now() - began) / 1000).toFixed(1)
const figures = Object.entries(total).map(([name, value]) => `${value} ${name}`)
console.log(`${options.seeds} seeds from ${first}, ${seconds} s: ${failed} failed; ${figures.join(', ')}`)
process.exitCode = failed > 0 ? 1 : 0
