import conflux from './node_modules/conflux-wasm/browser.js'

const node = conflux({
  // All tabs that name the same cluster share it.
  cluster: 'shopping',
  channel: { name: 'broadcast' },

  // The methods. They run on the leader, one after the other.
  methods: {
    add(thing) {
      if (this.getProvisionalState().includes(thing)) return new Error(`${thing} is on the list`)
      return { type: 'ADD', thing }
    },
    got(thing) {
      return { type: 'GOT', thing }
    },
  },

  // The reducer. It must be pure, so that every node computes the same state.
  reduce(state = [], action) {
    switch (action?.type) {
      case 'ADD':
        return [...state, action.thing]
      case 'GOT':
        return state.filter((thing) => thing !== action.thing)
      default:
        return state
    }
  },
})

const [form, list, status] = ['form', 'ul', 'p'].map((name) => document.querySelector(name))

const show = () => {
  list.replaceChildren(
    ...node.getState().map((thing) => {
      const item = document.createElement('li')
      item.textContent = thing
      item.onclick = () => node.perform('got', [thing])
      return item
    }),
  )
}
node.subscribe(show)
show()

form.onsubmit = async (event) => {
  event.preventDefault()
  const thing = form.thing.value
  form.reset()
  try {
    // Resolves when a majority has stored the action and this tab has applied it.
    await node.perform('add', [thing])
    status.textContent = ''
  } catch (error) {
    status.textContent = error.message
  }
}
