/** The planner's form and its last report: they outlive a change of tab. */

import { get, post } from './api.js'

export const FIELDS = /** @type {const} */ ([
  { name: 'prompt_tokens', label: 'Prompt', unit: 'tokens', min: 1, step: 1 },
  { name: 'output_tokens', label: 'Output', unit: 'tokens', min: 1, step: 1 },
  { name: 'rate', label: 'Rate', unit: 'requests/s', min: 0, step: 'any' },
  { name: 'cached_fraction', label: 'Prompt reused', unit: 'share', min: 0, step: 'any' },
  { name: 'ttft_s', label: 'First token within', unit: 's', min: 0, step: 'any' },
  { name: 'tpot_s', label: 'Later ones every', unit: 's', min: 0, step: 'any' },
  { name: 'utilization', label: 'Capacity used', unit: 'share', min: 0, step: 'any' },
  { name: 'usd_per_kwh', label: 'Electricity', unit: '$/kWh', min: 0, step: 'any' },
])

export const planner = $state({
  /** @type {import('./types').PlanChoices | null} */ choices: null,
  /** @type {import('./types').PlanForm} */ form: {
    model: 'llama-3-8b',
    device: '',
    count: 1,
    precision: 'bf16',
    kv_precision: 'bf16',
    prompt_tokens: 1000,
    output_tokens: 300,
    rate: 1,
    cached_fraction: null,
    ttft_s: 2,
    tpot_s: 0.1,
    utilization: null,
    usd_per_kwh: null,
  },
  /** @type {import('./types').Plan | null} */ plan: null,
  error: '',
  isRunning: false,
})

/** @param {() => Promise<void>} work */
async function guarded(work) {
  planner.isRunning = true
  planner.error = ''
  try {
    await work()
  } catch (error) {
    planner.error = /** @type {Error} */ (error).message
  } finally {
    planner.isRunning = false
  }
}

export function loadChoices() {
  if (planner.choices || planner.isRunning) return
  guarded(async () => {
    const choices = await get('/inferd/plan')
    planner.choices = choices
    planner.form.device ||= (
      choices.hardware.find((/** @type {any} */ one) => one.id.startsWith('h100')) ?? choices.hardware[0]
    ).id
  })
}

export function run() {
  const { device, count, ...rest } = planner.form
  const given = Object.entries(rest).filter(([, value]) => value !== null && value !== '')
  return guarded(async () => {
    planner.plan = await post('/inferd/plan', { ...Object.fromEntries(given), hardware: `${device}:${count || 1}` })
  })
}
