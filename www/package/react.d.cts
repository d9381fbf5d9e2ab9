import type * as api from './react.js' with { 'resolution-mode': 'import' }

export declare const useConflux: typeof api.useConflux
