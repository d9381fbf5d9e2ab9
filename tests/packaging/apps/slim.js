import { load } from 'conflux-wasm/slim'
import { run } from './run.js'

load(new URL('core.wasm', document.baseURI)).then(run)
