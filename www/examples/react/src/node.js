// Everything that the tabs share: the methods and the reducer.
import conflux from 'conflux-wasm'

const find = (places, name) => places.find((place) => place.name === name)

export const node = conflux({
  cluster: 'lunch',
  channel: { name: 'broadcast' },
  methods: {
    suggest(text) {
      const name = text.trim().slice(0, 40)
      if (name === '') return null
      // This runs on the leader, so two tabs cannot both add the same name.
      if (find(this.getProvisionalState(), name)) return new Error(`${name} is on the list`)
      return { type: 'SUGGESTED', name }
    },
    vote(name, voter) {
      const place = find(this.getProvisionalState(), name)
      if (!place) return new Error(`${name} is not on the list`)
      return { type: place.voters.includes(voter) ? 'WITHDRAWN' : 'VOTED', name, voter }
    },
    start: () => ({ type: 'STARTED' }),
  },
  reduce(places = [], action) {
    const change = (voters) =>
      places.map((place) => (place.name === action.name ? { ...place, voters: voters(place.voters) } : place))
    switch (action?.type) {
      case 'SUGGESTED':
        return [...places, { name: action.name, voters: [] }]
      case 'VOTED':
        return change((voters) => [...voters, action.voter])
      case 'WITHDRAWN':
        return change((voters) => voters.filter((voter) => voter !== action.voter))
      case 'STARTED':
        return []
      default:
        return places
    }
  },
})

/** This tab's voter id, which survives a reload. */
export const me = (sessionStorage.me ??= Math.random().toString(36).slice(2))
