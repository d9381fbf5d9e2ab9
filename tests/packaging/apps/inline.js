import conflux from 'conflux-wasm/inline'
import { run } from './run.js'

run(conflux)
