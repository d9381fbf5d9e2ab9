import { StrictMode, useEffect, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { Provider, useDispatch, useSelector } from 'react-redux'
import { node, store } from './store.js'

const Title = () => {
  const title = useSelector((state) => state.title)
  const dispatch = useDispatch()
  const change = ({ target }) => dispatch({ type: 'title/changed', title: target.textContent.trim() || 'To do' })
  return (
    <h1 contentEditable="plaintext-only" suppressContentEditableWarning spellCheck={false} onBlur={change}>
      {title}
    </h1>
  )
}

const Todo = ({ id, text, done }) => {
  const dispatch = useDispatch()
  return (
    <li>
      <label>
        <input type="checkbox" checked={done} onChange={() => dispatch({ type: 'todos/toggled', id })} /> <span>{text}</span>
      </label>
    </li>
  )
}

const Add = () => {
  const [text, setText] = useState('')
  const dispatch = useDispatch()
  const submit = (event) => {
    event.preventDefault()
    if (text.trim() === '') return
    // A reducer must be pure, so the random id is made here.
    dispatch({ type: 'todos/added', id: crypto.randomUUID(), text: text.trim() })
    setText('')
  }
  return (
    <form onSubmit={submit}>
      <input value={text} onChange={(event) => setText(event.target.value)} placeholder="What is to be done?" aria-label="To do" autoFocus />
      <button>Add</button>
    </form>
  )
}

const App = () => {
  const todos = useSelector((state) => state.todos)
  const dispatch = useDispatch()
  const open = todos.filter(({ done }) => !done).length
  const [members, setMembers] = useState(() => node.status().members)
  useEffect(() => node.on('members', setMembers), [])
  return (
    <>
      <Title />
      <Add />
      <ul>
        {todos.map((todo) => (
          <Todo key={todo.id} {...todo} />
        ))}
      </ul>
      <footer>
        {open} open{' '}
        {todos.length > open && <button onClick={() => dispatch({ type: 'todos/cleared' })}>Clear what is done</button>}
        <p>
          {members.length === 1 ? 'Open this page in a second tab.' : `${members.length} tabs share this list.`} The Redux DevTools show
          every action, its index, term and node.
        </p>
      </footer>
    </>
  )
}

createRoot(document.getElementById('root')).render(
  <StrictMode>
    <Provider store={store}>
      <App />
    </Provider>
  </StrictMode>,
)
