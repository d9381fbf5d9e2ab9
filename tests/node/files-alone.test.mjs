// Tests of the storage in files by itself, without a node: disks that fail, other processes in the same folder, and locks
// that dead processes have left behind. The core is made up, and notes what it is told.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import fs from 'node:fs/promises'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { packageDir } from './support.mjs'

const require = createRequire(path.join(packageDir, 'package.json'))
const { Files } = require(path.join(packageDir, 'files.cjs'))

let root, folder
let tests = 0
before(async () => {
  // A short path, because the path of a socket must be short.
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'cf-'))
})
after(() => fs.rm(root, { recursive: true }))
beforeEach(() => {
  folder = path.join(root, String(++tests))
})

const real = { ...fs, setTimeout }
afterEach(() => {
  for (const name of ['open', 'rename', 'rm', 'readdir']) fs[name] = real[name]
  globalThis.setTimeout = real.setTimeout
})

/** Opens a folder for a core that keeps everything it is told. `heard` waits for the next thing. */
const open = (options = {}) => {
  const told = []
  let waiting
  const tell = (...what) => {
    told.push(what)
    waiting?.()
  }
  const core = {
    restored: (file) => tell('restored', file && String(file)),
    recorded: (seq) => tell('recorded', seq),
    broken: (code, message) => tell('broken', code, message),
    isWhole: (file) => !String(file).includes('damaged'),
  }
  const files = new Files({ storage: { path: folder }, durability: 'strict', ...options }, core)
  let seen = 0
  const heard = async () => {
    while (told.length === seen) {
      await new Promise((resolve) => {
        waiting = resolve
      })
    }
    return told[seen++]
  }
  return { files, told, heard, write: (seq, begins, text) => files.write(seq, begins, Buffer.from(text)) }
}

/** Opens the folder and writes the first record. */
const begun = async (options) => {
  const opened = open(options)
  assert.deepEqual(await opened.heard(), ['restored', undefined])
  opened.write(1, true, 'one')
  assert.deepEqual(await opened.heard(), ['recorded', 1])
  return opened
}

const file = (number, kind) => path.join(folder, `${String(number).padStart(8, '0')}.${kind}`)
const left = async () => (await fs.readdir(folder)).sort()
const text = (number) => fs.readFile(file(number, 'log'), 'utf8')
const failing = (code) => Object.assign(new Error('the disk errs'), { code })

/** From now on, what opens a file gets one whose functions `change` has replaced. */
const wrapFiles = (change) => {
  fs.open = async (name, flags) => {
    const handle = await real.open(name, flags)
    const own = { write: handle.write.bind(handle), datasync: handle.datasync.bind(handle), sync: handle.sync.bind(handle) }
    return Object.assign(handle, change(own, path.basename(name)))
  }
}

/** From now on, pauses take no time. Returns the list of their lengths. */
const skipPauses = () => {
  const pauses = []
  globalThis.setTimeout = (callback, ms) => {
    pauses.push(ms)
    return real.setTimeout(callback, 0)
  }
  return pauses
}

