import type { conflux as Conflux } from './index.js' with { 'resolution-mode': 'import' }
declare const conflux: typeof Conflux & {
  readonly conflux: typeof Conflux
  readonly default: typeof Conflux
}
export = conflux
