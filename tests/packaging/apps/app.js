import conflux from 'conflux-wasm'
import { run } from './run.js'

run(conflux)
