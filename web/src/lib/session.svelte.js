/** The API key: kept for this tab of the browser alone, and only while it is open. */

const NAME = 'inferd-key'

export const session = $state({ key: sessionStorage.getItem(NAME) ?? '', isKeyNeeded: false })

/** @param {string} key '' forgets it */
export function setKey(key) {
  session.key = key
  session.isKeyNeeded = false
  if (key) sessionStorage.setItem(NAME, key)
  else sessionStorage.removeItem(NAME)
}
