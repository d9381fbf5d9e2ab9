import { useConflux } from 'conflux-wasm/react'
import { StrictMode, useEffect, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { me, node } from './node.js'

const votes = (places) => places.reduce((sum, { voters }) => sum + voters.length, 0)

const Place = ({ name, voters, most }) => (
  <li>
    <button className="place" aria-pressed={voters.includes(me)} onClick={() => node.perform('vote', [name, me])}>
      <span className="bar" style={{ inlineSize: `${most ? (100 * voters.length) / most : 0}%` }} />
      <span>{name}</span>
      <b>{voters.length}</b>
    </button>
  </li>
)

const Suggest = () => {
  const [text, setText] = useState('')
  const [problem, setProblem] = useState('')
  const submit = async (event) => {
    event.preventDefault()
    try {
      await node.perform('suggest', [text])
      setText('')
      setProblem('')
    } catch (error) {
      setProblem(error.message)
    }
  }
  return (
    <form onSubmit={submit}>
      <input value={text} onChange={(event) => setText(event.target.value)} placeholder="Somewhere else?" aria-label="A place" />
      <button>Suggest</button>
      <p role="alert">{problem}</p>
    </form>
  )
}

const Status = () => {
  const [{ role, members }, setStatus] = useState(() => node.status())
  useEffect(() => node.on('status', setStatus), [])
  const tabs = members.length === 1 ? 'one tab: open a second one' : `${members.length} tabs`
  return (
    <footer>
      <i className={role} /> this tab is {role === 'leader' ? 'the leader' : `a ${role}`} of {tabs}
    </footer>
  )
}

const App = () => {
  const places = useConflux(node)
  // Renders again only when the number changes.
  const count = useConflux(node, votes)
  const most = Math.max(...places.map(({ voters }) => voters.length), 0)
  return (
    <>
      <h1>Where shall we eat?</h1>
      <ol>
        {places.map((place) => (
          <Place key={place.name} {...place} most={most} />
        ))}
      </ol>
      <Suggest />
      <p className="sum">
        {count === 1 ? 'one vote' : `${count} votes`}
        {places.length > 0 && <button onClick={() => node.perform('start')}>Start again</button>}
      </p>
      <Status />
    </>
  )
}

createRoot(document.getElementById('root')).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