describe('records', () => {
  it('are written in order, and those that arrive meanwhile together', async () => {
    const first = await begun()
    const writes = []
    wrapFiles(({ write }) => ({ write: (bytes, ...rest) => writes.push(String(bytes)) && write(bytes, ...rest) }))
    first.write(2, true, 'two')
    first.write(3, false, '-three')
    first.write(4, false, '-four')
    first.write(5, true, 'five')
    first.write(6, false, '-six')
    for (const seq of [2, 4, 5, 6]) assert.deepEqual(await first.heard(), ['recorded', seq])
    assert.deepEqual(writes, ['two', '-three-four', 'five', '-six'])
    assert.equal(await text(3), 'five-six')
    assert.deepEqual(await left(), ['00000003.log', '00000003.own', 'lock'], 'older files are gone')
    first.write(7, false, '-seven')
    assert.deepEqual(await first.heard(), ['recorded', 7])
    await first.files.close()
    const again = open()
    assert.deepEqual(await again.heard(), ['restored', 'five-six-seven'])
    await again.files.close()
  })

  it('are whole when the disk takes only a part of them at a time', async () => {
    wrapFiles(({ write }) => ({ write: (bytes, at, length, position) => write(bytes, at, Math.min(length, 4), position) }))
    const { files, heard, write } = await begun()
    write(2, false, ' and a second record')
    assert.deepEqual(await heard(), ['recorded', 2])
    write(3, false, ', and a third one')
    assert.deepEqual(await heard(), ['recorded', 3])
    assert.equal(await text(1), 'one and a second record, and a third one')
    await files.close()
  })

  for (const [durability, expected] of [['strict', ['data', 'folder', 'data']], ['relaxed', []]]) {
    it(`are ${durability === 'strict' ? '' : 'not '}forced onto the disk with the durability ${durability}`, async () => {
      const synced = []
      wrapFiles(({ datasync, sync }, name) => ({
        datasync: () => synced.push('data') && datasync(),
        sync: () => synced.push(name === path.basename(folder) ? 'folder' : 'file') && sync(),
      }))
      const { files, heard, write } = await begun({ durability })
      write(2, false, ' two')
      await heard()
      assert.deepEqual(synced, expected)
      await files.close()
    })
  }

  it('are in one file, and older ones are not kept open', async () => {
    const opened = []
    fs.open = async (...args) => opened[opened.push(await real.open(...args)) - 1]
    const isOpen = () => opened.filter(({ fd }) => fd >= 0).length
    const { files, heard, write } = await begun()
    for (const seq of [2, 3]) {
      write(seq, true, 'anew')
      await heard()
      assert.equal(isOpen(), 1)
    }
    await files.close()
    assert.equal(isOpen(), 0)
  })

  it('that are queued when the folder is closed are still written, and not reported', async () => {
    const { files, told, write } = await begun()
    write(2, false, ' two')
    await files.close()
    assert.equal(await text(1), 'one two')
    assert.deepEqual(told.slice(2), [])
  })
})

describe('a disk that fails', () => {
  it('for a moment is tried again, after longer and longer pauses', async () => {
    await (await begun()).files.close()
    let failures = 3
    wrapFiles(({ write }) => ({ write: async (...args) => (failures-- > 0 ? Promise.reject(failing('ENOSPC')) : write(...args)) }))
    const pauses = skipPauses()
    const again = open()
    assert.deepEqual(await again.heard(), ['restored', 'one'])
    again.write(2, true, 'two')
    assert.deepEqual(await again.heard(), ['recorded', 2])
    assert.deepEqual(pauses.filter((ms) => ms > 0), [40, 160, 640])
    assert.equal(await text(2), 'two')
    await again.files.close()
  })

  it('four times in a row stops the node, and so does another error at once', async () => {
    for (const [code, tries] of [['ENOSPC', 4], ['EIO', 1]]) {
      folder = path.join(root, `${tests}-${code}`)
      let writes = 0
      wrapFiles(() => ({ write: () => ++writes && Promise.reject(failing(code)) }))
      skipPauses()
      const { files, told, heard, write } = open()
      await heard()
      write(1, true, 'one')
      write(2, false, 'two')
      const [what, which, message] = await heard()
      assert.deepEqual([what, which, writes], ['broken', 'STORAGE_FAILED', tries])
      assert.match(message, new RegExp(`^storage in .* does not take what must be written \\(${code}: the disk errs\\)`))
      await files.close()
      assert.equal(writes, tries, 'nothing is written any more')
      assert.equal(told.length, 2)
    }
  })

  it('to sync stops the node: a second sync may succeed without having written anything', async () => {
    let syncs = 0
    wrapFiles(() => ({ datasync: () => ++syncs && Promise.reject(failing('EAGAIN')) }))
    const { files, heard, write } = open()
    await heard()
    write(1, true, 'one')
    assert.deepEqual((await heard()).slice(0, 2), ['broken', 'STORAGE_FAILED'])
    assert.equal(syncs, 1)
    await files.close()
  })

  it('while the folder is opened stops the node, and after it was closed is not reported', async () => {
    fs.readdir = () => Promise.reject(failing('EACCES'))
    const opening = open()
    const [what, code, message] = await opening.heard()
    assert.deepEqual([what, code], ['broken', 'STORAGE_FAILED'])
    assert.match(message, /EACCES: the disk errs/)
    await opening.files.close()
    const closed = open()
    await closed.files.close()
    assert.deepEqual(closed.told, [])
  })

  it('to claim a number stops the node', async () => {
    fs.open = () => Promise.reject(failing('EROFS'))
    const { files, heard } = open()
    assert.deepEqual((await heard()).slice(0, 2), ['broken', 'STORAGE_FAILED'])
    await files.close()
  })
})

