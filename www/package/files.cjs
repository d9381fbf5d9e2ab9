// Storage for a node of a fixed cluster in Node.js: a folder, with which the node outlives its process.
//
//   N.log   the node's records; new ones are appended. The file with the highest N is the valid one
//   N.own   the claim of one process to N: the process that creates it may write N.log, and from then on no process
//           with a lower number may write
//   N.tmp   an N.log that is still being written
//   lock    a socket, which the operating system closes when the process ends
//
// The lock gives a second process a clear error early. The claim N.own is what makes two writers impossible: it is
// created exclusively, and a process reports nothing as written once there is a claim with a higher number.
'use strict'
const { createHash } = require('node:crypto')
const fs = require('node:fs/promises')
const { existsSync } = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')

/** Codes of errors that may be temporary: the write is tried again after a pause. */
const TRANSIENT = ['ENOSPC', 'EDQUOT', 'EAGAIN', 'EINTR', 'EBUSY', 'EMFILE', 'ENFILE']
const TRIES = 4

const pause = (attempt) => new Promise((resolve) => setTimeout(resolve, 10 * 4 ** attempt))
const fail = (code, message) => Object.assign(new Error(message), { code })

/** The address of a folder's lock. The path of a socket must be short, so a long one is replaced by a hash. */
const lockOf = async (folder) => {
  const real = await fs.realpath(folder)
  const name = `conflux-${createHash('sha256').update(real).digest('hex').slice(0, 32)}`
  if (process.platform === 'win32') return `\\\\.\\pipe\\${name}`
  const inside = path.join(real, 'lock')
  return Buffer.byteLength(inside) < 100 ? inside : path.join(os.tmpdir(), `${name}.lock`)
}

const listen = (address) =>
  new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy())
    server.once('error', reject)
    server.listen(address, () => {
      // The lock alone must not keep the process running.
      server.unref()
      resolve(server)
    })
  })

/** Whether a process listens at this address. */
const answers = (address) =>
  new Promise((resolve) => {
    const socket = net.connect(address)
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })

const lock = async (folder) => {
  const address = await lockOf(folder)
  for (let attempt = 1; ; attempt++) {
    try {
      return await listen(address)
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error
      if ((await answers(address)) || attempt >= TRIES) {
        const message = `another node uses the folder ${folder}: give each node a folder of its own`
        throw fail('STORAGE_LOCKED', message)
      }
      // The process that created the socket has died and left the file behind.
      await fs.rm(address, { force: true })
    }
  }
}

class Files {
  #folder
  #strict
  #core
  #server
  #number = 0
  #file
  #length = 0
  #queue = []
  #working = Promise.resolve()
  /** A step has failed: nothing is written any more. */
  #broken = false
  /** `close` was called: nothing is reported to the core any more. */
  #closed = false

