// Mistakes that somebody could make in the package's JavaScript, and a seed with which the harness finds each. The text
// `from` must be in the file exactly once. One without a seed is found by the tests in tests/node: no page runs its file, or
// hardly any seed comes to the moment that matters.

export const NAMED = [
  {
    name: 'no-fence',
    seed: 124,
    why: 'a page that was frozen while its node was taken over goes on writing to it',
    file: 'tabs.js',
    from: `      meta.add(true, fence(epoch))
      meta.delete(fence(epoch))
`,
    to: '',
  },
  {
    name: 'no-epoch-at-adoption',
    seed: 2,
    why: 'the former owner of a node that was taken over is not told from the new one',
    file: 'tabs.js',
    from: 'const loaded = { ...record, epoch: record.epoch + 1 }',
    to: 'const loaded = { ...record }',
  },
  {
    name: 'no-fence-left-at-adoption',
    seed: 35,
    why: 'the former owner finds nothing that stops it',
    file: 'tabs.js',
    from: '        meta.put(true, fence(record.epoch))\n',
    to: '',
  },
  {
    name: 'log-not-cut-off',
    seed: 72,
    why: 'entries that another leader has replaced come back when the node is loaded',
    file: 'tabs.js',
    from: 'log.delete(IDBKeyRange.lowerBound(first))',
    to: 'undefined',
  },
  {
    name: 'log-not-cleared-by-snapshot',
    seed: 10,
    why: 'entries that the snapshot covers are loaded again',
    file: 'tabs.js',
    from: `          log.clear()
          last = 0`,
    to: '          last = 0',
  },
  {
    name: 'freeze-not-listened-to',
    seed: 9,
    why: 'a page that is about to be frozen keeps its locks, and the others wait for seconds',
    file: 'tabs.js',
    from: "      [document, 'freeze', () => core.suspend()],\n",
    to: '',
  },
  {
    name: 'pagehide-not-listened-to',
    seed: 5,
    why: 'a page in the back/forward cache keeps its locks',
    file: 'tabs.js',
    from: "      [globalThis, 'pagehide', () => core.suspend()],\n",
    to: '',
  },
  {
    name: 'resume-not-listened-to',
    seed: 9,
    why: 'a page that was frozen never starts again',
    file: 'tabs.js',
    from: "      [document, 'resume', () => core.resume()],\n",
    to: '',
  },
  {
    name: 'pageshow-not-listened-to',
    seed: 11,
    why: 'a page that comes back from the back/forward cache never starts again',
    file: 'tabs.js',
    from: "      [globalThis, 'pageshow', (event) => event.persisted && core.resume()],\n",
    to: '',
  },
  {
    name: 'destroy-leaves-databases',
    seed: 25,
    why: 'what the user wanted to be deleted is still there',
    file: 'tabs.js',
    from: 'for (const node of before?.nodes ?? []) this.#node(node).database.remove()',
    to: '',
  },
  {
    name: 'removed-node-stays',
    seed: 3,
    why: 'the storage of every node that ever was stays for ever',
    file: 'tabs.js',
    from: `        database.remove()
        this.#nodes.delete(node)`,
    to: '        this.#nodes.delete(node)',
  },
  {
    name: 'founding-overwrites',
    seed: 1,
    why: 'two pages that open at once found two clusters',
    file: 'tabs.js',
    from: `          if (now !== undefined) return result(now)
          store.get('empty').onsuccess = ({ target: { result: mark } }) => {
            // Storage was deleted since this page read the registry, and the node's record may be gone with it.
            if (mark === undefined || mark !== this.#empty) return
`,
    to: `          store.get('empty').onsuccess = () => {
`,
  },
  {
    name: 'look-counts-as-read',
    seed: 932,
    why: 'a cluster is founded on a node that was deleted, and never has a leader',
    file: 'tabs.js',
    from: 'if (node) this.#empty = read[1]',
    to: 'this.#empty = read[1]',
  },
  {
    name: 'write-after-failed-write',
    seed: 197,
    why: 'the log has a gap where a write has failed, and no page can load the node any more',
    file: 'tabs.js',
    from: `        this.#answer('failed', generation, node, describe(error))
        return
`,
    to: "        this.#answer('failed', generation, node, describe(error))\n",
  },
  {
    name: 'no-look-after-lost-connection',
    why: 'a node without a majority never finds out that its storage was deleted',
    file: 'tabs.js',
    from: '        this.onLost()\n',
    to: '',
  },
  {
    name: 'empty-databases-stay',
    seed: 197,
    why: 'looking for a deleted node makes its database again',
    file: 'tabs.js',
    from: '    if (isMissing) stored.database.remove()\n',
    to: '',
  },
  {
    name: 'destroy-never-ends',
    seed: 105,
    why: 'whoever waits for destroy() waits for ever if storage refuses',
    file: 'tabs.js',
    from: "          this.#notDestroyed(fail('STORAGE_FAILED', `storage does not let the cluster be deleted (${describe(error)})`))\n",
    to: '',
  },
  {
    name: 'channels-of-peers-stay-open',
    seed: 5,
    why: 'a page in the back/forward cache still receives, and is thrown out',
    file: 'channels.js',
    from: `      for (const peer of peers.values()) peer.close()
      peers.clear()
    },
    resume`,
    to: `    },
    resume`,
  },
  {
    name: 'no-second-try',
    seed: 5,
    why: 'one temporary error of storage stops the node',
    file: 'tabs.js',
    from: 'const TRIES = 4',
    to: 'const TRIES = 1',
  },
  {
    name: 'other-database-not-noticed',
    seed: 52,
    why: 'a node writes into a database that was made again in the meantime',
    file: 'tabs.js',
    from: '      if (!stored.seen) return meta.transaction.abort()\n',
    to: '',
  },
  {
    name: 'late-lock-kept',
    seed: 75,
    why: 'a lock that is granted after the page has released everything is never given back',
    file: 'tabs.js',
    from: '      if (generation !== this.#generation || controller.signal.aborted) return undefined\n',
    to: '',
  },
  {
    name: 'locks-not-released',
    seed: 5,
    why: 'others wait for the nodes of a page that may be frozen',
    file: 'tabs.js',
    from: '        for (const node of [...this.#waiting.keys(), ...this.#held.keys()]) this.#unlock(node)\n',
    to: '',
  },
  {
    name: 'database-opened-after-release',
    seed: 45,
    why: 'a page that may be frozen holds a database that others want to delete',
    file: 'tabs.js',
    from: '          stored.database.isOver = true\n',
    to: '',
  },
  {
    name: 'claim-not-looked-at',
    why: 'two processes write to one folder',
    file: 'files.cjs',
    from: `    if (existsSync(this.#name(this.#number + 1, 'own'))) {`,
    to: '    if (false) {',
  },
]
