// Mutation testing of the package's JavaScript: does anything notice when a line of it is wrong?
//
//   node tests/package-sim/mutants.mjs [--only tabs.js,shell.js] [--named] [--seeds N] [--from N] [--list]
//
// Each mutant is tried in the harness first, if pages run its file, then with the tests in tests/node. The named mistakes
// (named.mjs) come first, each with its own seed. Mutants that nothing notices are printed, unless unnoticed.mjs says why.
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as esbuild from 'esbuild'
import { apply, packageDir, sourceOf } from './bundle.mjs'
import { mutantsOf } from './mutator.mjs'
import { NAMED } from './named.mjs'
import { UNNOTICED } from './unnoticed.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.resolve(here, '../..')
const work = path.join(root, 'target/package-mutants')
const copy = path.join(work, 'conflux-wasm')

/** The mutated files, whether pages run them, and the tests of Node.js that do. */
const FILES = {
  'tabs.js': { inPages: true, tests: [] },
  'timer.js': { inPages: true, tests: [] },
  'channels.js': { inPages: true, tests: ['api', 'channels', 'cluster'] },
  'shell.js': { inPages: true, tests: ['api', 'storage-faults', 'bindings', 'parity', 'files'] },
  'files.cjs': { inPages: false, tests: ['files'] },
}
/** A mutant that makes something run for ever is noticed by that, in ms. */
const TIMEOUT = 240_000

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    named: { type: 'boolean', default: false },
    seeds: { type: 'string', default: '300' },
    from: { type: 'string', default: '1' },
    list: { type: 'boolean', default: false },
  },
})

/** Runs Node.js. Resolves with whether it ended well, in time. */
const succeeds = (args, env = {}) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, env: { ...process.env, ...env }, stdio: 'ignore' })
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT)
    child.on('exit', (code) => {
      clearTimeout(timer)
      resolve(code === 0)
    })
  })

const sim = (file, seed, seeds) =>
  succeeds([path.join(here, 'run.mjs'), '--seed', String(seed), '--seeds', String(seeds), '--change', `${file}=${path.join(work, file)}`])

/** Makes a copy of the package with the mutant in it, below the repository, so that its peers are found. */
const makeCopy = async (file, source) => {
  rmSync(copy, { recursive: true, force: true })
  cpSync(packageDir, copy, { recursive: true })
  writeFileSync(path.join(copy, file), source)
  const shell = { entryPoints: [path.join(copy, 'shell.js')], outfile: path.join(copy, 'shell.cjs') }
  await esbuild.build({ ...shell, bundle: true, format: 'cjs', platform: 'node', logLevel: 'silent' })
}

const isNoticed = async ({ file, source, seed = 1 }, seeds) => {
  const { inPages, tests } = FILES[file]
  writeFileSync(path.join(work, file), source)
  if (inPages && !(await sim(file, seed, seeds === 1 ? 1 : 25))) return true
  if (tests.length > 0) {
    try {
      await makeCopy(file, source)
    } catch {
      return true
    }
    for (const test of tests) {
      const args = ['--test', '--test-timeout=60000', path.join(root, `tests/node/${test}.test.mjs`)]
      if (!(await succeeds(args, { CONFLUX_PACKAGE: copy }))) return true
    }
  }
  return inPages && seeds > 1 && !(await sim(file, 26, seeds - 25))
}

const reasonOf = ({ file, line, what, source }) => {
  const text = source.split('\n')[line - 1]
  return UNNOTICED.find((other) => other.file === file && other.what === what && text.includes(other.line))?.why
}

const wanted = (file) => options.only === undefined || options.only.split(',').includes(file)
const named = NAMED.filter(({ file }) => wanted(file)).map((mutant) => ({ ...apply(mutant), line: 0, what: mutant.name, seed: mutant.seed }))
const generic = Object.keys(FILES).filter((file) => wanted(file) && !options.named)
  .flatMap((file) => mutantsOf(file, sourceOf(file)).map((mutant) => ({ file, ...mutant })))

if (options.list) {
  for (const { file, line, what } of [...named, ...generic]) console.log(`${file}:${line}: ${what}`)
  process.exit()
}

mkdirSync(work, { recursive: true })
for (const file of Object.keys(FILES).filter(wanted)) {
  if (await isNoticed({ file, source: sourceOf(file) }, 1)) throw new Error(`the tests of ${file} fail without any change`)
}
const began = performance.now()
let [missed, explained] = [0, 0]
const all = [...named, ...generic]
for (const [at, mutant] of all.entries()) {
  if (at + 1 < Number(options.from)) continue
  const { file, line, what } = mutant
  const why = reasonOf(mutant)
  if (why) {
    explained += 1
  } else if (!(await isNoticed(mutant, Number(options.seeds)))) {
    missed += 1
    console.log(`missed (${at + 1}): ${file}:${line}: ${what}    ${line ? sourceOf(file).split('\n')[line - 1].trim() : ''}`)
  }
}
rmSync(work, { recursive: true, force: true })
const minutes = ((performance.now() - began) / 60_000).toFixed(1)
console.log(`${all.length} mutants: ${missed} missed, ${explained} that need not be noticed, ${minutes} min`)
process.exitCode = missed > 0 ? 1 : 0