describe('a folder', () => {
  it('that is closed while it is opened is released, and nothing is reported', async () => {
    const first = open()
    await first.files.close()
    assert.deepEqual(first.told, [])
    assert.deepEqual(await left(), ['00000001.own'], 'no lock')
    const second = open()
    assert.deepEqual(await second.heard(), ['restored', undefined])
    await second.files.close()
  })

  it('may have other files in it, and files of an attempt that was interrupted', async () => {
    await fs.mkdir(folder, { recursive: true })
    for (const name of ['notes.txt', '3.log', '00000007.tmp', '00000004.own', '00000002.log']) {
      await fs.writeFile(path.join(folder, name), name)
    }
    const { files, heard, write } = open()
    assert.deepEqual(await heard(), ['restored', '00000002.log'])
    write(1, true, 'one')
    assert.deepEqual(await heard(), ['recorded', 1])
    assert.deepEqual(await left(), ['00000005.log', '00000005.own', '00000007.tmp', '3.log', 'lock', 'notes.txt'])
    await files.close()
  })

  it('that is damaged is refused', async () => {
    await fs.mkdir(folder, { recursive: true })
    await fs.writeFile(file(1, 'log'), 'damaged')
    const { files, told, heard, write } = open()
    const [what, code, message] = await heard()
    assert.deepEqual([what, code], ['broken', 'STORAGE_CORRUPT'])
    assert.match(message, /00000001\.log is damaged: restore it from a copy/)
    // Even if the core wrote all the same.
    write(1, true, 'one')
    await files.close()
    assert.deepEqual(await left(), ['00000001.log', '00000002.own'])
    assert.equal(told.length, 1)
  })

  it('in which another process claims a number at the same moment goes to one of the two', async () => {
    await fs.mkdir(folder, { recursive: true })
    // The other one is faster, three times.
    let others = 3
    fs.open = async (name, flags) => {
      if (flags === 'wx' && others-- > 0) await fs.writeFile(name, '')
      return real.open(name, flags)
    }
    const { files, heard, write } = open()
    assert.deepEqual(await heard(), ['restored', undefined])
    write(1, true, 'one')
    assert.deepEqual(await heard(), ['recorded', 1])
    assert.equal(await text(4), 'one')
    await files.close()
  })

  for (const [what, when, kept] of [
    ['between two writes', 'append', ['00000001.log', '00000001.own', '00000002.own', 'lock']],
    ['before a new file is begun', 'begin', ['00000001.log', '00000001.own', '00000002.own', '00000003.own', 'lock']],
    ['while a new file is begun', 'rename', ['00000001.log', '00000001.own', '00000002.log', '00000002.own', '00000003.own', 'lock']],
  ]) {
    it(`that another process takes over ${what} is not changed any more`, async () => {
      const { files, told, heard, write } = await begun()
      if (when === 'rename') {
        fs.rename = async (...names) => {
          await real.rename(...names)
          await fs.writeFile(file(3, 'own'), '')
        }
      } else {
        await fs.writeFile(file(2, 'own'), '')
      }
      write(2, when !== 'append', 'two')
      write(3, false, 'three')
      assert.deepEqual((await heard()).slice(0, 2), ['broken', 'STORAGE_TAKEN'])
      assert.deepEqual(await left(), kept)
      await files.close()
      assert.equal(told.length, 3, 'nothing is reported as written')
    })
  }

  it('whose files are deleted, or only the claim, stops its node', async () => {
    const { files, heard, write } = await begun()
    await fs.rm(file(1, 'own'))
    write(2, false, 'two')
    assert.deepEqual((await heard()).slice(0, 2), ['broken', 'STORAGE_LOST'])
    await files.close()
  })

  it('loses its old files in ascending order, so that a claim is never gone before those below it', async () => {
    await fs.mkdir(folder, { recursive: true })
    for (const number of [2, 11, 1, 9]) await fs.writeFile(file(number, 'own'), '')
    // As some file systems list them.
    fs.readdir = async (...args) => (await real.readdir(...args)).reverse()
    const removed = []
    fs.rm = (name, ...rest) => {
      removed.push(path.basename(name))
      return real.rm(name, ...rest)
    }
    const { files } = await begun()
    assert.deepEqual(removed.filter((name) => name.endsWith('.own')), ['00000001.own', '00000002.own', '00000009.own', '00000011.own'])
    await files.close()
  })
})

