// What the tabs share: a list and a game. The methods run on the leader and check the provisional state; the reducer is
// the same pure function on every node.

const LINES = [
  [0, 1, 2], [3, 4, 5], [6, 7, 8],
  [0, 3, 6], [1, 4, 7], [2, 5, 8],
  [0, 4, 8], [2, 4, 6],
]

const newGame = { cells: Array(9).fill(null), players: { X: null, O: null }, turn: 'X' }
const initial = { words: [], game: newGame }

/** The player with three in a row and the line, or null. */
export const winner = ({ cells }) => {
  const line = LINES.find(([a, b, c]) => cells[a] && cells[a] === cells[b] && cells[a] === cells[c])
  return line ? { player: cells[line[0]], line } : null
}

export const isOver = (game) => winner(game) !== null || game.cells.every((cell) => cell !== null)

export const methods = {
  append(word, by) {
    const text = String(word ?? '').trim()
    return text ? { type: 'append', word: text.slice(0, 40), by } : null
  },
  sit(player, by) {
    const { game } = this.getProvisionalState()
    const sits = game.players[player]
    if (sits === by) return null
    if (sits) return new Error(`${sits} plays ${player} already.`)
    if (Object.values(game.players).includes(by)) return new Error('You cannot play against yourself.')
    return { type: 'sit', player, by }
  },
  move(cell, by) {
    const { game } = this.getProvisionalState()
    const player = Object.keys(game.players).find((name) => game.players[name] === by)
    if (!player) return new Error('You are watching. Take a free seat to play.')
    if (!game.players.X || !game.players.O) return new Error('Wait for the other player.')
    if (isOver(game)) return new Error('The game is over. Start a new one.')
    if (game.turn !== player) return new Error(`It is ${game.turn}’s turn.`)
    if (game.cells[cell] !== null) return new Error('That square is taken.')
    return { type: 'move', cell, player }
  },
  again() {
    return { type: 'again' }
  },
}

const play = (game, action) => {
  switch (action.type) {
    case 'sit':
      return { ...game, players: { ...game.players, [action.player]: action.by } }
    case 'move': {
      const cells = game.cells.with(action.cell, action.player)
      return { ...game, cells, turn: action.player === 'X' ? 'O' : 'X' }
    }
    case 'again':
      return newGame
    default:
      return game
  }
}

export const reduce = (state = initial, action) => {
  if (action === null) return state
  if (action.type === 'append') {
    const words = [...state.words, { word: action.word, by: action.by }]
    return { ...state, words: words.slice(-60) }
  }
  const game = play(state.game, action)
  return game === state.game ? state : { ...state, game }
}
