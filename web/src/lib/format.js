/** Numbers as text: three significant digits, units apart, a dash for what is not known. */

const NONE = '–'

/** @param {number | null | undefined} value @returns {value is number} */
function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value)
}

/** @param {number | null | undefined} value @param {number} [digits] significant digits below 1,000 */
export function number(value, digits = 3) {
  if (!isNumber(value)) return NONE
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 1000 || Number.isInteger(value)) return Math.round(value).toLocaleString('en')
  if (size < 1e-6) return value.toExponential(1)
  return value.toLocaleString('en', { maximumSignificantDigits: digits })
}

/** @param {number | null | undefined} value */
export function short(value) {
  if (!isNumber(value)) return NONE
  return value.toLocaleString('en', { notation: 'compact', maximumSignificantDigits: 3 })
}

/** @param {number | null | undefined} share from 0 to 1 */
export function percent(share) {
  if (!isNumber(share)) return NONE
  const value = share * 100
  return `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} %`
}

/** @param {number | null | undefined} count */
export function bytes(count) {
  if (!isNumber(count)) return NONE
  return count < 2 ** 30 ? `${number(count / 2 ** 20)} MiB` : `${number(count / 2 ** 30)} GiB`
}

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE
  if (seconds < 0.9995) return `${number(seconds * 1000)} ms`
  if (seconds < 120) return `${number(seconds)} s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`
}

/** @param {number | null | undefined} value @param {string} currency an ISO code */
export function money(value, currency) {
  if (!isNumber(value)) return NONE
  const size = Math.abs(value)
  const text = size >= 100 ? value.toLocaleString('en', { maximumFractionDigits: 2 }) : number(value)
  return `${text} ${currency}`
}

/** @param {string} tenant as the server names it: a hash of the key */
export function client(tenant) {
  return tenant ? tenant.replace(/^key:([0-9a-f]{8})[0-9a-f]*$/, 'key $1') : 'anonymous'
}

/** @param {number} seconds since 1970 */
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString('en-GB')
}
