// Mutation testing of the package's JavaScript: does anything notice when a line of it is wrong?
//
//   node tests/package-sim/mutants.mjs [--only tabs.js,shell.js] [--named] [--seeds N] [--jobs N] [--fresh] [--list]
//
// The named mistakes (named.mjs) come first, each with its own seed. What noticed a mutant is kept in
// target/mutants/package.jsonl, so a run that was interrupted goes on where it stopped; a mutant that nothing has noticed
// is tried again once a test has changed. `--fresh` forgets all that. In the end the mutants that nothing notices are
// printed, unless unnoticed.mjs says why.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as esbuild from 'esbuild'
import { apply, packageDir, sourceOf } from './bundle.mjs'
import { mutantsOf } from './mutator.mjs'
import { NAMED } from './named.mjs'
import { OPEN, UNNOTICED } from './unnoticed.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.resolve(here, '../..')
const work = path.join(root, 'target/mutants')
const memory = path.join(work, 'package.jsonl')

/** For each file what runs it, the quickest first: the harness with a few seeds, tests of tests/node, and all seeds. */
const FILES = {
  'tabs.js': ['tabs-alone', 'few', 'all'],
  'timer.js': ['tabs-alone', 'few', 'all'],
  'browser.js': ['few'],
  'files.cjs': ['files-alone', 'files'],
  'shell.js': ['shell-alone', 'storage-faults', 'api', 'crash', 'few', 'cluster', 'bindings', 'files', 'parity', 'all'],
  'channels.js': ['channels-alone', 'few', 'api', 'cluster', 'channels', 'all'],
  'react.js': ['bindings'],
  'redux.js': ['bindings'],
  'socket.io.cjs': ['entries', 'channels'],
  'slim.js': ['entries'],
  'inline.js': ['entries'],
  'node.cjs': ['entries', 'api', 'files'],
}
/** How many seeds are few. */
const FEW = 12
/** What prints nothing for so long will not end any more: the mutant has made it wait or run for ever. In ms. */
const SILENCE = 45_000

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    named: { type: 'boolean', default: false },
    seeds: { type: 'string', default: '300' },
    jobs: { type: 'string', default: String(os.availableParallelism()) },
    fresh: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
})

/** The processes that run now. Each has a group of its own, so that what it has started ends with it. */
const children = new Set()
const kill = (child) => {
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // All of it has ended already.
  }
}
process.on('exit', () => children.forEach(kill))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

/**
 * Runs Node.js until it ends, or prints what `failure` finds. Resolves with what was found, `undefined` if all is well.
 */
const failureOf = (args, failure, env = {}) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'ignore'], detached: true,
    })
    children.add(child)
    let [printed, found, timer] = ['']
    const end = (why) => {
      found ??= why
      kill(child)
    }
    const wait = () => {
      clearTimeout(timer)
      timer = setTimeout(() => end('it never ends'), SILENCE)
    }
    wait()
    child.stdout.on('data', (chunk) => {
      wait()
      printed += chunk
      const [, what] = failure.exec(printed) ?? []
      if (what) end(what)
    })
    child.on('close', (code) => {
      clearTimeout(timer)
      children.delete(child)
      end(code === 0 ? undefined : 'it ends with an error')
      resolve(found)
    })
  })

const sim = async (file, folder, seed, seeds) => {
  if (seeds <= 0) return undefined
  const args = ['--seed', String(seed), '--seeds', String(seeds), '--progress', '--change', `${file}=${path.join(folder, file)}`]
  return failureOf([path.join(here, 'run.mjs'), ...args], /^(seed \d+: (?!passed).*)\n/m)
}

const test = async (name, folder) => {
  const found = await failureOf(
    ['--test-reporter=tap', path.join(root, `tests/node/${name}.test.mjs`)],
    /^ *not ok \d+ - (.*)\n/m,
    { CONFLUX_PACKAGE: folder },
  )
  return found && `${name}: ${found}`
}

/** Makes a copy of the package with the mutant in it, below the repository, so that its peers are found. */
const makeCopy = async (folder, file, source) => {
  rmSync(folder, { recursive: true, force: true })
  cpSync(packageDir, folder, { recursive: true })
  writeFileSync(path.join(folder, file), source)
  for (const name of ['shell', 'react', 'redux']) {
    const [from, to] = ['js', 'cjs'].map((end) => path.join(folder, `${name}.${end}`))
    await esbuild.build({ entryPoints: [from], outfile: to, bundle: true, format: 'cjs', platform: 'node', external: ['react'], logLevel: 'silent' })
  }
}

/** Resolves with what fails when the package in the folder is checked in this way, or `undefined`. */
const failureIn = (check, file, folder, seeds) => {
  if (check === 'few') return sim(file, folder, 1, Math.min(FEW, seeds))
  if (check === 'all') return sim(file, folder, FEW + 1, seeds - FEW)
  return test(check, folder)
}

