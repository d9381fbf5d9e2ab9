// The package that is shipped, made into one script that a page's realm runs. Only mutants change it.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'
import * as esbuild from 'esbuild'

const here = path.dirname(fileURLToPath(import.meta.url))
export const packageDir = process.env.CONFLUX_PACKAGE ?? path.resolve(here, '../../target/npm/conflux-wasm')

/** The source of one of the package's files. */
export const sourceOf = (file) => readFileSync(path.join(packageDir, file), 'utf8')

/** A named mutant's file and its source. The text that it replaces must be there exactly once. */
export const apply = ({ name, file, from, to }) => {
  const parts = sourceOf(file).split(from)
  if (parts.length !== 2) throw new Error(`mutant ${name}: its text is ${parts.length - 1} times in ${file}, and not once`)
  return { file, source: parts.join(to) }
}

let compiled

/** The WebAssembly module, which is compiled once and has an instance in each page. */
const wasm = () => {
  compiled ??= new WebAssembly.Module(readFileSync(path.join(packageDir, 'conflux_bg.wasm')))
  return compiled
}

/**
 * Bundles the package and the application.
 * @param {{ file: string, source: string }=} changed one of the package's files, with another source
 */
export const bundle = async (changed) => {
  const read = (file) => (changed?.file === file ? changed.source : sourceOf(file))
  const shipped = {
    name: 'shipped',
    setup(build) {
      build.onResolve({ filter: /^conflux-wasm$/ }, () => ({ path: path.join(packageDir, 'browser.js') }))
      build.onLoad({ filter: /\.js$/ }, ({ path: file }) => {
        if (path.dirname(file) !== path.resolve(packageDir)) return undefined
        return { contents: read(path.basename(file)) }
      })
    },
  }
  const { outputFiles } = await esbuild.build({
    entryPoints: [path.join(here, 'app.js')], bundle: true, format: 'esm', write: false, plugins: [shipped],
    define: { 'import.meta.url': '"https://app.example/conflux/tabs.js"' }, logLevel: 'silent',
  })
  // The entry waits for the module at its top level, so the script is the body of an async function.
  const page = new vm.Script(`(async () => {${outputFiles[0].text}\n})()`, { filename: 'package.js' })
  const timer = `(setTimeout, clearTimeout, postMessage) => { let onmessage; ${read('timer.js')}; return onmessage }`
  return { page, worker: new vm.Script(timer, { filename: 'timer.js' }), wasm: wasm() }
}
