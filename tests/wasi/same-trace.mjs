// Runs a program that is built for WASI (wasm32-wasip1), for `cargo xtask sim --wasm`.
//
//   node tests/wasi/same-trace.mjs simulator.wasm [its arguments]
//
// Why not `node:wasi`: Node.js calls it experimental, and it has crashed under a simulator. A simulator needs so little of
// WASI that all of it fits here: arguments, the standard streams, a clock, random numbers, and an end. Clock and random
// numbers are real on purpose: a simulator that used them would print another trace than the native one.
import { readFileSync, writeSync } from 'node:fs'

const [path, ...args] = process.argv.slice(2)
const program = new WebAssembly.Module(readFileSync(path))

/** The results of WASI's functions: see `errno` in its specification. */
const [SUCCESS, BAD_FILE, IO_ERROR, NO_SUCH_FILE, NOT_SUPPORTED] = [0, 8, 29, 44, 58]
const CHARACTER_DEVICE = 2

let memory
const bytes = (at, length) => new Uint8Array(memory.buffer, at, length)
const view = () => new DataView(memory.buffer)

/** The two functions with which a program reads a list of strings: one for its size, one for the strings. */
const strings = (list) => {
  const encoded = list.map((text) => new TextEncoder().encode(`${text}\0`))
  const sizes = (count, size) => {
    view().setUint32(count, encoded.length, true)
    view().setUint32(size, encoded.reduce((sum, text) => sum + text.length, 0), true)
    return SUCCESS
  }
  const get = (pointers, at) => {
    for (const text of encoded) {
      view().setUint32(pointers, at, true)
      bytes(at, text.length).set(text)
      pointers += 4
      at += text.length
    }
    return SUCCESS
  }
  return [sizes, get]
}

/** Writes all of it, however full the pipe is. */
const writeAll = (stream, data) => {
  for (let done = 0; done < data.length; ) {
    try {
      done += writeSync(stream, data, done)
    } catch (error) {
      // The other end has not read yet, and the pipe does not wait for it by itself.
      if (error.code !== 'EAGAIN') throw error
    }
  }
}

const isOutput = (stream) => stream === 1 || stream === 2

const [args_sizes_get, args_get] = strings([path, ...args])
const [environ_sizes_get, environ_get] = strings([])

const provided = {
  args_sizes_get,
  args_get,
  environ_sizes_get,
  environ_get,
  clock_time_get(clock, _precision, at) {
    const REALTIME = 0
    const now = clock === REALTIME ? BigInt(Date.now()) * 1_000_000n : process.hrtime.bigint()
    view().setBigUint64(at, now, true)
    return SUCCESS
  },
  random_get(at, length) {
    for (let done = 0; done < length; done += 65_536) {
      crypto.getRandomValues(bytes(at + done, Math.min(65_536, length - done)))
    }
    return SUCCESS
  },
  fd_write(stream, parts, count, written) {
    if (!isOutput(stream)) return BAD_FILE
    let total = 0
    for (let part = parts; part < parts + count * 8; part += 8) {
      const length = view().getUint32(part + 4, true)
      try {
        writeAll(stream, bytes(view().getUint32(part, true), length))
      } catch {
        return IO_ERROR
      }
      total += length
    }
    view().setUint32(written, total, true)
    return SUCCESS
  },
  fd_fdstat_get(stream, at) {
    if (stream > 2) return BAD_FILE
    bytes(at, 24).fill(0)
    view().setUint8(at, CHARACTER_DEVICE)
    view().setBigUint64(at + 8, 0xffff_ffffn, true)
    return SUCCESS
  },
  // There are no files: no folder is open when the program starts, so it cannot open anything.
  fd_prestat_get: () => BAD_FILE,
  path_open: () => NO_SUCH_FILE,
  fd_close: () => SUCCESS,
  sched_yield: () => SUCCESS,
  proc_exit(code) {
    process.exit(code)
  },
}

// What a later compiler's standard library may import besides, and the simulators never call.
const wasi = Object.fromEntries(
  WebAssembly.Module.imports(program).map(({ name }) => [name, provided[name] ?? (() => NOT_SUPPORTED)]),
)

const { exports } = new WebAssembly.Instance(program, { wasi_snapshot_preview1: wasi })
memory = exports.memory
// A panic has printed its message by itself, and ends in a trap: an exception here, and a failed process.
exports._start()
