// Plain Redux reducers, which do not know of Conflux.
import { combineReducers } from 'redux'

const todos = (state = [], action) => {
  switch (action.type) {
    case 'todos/added':
      return [...state, { id: action.id, text: action.text, done: false }]
    case 'todos/toggled':
      return state.map((todo) => (todo.id === action.id ? { ...todo, done: !todo.done } : todo))
    case 'todos/cleared':
      return state.filter((todo) => !todo.done)
    default:
      return state
  }
}

const title = (state = 'To do', action) => (action.type === 'title/changed' ? action.title : state)

export const reducer = combineReducers({ title, todos })
