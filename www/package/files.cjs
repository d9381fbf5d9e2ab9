// What Node.js gives to a node of a fixed cluster that is to outlive its process: a folder.
//
//   N.log   what the node remembers, appended to; the highest N counts
//   N.own   says that N has an owner: whoever makes it may write N.log, and nobody below N any more
//   N.tmp   an N.log that is not finished
//   lock    a socket, which the system closes with the process
//
// The lock tells the second process that it comes too late. What makes two writers impossible is N.own:
// it is made exclusively, and nothing is reported as written while there is one above the writer's own.
'use strict'
const { createHash } = require('node:crypto')
const fs = require('node:fs/promises')
const { existsSync } = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')

/** Errors after which the same may well succeed a little later. */
const PASSING = ['ENOSPC', 'EDQUOT', 'EAGAIN', 'EINTR', 'EBUSY', 'EMFILE', 'ENFILE']
const TRIES = 4

const pause = (attempt) => new Promise((resolve) => setTimeout(resolve, 10 * 4 ** attempt))
const fail = (code, message) => Object.assign(new Error(message), { code })

/** Where the lock of a folder is. Sockets have short names only. */
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
      // It alone is no reason to stay.
      server.unref()
      resolve(server)
    })
  })

/** Whether somebody listens there. */
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
      // The process that made it is gone.
      await fs.rm(address, { force: true })
    }
  }
}

class Files {
  #folder
  #strict
  #core
  #isWhole
  #server
  #number = 0
  #file
  #length = 0
  #queue = []
  #working = Promise.resolve()
  /** Nothing is written any more. */
  #broken = false
  /** Nothing is answered any more. */
  #closed = false

  constructor({ storage, durability }, core, isWhole) {
    this.#folder = path.resolve(storage.path)
    this.#strict = durability !== 'relaxed'
    this.#core = core
    this.#isWhole = isWhole
    this.#work(async () => {
      const file = await this.#open()
      if (!this.#closed) core.restored(file)
    })
  }

  /** One thing after the other; the first that fails is the last. */
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

  /** Becomes the owner of the next number. */
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

  /** Locks the folder, and gives what there is. */
  async #open() {
    await fs.mkdir(this.#folder, { recursive: true })
    this.#server = await lock(this.#folder)
    this.#number = await this.#claim()
    const newest = Math.max(0, ...(await this.#numbers()).log)
    if (newest === 0) return undefined
    const file = await fs.readFile(this.#name(newest, 'log'))
    if (!this.#isWhole(file)) {
      const message = `${this.#name(newest, 'log')} is damaged: restore it from a copy, or delete the folder, and the node comes back as one that has lost its memory`
      throw fail('STORAGE_CORRUPT', message)
    }
    return file
  }

  /** Writes a record, with all others that gathered while the last write ran. */
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
   * Whether the folder is still this node's: checked behind each write, before it counts. First the next
   * one's claim, then its own: claims go in the order of their numbers, so a next one that is gone again has
   * taken this one's with it.
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
    // When there is hardly any room, less is written than was asked for, and that is no error.
    for (let attempt = 1, done = 0; done < bytes.length; ) {
      try {
        done += (await this.#file.write(bytes, done, bytes.length - done, this.#length + done)).bytesWritten
      } catch (error) {
        if (attempt >= TRIES || !PASSING.includes(error.code)) throw error
        await pause(attempt++)
      }
    }
    // One that fails is not tried again: what it was to write may be gone from the cache.
    if (this.#strict) await this.#file.datasync()
    this.#length += bytes.length
  }

  /** Begins a new file. The old ones go when it is durable. */
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

  /** Lets go of the folder when what was asked for is written. */
  async close() {
    this.#closed = true
    await this.#working
    await this.#file?.close()
    if (this.#server) await new Promise((resolve) => this.#server.close(resolve))
  }
}

module.exports = { Files }
