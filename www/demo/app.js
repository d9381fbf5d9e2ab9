import conflux from './conflux-wasm/browser.js'
import { isOver, methods, reduce, winner } from './shared.js'
import { telemetry } from './telemetry.js'

const $ = (id) => document.getElementById(id)
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

// ── This tab: its name, its room, its node ───────────────────────────────────────────────────────

const parameters = new URL(location.href).searchParams
const kind = parameters.get('channel') === 'websocket' ? 'websocket' : 'broadcast'
const room = parameters.get('room') || 'demo'
// Without a size and on the broadcast channel the cluster is elastic: it has one node per open tab, and a node outlives
// its tab.
const elastic = kind === 'broadcast' && !parameters.has('size')
const size = Math.min(9, Math.max(1, Math.trunc(Number(parameters.get('size'))) || 3))
const relay = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`

const WORDS =
  'amber birch cedar clover coral delta ember fern flint garnet hazel heron indigo iris ivory jade ' +
  'juniper larch lotus maple marlin moss ochre olive onyx opal otter pearl pine quartz reed robin ' +
  'rowan ruby sable sage sorrel teal thistle topaz umber violet willow wren'
const newName = () => {
  const [pick, tail] = crypto.getRandomValues(new Uint32Array(2))
  const words = WORDS.split(' ')
  return `${words[pick % words.length]}-${(tail % 1296).toString(36).padStart(2, '0')}`
}

/**
 * The name of this tab's user. In a fixed cluster it is also the node's id, which must be new each time. In an elastic
 * cluster the name survives a reload. A duplicated tab has a copy of it, so a lock decides which of the tabs keeps it.
 */
const myName = async () => {
  if (!elastic) return newName()
  const name = sessionStorage.getItem('conflux-demo-name') ?? newName()
  const free = await new Promise((resolve) => {
    navigator.locks.request(`conflux-demo:${name}`, { ifAvailable: true }, (lock) => {
      resolve(lock !== null)
      return lock && new Promise(() => {})
    })
  })
  if (free) sessionStorage.setItem('conflux-demo-name', name)
  else sessionStorage.removeItem('conflux-demo-name')
  return free ? name : myName()
}

const id = await myName()
const channel = kind === 'broadcast' ? { name: kind, channel: room } : { name: kind, url: relay, room }
const node = conflux({
  ...(elastic ? { cluster: `demo ${room}` } : { id, clusterSize: size }),
  channel,
  methods,
  reduce,
})
/** The id of this tab's node; empty for a moment at the start of an elastic cluster's tab. */
const nodeId = () => node.status().id
// For use from the console.
Object.assign(window, { node, conflux })

let refusal = null
node.on('error', (error) => {
  if (node.status().phase === 'refused') refusal = error
  else note(error.message)
  render()
})

if (elastic) {
  document.title = 'Conflux: tabs, one state'
  $('hint-close').textContent = 'Close tabs, all but one, or all of them, and open one later.'
  $('ending').replaceChildren(
    'What is acknowledged is kept in this browser, however many tabs you close. To be rid of it: ',
    Object.assign(document.createElement('button'), {
      type: 'button',
      className: 'link',
      textContent: 'forget everything',
      onclick: () => node.destroy().then(() => location.reload()),
    }),
    '. With ',
    Object.assign(document.createElement('a'), { href: '?size=3', textContent: 'a fixed size' }),
    ' a cluster lives in memory, as long as a majority of its tabs.',
  )
  // Simulates a crash: Conflux gets no event when the page ends, so it neither hands over leadership nor says goodbye.
  // The page is replaced, so that the browser does not keep it in the back/forward cache.
  $('crash').onclick = () => {
    for (const name of ['pagehide', 'freeze', 'visibilitychange']) {
      addEventListener(name, (event) => event.stopImmediatePropagation(), { capture: true })
    }
    location.replace(`crashed.html${location.search}`)
  }
} else {
  $('crash').hidden = true
}

const hue = (name) => {
  let hash = 7
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 3600
  return (hash * 47) % 360
}
const tint = (element, name) => {
  element.style.setProperty('--hue', hue(name))
  return element
}

// ── Performing, and how long it took ─────────────────────────────────────────────────────────────

const performs = []

const perform = async (name, ...args) => {
  const entry = { name, args, started: performance.now(), outcome: 'waits…', state: 'waiting' }
  performs.unshift(entry)
  performs.length = Math.min(performs.length, 8)
  renderPerforms()
  try {
    const action = await node.perform(name, args)
    Object.assign(entry, { state: 'done', outcome: action === undefined ? 'nothing to do' : 'committed' })
    return action
  } catch (error) {
    Object.assign(entry, { state: 'failed', outcome: error.message })
    note(error.message)
  } finally {
    entry.took = performance.now() - entry.started
    renderPerforms()
  }
}

let noteTimer
const note = (text) => {
  $('game-note').textContent = text
  clearTimeout(noteTimer)
  noteTimer = setTimeout(() => ($('game-note').textContent = ''), 5_000)
}

const renderPerforms = () => {
  const took = performs.filter((p) => p.took !== undefined).map((p) => p.took).sort((a, b) => a - b)
  $('latency').textContent = took.length ? `median ${took[took.length >> 1].toFixed(1)} ms` : 'none yet'
  $('performs').replaceChildren(
    ...performs.map((p) => {
      const args = p.args.map((arg) => (arg === id ? 'me' : JSON.stringify(arg))).join(', ')
      return make(
        'li',
        { className: p.state },
        make('code', { textContent: `${p.name}(${args})` }),
        make('span', { className: 'outcome', textContent: p.outcome }),
        make('span', { className: 'took', textContent: p.took === undefined ? '' : `${p.took.toFixed(1)} ms` }),
      )
    }),
  )
}

// ── The cluster ──────────────────────────────────────────────────────────────────────────────────

let nodes = new Map()
const CELLS = 14

/** Draws the end of a log: committed entries are filled, uncommitted ones outlined. */
const log = ({ lastIndex, commitIndex }) => {
  const strip = make('span', { className: 'log' })
  strip.setAttribute('aria-hidden', 'true')
  for (let index = Math.max(1, lastIndex - CELLS + 1); index <= lastIndex; index++) {
    strip.append(make('i', { className: index <= commitIndex ? 'committed' : 'uncommitted' }))
  }
  return strip
}

const ROLES = { leader: 'leads', candidate: 'asks for votes', follower: 'follows', learner: 'learns' }

const nodeCard = (other) => {
  const isMe = other.id === nodeId()
  let doing = ROLES[other.role] ?? other.role
  if (other.phase === 'forming') doing = elastic ? 'joins the cluster' : 'waits for the others'
  if (other.adopted) doing = 'its tab is closed: another tab runs it until it is removed'
  else if (other.gone) doing = 'closed'
  else if (other.paused) doing = 'paused'
  else if (other.isolated) doing = `cut off, ${doing}`
  const leads = elastic
    ? node.status().leaderId === other.id
    : other.role === 'leader' && !other.gone && other.phase === 'member'
  const classes = [leads && 'leads', isMe && 'mine', other.gone && 'gone', (other.paused || other.isolated) && 'faulty']
  const numbers = make('dl', {})
  const facts = [['term', other.term], ['log', other.lastIndex], ['committed', other.commitIndex]]
  if (other.snapshotIndex > 0) facts.push(['snapshot', other.snapshotIndex])
  for (const [term, value] of facts) {
    numbers.append(make('div', {}, make('dt', { textContent: term }), make('dd', { textContent: value })))
  }
  const name = make('p', { className: 'name' }, make('b', { textContent: other.id }))
  if (isMe) name.append(make('span', { className: 'tag', textContent: 'this tab' }))
  if (leads) name.append(make('span', { className: 'tag crown', textContent: '♛ leader' }))
  if (other.role === 'learner' && !other.gone) name.append(make('span', { className: 'tag', textContent: 'learner' }))
  if (other.unseen && !other.gone) name.append(make('span', { className: 'tag', textContent: 'hidden' }))
  return tint(
    make('li', { className: classes.filter(Boolean).join(' ') }, name, make('p', { className: 'role', textContent: doing }), numbers, log(other)),
    other.id,
  )
}

const renderCluster = () => {
  const status = node.status()
  document.body.className = status.phase
  const mine = { ...status, heard: performance.now() }
  const known = new Map([...nodes, ...(status.id ? [[status.id, mine]] : [])])
  for (const member of status.members) {
    if (!known.has(member)) known.set(member, { id: member, role: 'follower', phase: 'member', term: 0, lastIndex: 0, commitIndex: 0, gone: true })
  }
  const shown = [...known.values()].filter(
    (other) => status.members.includes(other.id) || (!other.gone && !['refused', 'closed'].includes(other.phase)),
  )
  for (const other of shown) {
    other.adopted = status.adopted.includes(other.id)
    other.unseen = status.hidden.includes(other.id)
    if (status.learners.includes(other.id)) other.role = 'learner'
  }
  shown.sort((a, b) => (a.id < b.id ? -1 : 1))
  $('nodes').replaceChildren(...shown.map(nodeCard))
  const alive = shown.filter((other) => status.members.includes(other.id) && !other.gone).length
  const voters = elastic ? status.members.length - status.learners.length : size
  const needed = Math.floor(voters / 2) + 1
  $('cluster-hint').textContent = elastic ? elasticHint(status, needed) :
    status.phase !== 'member'
      ? `${kind} · ${room}`
      : alive < needed
        ? `${alive} of ${size} left, and a majority is ${needed}: nothing can be committed`
        : `${alive} of ${size} here · a majority is ${needed} · ${kind} · ${room}`
  $('pause').setAttribute('aria-pressed', status.paused)
  $('pause').textContent = status.paused ? 'Resume this node' : 'Pause this node'
  $('cut').setAttribute('aria-pressed', status.isolated)
  $('cut').textContent = status.isolated ? 'Join the others again' : 'Cut it off'
  for (const button of ['pause', 'cut']) $(button).disabled = status.phase === 'refused'
}

let stored = ''
const elasticHint = ({ members, present, snapshotIndex, lastIndex }, needed) => {
  if (members.length === 0) return room
  const tabs = present === 1 ? 'one tab' : `${present} tabs`
  const majority = members.length > 1 ? ` · a majority is ${needed}` : ''
  return `${tabs}${majority} · ${lastIndex - snapshotIndex} entries in the log${stored} · ${room}`
}
const measure = async () => {
  const { usage } = (await navigator.storage?.estimate?.()) ?? {}
  stored = usage ? ` · ${Math.ceil(usage / 1024).toLocaleString('en')} KB stored` : ''
}

const anotherTab = () => window.open(location.href, '_blank', 'noopener')
const freshAddress = () => {
  const fresh = new URLSearchParams(parameters)
  fresh.set('room', newName())
  return `?${fresh}`
}
$('open').onclick = anotherTab
if (!elastic) $('fresh').href = freshAddress()
$('pause').onclick = () => node.simulate({ paused: !node.status().paused })
$('cut').onclick = () => node.simulate({ isolated: !node.status().isolated })

/** Whether any of these values differs from the values of the last call with the same name. */
const seen = new Map()
const changed = (name, ...values) => {
  const before = seen.get(name)
  seen.set(name, values)
  return before === undefined || values.some((value, i) => value !== before[i])
}

const renderWelcome = () => {
  const status = node.status()
  // Do not replace buttons without need: the user may be about to press one.
  if (!changed('welcome', status.phase, status.present, refusal)) return
  const card = $('welcome')
  card.hidden = status.phase === 'member' || status.phase === 'closing' || (elastic && status.phase === 'forming')
  if (card.hidden) return
  const missing = size - status.present
  const full = status.phase === 'refused'
  const filled = full ? size : Math.min(status.present, size)
  $('seats').replaceChildren(
    ...Array.from({ length: size }, (_, i) => make('i', { className: i < filled ? 'taken' : '' })),
  )
  const actions = []
  if (elastic) {
    $('seats').replaceChildren()
    $('welcome-title').textContent = refusal?.code === 'DESTROYED' ? 'All is forgotten.' : 'This tab has stopped.'
    $('welcome-text').textContent = refusal?.message ?? ''
    const again = make('button', { className: 'primary', type: 'button', textContent: 'Load it again' })
    again.onclick = () => location.reload()
    actions.push(again)
  } else if (full) {
    $('welcome-title').textContent = 'This cluster is full.'
    $('welcome-text').textContent =
      `It has its ${size} members and takes no other. A tab that is reloaded begins as another node, without the ` +
      'memory of the one that it was. Start a fresh cluster, or close all of its tabs and open new ones.'
    actions.push(make('a', { className: 'button primary', href: freshAddress(), textContent: 'Start a fresh cluster' }))
  } else {
    const tabs = missing === 1 ? 'one more tab' : `${missing} more tabs`
    $('welcome-title').textContent = missing > 0 ? `Open ${tabs}.` : 'Almost there…'
    $('welcome-text').textContent =
      `A cluster of ${size} begins when all ${size} are here. From then on any ${Math.floor(size / 2) + 1} of them ` +
      'are enough, whoever leads.'
    const open = make('button', { className: 'primary', type: 'button', textContent: 'Open another tab' })
    open.onclick = anotherTab
    if (missing > 0) actions.push(open)
    if (kind === 'websocket') {
      actions.push(make('span', { className: 'hint', textContent: 'or this address on another device' }))
    }
  }
  $('welcome-actions').replaceChildren(...actions)
}

// ── The list ─────────────────────────────────────────────────────────────────────────────────────

$('append').onsubmit = (event) => {
  event.preventDefault()
  const word = $('word').value.trim()
  $('word').value = ''
  $('word').focus()
  if (word) perform('append', word, id)
}

const renderWords = () => {
  const { words } = node.getProvisionalState()
  const committed = node.getState().words
  if (!changed('words', words, committed)) return
  const isCommitted = (entry) => committed.includes(entry)
  const items = words.map((entry) =>
    tint(
      make('li', { className: isCommitted(entry) ? '' : 'uncommitted', title: `by ${entry.by}`, textContent: entry.word }),
      entry.by ?? '',
    ),
  )
  if (!items.length) items.push(make('li', { className: 'empty', textContent: 'Nothing yet. Every tab sees the same words, in the same order.' }))
  $('words').replaceChildren(...items)
}

// ── The game ─────────────────────────────────────────────────────────────────────────────────────

const cells = Array.from({ length: 9 }, (_, cell) => {
  const button = make('button', { type: 'button' })
  button.onclick = () => perform('move', cell, id)
  button.onkeydown = ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -3, ArrowDown: 3 }[key]
    const next = cell + step
    const sameRow = Math.trunc(next / 3) === Math.trunc(cell / 3)
    if (step && next >= 0 && next < 9 && (Math.abs(step) === 3 || sameRow)) cells[next].focus()
  }
  return button
})
$('board').append(...cells)
$('sit-x').onclick = () => perform('sit', 'X', id)
$('sit-o').onclick = () => perform('sit', 'O', id)
$('again').onclick = () => perform('again')

const renderGame = () => {
  const { game } = node.getState()
  if (!changed('game', game)) return
  const won = winner(game)
  const iPlay = Object.keys(game.players).find((player) => game.players[player] === id)
  game.cells.forEach((mark, cell) => {
    const button = cells[cell]
    button.textContent = mark ?? ''
    button.className = `${mark ?? ''} ${won?.line.includes(cell) ? 'won' : ''}`
    const place = `row ${Math.trunc(cell / 3) + 1}, column ${(cell % 3) + 1}`
    button.setAttribute('aria-label', `${place}: ${mark ?? 'free'}`)
  })
  for (const player of ['X', 'O']) {
    const button = $(`sit-${player.toLowerCase()}`)
    const sits = game.players[player]
    button.textContent = sits ? `${player} · ${sits === id ? 'you' : sits}` : `Play ${player}`
    button.disabled = sits !== null
    button.className = !won && !isOver(game) && game.turn === player && sits ? 'turn' : ''
  }
  const whose = iPlay === game.turn ? 'your turn' : `${game.turn}’s turn`
  let turn = iPlay ? `you are ${iPlay} · ${whose}` : 'take a seat, the others watch'
  if (game.players.X && game.players.O && !iPlay) turn = `you are watching · ${whose}`
  if (won) turn = `${won.player} wins`
  else if (isOver(game)) turn = 'a draw'
  $('game-turn').textContent = turn
}

// ── Rendering: at most once a frame ──────────────────────────────────────────────────────────────

let scheduled = false
const render = () => {
  if (scheduled) return
  scheduled = true
  requestAnimationFrame(() => {
    scheduled = false
    renderWelcome()
    renderCluster()
    renderWords()
    renderGame()
  })
}

if (elastic) {
  measure()
  setInterval(measure, 5_000)
}
tint(document.documentElement, id)
$('me').textContent = id
node.subscribe(render)
node.on('status', render)
telemetry(node, { kind, room, relay }, (known) => {
  nodes = known
  render()
})
// In a fixed cluster, close the node when the page is left, so that leadership moves without an election timeout. In an
// elastic cluster Conflux does this by itself.
if (!elastic) addEventListener('pagehide', () => node.close())
renderPerforms()
render()
