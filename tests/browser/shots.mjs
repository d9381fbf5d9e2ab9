// Takes screenshots of the demo for the README and for review: the elastic demo in three tabs, in light and dark, on
// desktop and phone, and a fixed cluster that is full. Run `node tests/browser/shots.mjs FOLDER` with the demo's
// address in $DEMO.
import { launch } from './support.mjs'

const folder = process.argv[2]
const WORDS = ['three', 'tabs', 'one', 'state', 'and', 'no', 'server']
const browser = await launch()

/** Appends a word and waits until it is committed. */
const append = async (page, word) => {
  await page.fill('#word', word)
  await page.press('#word', 'Enter')
  await page.waitForSelector(`#words li:not(.uncommitted):text-is("${word}")`)
}

/** Two tabs play tic-tac-toe to its end. */
const play = async (pages) => {
  await pages[0].click('#sit-x')
  await pages[1].waitForFunction('globalThis.node?.getState().game.players.X')
  await pages[1].click('#sit-o')
  await pages[0].waitForFunction('globalThis.node?.getState().game.players.O')
  for (const [i, cell] of [4, 0, 2, 6].entries()) {
    await pages[i % 2].click(`#board button >> nth=${cell}`)
    await pages[(i + 1) % 2].waitForFunction(`globalThis.node?.getState().game.cells[${cell}]`)
  }
  // A move on a taken cell is refused by the method.
  await pages[0].click('#board button >> nth=4')
  await pages[0].waitForSelector('#performs .failed')
}

for (const colorScheme of ['light', 'dark']) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1180, height: 800 }, deviceScaleFactor: 2 })
  const open = async (query) => {
    const page = await context.newPage()
    await page.goto(`${process.env.DEMO}/?${query}`)
    return page
  }
  const shoot = (page, name) => page.screenshot({ path: `${folder}/${name}-${colorScheme}.png`, fullPage: true })
  const elastic = `room=shots-${colorScheme}`
  const pages = [await open(elastic)]
  await pages[0].waitForFunction('globalThis.node?.status().leaderId !== null')
  pages.push(await open(elastic), await open(elastic))
  for (const page of pages) await page.waitForFunction("globalThis.node?.status().members.length === 3 && globalThis.node.status().learners.length === 0")
  for (const [i, word] of WORDS.entries()) await append(pages[i % 3], word)
  await play(pages)
  await pages[0].bringToFront()
  await pages[0].waitForFunction("document.querySelectorAll('#nodes li').length === 3 && !document.querySelector('#nodes .gone')")
  await pages[0].waitForTimeout(900)
  await shoot(pages[0], 'demo')
  await pages[0].setViewportSize({ width: 390, height: 844 })
  await shoot(pages[0], 'phone')

  const fixed = `size=3&room=fixed-${colorScheme}`
  const first = await open(fixed)
  await first.waitForSelector('#seats .taken')
  await shoot(first, 'forming')
  const others = [await open(fixed), await open(fixed)]
  for (const page of [first, ...others]) await page.waitForFunction('globalThis.node?.status().leaderId !== null')
  const fourth = await open(fixed)
  await fourth.waitForFunction("globalThis.node?.status().phase === 'refused'")
  await fourth.waitForTimeout(300)
  await shoot(fourth, 'full')
  await context.close()
}
await browser.close()
