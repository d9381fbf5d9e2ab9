// Mutants that nothing notices. Each is known by its file, what it is, and a part of its line.

/** Those that nothing can notice, or need notice, and why. */
export const UNNOTICED = [
  {
    file: 'tabs.js', what: '!== for ===', line: 'if (this.#waiting.get(node) === controller)',
    why: 'A request that was granted stays in the map, and to abort it then does nothing. Another one that goes was aborted before.',
  },
  {
    file: 'tabs.js', what: 'without: this.#waiting.delete(node)', line: 'if (this.#waiting.get(node) === controller)',
    why: 'A request that was granted stays in the map, and to abort it then does nothing.',
  },
  {
    file: 'tabs.js', what: 'without: this.#waiting.delete(node)', line: 'this.#waiting.delete(node)',
    why: 'The request was aborted one line before, and to abort it again does nothing.',
  },
  {
    file: 'timer.js', what: 'without: timers.delete(id)', line: 'timers.delete(id)',
    why: 'What stays in the map is the number of a timer that was cleared or has fired, and to clear it again does nothing.',
  },
  {
    file: 'shell.js', what: 'without: this.#kept = core', line: 'this.#kept = core',
    why: 'In V8 a function that the constructor has made keeps the core alive as well. The language does not promise that.',
  },
  {
    file: 'channels.js', what: '|| for &&', line: 'node.leave = ',
    why: 'Of the two, the one that never deletes a room keeps an empty set in memory, and the next node of that name joins it.',
  },
  {
    file: 'channels.js', what: 'nothing for: room.delete(node) && room.size === 0 && rooms.delete(name)', line: 'node.leave = ',
    why: 'A node that stays in its room receives nothing any more. What is lost is the memory of two fields.',
  },
  {
    file: 'channels.js', what: 'without: node.leave()', line: 'node.leave()',
    why: 'A node that stays in its room receives nothing any more. What is lost is the memory of two fields.',
  },
  {
    file: 'tabs.js', what: "nothing for: 'taken'", line: "error?.name === 'ConstraintError'",
    why: 'Every outcome but `written` and `missing` means that the node was taken.',
  },
  {
    file: 'files.cjs', what: "without: socket.once('close', () => resolve(false))", line: "socket.once('close'",
    why: '`error` comes before `close`, and says the same. Two are safer than one where nobody may wait for ever.',
  },
  {
    file: 'files.cjs', what: 'nothing for: resolve(false)', line: "socket.once('close'",
    why: '`error` comes before `close`, and says the same.',
  },
  {
    file: 'files.cjs', what: 'nothing for: resolve(false)', line: "once('error'",
    why: '`close` comes after `error`, and says the same.',
  },
  {
    file: 'react.js', what: 'nothing for: () => {}', line: 'const nothing = ',
    why: 'Without a node there is nothing to unsubscribe from, and React takes a subscription without an end.',
  },
  {
    file: 'redux.js', what: 'nothing for: false', line: "typeof value !== 'object'",
    why: 'Whoever asks whether a value is plain takes nothing for no.',
  },
]

/** Those for which a test is still missing. */
export const OPEN = []
