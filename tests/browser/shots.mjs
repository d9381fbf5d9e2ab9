// Pictures of the demo with three nodes, light and dark, on a desk and on a phone: for the README,
// and to be looked at. `node tests/browser/shots.mjs FOLDER`, with the demo's address in $DEMO.
import { launch } from './support.mjs'

const folder = process.argv[2]
const browser = await launch()
for (const colorScheme of ['light', 'dark']) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1180, height: 800 }, deviceScaleFactor: 2 })
  const url = `${process.env.DEMO}/?room=shots-${colorScheme}`
  const first = await context.newPage()
  await first.goto(url)
  await first.waitForSelector('#seats .taken')
  await first.screenshot({ path: `${folder}/forming-${colorScheme}.png`, fullPage: true })
  const others = [await context.newPage(), await context.newPage()]
  for (const page of others) await page.goto(url)
  const pages = [first, ...others]
  for (const page of pages) await page.waitForFunction("node.status().leaderId !== null")
  const say = async (page, word) => {
    await page.fill('#word', word)
    await page.press('#word', 'Enter')
    await page.waitForSelector(`#words li:not(.uncommitted):text-is("${word}")`)
  }
  for (const [i, word] of ['three', 'tabs', 'one', 'state', 'and', 'no', 'server'].entries()) await say(pages[i % 3], word)
  await pages[0].click('#sit-x')
  await pages[1].waitForFunction('node.getState().game.players.X')
  await pages[1].click('#sit-o')
  await pages[0].waitForFunction('node.getState().game.players.O')
  for (const [i, cell] of [4, 0, 2, 6].entries()) {
    await pages[i % 2].click(`#board button >> nth=${cell}`)
    await pages[(i + 1) % 2].waitForFunction(`node.getState().game.cells[${cell}]`)
  }
  await pages[0].click('#board button >> nth=4')
  await pages[0].waitForSelector('#performs .failed')
  await pages[0].waitForFunction("document.querySelectorAll('#nodes li').length === 3")
  await pages[0].waitForTimeout(900)
  await pages[0].screenshot({ path: `${folder}/demo-${colorScheme}.png`, fullPage: true })
  await pages[0].setViewportSize({ width: 390, height: 844 })
  await pages[0].screenshot({ path: `${folder}/phone-${colorScheme}.png`, fullPage: true })
  const fourth = await context.newPage()
  await fourth.goto(url)
  await fourth.waitForFunction("node.status().phase === 'refused'")
  await fourth.waitForTimeout(300)
  await fourth.screenshot({ path: `${folder}/full-${colorScheme}.png`, fullPage: true })
  await context.close()
}
await browser.close()