/** Resolves with what notices a mutant, or `undefined`. */
const noticed = async ({ file, source, seed }, folder, seeds) => {
  try {
    await makeCopy(folder, file, source)
  } catch {
    return 'esbuild'
  }
  const own = seed && (await sim(file, folder, seed, 1))
  if (own) return own
  for (const check of FILES[file]) {
    const found = await failureIn(check, file, folder, seeds)
    if (found) return found
  }
  return undefined
}

const isWanted = (file) => options.only === undefined || options.only.split(',').includes(file)
const named = NAMED.filter(({ file }) => isWanted(file))
  .map((mutant) => ({ ...apply(mutant), line: 0, what: mutant.name, seed: mutant.seed }))
const generic = Object.keys(FILES).filter((file) => isWanted(file) && !options.named)
  .flatMap((file) => mutantsOf(file, sourceOf(file)).map((mutant) => ({ file, ...mutant })))
const all = [...named, ...generic]
const text = ({ file, line }) => (line ? sourceOf(file).split('\n')[line - 1].trim() : '')
const say = (mutant) => `${mutant.file}:${mutant.line}: ${mutant.what}    ${text(mutant)}`
const listed = (list, mutant) =>
  list.find(({ file, what, line }) => file === mutant.file && what === mutant.what && text(mutant).includes(line))

if (options.list) {
  for (const mutant of all) console.log(say(mutant))
  process.exit()
}

// What earlier runs have found.

const hash = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest('hex').slice(0, 16)
const contents = (folder) =>
  readdirSync(folder).filter((name) => name !== 'unnoticed.mjs').map((name) => readFileSync(path.join(folder, name)))
const checks = hash(...contents(path.join(root, 'tests/node')), ...contents(here), options.seeds)
mkdirSync(work, { recursive: true })
if (options.fresh) rmSync(memory, { force: true })
const known = new Map()
for (const line of existsSync(memory) ? readFileSync(memory, 'utf8').split('\n') : []) {
  if (!line) continue
  const { key, by, checks: those } = JSON.parse(line)
  if (by || those === checks) known.set(key, by)
}
const keyOf = ({ file, what, source }) => hash(file, what, source)

const began = performance.now()
const minutes = () => ((performance.now() - began) / 60_000).toFixed(1)
const queue = all.filter((mutant) => !known.has(keyOf(mutant)))
console.log(`${all.length} mutants, ${all.length - queue.length} of which were tried before`)
const files = [...new Set(queue.map(({ file }) => file))]
if (files.length > 0) {
  const folder = path.join(work, 'unchanged')
  await makeCopy(folder, files[0], sourceOf(files[0]))
  for (const check of new Set(files.flatMap((file) => FILES[file]))) {
    const found = await failureIn(check, files[0], folder, FEW)
    if (found) throw new Error(`the package without any change does not pass: ${found}`)
  }
}
let tried = 0
const job = async (_, nth) => {
  const folder = path.join(work, `package-${nth}`)
  for (;;) {
    const mutant = queue.shift()
    if (!mutant) break
    const by = await noticed(mutant, folder, Number(options.seeds))
    known.set(keyOf(mutant), by)
    appendFileSync(memory, `${JSON.stringify({ key: keyOf(mutant), by, checks, mutant: say(mutant) })}\n`)
    tried += 1
    console.log(`${tried} (${minutes()} min) ${say(mutant)}\n    ${by ? `noticed by ${by}` : 'MISSED'}`)
  }
  rmSync(folder, { recursive: true, force: true })
}
await Promise.all(Array.from({ length: Number(options.jobs) }, job))
rmSync(path.join(work, 'unchanged'), { recursive: true, force: true })

const missed = all.filter((mutant) => !known.get(keyOf(mutant)))
const unexplained = missed.filter((mutant) => !listed(UNNOTICED, mutant))
const open = unexplained.filter((mutant) => listed(OPEN, mutant))
const counts = [all.length - missed.length, missed.length - unexplained.length, open.length]
for (const mutant of unexplained) console.log(`missed${open.includes(mutant) ? ' (open)' : ''}: ${say(mutant)}`)
console.log(`${all.length} mutants: ${counts[0]} noticed, ${counts[1]} that cannot be, ${counts[2]} open, ${unexplained.length - open.length} new ones missed, ${minutes()} min`)
// What is listed may have become noticeable since.
for (const entry of options.named ? [] : [...UNNOTICED, ...OPEN].filter(({ file }) => isWanted(file))) {
  if (!missed.some((mutant) => listed([entry], mutant))) console.log(`listed, and not missed: ${entry.file}: ${entry.what}    ${entry.line}`)
}
process.exitCode = unexplained.length > open.length ? 1 : 0
