/** Light, dark, or as the system has it. */

const NAME = 'inferd-theme'
const CHOICES = ['auto', 'light', 'dark']
const saved = localStorage.getItem(NAME) ?? 'auto'
const system = matchMedia('(prefers-color-scheme: dark)')

export const theme = $state({ choice: CHOICES.includes(saved) ? saved : 'auto', isDark: false })

function apply() {
  theme.isDark = theme.choice === 'dark' || (theme.choice === 'auto' && system.matches)
  document.documentElement.dataset.theme = theme.choice // an inline color-scheme would not repaint the root in Chromium
}

export function nextTheme() {
  theme.choice = CHOICES[(CHOICES.indexOf(theme.choice) + 1) % CHOICES.length]
  localStorage.setItem(NAME, theme.choice)
  apply()
}

/** The colour a custom property stands for now: charts draw on a canvas, which knows no light-dark().
 * @param {string} name */
export function color(name) {
  const probe = document.body.appendChild(document.createElement('span'))
  probe.style.color = `var(--${name})`
  const value = getComputedStyle(probe).color
  probe.remove()
  return value
}

system.addEventListener('change', apply)
apply()
