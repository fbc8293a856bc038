/** What the server says. Times in seconds, shares from 0 to 1. */

export interface Quantiles {
  p50: number | null
  p90: number | null
  p99: number | null
  count: number
}

export interface ModelState {
  name: string
  status: 'asleep' | 'loading' | 'ready' | 'restarting' | 'leaving' | 'failed'
  memory_bound: number // bytes
  resident_bytes: number | null
  loaded_share: number | null
  idle_timeout: number | null
  num_loads: number
  num_evictions: number
  kind: 'generate' | 'encode' | 'predict' | null
  calls: { num_success: number; failures: Record<string, number>; num_pending: number; rows: number } | null
  num_running: number
  num_waiting: number
  num_blocks: number
  block_size: number
  num_used_blocks: number
  num_cached_blocks: number
  kv_map: number[] // at most 256 cells, each over an equal run of blocks
  kv_cached_map: number[]
  totals: Record<string, number>
  latency: Record<string, Quantiles>
  goodput: { num_requests: number; num_good: number; ttft_target: number; itl_target: number } | null
  busy_seconds: number
  utilisation: number | null
  batch_size: number | null
  step_seconds: number | null
  cost: { per_hour: number; busy: number; idle: number; by_tenant: Record<string, number> } | null
}

export interface RequestState {
  id: string
  model: string
  tenant: string
  arrival: number
  queue: number | null
  prefill: number | null
  decode: number | null
  ttft: number | null
  e2e: number | null
  num_prompt_tokens: number
  num_cached_tokens: number
  num_output_tokens: number
  finish_reason: string
  is_good: boolean | null
  cost: number | null
}

export interface State {
  version: string
  now: number
  uptime: number
  currency: string | null
  models: ModelState[]
  requests: RequestState[]
}

export interface ModelCard {
  id: string
  root: string
  max_model_len: number | null
}

/** One second of a model, for the charts; null where it cannot be told, as after a restart. */
export interface Sample {
  time: number
  generated: number | null // tokens/s
  prompt: number | null // tokens/s
  running: number
  waiting: number
  used: number
  cached: number
  step: number | null
  busy: number | null
}

export interface PlanFigure {
  key: string
  name: string
  value: number | null
  unit: string
  label: 'measured' | 'calibrated' | 'derived' | 'assumed' | 'unknown'
  note?: string
  low?: number | null
  high?: number | null
}

export interface PlanChart {
  title: string
  unit: string
  x: { label: string; values: number[] }
  series: { label: string; values: number[] }[]
}

export interface Plan {
  heading: string
  fits: boolean
  sections: { title: string; figures: PlanFigure[] }[]
  charts: PlanChart[]
  warnings: string[]
  sources: string[]
}

export interface PlanChoices {
  models: string[]
  hardware: { id: string; name: string; kind: string }[]
  precisions: string[]
  kv_precisions: string[]
}

/** Fields left null are not sent. */
export interface PlanForm {
  model: string
  device: string
  count: number
  precision: string
  kv_precision: string
  [field: string]: string | number | null
}

/** A node of a drawn text; which fields it has depends on its type. */
export interface MarkdownNode {
  type: string
  text?: string
  href?: string
  level?: number
  lang?: string
  start?: number
  checked?: boolean | null // null: no task
  children?: MarkdownNode[]
  head?: MarkdownNode[]
  rows?: MarkdownNode[][]
  align?: (string | null)[]
}