  constructor({ storage, durability }, core) {
    this.#folder = path.resolve(storage.path)
    this.#strict = durability !== 'relaxed'
    this.#core = core
    this.#work(async () => {
      const file = await this.#open()
      if (!this.#closed) core.restored(file)
    })
  }

  /** Runs steps one after the other. When one fails, that is reported to the core, and later ones are skipped. */
  #work(body) {
    this.#working = this.#working.then(async () => {
      if (this.#broken) return
      try {
        await body()
      } catch (error) {
        this.#broken = true
        if (this.#closed) return
        const own = String(error.code).startsWith('STORAGE_')
        const what = [error.code, error.message].filter(Boolean).join(': ')
        const message = own
          ? error.message
          : `storage in ${this.#folder} does not take what must be written (${what}): make room there and start the node again`
        this.#core.broken(own ? error.code : 'STORAGE_FAILED', message)
      }
    })
  }

  #name(number, kind) {
    return path.join(this.#folder, `${String(number).padStart(8, '0')}.${kind}`)
  }

  async #numbers() {
    const found = { own: [], log: [], tmp: [] }
    for (const file of await fs.readdir(this.#folder)) {
      const [, number, kind] = /^(\d{8,})\.(own|log|tmp)$/.exec(file) ?? []
      if (kind) found[kind].push(Number(number))
    }
    return found
  }

  /** Claims the next free number and returns it. */
  async #claim() {
    for (;;) {
      const { own, log } = await this.#numbers()
      const next = Math.max(0, this.#number, ...own, ...log) + 1
      try {
        await (await fs.open(this.#name(next, 'own'), 'wx')).close()
        return next
      } catch (error) {
        if (error.code !== 'EEXIST') throw error
      }
    }
  }

  /** Locks the folder and returns the newest log's bytes, or `undefined` if there is none. */
  async #open() {
    await fs.mkdir(this.#folder, { recursive: true })
    this.#server = await lock(this.#folder)
    this.#number = await this.#claim()
    const newest = Math.max(0, ...(await this.#numbers()).log)
    if (newest === 0) return undefined
    const file = await fs.readFile(this.#name(newest, 'log'))
    if (!this.#core.isWhole(file)) {
      const message = `${this.#name(newest, 'log')} is damaged: restore it from a copy, or delete the folder, and the node comes back as one that has lost its memory`
      throw fail('STORAGE_CORRUPT', message)
    }
    return file
  }

  /**
   * Writes a record, together with all others that arrived while the previous write ran. A record with `begins` set
   * starts a new file, which replaces the older ones. `core.recorded(seq)` is called once the record is durable.
   */
  write(seq, begins, bytes) {
    this.#queue.push({ seq, begins, bytes })
    if (this.#queue.length === 1) this.#work(() => this.#drain())
  }

  async #drain() {
    while (this.#queue.length > 0) {
      const next = this.#queue.findIndex(({ begins }, nth) => begins || this.#queue[nth + 1]?.begins)
      const records = this.#queue.slice(0, next < 0 ? this.#queue.length : next + 1)
      if (records[0].begins) await this.#begin(records[0].bytes)
      else await this.#append(Buffer.concat(records.map(({ bytes }) => bytes)))
      this.#fence()
      this.#queue.splice(0, records.length)
      if (!this.#closed) this.#core.recorded(records.at(-1).seq)
    }
  }

  /**
   * Throws if the folder is not this node's any more. Called after each write, before the write is reported. The order
   * of the two checks matters: old claims are deleted in ascending order, so if the next claim was created and has
   * already been deleted again, this node's own claim is missing, too.
   */
  #fence() {
    if (existsSync(this.#name(this.#number + 1, 'own'))) {
      throw fail('STORAGE_TAKEN', `another process has taken over ${this.#folder}: this one must not write there any more`)
    }
    if (!existsSync(this.#name(this.#number, 'own'))) {
      throw fail('STORAGE_LOST', `${this.#folder} was deleted while the node ran: start it again`)
    }
  }

  async #append(bytes) {
    // When the disk is almost full, `write` may write only a part of the bytes without an error.
    for (let attempt = 1, done = 0; done < bytes.length; ) {
      try {
        done += (await this.#file.write(bytes, done, bytes.length - done, this.#length + done)).bytesWritten
      } catch (error) {
        if (attempt >= TRIES || !TRANSIENT.includes(error.code)) throw error
        await pause(attempt++)
      }
    }
    // A failed sync is not tried again: the system may have dropped the unwritten pages from its cache, and a second
    // sync would then succeed without having written them.
    if (this.#strict) await this.#file.datasync()
    this.#length += bytes.length
  }

  /** Begins a new file with this record. The older files are deleted once the new one is durable. */
  async #begin(bytes) {
    if (this.#file) {
      const next = await this.#claim()
      if (next !== this.#number + 1) this.#fence()
      this.#number = next
    }
    const [tmp, log] = [this.#name(this.#number, 'tmp'), this.#name(this.#number, 'log')]
    const file = await fs.open(tmp, 'w')
    await this.#file?.close()
    ;[this.#file, this.#length] = [file, 0]
    await this.#append(bytes)
    await fs.rename(tmp, log)
    if (this.#strict && process.platform !== 'win32') {
      const folder = await fs.open(this.#folder, 'r')
      await folder.sync().finally(() => folder.close())
    }
    this.#fence()
    const found = await this.#numbers()
    for (const [kind, numbers] of Object.entries(found)) {
      const old = numbers.filter((number) => number < this.#number)
      for (const number of old.sort((a, b) => a - b)) {
        await fs.rm(this.#name(number, kind), { force: true })
      }
    }
  }

  /** Waits until everything that is queued is written, then releases the folder. */
  async close() {
    this.#closed = true
    await this.#working
    await this.#file?.close()
    if (this.#server) await new Promise((resolve) => this.#server.close(resolve))
  }
}

module.exports = { Files }