describe('the lock of a folder', () => {
  it('refuses a second opener, is in the folder, and is gone when the folder is closed', async () => {
    const first = await begun()
    assert.ok((await fs.stat(path.join(folder, 'lock'))).isSocket())
    const second = open()
    const [what, code, message] = await second.heard()
    assert.deepEqual([what, code], ['broken', 'STORAGE_LOCKED'])
    assert.match(message, /^another node uses the folder .*: give each node a folder of its own$/)
    await second.files.close()
    await first.files.close()
    assert.ok(!existsSync(path.join(folder, 'lock')))
    const third = open()
    assert.deepEqual(await third.heard(), ['restored', 'one'])
    await third.files.close()
  })

  it('is elsewhere if the path is too long for a socket', async () => {
    for (const [length, isInside] of [[99, true], [100, false], [130, false]]) {
      const real = await fs.realpath(root)
      folder = path.join(root, 'x'.repeat(length - path.join(real, 'lock').length - 1))
      const first = await begun()
      assert.equal(existsSync(path.join(folder, 'lock')), isInside, `${length} bytes`)
      const second = open()
      assert.equal((await second.heard())[1], 'STORAGE_LOCKED')
      await Promise.all([first, second].map(({ files }) => files.close()))
    }
  })

  it('is a named pipe on Windows', async () => {
    const platform = Object.getOwnPropertyDescriptor(process, 'platform')
    const before = process.cwd()
    await fs.mkdir(folder, { recursive: true })
    // Elsewhere such a name is that of a file in the working folder.
    process.chdir(folder)
    Object.defineProperty(process, 'platform', { value: 'win32' })
    try {
      const { files } = await begun()
      const [pipe] = (await left()).filter((name) => name.includes('pipe'))
      assert.match(pipe, /^\\\\\.\\pipe\\conflux-[0-9a-f]{32}$/)
      await files.close()
    } finally {
      Object.defineProperty(process, 'platform', platform)
      process.chdir(before)
    }
  })

  /** Leaves a lock behind, as a process does that is killed. */
  const leaveLock = async () => {
    await fs.mkdir(folder, { recursive: true })
    const program = `require('node:net').createServer().listen(${JSON.stringify(path.join(folder, 'lock'))}, () => console.log('listens'))`
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await once(child, 'exit')
    assert.ok(existsSync(path.join(folder, 'lock')))
  }

  it('of a process that was killed is no obstacle', async () => {
    await leaveLock()
    const { files } = await begun()
    await files.close()
  })

  it('that cannot be removed is an obstacle in the end', async () => {
    await leaveLock()
    let tries = 0
    fs.rm = async () => {
      tries++
    }
    const { files, heard } = open()
    assert.equal((await heard())[1], 'STORAGE_LOCKED')
    assert.equal(tries, 3)
    fs.rm = real.rm
    await files.close()
  })

  it('that cannot be made stops the node', async () => {
    await fs.mkdir(path.dirname(folder), { recursive: true })
    await fs.writeFile(folder, 'a file where the folder should be')
    const { files, heard } = open()
    assert.deepEqual((await heard()).slice(0, 2), ['broken', 'STORAGE_FAILED'])
    await files.close()
  })

  it('for which there is no place stops the node, with the reason', async () => {
    folder = path.join(root, 'y'.repeat(120))
    const before = process.env.TMPDIR
    process.env.TMPDIR = path.join(root, 'nowhere')
    try {
      const { files, heard } = open()
      const [what, code, message] = await heard()
      assert.deepEqual([what, code], ['broken', 'STORAGE_FAILED'])
      assert.match(message, /does not take what must be written \(E[A-Z]+: listen/)
      await files.close()
    } finally {
      if (before === undefined) delete process.env.TMPDIR
      else process.env.TMPDIR = before
    }
  })

  it('does not keep the process running', async () => {
    const program = `
      const { Files } = require(${JSON.stringify(path.join(packageDir, 'files.cjs'))})
      new Files({ storage: { path: ${JSON.stringify(folder)} } }, { restored: () => console.log('restored') })`
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { timeout: 10_000 })
    assert.equal(stdout.trim(), 'restored')
  })
})
